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

_GRANTED, _REFUSED, _FREED, _STEPPED, _ATTACHED = range(1, 6)
_STEPPED_HEAD = 7


def numbers_of(answer: Answer) -> list[int]:
    """An answer as numbers."""
    if isinstance(answer, Stepped):
        refused = answer.refused
        refusal = (refused.reason.value, *refused[1:]) if refused else (0, 0, 0)
        head = [_STEPPED, answer.granted, answer.free_blocks, *refusal, len(answer.blocks)]
        return head + answer.blocks + answer.freed_counts
    if isinstance(answer, Granted):
        return [_GRANTED, answer.table_length, *answer.blocks]
    if isinstance(answer, Refused):
        return [_REFUSED, answer.reason.value, answer.free_blocks, answer.needed]
    if isinstance(answer, Freed):
        return [_FREED, answer.num_blocks]
    assert isinstance(answer, Attached)
    return [_ATTACHED, *answer]


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
                numbers[_STEPPED_HEAD:start],
                granted,
                _refused(refusal) if refusal[0] else None,
                numbers[start:],
                free_blocks,
            )
        if kind == _GRANTED:
            return Granted(rest[1:], rest[0])
        if kind == _REFUSED:
            return _refused(rest)
        if kind == _FREED:
            return Freed(*rest)
        if kind == _ATTACHED:
            epoch, ttl_ms, held, sequences, last_step_id, resumed = rest
            return Attached(epoch, ttl_ms, held, sequences, last_step_id, bool(resumed))
    except (ValueError, TypeError, IndexError) as error:
        raise CodecError(f"an answer cannot be taken apart: {error}") from error
    raise CodecError(f"an answer of kind {kind}, which this program does not know")


def _refused(numbers: list[int]) -> Refused:
    reason, free_blocks, needed = numbers
    return Refused(RefusalReason(reason), free_blocks, needed)
