"""From arguments to request messages, for both clients.

Rules:
- Where a call is for one pool and engine, None means the client's; where it is a view, all.
- A bad argument raises InvalidArgumentError; nothing has been sent then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, SupportsIndex, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from kvblock import arguments, expect
from kvblock.fencing import identify
from kvblock.hints import EngineHints
from kvblock.lease import AttachOptions
from kvblock.operator_results import BlockState
from kvblock.recall import fill_hints
from kvblock.results import StepPolicy
from kvblock.settings import ClientSettings
from kvblock.step_requests import NOTHING_BY_NUMBER, ByNumber, fill_step
from kvblock.v1 import admin_pb2
from kvblock.v1 import kvblock_pb2 as pb

SequenceRequestT = TypeVar(
    "SequenceRequestT",
    pb.AllocateRequest,
    pb.FreeRequest,
    pb.FreeReturningCountRequest,
    pb.GetBlockTableRequest,
)
AttachT = TypeVar("AttachT", pb.AttachEngineRequest, pb.SessionAttach)
ViewT = TypeVar("ViewT", bound=Message)


class PageRequest(Protocol):
    """Asks for a page: the first one, or the one that an earlier answer's token stands for."""

    page_token: str


class Page(Protocol):
    """Some rows, and the token that asks for those after them; empty: there are none."""

    next_page_token: str


PageRequestT = TypeVar("PageRequestT", bound=PageRequest)
PageT = TypeVar("PageT", bound=Page)


def allocate(
    settings: ClientSettings,
    pool: str | None,
    engine: str | None,
    sequence_id: SupportsIndex,
    num_blocks: SupportsIndex,
    max_wait: float | None,
) -> pb.AllocateRequest:
    """The request of an Allocate."""
    request = of_sequence(pb.AllocateRequest, settings, pool, engine, sequence_id)
    request.num_blocks = _uint32("num_blocks", num_blocks)
    if max_wait is not None:
        fill_duration(request.max_wait, arguments.seconds("max_wait", max_wait))
    return request


def fill_duration(duration: Duration, seconds: float) -> None:
    """Write a number of seconds into an empty message."""
    duration.FromNanoseconds(round(seconds * 1e9))


def of_sequence(
    kind: type[SequenceRequestT],
    settings: ClientSettings,
    pool: str | None,
    engine: str | None,
    sequence_id: SupportsIndex,
) -> SequenceRequestT:
    """A request that names one sequence."""
    return kind(
        pool=settings.pool_of(pool),
        engine=settings.engine_of(engine),
        sequence_id=arguments.whole_number("sequence_id", sequence_id, arguments.UINT64_MAX),
    )


def can_allocate(
    settings: ClientSettings, pool: str | None, engine: str | None, num_blocks: SupportsIndex
) -> pb.CanAllocateRequest:
    """The request of a CanAllocate."""
    return pb.CanAllocateRequest(
        pool=settings.pool_of(pool),
        engine=settings.engine_of(engine),
        num_blocks=_uint32("num_blocks", num_blocks),
    )


def view(kind: type[ViewT], **given: Any) -> ViewT:
    """A request for what the server has: `pool` and `engine` narrow it, `page_size` cuts it."""
    return kind(**{field: _VIEW_CHECKS[field](field, value) for field, value in given.items()})


def list_sequences(
    settings: ClientSettings, pool: str | None, engine: str | None, page_size: SupportsIndex
) -> admin_pb2.ListSequencesRequest:
    """The request for the first page of a ListSequences."""
    kind = admin_pb2.ListSequencesRequest
    return view(kind, pool=settings.pool_of(pool), engine=engine, page_size=page_size)


def create_pool(
    pool: str,
    total_blocks: SupportsIndex,
    block_size: SupportsIndex,
    device_id: SupportsIndex,
    quarantine: float | None,
    reserved_blocks: SupportsIndex,
    block_bytes: SupportsIndex,
    regions: SupportsIndex,
    layout: str,
    memory: str,
    request_id: str | None,
) -> admin_pb2.CreatePoolRequest:
    """The request of a CreatePool."""
    request = admin_pb2.CreatePoolRequest(
        pool=arguments.name("pool", pool),
        total_blocks=_uint32("total_blocks", total_blocks),
        block_size=_uint32("block_size", block_size),
        device_id=_uint32("device_id", device_id),
        reserved_blocks=_uint32("reserved_blocks", reserved_blocks),
        block_bytes=arguments.whole_number("block_bytes", block_bytes, arguments.UINT64_MAX),
        regions=_uint32("regions", regions),
        layout=arguments.name("layout", layout),
        memory=arguments.name("memory", memory),
        request_id=identify(request_id),
    )
    if quarantine is not None:
        fill_duration(request.quarantine, arguments.seconds("quarantine", quarantine))
    return request


