"""Sessions of both clients against a real server."""

import asyncio
import gc
import threading
from array import array
from random import Random
from typing import Any

import pytest

import kvblock
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
from kvblock._async.cancelling import within
from tests.conftest import ServerFactory
from tests.integration.client.conftest import Connect
from tests.integration.client.flavours import Flavour

LAST_RESORT = 60.0
"""Seconds after which something that should have happened is given up."""


def held(flavour: Flavour, kv: Any, engine: str) -> int:
    (pool,) = flavour.do(kv.stats(engine=engine)).pools
    blocks: int = pool.engines[0].held_blocks
    return blocks


def threads(name: str) -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == name}


@pytest.fixture
def kv(connect: Connect, shared_server: kvblock.EmbeddedServer, engine: str) -> Any:
    """A client of the shared server with an engine of its own."""
    return connect(shared_server, engine=engine)


def test_a_loop(flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer) -> None:
    kv = connect(server)
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
    assert held(flavour, kv, "e") == 0


def test_65536_sequences_in_a_step(flavour: Flavour, kv: Any) -> None:
    ids = list(range(65_536))
    with flavour.entered(kv.session()) as session:
        first = flavour.do(session.step(allocate=ids)).block_numbers
        assert len(set(first)) == len(ids)
        result = flavour.do(session.step(free=ids, allocate=ids))
        assert result.block_numbers == first[::-1]
        assert result.freed_counts == [1] * 65_536
    assert flavour.do(kv.step(free=ids, allocate=[1])).freed_counts == [0] * 65_536
    flavour.do(kv.free(1))


def test_leaving_by_an_exception_detaches(flavour: Flavour, kv: Any) -> None:
    session = kv.session()
    with pytest.raises(NotFoundError), flavour.entered(session):
        assert flavour.do(session.step(allocate=[1])) == flavour.do(kv.get_block_table(2))
    assert held(flavour, kv, kv.engine) == 0
    assert not session.attached


def test_detach_answers_what_it_freed(flavour: Flavour, kv: Any) -> None:
    with flavour.entered(kv.session()) as session:
        flavour.do(session.step(allocate=[1, 2, 3]))
        assert session.attached
        assert flavour.do(session.detach()) == 3
        assert not session.attached
        with pytest.raises(kvblock.ClosedError, match="has detached"):
            flavour.do(session.step())
        with pytest.raises(kvblock.ClosedError, match="has detached"):
            flavour.do(session.detach())


def test_close_leaves_the_lease_to_who_knows_its_epoch(flavour: Flavour, kv: Any) -> None:
    with flavour.entered(kv.session()) as session:
        flavour.do(session.step(allocate=[1, 2, 3]))
        flavour.do(session.close())
        assert session.engine == kv.engine
        with pytest.raises(kvblock.ClosedError, match="it was closed"):
            flavour.do(session.step())
    assert held(flavour, kv, kv.engine) == 3
    after = kv.session(epoch=session.epoch)
    flavour.do(after.attach())
    assert (after.held_blocks, after.sequences, after.epoch) == (3, 3, session.epoch)
    assert flavour.do(after.step(allocate=[4])).granted == 1
    assert flavour.do(after.detach()) == 4


def test_two_sessions_of_one_engine(flavour: Flavour, kv: Any) -> None:
    with flavour.entered(kv.session()) as first:
        second = kv.session()
        with pytest.raises(FailedPreconditionError) as caught:
            flavour.do(second.attach())
        assert caught.value.reason is ErrorReason.ENGINE_ATTACHED
        assert caught.value.metadata == {"pool": "main", "engine": kv.engine}
        assert flavour.do(first.step(allocate=[1])).granted == 1
        with flavour.entered(kv.session(engine=f"{kv.engine}-other")) as other:
            assert flavour.do(other.step(allocate=[1])).granted == 1


def test_attach_to_no_pool(flavour: Flavour, kv: Any) -> None:
    with pytest.raises(NotFoundError) as caught:
        flavour.do(kv.session(pool="none").attach())
    assert caught.value.reason is ErrorReason.POOL_NOT_FOUND


def test_before_and_after_its_time(flavour: Flavour, kv: Any) -> None:
    session = kv.session()
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
    flavour.do(kv.session().close())


