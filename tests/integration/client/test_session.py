"""Sessions of both clients against a real server."""

import threading
from array import array
from typing import Any

import kvblock
import pytest
from kvblock import (
    ErrorReason,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    RefusalReason,
    Refused,
    StepPolicy,
    StepResult,
)

from tests.conftest import ServerFactory
from tests.integration.client.conftest import Connect
from tests.integration.client.flavours import Flavour


def held(flavour: Flavour, kv: Any, engine: str = "e") -> int:
    (pool,) = flavour.do(kv.stats(engine=engine)).pools
    blocks: int = pool.engines[0].held_blocks
    return blocks


def test_a_loop(flavour: Flavour, connect: Connect) -> None:
    kv = connect()
    with flavour.entered(kv.session(engine="e")) as session:
        assert (session.pool, session.engine) == ("main", "e")
        assert (session.total_blocks, session.block_size, session.device_id) == (64, 16, 7)
        assert (session.held_blocks, session.sequences) == (0, 0)
        assert session.server_epoch == flavour.do(kv.stats()).server_epoch
        step = session.step
        assert flavour.do(step()) == StepResult([], 0, None, [], 64)
        assert flavour.do(step(allocate=[1, 2])) == StepResult([0, 1], 2, None, [], 62)
        assert flavour.do(
            step(free=array("Q", [2, 3]), allocate=(1, 4), num_blocks=range(2, 4))
        ) == StepResult([1, 2, 3, 4, 5], 2, None, [1, 0], 58)
        refused = Refused(RefusalReason.POOL_EXHAUSTED, 58, 60, 0.01)
        assert flavour.do(step(allocate=[5, 6], num_blocks=[1, 59])) == StepResult(
            [], 0, refused, [], 58
        )
        refused = Refused(RefusalReason.POOL_EXHAUSTED, 57, 59, 0.01)
        policy = StepPolicy.IN_ORDER_UNTIL_REFUSED
        assert flavour.do(step(allocate=[5, 6], num_blocks=[1, 59], policy=policy)) == StepResult(
            [6], 1, refused, [], 57
        )
    assert held(flavour, kv) == 0


def test_65536_sequences_in_a_step(flavour: Flavour, server_factory: ServerFactory) -> None:
    server = server_factory(("big:total=65536,block_size=16,device=0",))
    everything = list(range(65_536))
    with (
        flavour.entered(flavour.client(server.address, timeout=60.0)) as kv,
        flavour.entered(kv.session()) as session,
    ):
        result = flavour.do(session.step(allocate=everything))
        assert result.block_numbers == everything
        result = flavour.do(session.step(free=everything, allocate=everything))
        assert sorted(result.block_numbers) == everything
        assert result.freed_counts == [1] * 65_536
        assert flavour.do(kv.step(free=everything, engine="nobody")).freed_counts == [0] * 65_536


def test_leaving_by_an_exception_detaches(flavour: Flavour, connect: Connect) -> None:
    kv = connect()
    with pytest.raises(NotFoundError), flavour.entered(kv.session(engine="e")) as session:
        flavour.do(session.step(allocate=[1]))
        flavour.do(kv.get_block_table(1, engine="other"))
    assert held(flavour, kv) == 0
    assert not session.attached


def test_detach_answers_what_it_freed(flavour: Flavour, connect: Connect) -> None:
    kv = connect()
    with flavour.entered(kv.session(engine="e")) as session:
        flavour.do(session.step(allocate=[1, 2, 3]))
        assert session.attached
        assert flavour.do(session.detach()) == 3
        assert not session.attached
        with pytest.raises(kvblock.ClosedError, match="has detached"):
            flavour.do(session.step())
        with pytest.raises(kvblock.ClosedError, match="has detached"):
            flavour.do(session.detach())


