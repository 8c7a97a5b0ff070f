"""A state directory that somebody has changed: what can be known is refused in words."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvblock_service.core.commands import Allocate, Stamp
from kvblock_service.core.pool import Geometry
from kvblock_service.journal import codec, files, snapshot
from kvblock_service.journal.inspect import described, read_contents
from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.journal.open import OpenedJournal, discard_pool, open_journal, set_aside
from kvblock_service.journal.records import CommandRecord
from kvblock_service.journal.snapshot import State
from kvblock_service.journal.state_dir import StateDirInUse
from tests.fixtures.unpack import NAMES, extract, unpack
from tests.unit.journal.kept import BOUNDS, GEOMETRY, change_identity, write

NOW = Stamp(1, 2, "")
HELD = 6
POOLS = (Geometry("main", 24, 16, 3), Geometry("tiny", 1, 8, 0))
REFUSED = (JournalDamaged, JournalError)


def opened(path: Path, durability: str = "process") -> OpenedJournal:
    return open_journal(path, [GEOMETRY], BOUNDS, durability=durability)


def closed(found: OpenedJournal) -> None:
    found.journal.close()
    found.state_dir.release()


def grant(found: OpenedJournal, sequence: int, engine: str = "a") -> None:
    command = Allocate(engine, 0, "", sequence, 1)
    found.pools[0].pool.apply(command, NOW)
    write(found.journal, [codec.encode(CommandRecord("main", NOW, command))])


def snap(found: OpenedJournal) -> None:
    state = State(found.journal.server_epoch, found.registry.last_epoch, found.pools)
    found.journal.put_snapshot(found.journal.position, snapshot.encode(state))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A directory with two segments, a snapshot between them, and 6 held blocks."""
    path = tmp_path / "state"
    for number in range(0, HELD, 3):
        found = opened(path)
        for sequence in range(number, number + 3):
            grant(found, sequence)
        if not number:
            snap(found)
        closed(found)
    return path


def journal_of(path: Path) -> Path:
    (directory,) = (one for one in path.iterdir() if one.is_dir())
    return directory


def refused(path: Path, names: str = "") -> str:
    """What a start says that has to be refused, and that `kvblock journal set-aside` helps."""
    with pytest.raises(REFUSED) as caught:
        closed(opened(path))
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert names in text, text
    return text


def newest_segment(path: Path) -> Path:
    filled = [one for _, one in files.segments(journal_of(path)) if one.stat().st_size]
    return filled[-1]


def test_another_bit_anywhere_in_the_identity_is_refused(state: Path) -> None:
    file = state / "identity.json"
    whole = file.read_bytes()
    told = []
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        file.write_bytes(changed)
        try:
            found = opened(state)
        except JournalDamaged as error:
            told.append(str(error))
            continue
        # White space, for example.
        assert found.pools[0].pool.blocks.held == HELD
        closed(found)
    assert len(told) > len(whole) * 0.9
    assert {text.count("identity.json") for text in told} == {1}
    assert {text.count(f"kvblock journal set-aside {state}") for text in told} == {1}


@pytest.mark.parametrize("how", ["removed", "emptied", "a file", "elsewhere"])
def test_an_identity_whose_journal_is_not_there_is_refused(state: Path, how: str) -> None:
    journal = journal_of(state)
    aside = state.with_name("aside")
    journal.rename(aside)
    if how == "emptied":
        journal.mkdir()
    elif how == "a file":
        journal.touch()
    elif how == "elsewhere":
        journal.symlink_to(aside)
    assert f"kvblock journal set-aside {state}" in refused(state, str(journal))
    if how in ("emptied", "a file", "elsewhere"):
        journal.rmdir() if how == "emptied" else journal.unlink()
    aside.rename(journal)
    found = opened(state)
    assert found.pools[0].pool.blocks.held == HELD
    closed(found)


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


def replaced(path: Path, what: str) -> None:
    """Something else where a file was."""
    aside = path.with_name(f"was-{path.name}")
    if path.exists():
        path.rename(aside)
    if what == "directory":
        path.mkdir()
    elif what == "link":
        path.symlink_to(aside)
    elif what == "FIFO":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))