def test_bad_arguments_are_not_sent(flavour: Flavour, kv: Any) -> None:
    with flavour.entered(kv.session()) as session:
        for columns in ({"free": [-1]}, {"allocate": ["1"]}, {"timeout": 0}, {"policy": 2}):
            with pytest.raises(InvalidArgumentError):
                flavour.do(session.step(**columns))
        assert flavour.do(session.step(allocate=[1])).granted == 1


def test_the_server_s_error_ends_it(flavour: Flavour, kv: Any) -> None:
    with flavour.entered(kv.session()) as session:
        flavour.do(session.step(allocate=[1]))
        with pytest.raises(InvalidArgumentError) as caught:
            flavour.do(session.step(allocate=[2, 2]))
        assert caught.value.violations[0].field == "step.allocate_sequence_ids[1]"
        with pytest.raises(kvblock.ClosedError, match=r"2 is a duplicate of entry 0"):
            flavour.do(session.step())
        assert flavour.do(kv.get_block_table(1)).block_numbers
        assert session.lease_valid
    assert held(flavour, kv, kv.engine) == 0


def test_one_call_at_a_time(flavour: Flavour, kv: Any) -> None:
    with flavour.entered(kv.session()) as session:
        with session._busy, pytest.raises(RuntimeError, match="one at a time"):
            flavour.do(session.step())
        assert flavour.do(session.step(allocate=[1])).granted == 1


def test_forgotten_session_is_broken_off(flavour: Flavour, kv: Any) -> None:
    before = set(threading.enumerate())
    session = kv.session()
    flavour.do(session.attach())
    flavour.do(session.step(allocate=[1]))
    (renewal,) = (one for one in threads("kvblock-renewal") if one not in before)
    epoch = session.epoch
    del session
    renewal.join(60.0)
    assert not renewal.is_alive()
    after = kv.session(epoch=epoch)
    flavour.do(after.attach())
    assert after.held_blocks == 1
    assert flavour.do(after.detach()) == 1


def test_threads_leave_nothing_behind(flavour: Flavour, kv: Any) -> None:
    before = set(threading.enumerate())
    with flavour.entered(kv.session()) as session:
        flavour.do(session.step())
        readers = threads("kvblock-answers") - before
        assert len(readers) == (flavour.name == "sync")
        renewals = threads("kvblock-renewal") - before
        assert len(renewals) == 1
    for one in readers | renewals:
        one.join(60.0)
        assert not one.is_alive()


def test_a_session_that_is_resumed_elsewhere_is_over(
    flavour: Flavour, connect: Connect, shared_server: kvblock.EmbeddedServer, engine: str
) -> None:
    first = connect(shared_server, engine=engine).session()
    flavour.do(first.attach())
    flavour.do(first.step(allocate=[1]))
    second = connect(shared_server, engine=engine).session(epoch=first.epoch)
    flavour.do(second.attach())
    granted = flavour.do(second.step(allocate=[2])).block_numbers
    # The same step, with the same id: its answer is the other one's.
    with pytest.raises(kvblock.LeaseLostError, match="goes on in another stream"):
        flavour.do(first.step(allocate=[2]))
    assert not first.lease_valid
    assert second.lease_valid
    assert flavour.do(second.step(free=[2], allocate=[3])).block_numbers == granted
    assert flavour.do(second.detach()) == 2


@pytest.mark.parametrize("ids", [range(10), range(5_000)], ids=["small", "large"])
@pytest.mark.parametrize("caller", ["client", "session"])
def test_no_cancellation_is_lost(
    caller: str, ids: range, server_factory: ServerFactory, seed: int
) -> None:
    random = Random(seed)
    server = server_factory(("main:total=10000",))

    async def scenario() -> None:
        async with kvblock.connect_async(server.address) as kv, kv.session(engine="e") as session:
            step = session.step if caller == "session" else kv.step

            async def steps() -> None:
                while True:
                    await step(free=ids, allocate=ids)

            for _ in range(100):
                task = asyncio.create_task(steps())
                await asyncio.sleep(random.uniform(0.0005, 0.01))
                task.cancel()
                await asyncio.wait([task], timeout=LAST_RESORT)
                assert task.cancelled()
                if session.unanswered:
                    await session.recover()

    asyncio.run(scenario())


def test_a_cancelled_call_that_fails_is_nobodys_unseen_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        failed = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(within(LAST_RESORT, failed))
        await asyncio.sleep(0)
        failed.set_exception(ValueError("seen by nobody"))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        del failed, waiting

    asyncio.run(scenario())
    gc.collect()
    assert caplog.text == ""
