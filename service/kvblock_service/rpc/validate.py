"""Checks of request fields that hold whatever the pools' state is.

Rules:
- A check returns the value to use, or raises an error that names the field, the value and the
  bound. Nothing has been changed when it raises.
- The bounds that an operator can set are in RequestLimits under their configuration names.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration

from kvblock_service.config.pool_config import (
    BLOCK_BYTES_MAX,
    BLOCK_SIZE,
    BLOCK_SIZE_MAX,
    BLOCKS_MAX,
    QUARANTINE_MAX,
    REGIONS_MAX,
    RESERVED_BLOCKS_MAX,
)
from kvblock_service.config.values import layout_text, memory_text
from kvblock_service.core.commands import NO_MEMORY, SHM
from kvblock_service.core.pool import Geometry
from kvblock_service.errors import InvalidField, RequestLimit

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SEQUENCE_TOKEN = re.compile(rf"([0-9]{{1,20}})@({_NAME.pattern})")
_NAME_RULE = "must be 1 to 128 characters from A-Z a-z 0-9 . _ -"
_AT_LEAST_1 = "must be at least 1"
_UINT64_LIMIT = 1 << 64
_NANOS_LIMIT = 1_000_000_000
_REQUEST_ID_LENGTH = 128


class LeaseTerms(NamedTuple):
    """How long leases last without renewal, in seconds: unless asked for, at least, at most."""

    ttl: float
    ttl_min: float
    ttl_max: float


class RequestLimits(NamedTuple):
    """How much one request may ask for."""

    message_bytes_max: int
    blocks_per_request_max: int
    sequences_per_step_max: int
    max_wait_max: float
    page_size_max: int


# The same few names come with every call. What is no name raises, and is not kept.
@lru_cache(maxsize=1024)
def name(field: str, value: str) -> str:
    """A name that is not empty."""
    if not _NAME.fullmatch(value):
        raise InvalidField(field, value, _NAME_RULE)
    return value


def pool_name(value: str) -> str:
    """The pool that a request names; empty is legal and means the default one."""
    return name("pool", value) if value else value


def new_geometry(asked: Geometry) -> Geometry:
    """What a new pool is to be; a block size or a number of regions of zero means the usual one."""
    total_blocks, block_size = asked.total_blocks, asked.block_size
    reserved_blocks, block_bytes = asked.reserved_blocks, asked.block_bytes
    regions = asked.regions or 1
    if not 1 <= total_blocks <= BLOCKS_MAX:
        raise InvalidField("total_blocks", total_blocks, f"must be from 1 to {BLOCKS_MAX}")
    if block_size > BLOCK_SIZE_MAX:
        raise InvalidField("block_size", block_size, f"must be from 1 to {BLOCK_SIZE_MAX}")
    if reserved_blocks > RESERVED_BLOCKS_MAX:
        problem = f"must be at most {RESERVED_BLOCKS_MAX}"
        raise InvalidField("reserved_blocks", reserved_blocks, problem)
    if reserved_blocks >= total_blocks:
        problem = f"must be below total_blocks = {total_blocks}"
        raise InvalidField("reserved_blocks", reserved_blocks, problem)
    if regions > REGIONS_MAX:
        raise InvalidField("regions", regions, f"must be from 1 to {REGIONS_MAX}")
    if block_bytes > BLOCK_BYTES_MAX:
        raise InvalidField("block_bytes", block_bytes, f"must be at most {BLOCK_BYTES_MAX}")
    if block_bytes % regions:
        raise InvalidField("block_bytes", block_bytes, f"must be a multiple of regions = {regions}")
    name("pool", asked.name)
    layout("layout", asked.layout)
    memory = _memory(asked)
    return asked._replace(block_size=block_size or BLOCK_SIZE, regions=regions, memory=memory)


def layout(field: str, value: str) -> str:
    """How the bytes of a block are arranged."""
    if layout_text.read(value) is None:
        raise InvalidField(field, value, f"must be {layout_text.legal}")
    return value


def _memory(asked: Geometry) -> str:
    """Where the memory of a new pool is to be; empty means nowhere."""
    memory = asked.memory or NO_MEMORY
    if memory_text.read(memory) is None:
        raise InvalidField("memory", memory, f"must be {memory_text.legal}")
    if memory == SHM and not asked.block_bytes:
        raise InvalidField("memory", memory, "needs block_bytes, the bytes of one block")
    return memory


def quarantine_ms(wish: Duration | None) -> int | None:
    """How long a new pool's blocks are to wait in quarantine, in milliseconds; None: as usual."""
    if wish is None:
        return None
    seconds = _seconds("quarantine", wish)
    if seconds > QUARANTINE_MAX:
        raise InvalidField("quarantine", f"{seconds} s", f"must be at most {QUARANTINE_MAX} s")
    return round(seconds * 1000)