def test_close_leaves_the_blocks_to_the_next_session(flavour: Flavour, connect: Connect) -> None:
    kv = connect()
    with flavour.entered(kv.session(engine="e")) as session:
        flavour.do(session.step(allocate=[1, 2, 3]))
        flavour.do(session.close())
        assert session.engine == "e"
        with pytest.raises(kvblock.ClosedError, match="it was closed"):
            flavour.do(session.step())
    assert held(flavour, kv) == 3
    with flavour.entered(kv.session(engine="e")) as session:
        assert (session.held_blocks, session.sequences) == (3, 3)
    assert held(flavour, kv) == 0


def test_two_sessions_of_one_engine(flavour: Flavour, connect: Connect) -> None:
    kv = connect()
    with flavour.entered(kv.session(engine="e")) as first:
        second = kv.session(engine="e")
        with pytest.raises(FailedPreconditionError) as caught:
            flavour.do(second.attach())
        assert caught.value.reason is ErrorReason.ENGINE_ATTACHED
        assert caught.value.metadata == {"pool": "main", "engine": "e"}
        assert flavour.do(first.step(allocate=[1])).granted == 1
        with flavour.entered(kv.session(engine="f")) as other:
            assert flavour.do(other.step(allocate=[1])).granted == 1


def test_attach_to_no_pool(flavour: Flavour, connect: Connect) -> None:
    with pytest.raises(NotFoundError) as caught:
        flavour.do(connect().session(pool="none").attach())
    assert caught.value.reason is ErrorReason.POOL_NOT_FOUND


def test_before_and_after_its_time(flavour: Flavour, connect: Connect) -> None:
    session = connect().session()
    for use in (session.step, session.detach):
        with pytest.raises(kvblock.ClosedError, match="not attached yet"):
            flavour.do(use())
    with pytest.raises(kvblock.ClosedError, match="not attached yet"):
        _ = session.total_blocks
    flavour.do(session.attach())
    with pytest.raises(kvblock.ClosedError, match="attaches once"):
        flavour.do(session.attach())
    assert flavour.do(session.detach()) == 0
    with pytest.raises(kvblock.ClosedError, match="attaches once"):
        flavour.do(session.attach())
    never = connect().session()
    flavour.do(never.close())


def test_bad_arguments_are_not_sent(flavour: Flavour, connect: Connect) -> None:
    with flavour.entered(connect().session()) as session:
        for columns in ({"free": [-1]}, {"allocate": ["1"]}, {"timeout": 0}, {"policy": 2}):
            with pytest.raises(InvalidArgumentError):
                flavour.do(session.step(**columns))
        assert flavour.do(session.step(allocate=[1])).granted == 1


def test_the_server_s_error_ends_it(flavour: Flavour, connect: Connect) -> None:
    kv = connect()
    with flavour.entered(kv.session(engine="e")) as session:
        flavour.do(session.step(allocate=[1]))
        with pytest.raises(InvalidArgumentError) as caught:
            flavour.do(session.step(allocate=[2, 2]))
        assert caught.value.violations[0].field == "step.allocate_sequence_ids[1]"
        with pytest.raises(kvblock.ClosedError, match=r"2 stands at \[0\] already"):
            flavour.do(session.step())
    assert held(flavour, kv) == 1


def test_one_call_at_a_time(flavour: Flavour, connect: Connect) -> None:
    with flavour.entered(connect().session()) as session:
        session._begin()
        with pytest.raises(RuntimeError, match="one at a time"):
            flavour.do(session.step())
        session._busy.release()
        assert flavour.do(session.step()).free_blocks == 64


def test_forgotten_session_is_broken_off(flavour: Flavour, connect: Connect) -> None:
    kv = connect()
    session = kv.session(engine="e")
    flavour.do(session.attach())
    flavour.do(session.step(allocate=[1]))
    del session
    # The server holds an attach back while it waits for the end of the stream before.
    with flavour.entered(kv.session(engine="e")) as after:
        assert after.held_blocks == 1


def test_threads_leave_nothing_behind(connect: Connect, flavour: Flavour) -> None:
    kv = connect()
    with flavour.entered(kv.session(timeout=60.0)) as session:
        flavour.do(session.step())
    dogs = [one for one in threading.enumerate() if one.name == "kvblock-watchdog"]
    for dog in dogs:
        dog.join(60.0)
        assert not dog.is_alive()
