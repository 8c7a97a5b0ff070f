"""Damaged journals: they are refused in words, or read up to the damage, and nothing in between."""

import shutil
from pathlib import Path
from random import Random
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvblock_service.core.audit import audit
from kvblock_service.core.commands import Allocate, Free, Stamp
from kvblock_service.core.pool import Bounds, Geometry
from kvblock_service.journal import snapshot
from kvblock_service.journal.codec import decode, encode
from kvblock_service.journal.interface import CodecError, JournalDamaged, JournalError
from kvblock_service.journal.open import GeometryChanged, open_journal
from kvblock_service.journal.records import CommandRecord, Record
from kvblock_service.journal.snapshot import State
from kvblock_service.journal.state_dir import StateDirInUse
from tests.fuzz.conftest import ROUNDS
from tests.unit.journal.kept import records, write

REFUSED = (JournalDamaged, JournalError, GeometryChanged, StateDirInUse)
BOUNDS = Bounds(64, 1024, 64)
GEOMETRY = Geometry("main", 64, 16, 0)
COMMANDS = 60
DAMAGES = 60 * ROUNDS


def damaged(data: bytes, random: Random) -> bytes:
    """The bytes with a few of them changed, a part cut out, or zeroed."""
    out = bytearray(data)
    at = random.randrange(len(out))
    how = random.randrange(4)
    if how == 0:
        for _ in range(random.randint(1, 4)):
            out[random.randrange(len(out))] ^= random.randint(1, 255)
    elif how == 1:
        del out[at:]
    elif how == 2:
        del out[at : at + random.randint(1, 64)]
    else:
        size = min(len(out) - at, random.choice((1, 16, 512, 4096)))
        out[at : at + size] = bytes(size) if random.random() < 0.5 else random.randbytes(size)
    return bytes(out)


@given(records, st.integers(0, 2**32))
def test_damage_under_a_right_checksum(record: Record, number: int) -> None:
    """The checksum says nothing: what is decoded is a record all the same, or an error."""
    body = damaged(encode(record)[:-4], Random(number))
    try:
        found = decode(body + crc32(body).to_bytes(4, "little"))
    except CodecError:
        return
    assert decode(encode(found)) == found


def filled(path: Path, count: int) -> list[int]:
    """A state directory with a history; how many blocks were held after each command."""
    opened = open_journal(path, [GEOMETRY], BOUNDS)
    pool = opened.pools[0].pool
    held = [0]
    for number in range(count):
        command = (
            Free("e", 0, f"r{number}", number // 2)
            if number % 3 == 2
            else Allocate("e", 0, f"r{number}", number, 1 + number % 2)
        )
        stamp = Stamp(number, number, "")
        pool.apply(command, stamp)
        write(opened.journal, [encode(CommandRecord("main", stamp, command))])
        held.append(pool.blocks.held)
        if number == count // 2:
            entries = State(opened.journal.server_epoch, pool.last_epoch, opened.pools)
            opened.journal.put_snapshot(opened.journal.position, snapshot.encode(entries))
    # What a process leaves that was killed: no file is closed in order.
    shutil.copytree(path, path.with_name("killed"))
    opened.journal.close()
    opened.state_dir.release()
    return held


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "killed"])
def test_damaged_files(closed: bool, tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    whole = tmp_path / "whole"
    held = filled(whole, COMMANDS)
    source = whole if closed else tmp_path / "killed"
    files = [path for path in sorted(source.rglob("*")) if path.is_file() and path.stat().st_size]
    for case in range(DAMAGES):
        copy = tmp_path / "copy"
        shutil.copytree(source, copy)
        victim = copy / random.choice(files).relative_to(source)
        # The reserve behind a WAL's records is zeros for megabytes: most of that would hit nothing.
        data = victim.read_bytes()
        end = len(data.rstrip(b"\0")) + 4096
        victim.write_bytes(damaged(data[:end], random) + data[end:])
        where = f"case {case} of seed {seed}: {victim.relative_to(copy)}"
        try:
            opened = open_journal(copy, [GEOMETRY], BOUNDS)
        except REFUSED as error:
            told = str(error)
        else:
            told = "opened"
            (entry,) = opened.pools
            assert audit(entry.pool).violations == [], where
            assert entry.pool.blocks.held in held, where
            opened.journal.close()
            opened.state_dir.release()
        assert told, where
        shutil.rmtree(copy)
