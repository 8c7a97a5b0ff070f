"""Blocks by number, by both clients against a real server."""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import kvblock
from kvblock import (
    BlockState,
    ErrorReason,
    FailedPreconditionError,
    InvalidArgumentError,
    RefusalReason,
    Refused,
    StepPolicy,
    StepResult,
)
from tests.conftest import ServerFactory
from tests.integration.client.conftest import Connect
from tests.integration.client.flavours import Flavour

IN_ORDER = StepPolicy.IN_ORDER_UNTIL_REFUSED


def test_a_session(flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer) -> None:
    kv = connect(server)
    with flavour.entered(kv.session(engine="e")) as session:
        assert session.acquired_blocks == 0
        step = session.step
        assert flavour.do(step(acquire=4)) == StepResult([], 0, None, [], 60, [0, 1, 2, 3])
        grown = flavour.do(step(release=[1, 3], allocate=[7], num_blocks=[4], acquire=1))
        assert grown == StepResult([3, 1, 4, 5], 1, None, [], 57, [6])
        trimmed = flavour.do(
            step(trim=array("Q", [7, 8]), trim_head=(1, 1), trim_tail=iter([2, 0]))
        )
        assert trimmed == StepResult([], 0, None, [], 60, [], [3, 0])
        table = flavour.do(kv.get_block_table(7, engine="e"))
        assert (table.block_numbers, table.first_index) == ([1], 1)
        (pool,) = flavour.do(kv.stats()).pools
        assert (pool.held_blocks, pool.acquired_blocks, pool.sequences) == (4, 3, 1)
        assert [(one.held_blocks, one.acquired_blocks) for one in pool.engines] == [(4, 3)]
        (engine,) = flavour.do(kv.list_engines())
        assert (engine.held_blocks, engine.acquired_blocks) == (4, 3)
        (sequence,) = flavour.do(kv.list_sequences())
        assert (sequence.num_blocks, sequence.first_index) == (1, 1)
        (report,) = flavour.do(kv.audit())
        assert (report.clean, report.held_blocks, report.acquired_blocks) == (True, 4, 3)
        blocks = flavour.do(kv.list_blocks(engine="e"))
        found = [(one.block_number, one.state, one.sequence_id) for one in blocks]
        assert found == [
            (0, BlockState.HELD, None),
            (1, BlockState.HELD, 7),
            (2, BlockState.HELD, None),
            (6, BlockState.HELD, None),
        ]
        epoch = session.epoch
        flavour.do(session.close())
    with flavour.entered(kv.session(engine="e", epoch=epoch)) as session:
        assert (session.held_blocks, session.acquired_blocks) == (4, 3)
    assert flavour.do(kv.stats()).pools[0].free_blocks == 64


def test_unary_steps(flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer) -> None:
    kv = connect(server, engine="e")
    acquired = flavour.do(kv.step(acquire=62, request_id="r1"))
    assert acquired.acquired_block_numbers == list(range(62))
    assert flavour.do(kv.step(acquire=62, request_id="r1")) == acquired
    refused = Refused(RefusalReason.POOL_EXHAUSTED, 2, 3, 0.01)
    assert flavour.do(kv.step(acquire=3)) == StepResult([], 0, refused, [], 2)
    assert flavour.do(kv.step(acquire=3, policy=IN_ORDER)) == StepResult(
        [], 0, refused, [], 0, [62, 63]
    )
    with pytest.raises(FailedPreconditionError) as caught:
        flavour.do(kv.step(release=[5], engine="f"))
    assert caught.value.reason is ErrorReason.BLOCK_NOT_HELD
    assert caught.value.metadata == {
        "pool": "main",
        "engine": "f",
        "block_number": "5",
        "place": "is acquired by engine 'e'",
    }
    assert flavour.do(kv.step(release=range(64))).free_blocks == 64


def test_a_lease_without_a_stream(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer
) -> None:
    kv = connect(server, engine="e")
    flavour.do(kv.step(acquire=2))
    with flavour.entered(flavour.do(kv.attach_engine())) as lease:
        assert (lease.held_blocks, lease.acquired_blocks) == (2, 2)
        assert flavour.do(kv.step(release=[0])).free_blocks == 63
    assert flavour.do(kv.stats()).pools[0].free_blocks == 64


def test_bad_release_ends_the_session_and_leaves_the_lease(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer
) -> None:
    kv = connect(server)
    with flavour.entered(kv.session(engine="e")) as session:
        flavour.do(session.step(acquire=2))
        with pytest.raises(FailedPreconditionError) as caught:
            flavour.do(session.step(release=[0, 9], acquire=5))
        assert caught.value.reason is ErrorReason.BLOCK_NOT_HELD
        (engine,) = flavour.do(kv.list_engines())
        assert engine.acquired_blocks == 2
    assert flavour.do(kv.stats()).pools[0].free_blocks == 64


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"release": [1, -1]}, "release[1]"),
        ({"release": "12"}, "release"),
        ({"acquire": -1}, "acquire"),
        ({"acquire": 2**32}, "acquire"),
        ({"acquire": None}, "acquire"),
        ({"trim": [2**64]}, "trim[0]"),
        ({"trim": [1], "trim_head": [1.5]}, "trim_head[0]"),
        ({"trim": [1], "trim_tail": [2**32]}, "trim_tail[0]"),
    ],
)
def test_wrong_arguments_send_nothing(
    flavour: Flavour,
    connect: Connect,
    shared_server: kvblock.EmbeddedServer,
    engine: str,
    columns: dict[str, Any],
    field: str,
) -> None:
    kv = connect(shared_server, engine=engine)
    with flavour.entered(kv.session()) as session:
        with pytest.raises(InvalidArgumentError) as caught:
            flavour.do(session.step(**columns))
        assert [one.field for one in caught.value.violations] == [field]
        assert flavour.do(session.step()).acquired_block_numbers == []


@pytest.mark.parametrize("same", [[1], (1,), range(1, 2)])
def test_one_column_for_heads_and_tails(
    flavour: Flavour,
    connect: Connect,
    shared_server: kvblock.EmbeddedServer,
    engine: str,
    same: Iterable[int],
) -> None:
    kv = connect(shared_server, engine=engine)
    with flavour.entered(kv.session()) as session:
        flavour.do(session.step(allocate=[1], num_blocks=[5]))
        result = flavour.do(session.step(trim=[1], trim_head=same, trim_tail=same))
        assert result.trimmed_counts == [2]
        with pytest.raises(InvalidArgumentError):
            flavour.do(session.step(trim_head=same, trim_tail=same))


def test_blocks_by_number_outlive_the_server(
    flavour: Flavour, connect: Connect, server_factory: ServerFactory, tmp_path: Path
) -> None:
    arguments = ["--state-dir", str(tmp_path / "state")]
    server = server_factory(extra_args=arguments)
    kv = connect(server, engine="e")
    flavour.do(kv.step(acquire=6, allocate=[1], num_blocks=[4]))
    flavour.do(kv.step(release=[5], trim=[1], trim_head=[2]))
    shown = [flavour.do(kv.list_blocks(engine="e")), flavour.do(kv.list_sequences())]
    server.stop()
    kv = connect(server_factory(extra_args=arguments), engine="e")
    assert [flavour.do(kv.list_blocks(engine="e")), flavour.do(kv.list_sequences())] == shown
    assert flavour.do(kv.step(acquire=4)).acquired_block_numbers == [1, 0, 5, 10]
