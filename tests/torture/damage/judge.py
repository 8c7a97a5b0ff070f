"""What a start makes of a damaged state directory, judged from outside.

Rules:
- A start has two good ends: the state is exactly that of the undamaged directory, or it is refused
  with one of the documented exceptions, whose one sentence or two name the file or directory.
- A start that is refused changes no file, but for those that every start rewrites. One that goes on
  loses no content: it is still there, under whatever name, or was cut at its end while the state is
  exact. Nothing outside of the directory is changed.
- A start that is exact stays so when the server is started again.
"""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from tests.torture.damage.cases import Case, apply
from tests.torture.damage.starting import Holding, Outcome, Start, Starting
from tests.torture.damage.tree import Tree

EXACT = "exact"
REFUSED = "refused"
GOOD = (EXACT, REFUSED)


class Verdict(NamedTuple):
    """What a case came to: one of `GOOD`, or the kind of violation; `text` tells more."""

    case: Case
    kind: str
    text: str


def expectation(tree: Tree, start: Start, place: Path, starter: Starting) -> Start:
    """The start with what it comes to without damage.

    Raises:
        ValueError: it comes to nothing.

    """
    root, _ = _placed(tree, place)
    outcome = starter.attempt(root, start)
    if outcome.how != "opened":
        raise ValueError(f"the undamaged directory: {outcome.how}: {outcome.text}")
    after = Tree.read(root)
    changed = tuple(
        name for name, content in tree.files.items() if after.files.get(name) != content
    )
    gone = tuple(name for name in tree.files if name not in after.files)
    return start._replace(state=outcome.text, rewritten=changed, gone=gone)


def judged(case: Case, tree: Tree, start: Start, place: Path, starter: Starting) -> Verdict:
    """Damage a copy of the tree and start from it; `place` is a directory of this process alone."""
    root, outside = _placed(tree, place)
    apply(case, root, outside)
    before, others = Tree.read(root), Tree.read(outside)
    # What reads is what starts: that most bits are tried without takes a third of the time away.
    outcome = starter.attempt(root, start, read=case.kind != "flip" or case.more[1] == 0)
    kind, text = _kind(outcome, start, root)
    if kind in GOOD:
        lost = _lost(before, Tree.read(root), start, exact=kind == EXACT)
        if lost:
            return Verdict(case, f"{kind}, but a file is changed or gone", lost)
        elsewhere = _changed_elsewhere(case, others, Tree.read(outside), start)
        if elsewhere:
            return Verdict(case, f"{kind}, but a file elsewhere is changed", elsewhere)
    if kind == EXACT:
        again, text = _kind(starter.attempt(root, start, read=False), start, root)
        if again != EXACT:
            return Verdict(case, f"exact, but at the next start: {again}", text)
    return Verdict(case, kind, text)


def judged_while_held(
    case: Case, tree: Tree, start: Start, place: Path, starter: Starting
) -> Verdict:
    """Damage the directory of a server that is running, and start a second one from it."""
    root, outside = _placed(tree, place)
    with Holding(root, start):
        apply(case, root, outside)
        outcome = starter.attempt(root, start)
    if outcome.how == "opened":
        return Verdict(case, "two servers on one state", f"with {outcome.held} held blocks")
    return Verdict(case, *_kind(outcome, start, root))


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
        if not exact or (content.data and content.data not in left and not cut):
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
