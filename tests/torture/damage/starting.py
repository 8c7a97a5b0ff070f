"""Starts of a server from a state directory, in processes of their own.

Rules:
- The alarm is the kernel's: a start that hangs is ended whatever it hangs in. Memory is limited.
- The directory is read as `kvblock journal` does before it is opened as `kvblock serve` does.
"""

import json
import os
import resource
import signal
import traceback
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol, TextIO

from kvblock_service.core.pool import Bounds, Geometry
from kvblock_service.journal.inspect import read_contents
from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.journal.open import OpenedJournal, open_journal
from kvblock_service.persistence import CANNOT_START
from tests.unit.journal.kept import state_of

HANG_SECONDS = 20
MEMORY_BYTES = 4 * 1024**3
BOUNDS = Bounds(64, 1024, 64)
_NOW_MS = 500


class Start(NamedTuple):
    """How a server starts: what it is configured with, and the state that it has to come to.

    `rewritten` are the files that every start changes or takes up, `gone` those it takes up.
    """

    pools: tuple[Geometry, ...]
    durability: str
    state: str = ""
    rewritten: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """How a start went: `opened`, `refused`, `raised`, `hung` or `died`.

    `text` is a checksum of the state, or else the message; `facts` are the warnings of a start that
    went on.
    """

    how: str
    text: str
    held: int = 0
    facts: tuple[str, ...] = ()


class Starting(Protocol):
    """Starts servers from directories."""

    def attempt(self, root: Path, start: Start, *, read: bool = True) -> Outcome:
        """Start one, and tell how that went; `read`: look at it beforehand as a reader does."""


class Starter:
    """A child that starts servers, one after the other: another one takes over when it ends.

    To fork for every start would take longer than the start does.
    """

    def __init__(self) -> None:
        self._child = 0

    def __enter__(self) -> "Starter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._child:
            self._wait()

    def attempt(self, root: Path, start: Start, *, read: bool = True) -> Outcome:
        """Start from the directory, having read it as `kvblock journal` does; see `Starting`."""
        if not self._child:
            self._fork()
        request = [str(root), start.pools, start.durability, read]
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()
        answer = self._answers.readline()
        if answer.endswith("\n"):
            how, text, held, facts = json.loads(answer)
            return Outcome(how, text, held, tuple(facts))
        status = self._wait()
        if status == -signal.SIGALRM:
            return Outcome("hung", f"for {HANG_SECONDS} s")
        return Outcome("died", f"exit code {status}")

    def _fork(self) -> None:
        wanted, requests = os.pipe()
        answers, given = os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(requests)
            os.close(answers)
            with os.fdopen(wanted) as source, os.fdopen(given, "w") as target:
                _serve(source, target)
            os._exit(0)
        os.close(wanted)
        os.close(given)
        self._requests = os.fdopen(requests, "w")
        self._answers = os.fdopen(answers)

    def _wait(self) -> int:
        with suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()
        child, self._child = self._child, 0
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _serve(requests: TextIO, answers: TextIO) -> None:
    _limit()
    for line in requests:
        root, pools, durability, read = json.loads(line)
        start = Start(tuple(Geometry(*pool) for pool in pools), durability)
        signal.alarm(HANG_SECONDS)
        try:
            outcome = _started(Path(root), start, read=read)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is judged
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, in {last.name}"
            outcome = Outcome(f"raised {type(error).__name__}", f"{str(error)[:200]} ({where})")
        signal.alarm(0)
        answers.write(json.dumps(outcome) + "\n")
        answers.flush()


def _limit() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


class Holding:
    """A process that has opened a directory, until the block ends."""

    def __init__(self, root: Path, start: Start) -> None:
        self._root = root
        self._start = start

    def __enter__(self) -> None:
        ready, said = os.pipe()
        waited, self._go = os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(ready)
            os.close(self._go)
            _limit()
            signal.alarm(HANG_SECONDS)
            # Files that a start takes up are gone after this.
            _open(self._root, self._start).journal.settle()
            os.write(said, b"x")
            os.read(waited, 1)
            os._exit(0)
        os.close(said)
        os.close(waited)
        opened = os.read(ready, 1)
        os.close(ready)
        assert opened, "the undamaged directory could not be opened"

    def __exit__(self, *_: object) -> None:
        # Its end alone would not do: other children may have inherited it.
        with suppress(BrokenPipeError):
            os.write(self._go, b"x")
        os.close(self._go)
        os.waitpid(self._child, 0)


def _started(root: Path, start: Start, *, read: bool) -> Outcome:
    if read:
        with suppress(JournalDamaged, JournalError):
            read_contents(root)
    try:
        opened = _open(root, start)
    except CANNOT_START as error:
        return Outcome("refused", str(error))
    held = sum(entry.pool.blocks.held for entry in opened.pools)
    outcome = Outcome("opened", _state(opened), held, _warnings(opened))
    opened.journal.close()
    opened.state_dir.release()
    return outcome


def _open(root: Path, start: Start) -> OpenedJournal:
    return open_journal(root, start.pools, BOUNDS, durability=start.durability, now_ms=_NOW_MS)


def _state(opened: OpenedJournal) -> str:
    pools = [(entry[1:], state_of(entry.pool)) for entry in opened.pools]
    registry = opened.registry
    everything = (opened.journal.server_epoch, registry.last_epoch, pools, registry.changes)
    return sha256(repr(everything).encode()).hexdigest()


def _warnings(opened: OpenedJournal) -> tuple[str, ...]:
    return tuple(fact.event for fact in opened.events if fact.level != "info")
