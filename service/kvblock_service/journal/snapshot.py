"""Pools as bytes: all that a pool does later depends on what stands here, and nothing else.

Rules:
- A snapshot is: magic, version, pieces, and a CRC-32 of all that. Earlier versions stay readable: 1
  has no changes of pools, up to 2 refusals stand in the order of `_REFUSALS_TO_2`, and up to 3 a
  geometry ends with its device, and engines have no acquired blocks and no trimmed tables.
- What stands here stands under its number, never at its place in an enum or in a tuple of the core.
- Numbers of a thing are described by their names, and answers as `layout` says: that is where a
  field is added. More numbers than are known were written by a newer version, and are refused.
- A decoded pool answers every later command as the encoded one would have; so the order of engines,
  tables, batches and remembered results is the same, too.
- Numbers go in bulk: a snapshot of a million blocks is read in a fraction of a second.
- Bounds are the configuration's and not written. What a pool remembers beyond its new bound is
  forgotten, the oldest first.
"""

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, pairwise, repeat
from operator import attrgetter
from typing import Any, NamedTuple
from zlib import crc32

from kvblock_service.core.acquired import Grant, Grants, grant_of
from kvblock_service.core.blocks import Batch
from kvblock_service.core.commands import (
    Answer,
    Attached,
    Command,
    Freed,
    Granted,
    PoolChange,
    RefusalReason,
    Refused,
    Stamp,
    Step,
    Stepped,
)
from kvblock_service.core.engine import Engine, Table, blocks_of
from kvblock_service.core.idempotency import key_of
from kvblock_service.core.pool import Bounds, Geometry, Pool
from kvblock_service.core.registry import PoolEntry
from kvblock_service.journal import codec
from kvblock_service.journal.interface import CodecError
from kvblock_service.journal.layout import Field, Layout, columns, flag, member, numbers
from kvblock_service.journal.pieces import Reader, Writer
from kvblock_service.journal.records import CommandRecord

MAGIC = b"KVBS"
VERSION = 4
_CRC = struct.Struct("<I")
_HEAD = len(MAGIC) + 1
_REFUSALS_TO_2 = (RefusalReason.POOL_EXHAUSTED, RefusalReason.EXCEEDS_POOL)
_NO_STAMP = Stamp(0, 0, "")


class Numbers:
    """Numbers of a thing, each an attribute, maybe of a part of it; those that lack are 0."""

    def __init__(self, names: str) -> None:
        self.names = names.split()
        self.of: Callable[[object], tuple[int, ...]] = attrgetter(*self.names)

    def read(self, values: Sequence[int]) -> Iterator[int]:
        """The numbers in the order of the names; raises CodecError when there are more."""
        if len(values) > len(self.names):
            raise CodecError(
                f"has {len(values)} numbers where this program knows {', '.join(self.names)}; a"
                " newer version has written it"
            )
        return chain(values, repeat(0, len(self.names) - len(values)))

    def put_into(self, thing: object, values: Sequence[int]) -> None:
        """Give a thing its numbers."""
        for name, value in zip(self.names, self.read(values), strict=True):
            *parts, last = name.split(".")
            setattr(attrgetter(".".join(parts))(thing) if parts else thing, last, value)


_GEOMETRY = Numbers("total_blocks block_size device_id reserved_blocks block_bytes regions")
_COUNTERS = Numbers(
    "blocks.free_list.fresh blocks.quarantined blocks.last_batch last_epoch revision"
    " blocks.allocated_total blocks.freed_total blocks.reclaimed_total expired_total"
)
_ENGINE = Numbers("epoch ttl_ms deadline_ms held")
_BATCH = Numbers("due_ms period_ms epoch")


def _refusal(reason: int, free_blocks: int, needed: int) -> Refused | None:
    return Refused(RefusalReason(reason), free_blocks, needed) if reason else None


def _answer(kinds: Sequence[int], answer: Any, *fields: Field) -> Layout:
    shape = f"{answer.__name__}({', '.join(answer._fields)}{',' * (len(answer._fields) == 1)})"
    names = {answer.__name__: answer, "RefusalReason": RefusalReason, "refusal": _refusal}
    return Layout(kinds, "answer", shape, fields, names)


_REFUSED = "*((refused.reason.value, *refused[1:]) if refused else (0, 0, 0))"
# That of a renewal is remembered nowhere.
_ANSWERS = {
    Granted: _answer((1,), Granted, *numbers("table_length"), *columns("blocks")),
    Refused: _answer(
        (2,), Refused, member("reason", "RefusalReason"), *numbers("free_blocks needed")
    ),
    Freed: _answer((3,), Freed, *numbers("num_blocks")),
    Stepped: _answer(
        (4, 6),
        Stepped,
        *numbers("granted free_blocks"),
        Field(("refused",), "QQQ", _REFUSED, ("refusal({0}, {1}, {2})",)),
        *columns("blocks freed_counts"),
        *columns("acquired trimmed_counts", since=2),
    ),
    Attached: _answer(
        (5, 7),
        Attached,
        *numbers("epoch ttl_ms held_blocks sequences last_step_id"),
        flag("resumed"),
        *numbers("acquired_blocks", since=2),
    ),
}
_ANSWER_WRITERS = {one: layout.list_writer() for one, layout in _ANSWERS.items()}
_ANSWER_READERS = {
    layout.code(version)[1]: layout.list_reader(version)
    for layout in _ANSWERS.values()
    for version in range(1, layout.version + 1)
}


