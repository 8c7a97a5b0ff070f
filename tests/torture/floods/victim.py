"""A well-behaved engine while a flood goes on: does it keep its lease, and how long are its steps?

Rules:
- It has credentials, a session with the default TTL, and a step every 10 ms; between steps it makes
  a call of its own now and then, and asks for the health, on a second connection.
- It holds a block from the start, and has to hold the same one at the end.
- Whatever fails is told, once for each kind.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

import kvblock
from tests.torture.floods.shapes import ALLOCATE

PAUSE = 0.01
CALL_EVERY = 20
TIMEOUT = 9.0
"""Seconds; an engine that waits for longer has lost its lease."""


class Seen(NamedTuple):
    """What the engine saw; times are in seconds."""

    steps: list[float]
    calls: list[float]
    failures: list[str]
    kept_lease: bool


def engine(address: str, token: str | None, goes_on: Callable[[], bool]) -> Seen:
    """Make steps and calls until the end of the flood."""
    steps, calls, failures = [], [], dict[str, None]()
    kept = False
    try:
        with (
            kvblock.connect(address, token=token, engine="victim", timeout=TIMEOUT) as kv,
            kv.session() as session,
            kvblock.connect(address, token=token, engine="caller", timeout=TIMEOUT) as other,
        ):
            epoch, held = session.epoch, session.step(allocate=[1]).block_numbers
            while goes_on():
                steps.append(_timed(lambda: session.step(free=[2], allocate=[2]), failures))
                if len(steps) % CALL_EVERY == 0:
                    calls.append(_timed(lambda: _call(other), failures))
                time.sleep(PAUSE)
            kept = session.lease_valid and session.epoch == epoch
            kept = kept and kv.get_block_table(1).block_numbers == held
    except (kvblock.KVBlockError, OSError) as error:
        failures[f"{type(error).__name__}: {error}"] = None
    return Seen(steps, calls, list(failures), kept)


def echo(address: str, goes_on: Callable[[], bool]) -> Seen:
    """The same against a bare server, which has neither steps nor leases."""
    calls, failures = [], dict[str, None]()
    with grpc.insecure_channel(address) as channel:
        generic: Any = channel
        method = generic.unary_unary(ALLOCATE.decode())
        while goes_on():
            calls.append(_timed(lambda: method(b"x", timeout=TIMEOUT), failures))
            time.sleep(PAUSE)
    return Seen(calls, [], list(failures), not failures)


def _call(kv: kvblock.Client) -> None:
    kv.allocate(1)
    kv.free(1)
    if not kv.health():
        raise kvblock.KVBlockError("the health says NOT_SERVING")


def _timed(work: Callable[[], object], failures: dict[str, None]) -> float:
    started = time.monotonic()
    try:
        work()
    except (kvblock.KVBlockError, grpc.RpcError) as error:
        text = str(error) if isinstance(error, kvblock.KVBlockError) else str(error.code())
        failures[f"{type(error).__name__}: {text}"] = None
    return time.monotonic() - started
