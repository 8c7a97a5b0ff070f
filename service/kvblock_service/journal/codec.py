"""Records as bytes: a versioned format of its own, apart from the wire's.

Rules:
- A record is: version, kind, a fixed header, texts, columns, and a CRC-32 of all that. Every number
  is little-endian and unsigned; texts are UTF-8; columns are 64-bit numbers in bulk.
- Lengths stand in the header and have to add up to the record's length exactly.
- `decode(encode(record)) == record`; bytes that were changed or cut raise CodecError, and never
  give another record.
- The meaning of a kind or a field never changes: a change is a new kind, or a new version when it
  is one of all kinds, and what was written before stays readable.
- A change of the pools that has a request_id is of another kind than one without.
"""

import struct
import sys
from array import array
from collections.abc import Callable
from typing import Any
from zlib import crc32

from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Command,
    CreatePool,
    DeletePool,
    Detach,
    EndQuarantine,
    Expire,
    Free,
    Reclaim,
    Renew,
    Stamp,
    Step,
    StepPolicy,
)
from kvblock_service.core.pool import Geometry
from kvblock_service.journal.interface import CodecError
from kvblock_service.journal.records import Applied, Record

VERSION = 1

_STEP, _CREATED, _DELETED = 1, 2, 3
_KINDS: dict[type, int] = {
    Allocate: 4,
    Free: 5,
    Attach: 6,
    Renew: 7,
    Detach: 8,
    Expire: 9,
    Reclaim: 10,
    EndQuarantine: 11,
}
_CREATED_BY_ID, _DELETED_BY_ID = 12, 13
# Version, kind, now_ms, wall_ms, epoch, two numbers of the kind, and the lengths of pool, trace_id,
# engine and request_id.
_COMMAND = struct.Struct("<BBQQQQQ4H")
# The same with step_id, policy, and the lengths of the three columns.
_STEP_HEAD = struct.Struct("<BBQQQQB4H3I")
_CREATED_HEAD = struct.Struct("<BBQQQQQBH")
_DELETED_HEAD = struct.Struct("<BBH")
# The same with the length of request_id.
_CREATED_BY_ID_HEAD = struct.Struct("<BBQQQQQB2H")
_DELETED_BY_ID_HEAD = struct.Struct("<BB2H")
_CRC = struct.Struct("<I")
_BIG_ENDIAN = sys.byteorder == "big"
_RECORD_MIN = _DELETED_HEAD.size + _CRC.size


def encode(record: Record) -> bytes:
    """A record as bytes.

    Raises:
        CodecError: a number or a text of it is too large for the format.

    """
    try:
        if type(record) is Applied:
            pool, stamp, command = record
            if type(command) is Step:
                return encode_step(pool, stamp, command)
            body = _encoded_command(pool, stamp, command)
        elif type(record) is CreatePool:
            body = _encoded_created(record)
        else:
            assert type(record) is DeletePool
            body = _encoded_deleted(record)
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise CodecError(f"does not fit into a record: {error}") from error
    return body + _CRC.pack(crc32(body))


def encode_step(pool: str, stamp: Stamp, command: Step) -> bytes:
    """`encode(Applied(pool, stamp, command))` for the commonest command.

    Raises:
        CodecError: as `encode`.

    """
    engine, epoch, request_id, step_id, free_ids, allocate_ids, num_blocks, policy = command
    now_ms, wall_ms, trace_id = stamp
    text = f"{pool}{trace_id}{engine}{request_id}"
    try:
        encoded = text.encode()
        if len(encoded) == len(text):
            lengths: tuple[int, ...] = (len(pool), len(trace_id), len(engine), len(request_id))
        else:
            lengths = _lengths(pool, trace_id, engine, request_id)
        columns = array("Q", free_ids + allocate_ids + num_blocks)
        if _BIG_ENDIAN:
            columns.byteswap()
        head = _STEP_HEAD.pack(
            VERSION,
            _STEP,
            now_ms,
            wall_ms,
            epoch,
            step_id,
            policy.value,
            *lengths,
            len(free_ids),
            len(allocate_ids),
            len(num_blocks),
        )
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise CodecError(f"does not fit into a record: {error}") from error
    body = b"".join((head, encoded, columns))
    return body + _CRC.pack(crc32(body))


def decode(data: bytes) -> Record:
    """The record that these bytes are.

    Raises:
        CodecError: they are none.

    """
    if len(data) < _RECORD_MIN:
        raise CodecError(f"has {len(data)} bytes; a record has at least {_RECORD_MIN}")
    (checksum,) = _CRC.unpack_from(data, len(data) - _CRC.size)
    body = memoryview(data)[: -_CRC.size]
    if crc32(body) != checksum:
        raise CodecError("its checksum is wrong")
    if body[0] != VERSION:
        raise CodecError(f"has version {body[0]}; this program reads version {VERSION}")
    kind = body[1]
    try:
        if kind == _STEP:
            return _decoded_step(body)
        if kind in (_CREATED, _CREATED_BY_ID):
            return _decoded_created(kind, body)
        if kind in (_DELETED, _DELETED_BY_ID):
            head = _DELETED_HEAD if kind == _DELETED else _DELETED_BY_ID_HEAD
            return DeletePool(*_texts(body, head.size, head.unpack_from(body)[2:]))
        return _decoded_command(kind, body)
    except (struct.error, ValueError) as error:
        raise CodecError(f"cannot be taken apart: {error}") from error


def _lengths(*texts: str) -> tuple[int, ...]:
    return tuple(len(text.encode()) for text in texts)


