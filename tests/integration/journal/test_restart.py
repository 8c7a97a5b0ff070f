"""A server that is killed and started again: what was answered is there, and goes on."""

from pathlib import Path

import pytest

import kvblock
from tests.integration.journal.kinds import KINDS, InMemory, Kind

POOL = "main:total=64,quarantine=0"


def server(state: Path, *arguments: str) -> kvblock.EmbeddedServer:
    return kvblock.EmbeddedServer([POOL], ["--state-dir", str(state), *arguments])


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    made: Kind = request.param(tmp_path)
    return made


@pytest.mark.parametrize("durability", ["process", "host"])
def test_what_was_answered_is_there_after_a_kill(kind: Kind, durability: str) -> None:
    arguments = ("--durability", durability)
    with kind.serving(*arguments) as address, kvblock.connect(address, engine="a") as kv:
        assert kv.allocate(1, 3)
        kv.step(free=[1], allocate=[2, 3], num_blocks=[2, 1])
        kv.create_pool("side", 8, quarantine=2.5)
        kv.allocate(9, pool="side")
        before = kv.stats()
    with kind.serving(*arguments) as address, kvblock.connect(address, engine="a") as kv:
        after = kv.stats()
        assert after == before
        assert kv.get_block_table(2).block_numbers == [2, 1]
        assert [pool.quarantine for pool in kv.list_pools()] == [0.0, 2.5]
        assert kv.audit()
        # An empty name means what it meant before the pool was made.
        assert kv.allocate(4).block_numbers == [3]  # type: ignore[union-attr]


def test_request_that_is_sent_again_after_a_restart_changes_nothing(kind: Kind) -> None:
    with kind.serving() as address, kvblock.connect(address) as kv:
        granted = kv.allocate(1, 2, request_id="r1")
    with kind.serving() as address, kvblock.connect(address) as kv:
        assert kv.allocate(1, 2, request_id="r1") == granted
        assert kv.stats().pools[0].held_blocks == 2
        with pytest.raises(kvblock.InvalidArgumentError) as caught:
            kv.allocate(1, 3, request_id="r1")
        assert caught.value.reason is kvblock.ErrorReason.ID_REUSED


@pytest.mark.parametrize("records", ["50000", "100"])
def test_pools_are_made_and_deleted_once_also_over_restarts(kind: Kind, records: str) -> None:
    """From the records, or from the snapshot that was made of them."""
    arguments = ("--snapshot-records", records)
    with kind.serving(*arguments) as address, kvblock.connect(address) as kv:
        kv.create_pool("side", 8, quarantine=1.5, request_id="c1")
        kv.create_pool("gone", 8)
        kv.delete_pool("gone", request_id="d1")
        kv.create_pool("gone", 16)
        one = 0
        while records == "100" and not kind.has_snapshot():
            one += 1
            kv.step(free=[one - 1], allocate=[one])
    for _ in range(2):
        with kind.serving(*arguments) as address, kvblock.connect(address) as kv:
            before = kv.list_pools()
            assert [pool.total_blocks for pool in before] == [16, 64, 8]
            kv.create_pool("side", 8, quarantine=1.5, request_id="c1")
            kv.delete_pool("gone", request_id="d1")
            assert kv.list_pools() == before
            with pytest.raises(kvblock.InvalidArgumentError) as caught:
                kv.create_pool("side", 9, request_id="c1")
            assert caught.value.reason is kvblock.ErrorReason.ID_REUSED


@pytest.mark.parametrize("durability", ["process", "host"])
def test_snapshots_are_made_while_the_server_runs(kind: Kind, durability: str) -> None:
    arguments = ("--snapshot-records", "100", "--durability", durability)
    with kind.serving(*arguments) as address, kvblock.connect(address) as kv:
        one = 0
        while not kind.has_snapshot():
            one += 1
            kv.step(free=[one - 1], allocate=[one])
        before = kv.stats()
    with kind.serving(*arguments) as address, kvblock.connect(address) as kv:
        assert kv.stats() == before
        assert kv.get_block_table(one)
        assert kv.audit()


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("durability", ["process", "host"])
def test_a_write_whose_outcome_is_unknown_is_in_the_journal_once(
    tmp_path: Path, durability: str, made: bool
) -> None:
    kind = InMemory(tmp_path)
    arguments = ("--durability", durability)
    with kind.serving(*arguments) as address, kvblock.connect(address, retries=False) as kv:
        kv.allocate(1, 2)
        kind.journal.lose_answer = made
        with pytest.raises(kvblock.UnavailableError) as caught:
            kv.allocate(2, 3, request_id="r2")
        assert caught.value.reason is kvblock.ErrorReason.JOURNAL_UNWRITABLE
        assert caught.value.fate_unknown
        with kvblock.connect(address, timeout=30.0) as patient:
            assert patient.allocate(2, 3, request_id="r2") == kvblock.Granted([2, 3, 4], 16, 0, 3)
            patient.free(1)
    with kind.serving(*arguments) as address, kvblock.connect(address) as kv:
        assert kv.get_block_table(2).block_numbers == [2, 3, 4]
        assert kv.stats().pools[0].held_blocks == 3
        assert kv.audit()


def test_second_server_on_the_same_state_is_refused(tmp_path: Path) -> None:
    with server(tmp_path) as first:
        with pytest.raises(kvblock.ServerStartError) as caught:
            server(tmp_path).start()
        assert str(first.process.pid) in str(caught.value)


def test_changed_pool_is_refused_and_told(tmp_path: Path) -> None:
    with server(tmp_path) as first, kvblock.connect(first.address) as kv:
        kv.allocate(1)
    other = kvblock.EmbeddedServer(["main:total=32"], ["--state-dir", str(tmp_path)])
    with pytest.raises(kvblock.ServerStartError) as caught:
        other.start()
    assert "64" in str(caught.value)
    assert "discard" in str(caught.value)


def test_server_that_keeps_nothing_begins_under_a_greater_epoch(tmp_path: Path) -> None:
    with server(tmp_path, "--ephemeral") as first, kvblock.connect(first.address) as kv:
        kv.allocate(1)
        epoch = kv.stats().server_epoch
    with server(tmp_path, "--ephemeral") as again, kvblock.connect(again.address) as kv:
        assert kv.stats().server_epoch > epoch
        assert kv.stats().pools[0].held_blocks == 0
    assert not list(tmp_path.iterdir())
