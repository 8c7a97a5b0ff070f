"""What a start makes of a state directory: in a process of its own, and judged from outside.

Rules:
- A start has two good ends: the state is exactly that of the undamaged directory, or it is refused
  with one of the documented exceptions, whose one sentence or two name the file or directory.
- A start that is refused changes no file, but for those that every start rewrites. One that goes on
  loses no content: it is still there, under whatever name, or was cut at its end while the state is
  exact. Nothing outside of the directory is changed.
- A start that is exact stays so when the server is started again.
- The alarm of the child is the kernel's: a start that hangs is ended whatever it hangs in.
"""

import json
import os
import resource
import shutil
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from tests.torture.damage.cases import Case, apply
from tests.torture.damage.tree import Tree
from tests.unit.journal.kept import state_of

from kvblock_service.core.pool import Bounds, Geometry
from kvblock_service.journal.inspect import read_contents
from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.journal.open import OpenedJournal, open_journal
from kvblock_service.keeping import CANNOT_START

EXACT = "exact"
REFUSED = "refused"
GOOD = (EXACT, REFUSED)
HANG_SECONDS = 20
MEMORY_BYTES = 4 * 1024**3
BOUNDS = Bounds(64, 1024, 64)
_NOW_MS = 500


class Start(NamedTuple):
    """How a server starts: what it is configured with, and the state that it has to come to."""

    pools: tuple[Geometry, ...]
    durability: str
    kind: str
    state: str = ""
    rewritten: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """How a start went: `opened`, `refused`, `raised`, `hung` or `died`.

    `text` is a checksum of the state, or else the message; `facts` are the warnings of a start that
    went on.
    """

    how: str
    text: str
    held: int = 0
    facts: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """What a case came to: one of `GOOD`, or the kind of violation; `text` tells more."""

    case: Case
    kind: str
    text: str


def expectation(tree: Tree, start: Start, place: Path) -> Start:
    """The start with what it comes to without damage.

    Raises:
        ValueError: it comes to nothing.

    """
    root, _ = _placed(tree, place)
    outcome = attempt(root, start)
    if outcome.how != "opened":
        raise ValueError(f"the undamaged directory: {outcome.how}: {outcome.text}")
    after = Tree.read(root)
    changed = tuple(
        name for name, content in tree.files.items() if after.files.get(name) != content
    )
    return start._replace(state=outcome.text, rewritten=changed)


def judged(case: Case, tree: Tree, start: Start, place: Path) -> Verdict:
    """Damage a copy of the tree and start from it; `place` is a directory of this process alone."""
    root, outside = _placed(tree, place)
    apply(case, root, outside)
    before, others = Tree.read(root), Tree.read(outside)
    outcome = attempt(root, start)
    kind, text = _kind(outcome, start, root)
    if kind in GOOD:
        lost = _lost(before, Tree.read(root), start, exact=kind == EXACT)
        if lost:
            return Verdict(case, f"{kind}, but a file is changed or gone", lost)
        elsewhere = _changed_elsewhere(case, others, Tree.read(outside), start)
        if elsewhere:
            return Verdict(case, f"{kind}, but a file elsewhere is changed", elsewhere)
    if kind == EXACT:
        again, text = _kind(attempt(root, start), start, root)
        if again != EXACT:
            return Verdict(case, f"exact, but at the next start: {again}", text)
    return Verdict(case, kind, text)


def judged_while_held(case: Case, tree: Tree, start: Start, place: Path) -> Verdict:
    """Damage the directory of a server that is running, and start a second one from it."""
    root, outside = _placed(tree, place)
    with _Holding(root, start):
        apply(case, root, outside)
        outcome = attempt(root, start)
    if outcome.how == "opened":
        return Verdict(case, "two servers on one state", f"with {outcome.held} held blocks")
    return Verdict(case, *_kind(outcome, start, root))


def attempt(root: Path, start: Start) -> Outcome:
    """Read the directory as `kvblock journal` does, then start from it, in a child."""
    return _in_child(lambda: _started(root, start))