def engine_name(value: str) -> str:
    """The engine that a request names; empty means `default`."""
    return name("engine", value) if value else "default"


def num_blocks(value: int | None, limits: RequestLimits) -> int:
    """The blocks that an allocation wants; unset means one."""
    if value == 0:
        raise InvalidField("num_blocks", value, _AT_LEAST_1)
    return asked_blocks(value, limits)


def asked_blocks(value: int | None, limits: RequestLimits) -> int:
    """The blocks that an allocation would want; unset means one.

    More than an allocation may ask for is an error here, too: it is never granted, however many
    blocks become free.
    """
    if value is None:
        return 1
    if value > limits.blocks_per_request_max:
        raise _over("num_blocks", value, "blocks_per_request_max", limits)
    return value


def max_wait(value: Duration, limits: RequestLimits) -> float:
    """The time that an allocation may wait, in seconds."""
    seconds = _seconds("max_wait", value)
    if seconds > limits.max_wait_max:
        raise _over("max_wait", seconds, "max_wait_max", limits)
    return seconds


def request_id(value: str) -> str:
    """The id that makes a request safe to repeat; empty means that it is not."""
    if len(value) > _REQUEST_ID_LENGTH:
        problem = f"must have at most {_REQUEST_ID_LENGTH} characters"
        raise InvalidField("request_id", value, problem)
    return value


def ttl_ms(wish: Duration | None, terms: LeaseTerms) -> int:
    """How long a lease is to last, in milliseconds: the wish within the server's terms."""
    if wish is None:
        return round(terms.ttl * 1000)
    seconds = _seconds("ttl", wish)
    return round(min(max(seconds, terms.ttl_min), terms.ttl_max) * 1000)


def page_size(value: int, limits: RequestLimits) -> int:
    """The rows that one page may have; zero means 100, or fewer where the limit is lower."""
    if value > limits.page_size_max:
        raise _over("page_size", value, "page_size_max", limits)
    return value or min(100, limits.page_size_max)


def page_token(value: str) -> tuple[str, int] | None:
    """The last row (engine, sequence id) of the page before; None for the first page."""
    if not value:
        return None
    found = _SEQUENCE_TOKEN.fullmatch(value)
    if not found or int(found[1]) >= _UINT64_LIMIT:
        raise _not_given(value)
    return found[2], int(found[1])


def engine_token(value: str) -> tuple[str, str] | None:
    """The last row (pool, engine) of the page before; None for the first page."""
    if not value:
        return None
    engine, _, pool = value.partition("@")
    if not (_NAME.fullmatch(engine) and _NAME.fullmatch(pool)):
        raise _not_given(value)
    return pool, engine


def block_token(value: str) -> int:
    """The last block that the page before looked at; -1 for the first page."""
    if value and not re.fullmatch("[0-9]{1,10}", value):
        raise _not_given(value)
    return int(value or -1)


def _not_given(token: str) -> InvalidField:
    return InvalidField("page_token", token, "was not given by this server")


def block_numbers(values: Sequence[int], total_blocks: int, limits: RequestLimits) -> list[int]:
    """The blocks that a listing is narrowed to, in ascending order, each once."""
    if len(values) > limits.page_size_max:
        raise _over("block_numbers", len(values), "page_size_max", limits)
    for row, number in enumerate(values):
        if number >= total_blocks:
            problem = f"must be below the pool's {total_blocks} blocks"
            raise InvalidField(f"block_numbers[{row}]", number, problem)
    return sorted(set(values))