@contextmanager
def alarm() -> Iterator[None]:
    """End what waits for ever."""

    def ring(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("what", ["directory", "link", "FIFO", "socket"])
@pytest.mark.parametrize("name", ["identity.json", "lock", "segment", "snapshot", "end"])
def test_what_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The name of a socket is at most about 100 bytes long.
    monkeypatch.chdir(tmp_path)
    state = Path("s")
    found = opened(state)
    grant(found, 0)
    snap(found)
    closed(found)
    place = {
        "segment": newest_segment(state),
        "snapshot": files.snapshots(journal_of(state))[-1][1],
        "end": journal_of(state) / "end",
    }.get(name, state / name)
    replaced(place, what)
    with alarm(), pytest.raises(REFUSED) as caught:
        opened(state)
    told = str(caught.value)
    kinds = {"link": "a symbolic link"}
    assert f"it is {kinds.get(what, f'a {what}')}, not a regular file" in told
    assert str(place) in told


def test_a_lock_that_is_a_link_changes_nothing_elsewhere(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    for make in (Path.symlink_to, Path.hardlink_to):
        precious.write_text("of somebody else")
        state = tmp_path / make.__name__
        closed(opened(state))
        (state / "lock").unlink()
        make(state / "lock", precious)
        with pytest.raises(JournalError, match="link"):
            opened(state)
        assert precious.read_text() == "of somebody else"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """The directory of a server that is running."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.unit.journal.test_damage import opened\n"
        "found = opened(Path(sys.argv[1]))\nprint(flush=True)\nsys.stdin.read()\n"
    )
    state = tmp_path / "state"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        yield state
        running.kill()


@pytest.mark.parametrize("how", ["removed", "replaced", "moved away with the rest"])
def test_a_lock_is_not_lost_with_its_name(server: Path, how: str) -> None:
    (server / "lock").unlink()
    if how == "replaced":
        (server / "lock").touch()
    state = server
    if how == "moved away with the rest":
        state = server.with_name("other")
        server.rename(state)
    with pytest.raises(StateDirInUse, match="another process"):
        closed(opened(state))


def test_the_lock_of_an_older_server_counts(tmp_path: Path) -> None:
    script = (
        "import fcntl, os, sys\n"
        "number = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(number, fcntl.LOCK_EX)\nprint(flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as older:
        assert older.stdout is not None
        older.stdout.readline()
        with pytest.raises(StateDirInUse):
            opened(tmp_path)
        older.kill()
    closed(opened(tmp_path))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("server_epoch", str(2**70), "server_epoch is 11805916"),
        ("server_epoch", "-5", "server_epoch is -5; it is a whole number from 1"),
        ("server_epoch", "true", "server_epoch is True"),
        ("server_epoch", "1.5", "server_epoch is 1.5"),
        ("durability", '"hots"', "durability is 'hots'; it is process or host"),
        ("durability", "7", "durability is 7"),
        ("boot_id", '"a b"', "boot_id is 'a b'; it is 1 to 64 letters, digits and dashes"),
        ("boot_id", "null", "boot_id is None"),
        ("former", "[0]", r"former is \[0\]; it is a list of epochs"),
        ("former", '{"a": 1}', "former is {'a': 1}; it is a list of epochs"),
        ("format", "3", "has format 3"),
        ("format", '"1"', "has format '1'"),
        ("more", "1", "its fields are"),
    ],
)
def test_ranges_and_spellings_of_the_identity(
    tmp_path: Path, version: int, field: str, text: str, words: str
) -> None:
    closed(opened(tmp_path))
    file = tmp_path / "identity.json"
    content = {**json.loads(file.read_text()), "format": version, field: "@@"}
    content.pop("checksum", None)
    value = json.loads(text)
    if version > 1 and field != "format":
        from kvblock_service.journal.identity import _checksum

        content["checksum"] = _checksum({**content, field: value})
    file.write_text(json.dumps(content).replace('"@@"', text))
    with pytest.raises(JournalDamaged, match=words):
        opened(tmp_path)


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


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": 1', "7", '"x"', "\xff", ""])
def test_what_is_no_identity(tmp_path: Path, text: str) -> None:
    closed(opened(tmp_path))
    (tmp_path / "identity.json").write_text(text, encoding="latin-1")
    refused(tmp_path, "identity.json")


@pytest.mark.parametrize("name", NAMES)
def test_what_earlier_versions_wrote_is_taken_up_and_goes_on_in_the_new_form(
    tmp_path: Path, name: str
) -> None:
    unpack(name, tmp_path)
    for _ in range(2):
        found = open_journal(tmp_path, POOLS, BOUNDS)
        held = sum(entry.pool.blocks.held for entry in found.pools)
        grant(found, 1, engine="late")
        closed(found)
    assert held > 0
    assert json.loads((tmp_path / "identity.json").read_text())["format"] == 2
    assert newest_segment(tmp_path).read_bytes().startswith(b"KVBH")
    (journal_of(tmp_path) / "end").unlink()
    with pytest.raises(JournalDamaged, match="end is missing, which says where the journal ended"):
        open_journal(tmp_path, POOLS, BOUNDS)


def test_an_old_journal_without_a_record_is_refused(tmp_path: Path) -> None:
    unpack("append-process", tmp_path)
    for path in journal_of(tmp_path).iterdir():
        path.unlink()
    assert "is to have a journal, and has no record" in refused(tmp_path)


def test_segments_in_sqlite_are_refused_and_stay(tmp_path: Path) -> None:
    extract("sqlite-process", tmp_path)
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    before = [one for one in before if one[0].name != "lock"]

    def unchanged() -> bool:
        return all(path.read_bytes() == data for path, data in before)

    segment = journal_of(tmp_path) / "journal-0000000001.db"
    for attempt in (
        lambda: open_journal(tmp_path, POOLS, BOUNDS),
        lambda: read_contents(tmp_path),
        lambda: list(described(tmp_path, 0)),
        lambda: discard_pool(tmp_path, "main"),
    ):
        with pytest.raises(JournalError) as caught:
            attempt()
        told = str(caught.value)
        assert told.startswith(
            f"{segment} is a segment in SQLite, which this version does not read"
        )
        assert "Start the version that wrote it with journal_format=append" in told
        assert told.endswith(f"run `kvblock journal set-aside {tmp_path}`")
        assert unchanged()
    # Without its identity it is a journal all the same, and nothing begins empty beside it.
    identity = (tmp_path / "identity.json").read_bytes()
    (tmp_path / "identity.json").unlink()
    with pytest.raises(JournalDamaged, match=r"has no identity\.json"):
        open_journal(tmp_path, POOLS, BOUNDS)
    (tmp_path / "identity.json").write_bytes(identity)
    assert unchanged()
    assert len(set_aside(tmp_path)) == 2
    closed(open_journal(tmp_path, POOLS, BOUNDS))


def former(path: Path) -> list[Path]:
    return sorted(path.glob("*.former-*"))


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_a_journal_of_before_a_reboot_stays_for_a_while(tmp_path: Path, seconds: float) -> None:
    def restarted() -> OpenedJournal:
        return open_journal(tmp_path, [GEOMETRY], BOUNDS, former_seconds=seconds)

    found = restarted()
    grant(found, 1)
    before = found.journal.directory
    closed(found)
    change_identity(tmp_path, boot_id="another-boot")
    found = restarted()
    assert found.pools[0].pool.blocks.held == 0
    assert len(former(tmp_path)) == (1 if seconds else 0)
    closed(found)
    if not seconds:
        return
    (aside,) = former(tmp_path)
    assert aside.name.startswith(f"{before.name}.former-")
    # As if it had been set aside so long ago.
    old = aside.with_name(f"{before.name}.former-{time.time_ns() // 1_000_000 - 999_000}")
    aside.rename(old)
    closed(restarted())
    assert former(tmp_path) == [old]
    older = old.with_name(f"{before.name}.former-{time.time_ns() // 1_000_000 - 1_001_000}")
    old.rename(older)
    found = restarted()
    assert former(tmp_path) == []
    assert found.events[-1].fields == {"path": str(older)}
    closed(found)


def test_a_damaged_state_is_set_aside_and_back(tmp_path: Path) -> None:
    found = opened(tmp_path)
    grant(found, 1)
    epoch = found.journal.server_epoch
    with pytest.raises(StateDirInUse):
        set_aside(tmp_path)
    closed(found)
    whole = (tmp_path / "identity.json").read_bytes()
    (tmp_path / "identity.json").write_bytes(whole[:-1])
    refused(tmp_path)
    moved = set_aside(tmp_path)
    assert former(tmp_path) == sorted(moved)
    found = opened(tmp_path)
    assert found.pools[0].pool.blocks.held == 0
    assert found.journal.server_epoch > epoch
    closed(found)
    set_aside(tmp_path)
    for path in moved:
        path.rename(path.with_name(path.name.partition(".former-")[0]))
    (tmp_path / "identity.json").write_bytes(whole)
    found = opened(tmp_path)
    assert (found.journal.server_epoch, found.pools[0].pool.blocks.held) == (epoch, 1)
    closed(found)