class State(NamedTuple):
    """All pools of a server; `last_epoch` is the greatest epoch of any pool, deleted ones too.

    `changes` are those of the pools that are remembered by their request_id, the oldest first.
    """

    server_epoch: int
    last_epoch: int
    pools: list[PoolEntry]
    changes: tuple[PoolChange, ...] = ()


def encode(state: State) -> bytes:
    """All pools as bytes."""
    out = Writer()
    out.numbers([state.server_epoch, state.last_epoch, len(state.pools)])
    for entry in state.pools:
        _put_pool(out, entry)
    out.blobs([codec.encode(change) for change in state.changes])
    body = MAGIC + bytes([VERSION]) + out.finish()
    return body + _CRC.pack(crc32(body))


def decode(data: bytes, bounds: Bounds) -> State:
    """The pools that these bytes are, under these bounds; raises CodecError if they are none."""
    body = memoryview(data)[: -_CRC.size]
    if len(data) < _HEAD + _CRC.size or body[: len(MAGIC)] != MAGIC:
        raise CodecError("is no snapshot")
    if crc32(body) != _CRC.unpack_from(data, len(body))[0]:
        raise CodecError("its checksum is wrong")
    version = body[len(MAGIC)]
    if not 1 <= version <= VERSION:
        raise CodecError(f"has version {version}; this program reads versions 1 to {VERSION}")
    source = Reader(body[_HEAD:])
    try:
        server_epoch, last_epoch, count = source.numbers()
        pools = [_take_pool(source, bounds, version) for _ in range(count)]
        changes = _take_changes(source) if version > 1 else ()
    except (ValueError, IndexError) as error:
        raise CodecError(f"cannot be taken apart: {error}") from error
    source.end()
    return State(server_epoch, last_epoch, pools, changes)


def _take_changes(source: Reader) -> tuple[PoolChange, ...]:
    changes = []
    for blob in source.blobs():
        change = codec.decode(blob)
        if isinstance(change, CommandRecord):
            raise CodecError("a remembered change of the pools is a command of one")
        changes.append(change)
    return tuple(changes)


def _put_pool(out: Writer, entry: PoolEntry) -> None:
    pool, configured, quarantine_ms = entry
    geometry = pool.geometry
    out.texts([geometry.name, geometry.layout, geometry.memory])
    wait = 0 if quarantine_ms is None else quarantine_ms + 1
    out.numbers([*_GEOMETRY.of(geometry), configured, wait])
    out.numbers(_COUNTERS.of(pool))
    out.numbers([reason.value for reason in pool.refused_total])
    out.numbers(pool.refused_total.values())
    out.numbers(pool.blocks.free_list.freed, "I")
    _put_grants(out, pool.blocks.grants)
    out.texts(pool.engines)
    for engine in pool.engines.values():
        _put_engine(out, engine)
        _put_by_number(out, engine, pool.blocks.grants)
    out.numbers([len(pool.blocks.quarantine)])
    for number, batch in pool.blocks.quarantine.items():
        out.numbers([number, *_BATCH.of(batch)])
        out.texts([batch.engine])
        out.numbers(batch.blocks, "I")
    results = pool.cache.results.values()
    _put_known(out, [(command, answer) for command, answer, _ in results])
    out.numbers([int(stale) for _, _, stale in results], "I")


def _take_pool(source: Reader, bounds: Bounds, version: int) -> PoolEntry:
    geometry, configured, wait = _take_geometry(source, version)
    pool = Pool(geometry, bounds)
    counters = source.numbers().tolist()
    count = len(counters) - (0 if version > 2 else len(_REFUSALS_TO_2))
    _COUNTERS.put_into(pool, counters[:count])
    if version > 2:
        reasons = [RefusalReason(value) for value in source.numbers()]
        refused = source.numbers().tolist()
    else:
        reasons, refused = list(_REFUSALS_TO_2), counters[count:]
    # A reason that came later was the reason for no refusal.
    pool.refused_total.update(zip(reasons, refused, strict=True))
    pool.blocks.free_list.freed = source.numbers("I")
    pool.blocks.grants = _take_grants(source)
    for engine_name in source.texts():
        engine = pool.engines[engine_name] = _take_engine(source, engine_name)
        if version > 3:
            _take_by_number(source, pool, engine)
    (batches,) = source.numbers()
    for _ in range(batches):
        number, *values = source.numbers()
        due_ms, period_ms, epoch = _BATCH.read(values)
        (engine_name,) = source.texts()
        pool.blocks.quarantine[number] = Batch(
            source.numbers("I"), due_ms, period_ms, engine_name, epoch
        )
    known = _take_known(source)
    for (command, answer), stale in zip(known, source.numbers("I"), strict=True):
        pool.cache.put(key_of(command), command, answer, stale=bool(stale))
    return PoolEntry(pool, bool(configured), wait - 1 if wait else None)


