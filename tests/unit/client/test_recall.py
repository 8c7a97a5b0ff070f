"""What a client remembers of recall: hints as background renewals say them, and levels in order."""

from kvblock.hints import EngineHints
from kvblock.recall import Recall
from kvblock.results import RefusalReason, Refused, StepResult
from kvblock.v1 import kvblock_pb2 as pb


def result(granted: int = 0, refused: int = 0, owed: int = 0, exceeds: bool = False) -> StepResult:
    reason = RefusalReason.EXCEEDS_POOL if exceeds else RefusalReason.POOL_EXHAUSTED
    refusal = Refused(reason, 0, refused, 0.1) if refused else None
    return StepResult(list(range(granted)), granted, refusal, [], 0, [], [], owed)


def test_renewals_say_nothing_before_anything_was_said() -> None:
    recall = Recall()
    assert recall.hints is None
    recall.stepped(None, result(granted=3))
    assert recall.hints is None


def test_what_was_granted_is_not_wanted_any_more() -> None:
    recall = Recall()
    recall.stepped(EngineHints(10, 4), result(granted=3))
    assert recall.hints == EngineHints(7, 4)
    recall.stepped(None, result(granted=5))
    assert recall.hints == EngineHints(2, 4)
    recall.stepped(None, result(granted=5))
    assert recall.hints == EngineHints(0, 4)


def test_what_was_refused_last_is_still_wanted() -> None:
    recall = Recall()
    recall.stepped(EngineHints(0, 4), result(refused=6))
    assert recall.hints == EngineHints(6, 4)
    recall.stepped(None, result())
    assert recall.hints == EngineHints(0, 4)
    recall.stepped(EngineHints(9, 4), result(refused=6))
    assert recall.hints == EngineHints(9, 4)
    recall.stepped(EngineHints(0, 4), result(refused=6, exceeds=True))
    assert recall.hints == EngineHints(0, 4)


def test_hints_of_a_renewal_replace_all() -> None:
    recall = Recall()
    recall.stepped(EngineHints(1, 4), result(refused=6))
    recall.renewed(EngineHints(2, 2), 1)
    assert recall.hints == EngineHints(2, 2)
    recall.renewed(None, 3)
    assert recall.hints == EngineHints(2, 2)
    assert recall.owed_blocks == 3


def test_only_what_comes_unasked_is_notified_and_only_when_it_differs() -> None:
    recall = Recall()
    seen: list[int] = []
    recall.listeners.append(seen.append)
    recall.stepped(None, result(owed=3))
    recall.renewed(None, 4)
    assert seen == []
    recall.renewed_in_background(4)
    recall.renewed_in_background(5)
    assert seen == [5]
    assert recall.owed_blocks == 5


def test_stream_is_the_one_that_counts_while_there_is_one() -> None:
    recall = Recall()
    seen: list[int] = []
    recall.listeners.append(seen.append)
    recall.renewed_in_background(2)
    assert not recall.arrived(pb.SessionResponse(attached=pb.SessionAttached()))
    assert recall.arrived(pb.SessionResponse(recall=pb.SessionRecall(owed_blocks=7)))
    recall.renewed_in_background(2)
    assert recall.owed_blocks == 7
    stepped = pb.SessionResponse(stepped=pb.SessionStepped(owed_blocks=6))
    assert not recall.arrived(stepped)
    # A push may come before the caller has looked at the step's answer: that is older.
    assert recall.arrived(pb.SessionResponse(recall=pb.SessionRecall(owed_blocks=9)))
    recall.stepped(None, result(owed=6))
    assert recall.owed_blocks == 9
    recall.stream_ended()
    recall.renewed_in_background(1)
    assert seen == [2, 0, 7, 9, 1]


def test_callback_that_fails_ends_nothing() -> None:
    recall = Recall()
    recall.listeners.append(lambda owed: [][owed])
    recall.renewed_in_background(4)
    assert recall.owed_blocks == 4
