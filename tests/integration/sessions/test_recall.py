"""Recall over the wire: who lacks blocks, who could give them back, and who learns of it when."""

from collections.abc import Iterator

import grpc
import pytest

import kvblock
from kvblock.v1 import admin_pb2
from kvblock.v1 import kvblock_pb2 as pb
from tests.integration.sessions.wire import PATIENCE, Stream, Wire, stream

BLOCKS = 16


@pytest.fixture
def wire() -> Iterator[Wire]:
    with kvblock.EmbeddedServer([f"main:total={BLOCKS}"]) as server:
        opened = Wire(server.address)
        yield opened
        assert opened.clean()
    assert "Traceback" not in server.stderr


def hints(want: int = 0, idle: int = 0) -> pb.EngineHints:
    return pb.EngineHints(want_blocks=want, idle_blocks=idle)


class Looping:
    """An engine in a session, one sequence of one block for each block that it holds."""

    def __init__(self, session: Stream, engine: str, recall: bool = False) -> None:
        self.session = session
        self.step_id = 0
        self.held: list[int] = []
        self.next = 1
        session.say(attach=pb.SessionAttach(engine=engine, recall=recall))

    def step(
        self, give: int = 0, take: int = 0, says: pb.EngineHints | None = None
    ) -> pb.SessionStepped:
        """One iteration: give blocks back, ask for others."""
        freed, self.held = self.held[:give], self.held[give:]
        wanted = list(range(self.next, self.next + take))
        self.next += take
        self.step_id += 1
        work = pb.EngineStep(free_sequence_ids=freed, allocate_sequence_ids=wanted)
        message = pb.SessionStep(step_id=self.step_id, step=work, hints=says)
        answer = self.take(self.session.say(step=message)).stepped
        self.held += wanted[: answer.result.granted]
        return answer

    def renew(self, says: pb.EngineHints | None = None) -> int:
        renewed = self.take(self.session.say(renew=pb.SessionRenew(hints=says))).renewed
        return renewed.owed_blocks

    def take(self, data: bytes) -> pb.SessionResponse:
        return pb.SessionResponse.FromString(data)

    def pushed(self) -> int:
        """What the server says unasked: the next message has to be that."""
        message = self.take(next(self.session.call))
        assert message.WhichOneof("message") == "recall", message
        return message.recall.owed_blocks


def test_donor_that_steps_pays_in_its_second_iteration(wire: Wire) -> None:
    with stream(wire) as one, stream(wire) as other:
        donor, poor = Looping(one, "donor"), Looping(other, "poor")
        assert donor.step(take=BLOCKS, says=hints(idle=10)).owed_blocks == 0
        assert poor.step(take=4).result.refusal.needed == 4
        owed = donor.step(says=hints(idle=10)).owed_blocks
        assert owed == 4
        assert donor.step(give=owed, says=hints(idle=6)).owed_blocks == 0
        assert poor.step(take=4).result.granted == 4
        assert donor.step(says=hints(idle=6)).owed_blocks == 0


def test_donor_that_only_renews_pays_after_one_push(wire: Wire) -> None:
    with stream(wire) as one, stream(wire) as other:
        donor, poor = Looping(one, "donor", recall=True), Looping(other, "poor")
        donor.step(take=BLOCKS)
        assert donor.renew(hints(idle=10)) == 0
        poor.step(take=12)
        assert donor.pushed() == 10
        donor.step(give=10, says=hints())
        poor.step(take=10)
        assert len(poor.held) == 10


def test_lone_demander_gets_all_idle_blocks(wire: Wire) -> None:
    with stream(wire) as one, stream(wire) as two, stream(wire) as other:
        donors = [Looping(one, "a"), Looping(two, "b")]
        poor = Looping(other, "poor")
        for donor, idle in zip(donors, (6, 3), strict=True):
            donor.step(take=8, says=hints(idle=idle))
        poor.step(says=hints(want=BLOCKS))
        owed = [
            donor.step(says=hints(idle=idle)).owed_blocks
            for donor, idle in zip(donors, (6, 3), strict=True)
        ]
        assert owed == [6, 3]
        for donor, blocks in zip(donors, owed, strict=True):
            assert donor.step(give=blocks, says=hints()).owed_blocks == 0
        assert poor.step(take=9).result.granted == 9


def test_every_change_is_pushed_and_nothing_twice(wire: Wire) -> None:
    with stream(wire) as one, stream(wire) as other:
        donor, poor = Looping(one, "donor", recall=True), Looping(other, "poor")
        donor.step(take=BLOCKS, says=hints(idle=10))
        poor.step(says=hints(want=3))
        assert donor.pushed() == 3
        poor.step(says=hints(want=3))
        poor.step(says=hints(want=5))
        assert donor.pushed() == 5
        # The answer says what the push has said: no push follows it.
        assert donor.step(says=hints(idle=10)).owed_blocks == 5
        poor.step(says=hints())
        assert donor.pushed() == 0
        # Its own hints are answered, not pushed.
        poor.step(says=hints(want=9))
        assert donor.pushed() == 9
        assert donor.renew(hints(idle=2)) == 2
        assert donor.renew(hints()) == 0
        one.send(detach=pb.SessionDetach())
        assert donor.take(next(one.call)).WhichOneof("message") == "detached"