def _take_geometry(source: Reader, version: int) -> tuple[Geometry, int, int]:
    """A pool's geometry, whether it is configured, and its quarantine as `_put_pool` writes it."""
    if version > 3:
        name, layout, memory = source.texts()
        *sizes, configured, wait = source.numbers()
        named = dict(zip(_GEOMETRY.names, _GEOMETRY.read(sizes), strict=True))
        return Geometry(name, **named, layout=layout, memory=memory), configured, wait
    (name,) = source.texts()
    total_blocks, block_size, device_id, configured, wait = source.numbers()
    return Geometry(name, total_blocks, block_size, device_id), configured, wait


def _put_engine(out: Writer, engine: Engine) -> None:
    out.numbers(_ENGINE.of(engine))
    out.numbers(engine.tables)
    # A length of 0 stands for a table that is its only block's number itself.
    out.numbers([0 if isinstance(t, int) else len(t) for t in engine.tables.values()], "I")
    blocks = array("I")
    for table in engine.tables.values():
        blocks.extend(blocks_of(table))
    out.numbers(blocks, "I")
    _put_known(out, [engine.last_step] if engine.last_step else [])


def _take_engine(source: Reader, name: str) -> Engine:
    engine = Engine(name)
    _ENGINE.put_into(engine, source.numbers())
    sequence_ids = source.numbers()
    lengths = source.numbers("I")
    blocks = source.numbers("I")
    ends = accumulate((length or 1 for length in lengths), initial=0)
    tables: list[Table] = [
        blocks[start:end] if length else blocks[start]
        for length, (start, end) in zip(lengths, pairwise(ends), strict=True)
    ]
    engine.tables = dict(zip(sequence_ids, tables, strict=True))
    for command, answer in _take_known(source):
        if not isinstance(command, Step) or not isinstance(answer, Stepped):
            raise CodecError(f"the last step of engine {name} is none")
        engine.last_step = (command, answer)
    return engine


def _put_by_number(out: Writer, engine: Engine, grants: Grants) -> None:
    out.numbers(engine.acquired.blocks(grants), "I")
    out.numbers(engine.first_indexes)
    out.numbers(engine.first_indexes.values())


def _take_by_number(source: Reader, pool: Pool, engine: Engine) -> None:
    engine.acquired.restore(source.numbers("I"), pool.blocks.grants)
    engine.first_indexes = dict(zip(source.numbers(), source.numbers(), strict=True))


def _put_grants(out: Writer, grants: Grants) -> None:
    """Who holds a block as an index: a command has one grant for all of its blocks."""
    places: dict[Grant, int] = {}
    indexes = array("I", [places.setdefault(grant, len(places)) for grant in map(grant_of, grants)])
    names: dict[str, int] = {}
    traces: dict[str, int] = {}
    out.numbers(indexes, "I")
    out.numbers([names.setdefault(grant.engine, len(names)) for grant in places], "I")
    out.numbers([grant.since_ms for grant in places])
    out.numbers([traces.setdefault(grant.trace_id, len(traces)) for grant in places], "I")
    out.texts(names)
    out.texts(traces)


def _take_grants(source: Reader) -> Grants:
    indexes = source.numbers("I")
    engines = source.numbers("I")
    since = source.numbers()
    trace_of = source.numbers("I")
    names = source.texts()
    traces = source.texts()
    given = map(names.__getitem__, engines), since, map(traces.__getitem__, trace_of)
    distinct = list(map(Grant, *given))
    return list(map(distinct.__getitem__, indexes))


def _put_known(out: Writer, known: Sequence[tuple[Command, Answer]]) -> None:
    out.blobs([codec.encode(CommandRecord("", _NO_STAMP, command)) for command, _ in known])
    answers = [_ANSWER_WRITERS[type(answer)](answer) for _, answer in known]
    out.numbers([len(answer) for answer in answers], "I")
    out.numbers(list(chain.from_iterable(answers)))


def _take_known(source: Reader) -> list[tuple[Command, Answer]]:
    records = [codec.decode(blob) for blob in source.blobs()]
    lengths = source.numbers("I")
    values = source.numbers().tolist()
    known: list[tuple[Command, Answer]] = []
    start = 0
    for record, length in zip(records, lengths, strict=True):
        if not isinstance(record, CommandRecord):
            raise CodecError("a remembered result belongs to no command")
        known.append((record.command, _answer_of(values[start : start + length])))
        start += length
    return known


def _answer_of(values: list[int]) -> Answer:
    reader = _ANSWER_READERS.get(values[0]) if values else None
    if reader is None:
        raise CodecError(f"an answer of kind {values[:1]}, which this program does not know")
    answer: Answer = reader(values)
    return answer
