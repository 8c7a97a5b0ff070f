"""Records as bytes: a versioned format of its own, apart from the wire's.

Rules:
- A record is: version, kind, fixed numbers, lengths, texts, columns, and a CRC-32 of all that.
  Numbers are little-endian and unsigned; texts are UTF-8; columns are 64-bit numbers in bulk.
- Lengths stand in the header and have to add up to the record's length exactly.
- `decode(encode(record)) == record`; bytes that were changed or cut raise CodecError, and never
  give another record.
- The meaning of a kind or a field never changes. A field that is added comes with a version, which
  is its kind's own; what was written before stays readable.
- A new kind of record is one entry of the tables, a new field one line of an entry, see `layout`.
"""

import struct
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from kvblock_service.core import commands
from kvblock_service.journal.interface import CodecError
from kvblock_service.journal.layout import (
    Field,
    Layout,
    columns,
    flag,
    member,
    numbers,
    optional,
    texts,
    unused,
)
from kvblock_service.journal.records import CommandRecord, Record

_CRC = struct.Struct("<I")
_RECORD_MIN = 8
_TOO_LARGE = (struct.error, OverflowError, UnicodeEncodeError)
_NAMES = {
    one.__name__: one
    for one in (
        CommandRecord,
        commands.Stamp,
        commands.StepPolicy,
        commands.Geometry,
        commands.CreatePool,
        commands.DeletePool,
    )
}
# A TTL is far below 2^63 milliseconds.
_TTL_AND_TAKEOVER = Field(
    ("ttl_ms", "takeover"), "Q", "ttl_ms << 1 | takeover", ("{0} >> 1", "bool({0} & 1)")
)
_CREATED = "CreatePool(Geometry(pool, total_blocks, block_size, device_id), epoch_floor,"


def _change(kinds: tuple[int, ...], shape: str, *fields: Field) -> Layout:
    return Layout(kinds, "record", shape, fields, _NAMES)


def _command(kind: int, command: Any, *fields: Field, later: Sequence[str] = ()) -> Layout:
    """That of a record of a command: what all of them have, and the command's own."""
    made = f"{command.__name__}({', '.join(command._fields)})"
    shape = f"CommandRecord(pool, Stamp(now_ms, wall_ms, trace_id), {made})"
    common = numbers("now_ms wall_ms epoch")
    everything = (*common, *fields, *texts("pool trace_id engine request_id"))
    names = {**_NAMES, command.__name__: command}
    return Layout((kind,), "pool, stamp, command", shape, everything, names, later)


_STEP_FIELDS = (
    *numbers("step_id"),
    member("policy", "StepPolicy"),
    *columns("free_ids allocate_ids num_blocks"),
    *numbers("acquire", since=2),
    *columns("release trim_ids trim_heads trim_tails", since=2),
)
# Kind 7 was that of renewals, which are not written.
_LAYOUTS: dict[type, Layout] = {
    commands.Step: _command(
        1, commands.Step, *_STEP_FIELDS, later=("release", "acquire", "trim_ids")
    ),
    commands.Allocate: _command(4, commands.Allocate, *numbers("sequence_id num_blocks")),
    commands.Free: _command(5, commands.Free, *numbers("sequence_id"), unused()),
    commands.Attach: _command(6, commands.Attach, _TTL_AND_TAKEOVER, *numbers("quarantine_ms")),
    commands.Detach: _command(8, commands.Detach, unused(2)),
    commands.Expire: _command(9, commands.Expire, *numbers("quarantine_ms"), unused()),
    commands.Reclaim: _command(10, commands.Reclaim, *numbers("quarantine_ms"), unused()),
    commands.EndQuarantine: _command(11, commands.EndQuarantine, *numbers("batch"), unused()),
    commands.CreatePool: _change(
        (2, 12),
        f"{_CREATED} configured, quarantine_ms, request_id)",
        *numbers("total_blocks block_size device_id epoch_floor"),
        optional("quarantine_ms"),
        flag("configured"),
        *texts("pool"),
        *texts("request_id", since=2),
    ),
    commands.DeletePool: _change(
        (3, 13),
        "DeletePool(pool, request_id)",
        *texts("pool"),
        *texts("request_id", since=2),
    ),
}
_WRITERS = {one: layout.record_writer() for one, layout in _LAYOUTS.items()}
_SHOWERS = {one: layout.shower() for one, layout in _LAYOUTS.items()}
_READERS = {
    bytes(layout.code(version)): layout.record_reader(version)
    for layout in _LAYOUTS.values()
    for version in range(1, layout.version + 1)
}


def encode(record: Record) -> bytes:
    """A record as bytes; raises CodecError if a number or text is too large for the format."""
    if type(record) is CommandRecord:
        return encode_command(*record)
    try:
        body: bytes = _WRITERS[type(record)](record)
    except _TOO_LARGE as error:
        raise CodecError(f"does not fit into a record: {error}") from error
    return body + _CRC.pack(crc32(body))


def encode_command(pool: str, stamp: commands.Stamp, command: commands.Command) -> bytes:
    """`encode(CommandRecord(pool, stamp, command))`, without one."""
    try:
        body: bytes = _WRITERS[type(command)](pool, stamp, command)
    except _TOO_LARGE as error:
        raise CodecError(f"does not fit into a record: {error}") from error
    return body + _CRC.pack(crc32(body))


def decode(data: bytes) -> Record:
    """The record that these bytes are; raises CodecError if they are none."""
    if len(data) < _RECORD_MIN:
        raise CodecError(f"has {len(data)} bytes; a record has at least {_RECORD_MIN}")
    body = memoryview(data)[: -_CRC.size]
    (checksum,) = _CRC.unpack_from(data, len(body))
    if crc32(body) != checksum:
        raise CodecError("its checksum is wrong")
    reader = _READERS.get(data[:2])
    if reader is None:
        version, kind = data[:2]
        known = [code[0] for code in _READERS if code[1] == kind]
        if not known:
            raise CodecError(f"is of kind {kind}, which this program does not know")
        raise CodecError(f"has version {version}; this program reads version {max(known)}")
    try:
        record: Record = reader(body)
    except (struct.error, ValueError) as error:
        raise CodecError(f"cannot be taken apart: {error}") from error
    return record


def shown(record: Record) -> dict[str, Any]:
    """A record as JSON has it: its kind, and every field by its name."""
    parts = record if type(record) is CommandRecord else (record,)
    kind = type(parts[-1])
    return {"kind": kind.__name__, **_SHOWERS[kind](*parts)}
