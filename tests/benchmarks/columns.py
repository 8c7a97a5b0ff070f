"""What a column of a step costs in Python: its encodings, and the ways in and out of a message.

Run it with `.venv/bin/python tests/benchmarks/columns.py`. It prints nanoseconds per element, the
best of many rounds, in which the cases take turns. "Write" is a list into a new message and into
bytes, by the message's own `extend` or, "as bytes", by the contract's `packed_field`. The messages
are made here, so that encodings which the contract does not use stand beside those which it does.
"""

import random
import timeit
from collections.abc import Callable
from typing import Any, TypeAlias

from google import protobuf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation
from rich import box
from rich.console import Console
from rich.table import Table

from kvblock.v1.columns import FIXED64, packed_field

LENGTHS = (32, 256, 2048)
ROUNDS = 50
ELEMENTS_A_ROUND = 40_000
SEED = 1

Work: TypeAlias = Callable[[], object]
Field = descriptor_pb2.FieldDescriptorProto


def main() -> None:
    """Print the table."""
    fixed, varint, rows = messages()
    chosen = random.Random(SEED)
    small = chosen.sample(range(1 << 20), max(LENGTHS))
    large = chosen.sample(range(1 << 56, 1 << 63), max(LENGTHS))
    cases: list[tuple[str, Callable[[int], Work]]] = [
        ("parse packed fixed64", lambda n: parse(fixed, large[:n])),
        ("parse packed varint, < 2^20", lambda n: parse(varint, small[:n])),
        ("parse packed varint, >= 2^56", lambda n: parse(varint, large[:n])),
        ("parse one message per id", lambda n: parse_rows(rows, large[:n])),
        ("column to list: slice", lambda n: by_slice(fixed(ids=large[:n]))),
        ("column to list: loop", lambda n: by_loop(fixed(ids=large[:n]))),
        ("messages to list: loop", lambda n: by_row(filled(rows, large[:n]))),
        ("write as bytes, < 2^20", lambda n: merge(fixed, small[:n])),
        ("write as bytes, >= 2^56", lambda n: merge(fixed, large[:n])),
        ("write packed fixed64, < 2^20", lambda n: extend(fixed, small[:n])),
        ("write packed varint, < 2^20", lambda n: extend(varint, small[:n])),
        ("write packed fixed64, >= 2^56", lambda n: extend(fixed, large[:n])),
        ("write packed varint, >= 2^56", lambda n: extend(varint, large[:n])),
        ("write one message per id", lambda n: add_rows(rows, large[:n])),
    ]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("ns per element", no_wrap=True)
    for length in LENGTHS:
        table.add_column(f"{length:,} elements", justify="right", no_wrap=True)
    best = [fastest([make(length) for _, make in cases], length) for length in LENGTHS]
    for (label, _), figures in zip(cases, zip(*best, strict=True), strict=True):
        table.add_row(label, *(f"{figure:.1f}" for figure in figures))
    Console().print(table)
    Console().print(f"protobuf {protobuf.__version__} ({api_implementation.Type()}), seed {SEED}")


def messages() -> tuple[Any, Any, Any]:
    """The classes of a fixed-width column, a varint column, and a message per element."""
    file = descriptor_pb2.FileDescriptorProto(name="columns.proto", syntax="proto3")
    kinds = {"Fixed": Field.TYPE_FIXED64, "Varint": Field.TYPE_UINT64, "Rows": Field.TYPE_MESSAGE}
    for name, kind in kinds.items():
        field = file.message_type.add(name=name).field.add(name="ids", number=1, type=kind)
        field.label = Field.LABEL_REPEATED
        if kind == Field.TYPE_MESSAGE:
            field.type_name = ".Row"
    row = file.message_type.add(name="Row").field.add(name="id", number=1)
    row.type, row.label = Field.TYPE_FIXED64, Field.LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = (message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in kinds)
    fixed, varint, rows = made
    return fixed, varint, rows


def fastest(works: list[Work], length: int) -> list[float]:
    """Each one's best round, in nanoseconds per element; they take turns."""
    number = max(1, ELEMENTS_A_ROUND // length)
    rounds = [[timeit.timeit(work, number=number) for work in works] for _ in range(ROUNDS)]
    return [min(times) / number / length * 1e9 for times in zip(*rounds, strict=True)]


def filled(rows: Any, ids: list[int]) -> Any:
    """A message with one submessage per id."""
    message = rows()
    for sequence_id in ids:
        message.ids.add().id = sequence_id
    return message


def parse(kind: Any, ids: list[int]) -> Work:
    """Bytes into a message."""
    data = kind(ids=ids).SerializeToString()
    return lambda: kind.FromString(data)


def parse_rows(rows: Any, ids: list[int]) -> Work:
    """Bytes into a message of messages."""
    data = filled(rows, ids).SerializeToString()
    return lambda: rows.FromString(data)


def by_slice(message: Any) -> Work:
    """A column into a list, in bulk."""
    return lambda: message.ids[:]


def by_loop(message: Any) -> Work:
    """A column into a list, one element after the other."""
    return lambda: [sequence_id for sequence_id in message.ids]  # noqa: C416 - the loop is measured


def by_row(message: Any) -> Work:
    """The ids of submessages into a list."""
    return lambda: [row.id for row in message.ids]


def extend(kind: Any, ids: list[int]) -> Work:
    """A list into a new message's column and into bytes."""

    def work() -> bytes:
        message = kind()
        message.ids.extend(ids)
        data: bytes = message.SerializeToString()
        return data

    return work


def merge(kind: Any, ids: list[int]) -> Work:
    """A list into a new message's column, as packed bytes, and into bytes."""

    def work() -> bytes:
        message = kind()
        message.MergeFromString(packed_field(1, FIXED64, ids))
        data: bytes = message.SerializeToString()
        return data

    assert kind.FromString(work()).ids == ids
    return work


def add_rows(rows: Any, ids: list[int]) -> Work:
    """A list into a new message's submessages and into bytes."""

    def work() -> bytes:
        data: bytes = filled(rows, ids).SerializeToString()
        return data

    return work


if __name__ == "__main__":
    main()
