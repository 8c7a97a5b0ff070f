"""`kvblock doctor`: the command.

Rules:
- It looks at everything that it can reach: a check that fails keeps none of the others from being
  made, but for those that need a server when there is none.
- Exits with 0 when there is no problem, warnings or not; with 1 when there is one; with 3 when the
  server cannot be reached. What was found is printed in each case.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kvblock_cli.doctor.findings import Finding, Status, problem, skipped, warning
from kvblock_cli.failures import REFUSED, UNREACHABLE
from kvblock_cli.options import Json, Pool, Server, default_address, option
from kvblock_cli.output import console, print_json, printable
from kvblock_cli.tables import table

if TYPE_CHECKING:
    from kvblock import Client, KVBlockError

StateDir = Annotated[
    Path | None,
    option(
        "DIR",
        "The server's state directory, where it runs on this machine. Default: that of"
        " `kvblock serve`, if the server has it.",
    ),
]
_STYLES = {
    Status.OK: "green",
    Status.SKIPPED: "dim",
    Status.WARNING: "yellow",
    Status.PROBLEM: "bold red",
}
_JUMP_SECONDS = 0.5


def doctor(
    server: Server, state_dir: StateDir = None, pool: Pool = "", as_json: Json = False
) -> None:
    """Look for what is wrong with a server, and say what to do.

    It attaches an engine of its own for a moment, and takes no block.

    Exits with 1 when there is a problem, and with 3 when the server cannot be reached.
    """
    findings: list[Finding] = []
    reached = True
    try:
        for finding in _examine(server, state_dir, pool):
            findings.append(finding)
    except _UnreachableError as error:
        findings.append(error.finding)
        reached = False
    worst = max((one.status for one in findings), key=list(Status).index)
    if as_json:
        rows = [
            {"check": one.check, "status": one.status.value, "text": one.text, "do": one.action}
            for one in findings
        ]
        print_json({"worst": worst.value, "checks": rows})
    else:
        _show(findings)
    if not reached:
        raise typer.Exit(UNREACHABLE)
    if worst is Status.PROBLEM:
        raise typer.Exit(REFUSED)


class _UnreachableError(Exception):
    """There is no server to look at."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


def _examine(server: Server, state_dir: Path | None, pool: str) -> Iterator[Finding]:
    from kvblock_cli.doctor import memory, process, socket
    from kvblock_cli.doctor import state_dir as states

    with server.connect() as kv:  # Arguments that can never be right fail first.
        begun = time.time() - time.monotonic()
        found, pid = socket.look(server.address or default_address() or "", server.timeout)
        if found.status is Status.PROBLEM:
            raise _UnreachableError(found)
        yield found
        yield from _ask(kv, pool)
        jumped = time.time() - time.monotonic() - begun
    if abs(jumped) > _JUMP_SECONDS:
        text = f"this machine's clock was set by {jumped:+.1f} s meanwhile"
        yield warning("clock", text, "let NTP slew the clock: leases are not touched, logs are")
    yield from process.synchronised()
    yield from states.look(state_dir, pid)
    if pid is not None:
        yield from memory.directory()
    if pid is not None:
        yield from process.limits(pid)


def _ask(kv: Client, pool: str) -> Iterator[Finding]:
    from kvblock import KVBlockError, NotFoundError
    from kvblock_cli.doctor import memory, server

    yield from _answered("health", server.health(kv))
    try:
        stats = kv.stats(pool=pool)
    except KVBlockError as error:
        if isinstance(error, NotFoundError):
            raise
        yield _failed("access", error)
        return
    yield from server.version(stats)
    yield from _answered("lease", server.lease(kv, stats, pool))
    yield from _answered("engines", server.engines(kv))
    yield from server.pools(stats)
    yield from _answered("memory", memory.pools(kv))
    yield from _answered("clock", server.clock(kv, stats))


def _answered(check: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """What a check that makes calls finds, its errors too."""
    from kvblock import KVBlockError

    try:
        yield from findings
    except KVBlockError as error:
        yield _failed(check, error)


def _failed(check: str, error: KVBlockError) -> Finding:
    """What an error of a check's call tells.

    Raises:
        _UnreachableError: that there is no server to go on with.

    """
    import kvblock

    text = str(error)
    if isinstance(error, (kvblock.UnavailableError, kvblock.DeadlineExceededError)):
        action = "see whether it is kvblock that listens there, with TLS or without, and alive"
        if error.reason:
            action = "try again when it is up; see the server's log"
        raise _UnreachableError(problem(check, text, action)) from None
    if isinstance(error, kvblock.PermissionDeniedError):
        return skipped(check, text, "ask with the credentials of an operator")
    if isinstance(error, kvblock.UnauthenticatedError):
        return problem(check, text, "show credentials: --token-file, or --tls-cert and --tls-key")
    return problem(check, text, "see the server's log")


def _show(findings: list[Finding]) -> None:
    made = table("CHECK", "RESULT", "FOUND", left=3, wrap=True)
    for one in findings:
        text = Text(printable(one.text))
        if one.action:
            text.append(f"\ndo: {printable(one.action)}", "italic")
        made.add_row(one.check, Text(one.status.value, _STYLES[one.status]), text)
    console().print(made)
    counts = []
    for status in (Status.PROBLEM, Status.WARNING):
        count = sum(one.status is status for one in findings)
        counts.append(f"{count or 'no'} {status.value}{'' if count == 1 else 's'}")
    console().print("\n" + ", ".join(counts), style="bold")