def _kind(outcome: Outcome, start: Start, root: Path) -> tuple[str, str]:
    how, text, held, facts = outcome
    if how == "opened":
        if text == start.state:
            return EXACT, ""
        told = "with a warning" if facts else "in silence"
        return f"another state, {told}", f"{held} held blocks; {'; '.join(facts)}"
    if how == "refused":
        if "\n" in text or str(root) not in text:
            return "refused in words that name no file", text
        return REFUSED, text
    return how, text


def _lost(before: Tree, after: Tree, start: Start, *, exact: bool) -> str:
    """The first file whose content is not what it was, in words; empty when there is none."""
    left = {content.data for content in after.files.values()}
    for name, content in before.files.items():
        found = after.files.get(name)
        if found == content or name in start.rewritten:
            continue
        cut = found is not None and content.data.startswith(found.data)
        if not exact or (content.data not in left and not cut):
            return f"{name} is {'gone' if found is None else 'changed'}"
    return ""


def _changed_elsewhere(case: Case, before: Tree, after: Tree, start: Start) -> str:
    """The first such file; what every start rewrites is only so where it is behind the root.

    A hard link to it cannot be told from a backup that was made with links.
    """
    rewritten = {f"moved/{name}" for name in start.rewritten}
    if case.more == ("hard link",) and case.path in start.rewritten:
        rewritten.add("moved")
    for name, content in before.files.items():
        if after.files.get(name) != content and name not in rewritten:
            return name
    return ""


def _started(root: Path, start: Start) -> Outcome:
    with suppress(JournalDamaged, JournalError):
        read_contents(root)
    try:
        opened = _open(root, start)
    except CANNOT_START as error:
        return Outcome("refused", str(error))
    held = sum(entry.pool.held for entry in opened.pools)
    outcome = Outcome("opened", _state(opened), held, _warnings(opened))
    opened.journal.close()
    opened.state_dir.release()
    return outcome


def _open(root: Path, start: Start) -> OpenedJournal:
    return open_journal(
        root, start.pools, BOUNDS, durability=start.durability, kind=start.kind, now_ms=_NOW_MS
    )


def _state(opened: OpenedJournal) -> str:
    pools = [(entry[1:], state_of(entry.pool)) for entry in opened.pools]
    everything = (opened.journal.server_epoch, opened.last_epoch, pools, opened.changes)
    return sha256(repr(everything).encode()).hexdigest()


def _warnings(opened: OpenedJournal) -> tuple[str, ...]:
    return tuple(fact.event for fact in opened.facts if fact.level != "info")


def _in_child(work: Callable[[], Outcome]) -> Outcome:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _limit()
        try:
            outcome = work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is judged
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, in {last.name}"
            outcome = Outcome(f"raised {type(error).__name__}", f"{str(error)[:200]} ({where})")
        with os.fdopen(writer, "w") as out:
            json.dump(outcome, out)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGALRM:
        return Outcome("hung", f"for {HANG_SECONDS} s")
    if status or not text:
        return Outcome("died", f"exit code {status}")
    how, text, held, facts = json.loads(text)
    return Outcome(how, text, held, tuple(facts))


def _limit() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(HANG_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


class _Holding:
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
            _open(self._root, self._start)
            os.write(said, b"x")
            os.read(waited, 1)
            os._exit(0)
        os.close(said)
        os.close(waited)
        opened = os.read(ready, 1)
        os.close(ready)
        assert opened, "the undamaged directory could not be opened"

    def __exit__(self, *_: object) -> None:
        os.close(self._go)
        os.waitpid(self._child, 0)


def _placed(tree: Tree, place: Path) -> tuple[Path, Path]:
    """A fresh copy of the tree, and an empty directory beside it."""
    root, outside = place / "state", place / "outside"
    for path in (root, outside):
        _remove(path)
        path.mkdir(mode=0o700)
    tree.write(root)
    return root, outside


def _remove(path: Path) -> None:
    if os.path.lexists(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