def _encoded_command(pool: str, stamp: Stamp, command: Command) -> bytes:
    now_ms, wall_ms, trace_id = stamp
    texts = (pool, trace_id, command.engine, command.request_id)
    return (
        _COMMAND.pack(
            VERSION,
            _KINDS[type(command)],
            now_ms,
            wall_ms,
            command.epoch,
            *_numbers(command),
            *_lengths(*texts),
        )
        + "".join(texts).encode()
    )


def _numbers(command: Command) -> tuple[int, int]:
    """What a command says beyond its engine, epoch and request_id."""
    if isinstance(command, Allocate):
        return command.sequence_id, command.num_blocks
    if isinstance(command, Free):
        return command.sequence_id, 0
    if isinstance(command, Attach):
        # One number for two: a TTL is far below 2^63 milliseconds.
        return command.ttl_ms << 1 | command.takeover, command.quarantine_ms
    if isinstance(command, Expire | Reclaim):
        return command.quarantine_ms, 0
    if isinstance(command, EndQuarantine):
        return command.batch, 0
    return 0, 0


_MAKERS: dict[int, Callable[[str, int, str, int, int], Command]] = {
    _KINDS[Allocate]: Allocate,
    _KINDS[Free]: lambda engine, epoch, request_id, a, _: Free(engine, epoch, request_id, a),
    _KINDS[Attach]: lambda engine, epoch, request_id, a, b: Attach(
        engine, epoch, request_id, bool(a & 1), a >> 1, b
    ),
    _KINDS[Renew]: lambda engine, epoch, *_: Renew(engine, epoch),
    _KINDS[Detach]: lambda engine, epoch, request_id, *_: Detach(engine, epoch, request_id),
    _KINDS[Expire]: lambda engine, epoch, request_id, a, _: Expire(engine, epoch, a, request_id),
    _KINDS[Reclaim]: lambda engine, epoch, request_id, a, _: Reclaim(engine, epoch, request_id, a),
    _KINDS[EndQuarantine]: lambda engine, epoch, request_id, a, _: EndQuarantine(
        a, engine, epoch, request_id
    ),
}


def _decoded_command(kind: int, body: memoryview) -> Applied:
    maker = _MAKERS.get(kind)
    if maker is None:
        raise CodecError(f"is of kind {kind}, which this program does not know")
    _, _, now_ms, wall_ms, epoch, first, second, *lengths = _COMMAND.unpack_from(body)
    pool, trace_id, engine, request_id = _texts(body, _COMMAND.size, lengths)
    command = maker(engine, epoch, request_id, first, second)
    return Applied(pool, Stamp(now_ms, wall_ms, trace_id), command)


def _decoded_step(body: memoryview) -> Applied:
    _, _, now_ms, wall_ms, epoch, step_id, policy, *rest = _STEP_HEAD.unpack_from(body)
    frees, allocations, counts = rest[4:]
    columns_size = 8 * (frees + allocations + counts)
    columns_at = len(body) - columns_size
    if columns_at < _STEP_HEAD.size:
        raise CodecError("its columns are longer than itself")
    pool, trace_id, engine, request_id = _texts(body[:columns_at], _STEP_HEAD.size, rest[:4])
    columns = array("Q")
    columns.frombytes(body[columns_at:])
    if _BIG_ENDIAN:
        columns.byteswap()
    numbers = columns.tolist()
    granted_at = frees + allocations
    step = Step(
        engine,
        epoch,
        request_id,
        step_id,
        numbers[:frees],
        numbers[frees:granted_at],
        numbers[granted_at:],
        StepPolicy(policy),
    )
    return Applied(pool, Stamp(now_ms, wall_ms, trace_id), step)


def _encoded_created(record: CreatePool) -> bytes:
    name, total_blocks, block_size, device_id = record.geometry
    texts = _named(name, record.request_id)
    head, kind = (
        (_CREATED_BY_ID_HEAD, _CREATED_BY_ID) if record.request_id else (_CREATED_HEAD, _CREATED)
    )
    packed = head.pack(
        VERSION,
        kind,
        total_blocks,
        block_size,
        device_id,
        record.epoch_floor,
        0 if record.quarantine_ms is None else record.quarantine_ms + 1,
        record.configured,
        *_lengths(*texts),
    )
    return packed + "".join(texts).encode()


def _decoded_created(kind: int, body: memoryview) -> CreatePool:
    head = _CREATED_HEAD if kind == _CREATED else _CREATED_BY_ID_HEAD
    fields = head.unpack_from(body)
    _, _, total_blocks, block_size, device_id, epoch_floor, wait, configured, *lengths = fields
    name, *request_id = _texts(body, head.size, lengths)
    geometry = Geometry(name, total_blocks, block_size, device_id)
    quarantine_ms = wait - 1 if wait else None
    return CreatePool(geometry, epoch_floor, bool(configured), quarantine_ms, *request_id)


def _encoded_deleted(record: DeletePool) -> bytes:
    texts = _named(record.pool, record.request_id)
    head, kind = (
        (_DELETED_BY_ID_HEAD, _DELETED_BY_ID) if record.request_id else (_DELETED_HEAD, _DELETED)
    )
    return head.pack(VERSION, kind, *_lengths(*texts)) + "".join(texts).encode()


def _named(pool: str, request_id: str) -> tuple[str, ...]:
    """The texts of a change of the pools."""
    return (pool, request_id) if request_id else (pool,)


def _texts(body: memoryview, start: int, lengths: Any) -> list[str]:
    """Texts that stand one behind the other, and fill the rest of the body."""
    texts = []
    for length in lengths:
        texts.append(str(body[start : start + length], "utf-8"))
        start += length
    if start != len(body):
        raise CodecError(f"has {len(body)} bytes where its header says {start}")
    return texts
