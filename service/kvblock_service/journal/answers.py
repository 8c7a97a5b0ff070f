"""Answers as numbers, so that a remembered one survives in a snapshot.

Rules:
- An answer is a list of numbers whose first tells its kind; a kind's meaning never changes.
- That of a renewal is remembered nowhere.
"""

from kvblock_service.core.commands import (
    Answer,
    Attached,
    Freed,
    Granted,
    RefusalReason,
    Refused,
    Stepped,
)
from kvblock_service.journal.interface import CodecError

_GRANTED, _REFUSED, _FREED, _STEPPED, _ATTACHED = 1, 2, 3, 4, 5
_STEPPED_HEAD = 7


def numbers_of(answer: Answer) -> list[int]:
    """An answer as numbers."""
    if isinstance(answer, Stepped):
        refused = answer.refused
        refusal = _numbers_of_refusal(refused) if refused else [0, 0, 0]
        head = [_STEPPED, answer.granted, answer.free_blocks, *refusal, len(answer.blocks)]
        return head + answer.blocks + answer.freed_counts
    if isinstance(answer, Granted):
        return [_GRANTED, answer.table_length, *answer.blocks]
    if isinstance(answer, Refused):
        return [_REFUSED, *_numbers_of_refusal(answer)]
    if isinstance(answer, Freed):
        return [_FREED, answer.num_blocks]
    assert isinstance(answer, Attached)
    return [
        _ATTACHED,
        answer.epoch,
        answer.ttl_ms,
        answer.held_blocks,
        answer.sequences,
        answer.last_step_id,
        answer.resumed,
    ]


def answer_of(numbers: list[int]) -> Answer:
    """The answer that these numbers are.

    Raises:
        CodecError: they are none.

    """
    try:
        kind, *rest = numbers
        if kind == _STEPPED:
            granted, free_blocks, *refusal, blocks = rest[: _STEPPED_HEAD - 1]
            start = _STEPPED_HEAD + blocks
            return Stepped(
                blocks=numbers[_STEPPED_HEAD:start],
                granted=granted,
                refused=_refused(refusal) if refusal[0] else None,
                freed_counts=numbers[start:],
                free_blocks=free_blocks,
            )
        if kind == _GRANTED:
            return Granted(blocks=rest[1:], table_length=rest[0])
        if kind == _REFUSED:
            return _refused(rest)
        if kind == _FREED:
            return Freed(*rest)
        if kind == _ATTACHED:
            epoch, ttl_ms, held, sequences, last_step_id, resumed = rest
            return Attached(
                epoch=epoch,
                ttl_ms=ttl_ms,
                held_blocks=held,
                sequences=sequences,
                last_step_id=last_step_id,
                resumed=bool(resumed),
            )
    except (ValueError, TypeError, IndexError) as error:
        raise CodecError(f"an answer cannot be taken apart: {error}") from error
    raise CodecError(f"an answer of kind {kind}, which this program does not know")


def _numbers_of_refusal(refused: Refused) -> list[int]:
    return [refused.reason.value, refused.free_blocks, refused.needed]


def _refused(numbers: list[int]) -> Refused:
    reason, free_blocks, needed = numbers
    return Refused(reason=RefusalReason(reason), free_blocks=free_blocks, needed=needed)
