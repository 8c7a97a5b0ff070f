"""Nothing is told that a server which is killed now would not know of when it is back."""

from pathlib import Path

from tests.integration.journal.slow_disk import slow_disk
from tests.integration.sessions.wire import problem_of

from kvblock.v1 import kvblock_pb2 as pb


def test_a_table_is_told_when_what_made_it_is_written(tmp_path: Path) -> None:
    with slow_disk(tmp_path) as disk:
        kv = disk.wire.kv
        kv.Allocate(pb.AllocateRequest(engine="a", sequence_id=1, num_blocks=2))
        kv.Allocate(pb.AllocateRequest(engine="b", sequence_id=1))
        disk.hold()
        grown = kv.Allocate.future(pb.AllocateRequest(engine="a", sequence_id=1))
        freed = kv.Free.future(pb.FreeRequest(engine="c", sequence_id=7))
        while kv.Stats(pb.StatsRequest()).pools[0].held_blocks < 4:
            pass
        table = kv.GetBlockTable.future(pb.GetBlockTableRequest(engine="a", sequence_id=1))
        other = kv.GetBlockTable.future(pb.GetBlockTableRequest(engine="a", sequence_id=2))
        disk.answers()
        # An engine with nothing unwritten does not wait for the others.
        told = kv.GetBlockTable(pb.GetBlockTableRequest(engine="b", sequence_id=1))
        assert list(told.block_numbers) == [2]
        assert not any(call.done() for call in (grown, freed, table, other))
        disk.let_go()
        assert list(table.result().block_numbers) == [0, 1, 3]
        assert problem_of(other.result).reason == "SEQUENCE_NOT_FOUND"
        assert (grown.result().granted.table_length, freed.result()) == (3, pb.FreeResponse())