@pytest.mark.parametrize("end", ["detach", "reclaim", "takeover", "withdraw"])
def test_demand_ends_with_its_lease(wire: Wire, end: str) -> None:
    with stream(wire) as one, stream(wire) as other:
        donor, poor = Looping(one, "donor", recall=True), Looping(other, "poor")
        donor.step(take=BLOCKS, says=hints(idle=10))
        poor.step(take=3, says=hints(want=4))
        assert donor.pushed() == 4
        if end == "detach":
            other.say(detach=pb.SessionDetach())
        elif end == "reclaim":
            wire.admin.ReclaimEngine(admin_pb2.ReclaimEngineRequest(engine="poor", force=True))
        elif end == "takeover":
            wire.attach("poor", takeover=True)
        else:
            poor.renew(hints())
        assert donor.pushed() == 0


def test_demand_of_a_silent_engine_ends(wire: Wire) -> None:
    epoch = wire.attach("poor", ttl_ms=1000).lease.epoch
    with stream(wire) as one:
        donor = Looping(one, "donor", recall=True)
        donor.step(take=BLOCKS, says=hints(idle=10))
        request = pb.RenewLeaseRequest(engine="poor", epoch=epoch, hints=hints(want=2))
        assert wire.kv.RenewLease(request).owed_blocks == 0
        assert donor.pushed() == 2
        # Nothing renews it.
        assert donor.pushed() == 0


def test_waiting_allocation_is_demand_until_it_ends(wire: Wire) -> None:
    with stream(wire) as one:
        donor = Looping(one, "donor", recall=True)
        donor.step(take=BLOCKS, says=hints(idle=10))
        request = pb.AllocateRequest(engine="poor", sequence_id=1, num_blocks=5)
        request.max_wait.FromSeconds(30)
        waiting = wire.kv.Allocate.future(request, timeout=PATIENCE)
        assert donor.pushed() == 5
        waiting.cancel()
        assert donor.pushed() == 0
        waiting = wire.kv.Allocate.future(request, timeout=PATIENCE)
        assert donor.pushed() == 5
        donor.step(give=5, says=hints(idle=5))
        assert len(waiting.result().granted.block_numbers) == 5


def test_repeated_step_gets_a_fresh_level_and_may_have_other_hints(wire: Wire) -> None:
    with stream(wire) as one, stream(wire) as other:
        donor, poor = Looping(one, "donor"), Looping(other, "poor")
        work = pb.EngineStep(allocate_sequence_ids=range(1, BLOCKS + 1))
        message = pb.SessionStep(step_id=1, step=work, hints=hints(idle=10))
        first = donor.take(one.say(step=message)).stepped
        poor.step(take=4)
        again = donor.take(one.say(step=message)).stepped
        assert (first.owed_blocks, again.owed_blocks) == (0, 4)
        assert again.result == first.result
        message.hints.idle_blocks = 3
        assert donor.take(one.say(step=message)).stepped.owed_blocks == 3


def test_unary_calls_give_hints_and_learn_what_is_owed(wire: Wire) -> None:
    epoch = wire.attach("donor").lease.epoch
    work = pb.EngineStep(allocate_sequence_ids=range(BLOCKS))
    request = pb.StepRequest(engine="donor", epoch=epoch, step=work, request_id="x")
    request.hints.CopyFrom(hints(idle=99))
    assert wire.kv.Step(request).owed_blocks == 0
    # An engine without a lease.
    poor = pb.StepRequest(engine="poor", hints=hints(want=7))
    assert wire.kv.Step(poor).owed_blocks == 0
    assert wire.kv.Step(request).owed_blocks == 7
    renewal = pb.RenewLeaseRequest(engine="donor", epoch=epoch)
    assert wire.kv.RenewLease(renewal).owed_blocks == 7
    renewal.hints.CopyFrom(hints(idle=2))
    assert wire.kv.RenewLease(renewal).owed_blocks == 2
    pool = wire.pool()
    assert (pool.want_blocks, pool.idle_blocks, pool.owed_blocks) == (7, 2, 2)
    (engine,) = wire.admin.ListEngines(admin_pb2.ListEnginesRequest()).engines
    assert (engine.want_blocks, engine.idle_blocks, engine.owed_blocks) == (0, 2, 2)


def test_call_that_is_rejected_leaves_the_hints_as_they_were(wire: Wire) -> None:
    epoch = wire.attach("donor").lease.epoch
    wire.allocate("donor", epoch, 1, BLOCKS)
    stale = pb.StepRequest(engine="donor", epoch=epoch + 1, hints=hints(idle=9))
    with pytest.raises(grpc.RpcError):
        wire.kv.Step(stale)
    assert wire.pool().idle_blocks == 0


def test_resumed_stream_is_sent_what_is_owed(wire: Wire) -> None:
    with stream(wire) as one, stream(wire) as other, stream(wire) as again:
        donor, poor = Looping(one, "donor"), Looping(other, "poor")
        donor.step(take=BLOCKS, says=hints(idle=10))
        poor.step(says=hints(want=3))
        (epoch,) = (row.epoch for row in wire.pool().engines if row.engine == "donor")
        donor.session = again
        again.say(attach=pb.SessionAttach(engine="donor", epoch=epoch, recall=True))
        assert donor.pushed() == 3
