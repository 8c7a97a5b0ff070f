"""`kvblock top`: the command.

Rules:
- On a terminal it goes on until it is ended; a server that goes away is named in the header and
  asked again. Elsewhere, and with --json, it looks twice, an interval apart, and prints the one
  frame that follows.
- A server that is not there at first ends it like any other command.
- The server is asked by a thread of its own, so that keys work while it does not answer.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from kvblock_cli.options import AnyEngine, AnyPool, Json, Server, default_address
from kvblock_cli.output import console, print_json
from kvblock_cli.top.looks import Look, Looker, Overview

if TYPE_CHECKING:
    from kvblock import Client

Interval = Annotated[
    float,
    typer.Option(
        "--interval", "-i", min=0.05, max=86_400, metavar="SECONDS", help="Between two looks."
    ),
]


def top(
    server: Server,
    interval: Interval = 1.0,
    pool: AnyPool = "",
    engine: AnyEngine = "",
    as_json: Json = False,
) -> None:
    """Watch pools and engines live: use, rates, leases.

    Keys: h, n, r and b sort by held blocks, name, rate and heartbeat; q ends it.

    Where stdout is no terminal, one frame is printed, with the rates of one interval.
    """
    from kvblock_cli.top.tables import Frame

    out = console()
    with server.connect() as kv:
        looker = Looker(kv, pool, engine)
        overview = Overview(looker.look())
        address = server.address or default_address() or ""
        if out.is_terminal and not out.is_dumb_terminal and not as_json:
            _run(kv, looker, overview, address, interval)
            return
        time.sleep(interval)
        overview.add(looker.look())
    if as_json:
        print_json(document(overview))
    else:
        out.print(Frame(overview, address, interval, on_screen=False))


def document(overview: Overview) -> dict[str, object]:
    """The frame as JSON has it."""
    return {
        "server_version": overview.look.stats.server_version,
        "server_epoch": overview.look.stats.server_epoch,
        "seconds": overview.seconds,
        "pools": overview.pools,
        "engines": overview.engines,
    }


def _run(kv: Client, looker: Looker, overview: Overview, address: str, interval: float) -> None:
    from kvblock_cli.top.tables import ORDERS, Frame
    from kvblock_cli.top.terminal import Terminal

    order = "h"
    with Terminal(console()) as terminal, _watch(kv, looker, interval, terminal.wake) as deliver:
        while terminal.ended_by is None:
            terminal.draw(Frame(overview, address, interval, order))
            keys = terminal.wait()
            if "q" in keys:
                break
            order = next((key for key in reversed(keys) if key in ORDERS), order)
            deliver(overview)
    if terminal.ended_by not in (None, signal.SIGINT):
        os.kill(os.getpid(), terminal.ended_by)


@contextmanager
def _watch(
    kv: Client, looker: Looker, interval: float, wake: Callable[[], None]
) -> Iterator[Callable[[Overview], None]]:
    """Look again and again in a thread, and call `wake` after each look.

    Gives a function that adds what was seen since.
    """
    from kvblock import KVBlockError

    ends = threading.Event()
    found: queue.SimpleQueue[Look | KVBlockError] = queue.SimpleQueue()

    def look() -> None:
        while not ends.wait(interval):
            try:
                found.put(looker.look())
            except KVBlockError as error:
                found.put(error)
            wake()

    def deliver(overview: Overview) -> None:
        while not found.empty():
            one = found.get()
            if isinstance(one, Look):
                overview.add(one)
            else:
                overview.fail(str(one))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield deliver
    finally:
        ends.set()
        # A call that is under way ends with its client.
        kv.close()
        thread.join()
