"""A bug in the writing of the journal: nothing is acknowledged any more, and every call fails."""

import sys
from pathlib import Path

import grpc
import pytest

import kvblock
from tests.integration.processes import serving

PROGRAM = """
import os, sys
from kvblock_cli import main
from kvblock_service.journal.file_journal import FileJournal

def append(journal, after, records, really=FileJournal.append):
    if any(b"broken" in record for record in records):
        raise ValueError("a bug")
    return really(journal, after, records)

FileJournal.append = append
sys.argv[0] = "kvblock"
del os.environ["KVBLOCK_EPHEMERAL"]
main()
"""


MAINTENANCE = """
import os, sys
from kvblock_cli import main
from kvblock_service.journal.maintenance import Maintenance

def drop(maintenance, up_to):
    raise ValueError("a bug")

Maintenance._drop = drop
sys.argv[0] = "kvblock"
del os.environ["KVBLOCK_EPHEMERAL"]
main()
"""


def test_a_bug_beside_the_writes_is_told(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path / 'kvblock.sock'}"
    arguments = ["serve", "--pool", "main:total=64,block_size=16", "--listen", listen]
    arguments += ["--state-dir", str(tmp_path / "state"), "--snapshot-records", "1"]
    with (
        serving(sys.executable, "-c", MAINTENANCE, *arguments),
        kvblock.connect(listen, timeout=60.0) as kv,
    ):
        # The first snapshot makes the maintenance drop what it stands for.
        while kv.health():
            kv.stats()
        with pytest.raises(kvblock.KVBlockError) as caught:
            kv.allocate(1, 2)
        assert caught.value.code is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("durability", ["process", "host"])
def test_a_bug_in_a_write_is_told(durability: str, tmp_path: Path) -> None:
    listen = f"unix:{tmp_path / 'kvblock.sock'}"
    arguments = ["serve", "--pool", "main:total=64,block_size=16", "--listen", listen]
    arguments += ["--state-dir", str(tmp_path / "state"), "--durability", durability]
    with (
        serving(sys.executable, "-c", PROGRAM, *arguments),
        kvblock.connect(listen, timeout=60.0) as kv,
    ):
        assert kv.allocate(1, 2)
        assert kv.health()
        with pytest.raises(kvblock.KVBlockError) as caught:
            kv.allocate(2, 3, engine="broken")
        assert caught.value.code is grpc.StatusCode.INTERNAL
        assert not kv.health()
        with pytest.raises(kvblock.KVBlockError) as caught:
            kv.free(1)
        assert caught.value.code is grpc.StatusCode.INTERNAL
        assert kv.get_block_table(1).block_numbers == [0, 1]