def step_columns(
    free_ids: Sequence[int],
    allocate_ids: Sequence[int],
    counts: Sequence[int],
    limits: RequestLimits,
    acquire: int = 0,
) -> None:
    """Check that the columns of a step fit together and stay within the limits."""
    _sequence_ids("step.free_sequence_ids", free_ids, limits)
    _sequence_ids("step.allocate_sequence_ids", allocate_ids, limits)
    wanted = len(allocate_ids)
    if counts:
        if len(counts) != wanted:
            problem = f"must be as many as allocate_sequence_ids has ({wanted}), or none"
            raise InvalidField("step.allocate_num_blocks", f"{len(counts)} entries", problem)
        if not all(counts):
            row = list(counts).index(0)
            raise InvalidField(f"step.allocate_num_blocks[{row}]", 0, _AT_LEAST_1)
        wanted = sum(counts)
    if wanted > limits.blocks_per_request_max:
        raise _over("step.allocate_num_blocks", wanted, "blocks_per_request_max", limits)
    if acquire and wanted + acquire > limits.blocks_per_request_max:
        field = "step.acquire_num_blocks"
        raise _over(field, wanted + acquire, "blocks_per_request_max", limits)


def released_blocks(numbers: Sequence[int], total_blocks: int, limits: RequestLimits) -> None:
    """Check that block numbers of a step are of the pool, and each one there once."""
    field = "step.release_block_numbers"
    if len(numbers) > limits.blocks_per_request_max:
        raise _over(field, len(numbers), "blocks_per_request_max", limits)
    if len(numbers) == 1 and numbers[0] < total_blocks:
        return
    if max(numbers) >= total_blocks:
        row = next(row for row, number in enumerate(numbers) if number >= total_blocks)
        problem = f"must be below the pool's {total_blocks} blocks"
        raise InvalidField(f"{field}[{row}]", numbers[row], problem)
    if len(set(numbers)) != len(numbers):
        raise _duplicate(field, numbers)


def trims(
    sequence_ids: Sequence[int],
    heads: Sequence[int],
    tails: Sequence[int],
    limits: RequestLimits,
) -> None:
    """Check that the columns of a step's trims fit together and stay within the limits."""
    _sequence_ids("step.trim_sequence_ids", sequence_ids, limits)
    for field, counts in (("trim_head_blocks", heads), ("trim_tail_blocks", tails)):
        if counts and len(counts) != len(sequence_ids):
            problem = f"must be as many as trim_sequence_ids has ({len(sequence_ids)}), or none"
            raise InvalidField(f"step.{field}", f"{len(counts)} entries", problem)


def _over(field: str, value: float, limit: str, limits: RequestLimits) -> RequestLimit:
    return RequestLimit(field, value, limit, getattr(limits, limit))


def _seconds(field: str, value: Duration) -> float:
    if abs(value.nanos) >= _NANOS_LIMIT or value.seconds * value.nanos < 0:
        shown = f"{value.seconds} s and {value.nanos} ns"
        raise InvalidField(field, shown, "must be less than 1 s of nanos, signed as seconds")
    seconds = value.seconds + value.nanos / _NANOS_LIMIT
    if seconds < 0:
        raise InvalidField(field, f"{seconds} s", "must not be negative")
    return seconds


def _sequence_ids(field: str, ids: Sequence[int], limits: RequestLimits) -> None:
    if len(ids) > limits.sequences_per_step_max:
        raise _over(field, len(ids), "sequences_per_step_max", limits)
    if len(set(ids)) != len(ids):
        raise _duplicate(field, ids)


def _duplicate(field: str, numbers: Sequence[int]) -> InvalidField:
    """The first of some numbers that is there twice."""
    seen: dict[int, int] = {}
    for row, number in enumerate(numbers):
        if number in seen:
            problem = f"is a duplicate of entry {seen[number]}"
            return InvalidField(f"{field}[{row}]", number, problem)
        seen[number] = row
    raise AssertionError("no number is there twice")
