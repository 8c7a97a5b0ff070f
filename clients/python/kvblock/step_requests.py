"""The work of a step, from arguments into its message, for both clients.

Rules:
- The columns of a step are written as packed bytes in one go; nothing is done per element in
  Python. Only when that fails are the elements looked at one by one, to name the wrong one.
- A bad argument raises InvalidArgumentError; nothing has been sent then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any, SupportsIndex, TypeAlias

from kvblock import arguments
from kvblock.results import StepPolicy
from kvblock.v1 import kvblock_pb2 as pb
from kvblock.v1.columns import FIXED32, FIXED64, packed_field

_NONE: tuple[()] = ()
ByNumber: TypeAlias = tuple[
    Iterable[SupportsIndex],
    SupportsIndex,
    Iterable[SupportsIndex],
    Iterable[SupportsIndex],
    Iterable[SupportsIndex],
]
"""What a step releases, acquires, and trims: sequences, and blocks at their heads and tails."""
NOTHING_BY_NUMBER: ByNumber = (_NONE, 0, _NONE, _NONE, _NONE)


def fill_step(
    step: pb.EngineStep,
    free: Iterable[SupportsIndex],
    allocate: Iterable[SupportsIndex],
    num_blocks: Iterable[SupportsIndex],
    policy: StepPolicy,
    by_number: ByNumber = NOTHING_BY_NUMBER,
) -> None:
    """Write the work of one iteration into an empty message."""
    free = _column("free", free)
    allocate = _column("allocate", allocate)
    num_blocks = _column("num_blocks", num_blocks)
    if not isinstance(policy, StepPolicy):
        raise arguments.invalid("policy", policy, "must be a StepPolicy")
    step.policy = policy.value  # type: ignore[assignment]
    try:
        columns = (
            packed_field(pb.EngineStep.FREE_SEQUENCE_IDS_FIELD_NUMBER, FIXED64, free),
            packed_field(pb.EngineStep.ALLOCATE_SEQUENCE_IDS_FIELD_NUMBER, FIXED64, allocate),
            packed_field(pb.EngineStep.ALLOCATE_NUM_BLOCKS_FIELD_NUMBER, FIXED32, num_blocks),
        )
        step.MergeFromString(b"".join(columns))
    except (TypeError, ValueError, OverflowError):
        _check_column("free", free, arguments.UINT64_MAX)
        _check_column("allocate", allocate, arguments.UINT64_MAX)
        _check_column("num_blocks", num_blocks, arguments.UINT32_MAX)
        raise
    release, acquire, trim, trim_head, trim_tail = by_number
    if not (release is trim is trim_head is trim_tail is _NONE):
        _fill_by_number(step, release, trim, trim_head, trim_tail)
    if acquire.__class__ is not int or acquire:
        step.acquire_num_blocks = arguments.whole_number("acquire", acquire, arguments.UINT32_MAX)


def _fill_by_number(
    step: pb.EngineStep,
    release: Iterable[SupportsIndex],
    trim: Iterable[SupportsIndex],
    trim_head: Iterable[SupportsIndex],
    trim_tail: Iterable[SupportsIndex],
) -> None:
    release, trim = _column("release", release), _column("trim", trim)
    trim_head, trim_tail = _column("trim_head", trim_head), _column("trim_tail", trim_tail)
    try:
        columns = (
            packed_field(pb.EngineStep.RELEASE_BLOCK_NUMBERS_FIELD_NUMBER, FIXED32, release),
            packed_field(pb.EngineStep.TRIM_SEQUENCE_IDS_FIELD_NUMBER, FIXED64, trim),
            packed_field(pb.EngineStep.TRIM_HEAD_BLOCKS_FIELD_NUMBER, FIXED32, trim_head),
            packed_field(pb.EngineStep.TRIM_TAIL_BLOCKS_FIELD_NUMBER, FIXED32, trim_tail),
        )
        step.MergeFromString(b"".join(columns))
    except (TypeError, ValueError, OverflowError):
        _check_column("release", release, arguments.UINT32_MAX)
        _check_column("trim", trim, arguments.UINT64_MAX)
        _check_column("trim_head", trim_head, arguments.UINT32_MAX)
        _check_column("trim_tail", trim_tail, arguments.UINT32_MAX)
        raise


def _column(field: str, values: Iterable[SupportsIndex]) -> Any:
    """Something of a known length that can be read twice; arrays become lists of plain numbers."""
    if type(values) is list or type(values) is tuple:
        return values
    to_list = getattr(values, "tolist", None)
    if to_list is not None:
        values = to_list()
    if isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Iterable):
        raise arguments.invalid(field, values, "must be a sequence of whole numbers")
    return values if isinstance(values, Sized) else list(values)


def _check_column(field: str, numbers: Any, maximum: int) -> None:
    for row, number in enumerate(numbers):
        arguments.whole_number(f"{field}[{row}]", number, maximum)