def delete_pool(pool: str, request_id: str | None) -> admin_pb2.DeletePoolRequest:
    """The request of a DeletePool."""
    name = arguments.name("pool", pool)
    return admin_pb2.DeletePoolRequest(pool=name, request_id=identify(request_id))


def reclaim_engine(
    settings: ClientSettings,
    pool: str | None,
    engine: str,
    epoch: SupportsIndex,
    request_id: str | None,
    *,
    force: bool,
) -> admin_pb2.ReclaimEngineRequest:
    """The request of a ReclaimEngine."""
    return admin_pb2.ReclaimEngineRequest(
        pool=settings.pool_of(pool),
        engine=arguments.name("engine", engine),
        epoch=arguments.whole_number("epoch", epoch, arguments.UINT64_MAX),
        request_id=identify(request_id),
        force=bool(force),
    )


def list_blocks(
    settings: ClientSettings,
    pool: str | None,
    engine: str | None,
    block_numbers: Iterable[SupportsIndex],
    states: Iterable[BlockState],
    page_size: SupportsIndex,
) -> admin_pb2.ListBlocksRequest:
    """The request for the first page of a ListBlocks."""
    request = admin_pb2.ListBlocksRequest(
        pool=settings.pool_of(pool),
        engine=_named("engine", engine),
        block_numbers=[
            _uint32(f"block_numbers[{row}]", number) for row, number in enumerate(block_numbers)
        ],
        page_size=_uint32("page_size", page_size),
    )
    for state in states:
        if not isinstance(state, BlockState):
            raise arguments.invalid("states", state, "must be a BlockState")
        request.states.append(state.value)  # type: ignore[arg-type]
    return request


def block_tables(
    settings: ClientSettings, pool: str | None, engine: str | None, page_size: SupportsIndex
) -> admin_pb2.ListSequencesRequest:
    """The request for the first page of an engine's block tables.

    An empty engine means what it means in a call, `default`, not all of them.
    """
    request = list_sequences(settings, pool, settings.engine_of(engine) or "default", page_size)
    request.with_block_numbers = True
    return request


def step(
    settings: ClientSettings,
    pool: str | None,
    engine: str | None,
    free: Iterable[SupportsIndex],
    allocate: Iterable[SupportsIndex],
    num_blocks: Iterable[SupportsIndex],
    policy: StepPolicy,
    by_number: ByNumber = NOTHING_BY_NUMBER,
    hints: EngineHints | None = None,
) -> pb.StepRequest:
    """The request of a Step."""
    request = pb.StepRequest(pool=settings.pool_of(pool), engine=settings.engine_of(engine))
    fill_step(request.step, free, allocate, num_blocks, policy, by_number)
    if hints is not None:
        fill_hints(request.hints, hints)
    return request


def attach(
    kind: type[AttachT],
    settings: ClientSettings,
    pool: str | None,
    engine: str | None,
    options: AttachOptions,
    request_id: str,
) -> AttachT:
    """An attach, of a session or of an engine without one."""
    request = kind(
        pool=settings.pool_of(pool),
        engine=settings.engine_of(engine),
        epoch=options.epoch,
        takeover=options.takeover,
        request_id=request_id,
    )
    if options.ttl is not None:
        fill_duration(request.ttl, options.ttl)
    if options.expect is not None:
        expect.fill(request.expect, options.expect)
    return request


def _uint32(field: str, number: SupportsIndex) -> int:
    return arguments.whole_number(field, number, arguments.UINT32_MAX)


def _named(field: str, value: str | None) -> str:
    """A name that narrows a view; without one it is not narrowed."""
    return "" if value is None else arguments.name(field, value)


_VIEW_CHECKS: dict[str, Callable[[str, Any], object]] = {
    "pool": _named,
    "engine": _named,
    "page_size": _uint32,
}
