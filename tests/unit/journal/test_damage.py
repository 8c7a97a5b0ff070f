"""Files of a journal that do not fit together are refused in words."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kvblock_service.journal import files
from tests.unit.journal.directories import (
    closed,
    grant,
    journal_of,
    newest_segment,
    opened,
    refused,
)


def delete_newest(path: Path) -> None:
    newest_segment(path).unlink()


def empty_newest(path: Path) -> None:
    newest_segment(path).write_bytes(b"")


def copy_old_as_newest(path: Path) -> None:
    directory = journal_of(path)
    (number, old), *_ = files.segments(directory)
    last = files.segments(directory)[-1][0]
    shutil.copyfile(old, files.segment_path(directory, last + 1))
    assert number <= last


def swap_segments(path: Path) -> None:
    first, last = files.segments(journal_of(path))[0][1], newest_segment(path)
    a, b = first.read_bytes(), last.read_bytes()
    first.write_bytes(b)
    last.write_bytes(a)


def renumber_newest(path: Path) -> None:
    newest = newest_segment(path)
    number = files.segment_number(newest) + 5
    newest.rename(files.segment_path(newest.parent, number))


def rename_snapshot(path: Path) -> None:
    directory = journal_of(path)
    ((position, one),) = files.snapshots(directory)
    one.rename(files.snapshot_path(directory, position + 1))


def rename_to_an_unknown_format(path: Path) -> None:
    newest = newest_segment(path)
    newest.rename(newest.with_suffix(".new"))


def remove_what_was_behind_the_snapshot(path: Path) -> None:
    for _, one in files.segments(journal_of(path)):
        one.unlink()


@pytest.mark.parametrize(
    "change",
    [
        delete_newest,
        empty_newest,
        copy_old_as_newest,
        swap_segments,
        renumber_newest,
        rename_snapshot,
        rename_to_an_unknown_format,
        remove_what_was_behind_the_snapshot,
    ],
)
def test_files_that_do_not_fit_together_are_refused(
    state: Path, change: Callable[[Path], None]
) -> None:
    change(state)
    assert f"kvblock journal set-aside {state}" in refused(state, str(journal_of(state)))


def test_an_end_that_was_cut_between_two_appends_is_refused(state: Path) -> None:
    path = newest_segment(state)
    data = path.read_bytes()
    os.truncate(path, data.rindex(b"KVBJ"))
    assert "ends with record 6, but record 7 was acknowledged" in refused(state)


def test_files_of_a_copy_from_before_are_refused(tmp_path: Path) -> None:
    """Each of them is sound; it is only not the one that belongs there."""
    state, copy = tmp_path / "state", tmp_path / "copy"
    found = opened(state)
    grant(found, 0)
    closed(found)
    shutil.copytree(state, copy)
    for path, sequence in ((state, 1), (copy, 2)):
        found = opened(path)
        grant(found, sequence)
        closed(found)
    newest = newest_segment(state)
    newest.write_bytes(newest_segment(copy).read_bytes())
    refused(state, "end")


def test_an_early_segment_of_a_copy_that_went_another_way_is_refused(tmp_path: Path) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy"
    closed(opened(state))
    shutil.copytree(state, copy)
    for path, sequences in ((state, (1, 2)), (copy, (3, 4))):
        for sequence in sequences:
            found = opened(path)
            grant(found, sequence)
            closed(found)
    filled = [path for _, path in files.segments(journal_of(state)) if path.stat().st_size]
    first, second = filled[-2:]
    first.write_bytes((journal_of(copy) / first.name).read_bytes())
    assert f"{second} does not follow from what is in front of it" in refused(state)


def test_a_segment_of_a_history_that_differs_in_a_byte_is_refused(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    first = opened(ours)
    grant(first, 0)
    closed(first)
    shutil.copytree(ours, other)
    for path, engine in ((ours, "a"), (other, "b")):
        for sequence, name in ((1, engine), (2, "a")):
            found = opened(path)
            grant(found, sequence, engine=name)
            closed(found)
    second = files.segments(journal_of(ours))[1][1]
    shutil.copy(journal_of(other) / second.name, second)
    assert "does not follow from what is in front of it" in refused(ours, "journal-")
