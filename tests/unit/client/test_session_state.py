"""What a session sends and what answers mean, without a server."""

from time import monotonic
from typing import Any

import grpc
import pytest

import kvblock
from kvblock import StepPolicy
from kvblock.errors import (
    ClosedError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    KVBlockError,
    LeaseLostError,
    UnansweredError,
    UnavailableError,
)
from kvblock.lease import AttachOptions
from kvblock.lifecycle import Event, State
from kvblock.session_state import LEFT, SessionState
from kvblock.settings import ClientSettings
from kvblock.v1 import kvblock_pb2 as pb


def new(**options: Any) -> SessionState:
    settings = ClientSettings.of("unix:/nowhere", "main", "e", 5.0)
    asked = {"epoch": 0, "ttl": None, "takeover": False, "on_lost": None, **options}
    return SessionState(settings, AttachOptions.of(**asked), None, None, None, None)


def attached(last_step_id: int = 6, ttl: int = 60, **options: Any) -> SessionState:
    session = new(**options)
    session._move(Event.ATTACH_SENT)
    answer = pb.SessionResponse()
    answer.attached.pool, answer.attached.engine = "main", "e"
    answer.attached.lease.epoch, answer.attached.lease.ttl.seconds = 9, ttl
    answer.attached.last_step_id = last_step_id
    session._take_attached(answer, monotonic())
    return session


def step(session: SessionState, *ids: int) -> pb.SessionRequest:
    return session._make_step([], ids, [], StepPolicy.ALL_OR_NOTHING)


def stepped(step_id: int) -> pb.SessionResponse:
    answer = pb.SessionResponse()
    answer.stepped.step_id = step_id
    answer.stepped.result.block_numbers.append(3)
    return answer


def test_what_an_attach_asks_for() -> None:
    attach = new(epoch=7, ttl=1.5, takeover=True)._attach.attach
    assert (attach.pool, attach.engine, attach.epoch, attach.takeover) == ("main", "e", 7, True)
    assert (attach.ttl.seconds, attach.ttl.nanos) == (1, 500_000_000)
    assert len(attach.request_id) == 32
    assert not new()._attach.attach.HasField("ttl")
    assert not new()._attach.attach.HasField("expect")


def test_what_is_expected_is_sent_and_sent_again_when_it_resumes() -> None:
    expect = kvblock.Expect(block_bytes=4096, layout="")
    asked = new(expect=expect)._attach.attach.expect
    assert asked == pb.ExpectedGeometry(block_bytes=4096, layout="")
    assert [one.name for one, _ in asked.ListFields()] == ["block_bytes", "layout"]
    assert attached(expect=expect)._make_resume().attach.expect == asked
    assert not attached()._make_resume().attach.HasField("expect")
    assert new(expect=kvblock.Expect())._attach.attach.HasField("expect")


def test_step_ids_go_on_from_the_lease_s_last_step() -> None:
    session = attached(last_step_id=6)
    for step_id in (7, 8, 9):
        assert step(session, 1).step.step_id == step_id
        assert session.unanswered
        assert session._take_stepped(stepped(step_id)).block_numbers == [3]
        assert not session.unanswered


def test_an_answer_to_another_step_is_none() -> None:
    session = attached()
    request = step(session, 1)
    for step_id in (6, 8):
        with pytest.raises(KVBlockError, match="something else than was asked"):
            session._take_stepped(stepped(step_id))
    assert session._step_in_flight() is request
    with pytest.raises(UnansweredError):
        raise session._unusable()


def test_a_step_that_cannot_be_written_is_none() -> None:
    session = attached()
    with pytest.raises(InvalidArgumentError):
        step(session, -1)
    assert not session.unanswered
    assert step(session, 1).step.step_id == 7


@pytest.mark.parametrize("last", [True, False], ids=["before", "after"])
def test_an_interrupt_around_an_answer_leaves_a_step_to_send_again_or_none(
    last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = attached()
    request = step(session, 1)
    move = session._move

    def interrupted(event: Event) -> None:
        if not last:
            move(event)
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "_move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session._take_stepped(stepped(7))
    monkeypatch.undo()
    assert session.unanswered == last
    if last:
        assert session._step_in_flight() is request
        session._take_stepped(stepped(7))
    assert step(session, 2).step.step_id == 8


@pytest.mark.parametrize(
    ("failure", "ends"),
    [
        (InvalidArgumentError("no"), True),
        (KVBlockError("no", code=grpc.StatusCode.INTERNAL), False),
        (DeadlineExceededError("late"), False),
        (UnavailableError("gone"), False),
    ],
)
def test_what_a_failure_of_a_step_means(failure: KVBlockError, ends: bool) -> None:
    session = attached()
    request = step(session, 1)
    session._on_failure(failure, of_step=False)
    assert session.unanswered
    session._on_failure(failure)
    assert session.unanswered != ends
    assert session.lease_valid
    if ends:
        with pytest.raises(ClosedError, match="this session has ended: no"):
            session._step_in_flight()
    else:
        assert session._step_in_flight() is request


def test_a_lost_lease_is_told_apart_from_an_end() -> None:
    session = attached()
    step(session, 1)
    session._on_failure(LeaseLostError("taken over"))
    assert not session.attached
    for _ in range(2):
        with pytest.raises(LeaseLostError, match="taken over"):
            session._step_in_flight()
    with pytest.raises(LeaseLostError, match="taken over"):
        session._make_detach(1.0)


def test_a_detach_is_the_same_each_time_and_renews_nothing() -> None:
    session = attached()
    request, limit = session._make_detach(5.0)
    assert (request.pool, request.engine, request.epoch, limit) == ("main", "e", 9, 5.0)
    assert not session.lease_valid
    assert session._make_detach(70.0) == (request, 70.0)
    with pytest.raises(ClosedError, match="detach again"):
        session._step_in_flight()
    session._close(Event.DETACH_ANSWERED, "it has detached")
    with pytest.raises(ClosedError, match="it has detached"):
        session._make_detach(5.0)


def test_a_detach_takes_no_longer_than_the_lease() -> None:
    _, limit = attached(ttl=2)._make_detach(5.0)
    assert limit is not None
    assert 1 < limit <= 2


@pytest.mark.parametrize("event", [Event.LEFT, Event.CLOSED])
def test_what_ends_meanwhile_stays_ended(event: Event) -> None:
    session = attached()
    step(session, 1)
    session._end(event, LEFT)
    state = session._state
    assert session._take_stepped(stepped(7)).block_numbers == [3]
    session._on_failure(InvalidArgumentError("no"))
    assert session._state is state
    with pytest.raises(ClosedError, match="this session has ended: it was left"):
        session._step_in_flight()


def test_every_step_was_answered() -> None:
    with pytest.raises(FailedPreconditionError, match="every step"):
        attached()._step_in_flight()


def test_before_its_time() -> None:
    session = new()
    for use in (session._step_in_flight, lambda: session._make_detach(1.0)):
        with pytest.raises(ClosedError, match="not attached yet"):
            use()
    session._close(Event.CLOSED, "it was closed")
    assert session._state is State.CLOSED
    with pytest.raises(ClosedError, match="attaches once"):
        session._check_attachable()
