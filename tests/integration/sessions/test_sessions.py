"""Sessions over a real connection: what stays, what goes, and who may attach."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import pytest

import kvblock
from kvblock import Client, ErrorReason
from kvblock.v1 import kvblock_pb2 as pb

SESSION = "/kvblock.v1.KVBlockService/Session"
BLOCKS = 64

# Attaches, takes three blocks, says so, and never ends.
HOLD_FOREVER = """
import sys, threading
import kvblock
kv = kvblock.connect(sys.argv[1], engine=sys.argv[2])
session = kv.session()
session.attach()
session.step(allocate=[1, 2], num_blocks=[2, 1])
print("holding", flush=True)
threading.Event().wait()
"""


class Engine(NamedTuple):
    """A client with an engine name of its own."""

    address: str
    name: str
    kv: Client

    def held(self) -> dict[int, int]:
        """Its sequences and how many blocks each has."""
        rows = self.kv.list_sequences(engine=self.name)
        return {row.sequence_id: row.num_blocks for row in rows}

    def attached(self) -> bool:
        """Whether it has a live session."""
        (row,) = self.kv.stats(engine=self.name).pools[0].engines
        return row.attached

    def epoch(self) -> int:
        """The epoch of its lease, 0 without one."""
        (row,) = self.kv.stats(engine=self.name).pools[0].engines
        return row.epoch

    def messages(self, *messages: pb.SessionRequest) -> Any:
        """A Session call over bytes, which sends these and then closes its side."""
        channel: Any = grpc.insecure_channel(self.address)
        sent = [one.SerializeToString() for one in messages]
        return channel.stream_stream(SESSION)(iter(sent), timeout=60)

    def attach_message(self, epoch: int = 0) -> pb.SessionRequest:
        return pb.SessionRequest(attach=pb.SessionAttach(engine=self.name, epoch=epoch))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with kvblock.EmbeddedServer([f"main:total={BLOCKS},block_size=16,device=3"]) as server:
        yield server.address
        with kvblock.connect(server.address) as kv:
            assert all(kv.audit())
    assert "Traceback" not in server.stderr


@pytest.fixture
def engine(address: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    name = request.node.originalname
    with kvblock.connect(address, engine=name) as kv:
        yield Engine(address, name, kv)
        if epoch := Engine(address, name, kv).epoch():
            with kv.session(epoch=epoch):
                pass
        for sequence_id in Engine(address, name, kv).held():
            kv.free(sequence_id)


def step(step_id: int, *allocate: int) -> pb.SessionRequest:
    work = pb.EngineStep(allocate_sequence_ids=allocate)
    return pb.SessionRequest(step=pb.SessionStep(step_id=step_id, step=work))


def test_attach_steps_detach(engine: Engine) -> None:
    with engine.kv.session() as session:
        assert (session.pool, session.engine) == ("main", engine.name)
        assert (session.total_blocks, session.block_size, session.device_id) == (BLOCKS, 16, 3)
        assert (session.held_blocks, session.sequences) == (0, 0)
        assert session.server_epoch == engine.kv.stats().server_epoch
        assert engine.attached()
        first = session.step(allocate=[1, 2], num_blocks=[2, 1])
        assert (first.granted, first.refusal) == (2, None)
        second = session.step(free=[1], allocate=[2])
        assert second.freed_counts == [2]
        assert second.block_numbers == [first.block_numbers[1]]
        assert engine.held() == {2: 2}
        assert session.detach() == 2
    assert engine.held() == {}
    assert not engine.attached()


def test_detach_frees_what_unary_calls_took(engine: Engine) -> None:
    engine.kv.allocate(1, 3)
    with engine.kv.session() as session:
        assert (session.held_blocks, session.sequences) == (3, 1)
        session.step(allocate=[1])
        engine.kv.allocate(2, 1)
        assert session.detach() == 5
    assert engine.held() == {}


def test_detach_leaves_other_engines_alone(engine: Engine) -> None:
    other = f"{engine.name}-other"
    engine.kv.allocate(1, 2, engine=other)
    with engine.kv.session() as session:
        session.step(allocate=[1])
    assert engine.kv.free_returning_count(1, engine=other) == 2


def break_off(engine: Engine) -> None:
    session = engine.kv.session()
    session.attach()
    session.step(allocate=[1, 2], num_blocks=[2, 1])
    session.close()


def half_close(engine: Engine) -> None:
    work = pb.EngineStep(allocate_sequence_ids=[1, 2], allocate_num_blocks=[2, 1])
    took = pb.SessionRequest(step=pb.SessionStep(step_id=1, step=work))
    call = engine.messages(engine.attach_message(), took)
    assert len(list(call)) == 2
    assert call.code() is grpc.StatusCode.OK


def kill_client(engine: Engine) -> None:
    command = [sys.executable, "-c", HOLD_FOREVER, engine.address, engine.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        process.send_signal(signal.SIGKILL)


def fail(engine: Engine) -> None:
    work = pb.EngineStep(allocate_sequence_ids=[1, 2], allocate_num_blocks=[2, 1])
    took = pb.SessionRequest(step=pb.SessionStep(step_id=1, step=work))
    call = engine.messages(engine.attach_message(), took, engine.attach_message())
    with pytest.raises(grpc.RpcError):
        list(call)


@pytest.mark.parametrize("ending", [break_off, half_close, kill_client, fail])
def test_blocks_outlive_a_stream_that_ends_without_a_detach(
    engine: Engine, ending: Callable[[Engine], None]
) -> None:
    ending(engine)
    assert engine.held() == {1: 2, 2: 1}
    with engine.kv.session(epoch=engine.epoch()) as session:
        assert (session.held_blocks, session.sequences) == (3, 2)
        assert session.step(free=[1]).freed_counts == [2]
        assert session.detach() == 1


def test_steps_go_on_where_the_lease_is(engine: Engine) -> None:
    for first in (1, 3):
        attach = engine.attach_message(engine.epoch())
        answers = list(engine.messages(attach, step(first, 5), step(first + 1, 5)))
        assert len(answers) == 3
        attached = pb.SessionResponse.FromString(answers[0]).attached
        assert attached.last_step_id == first - 1
    assert engine.held() == {5: 4}


def test_second_live_session_of_an_engine_is_refused(engine: Engine) -> None:
    with engine.kv.session() as first:
        second = engine.kv.session()
        with pytest.raises(kvblock.FailedPreconditionError) as caught:
            second.attach()
        assert caught.value.reason is ErrorReason.ENGINE_ATTACHED
        assert caught.value.metadata == {"pool": "main", "engine": engine.name}
        assert first.step(allocate=[1]).granted == 1


def test_unary_calls_of_an_attached_engine_work(engine: Engine) -> None:
    with engine.kv.session() as session:
        session.step(allocate=[1])
        assert engine.kv.free_returning_count(1) == 1
        assert session.step(free=[1]).freed_counts == [0]


def test_step_that_is_sent_again_is_answered_by_the_same_bytes(engine: Engine) -> None:
    messages = [engine.attach_message(), step(1, 1, 2), step(1, 1, 2), step(2, 3), step(2, 3)]
    _, first, again, second, second_again = engine.messages(*messages)
    assert first == again
    assert second == second_again
    assert first != second
    assert engine.held() == {1: 1, 2: 1, 3: 1}


def test_messages_that_are_sent_at_once_are_answered_in_order(engine: Engine) -> None:
    steps = [step(number, number) for number in range(1, 21)]
    answers = list(engine.messages(engine.attach_message(), *steps))
    stepped = [pb.SessionResponse.FromString(one).stepped.step_id for one in answers[1:]]
    assert stepped == list(range(1, 21))
    assert engine.held() == dict.fromkeys(range(1, 21), 1)


def test_stream_ends_with_its_detach(engine: Engine) -> None:
    detach = pb.SessionRequest(detach=pb.SessionDetach())
    call = engine.messages(engine.attach_message(), step(1, 1), detach)
    answers = [pb.SessionResponse.FromString(one) for one in call]
    assert [one.WhichOneof("message") for one in answers] == ["attached", "stepped", "detached"]
    assert answers[-1].detached.freed_blocks == 1
    assert call.code() is grpc.StatusCode.OK


def test_many_sessions_at_once(engine: Engine) -> None:
    sessions = []
    for number in range(16):
        session = engine.kv.session(engine=f"{engine.name}-{number}")
        session.attach()
        sessions.append(session)
    granted = [session.step(allocate=[7], num_blocks=[2]).block_numbers for session in sessions]
    assert len({block for blocks in granted for block in blocks}) == 32
    assert [session.detach() for session in sessions] == [2] * 16
