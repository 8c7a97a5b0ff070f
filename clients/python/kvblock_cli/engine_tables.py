"""The other side of an audit: the blocks that engines have, against those of the server.

Rules:
- A file is one object, or a list of them:
  `{"pool": "main", "engine": "a", "epoch": 3, "tables": {"10": [0, 1]}, "acquired": [7, 4]}`.
  A `pool` or `engine` that is left out means what it means in a call; an `epoch` is not compared
  when it is left out, and neither are acquired blocks.
- Acquired blocks have no order.
- The server's side is read again when the pool changed meanwhile, ATTEMPTS times; then what was
  found says that it may be of several moments.
- Everything that differs is found, each block once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kvblock_cli.failures import REFUSED, USAGE, CommandError

if TYPE_CHECKING:
    from kvblock import BlockInfo, Client, PoolStats

ATTEMPTS = 5
STDIN = Path("-")
_UINT32_MAX, _UINT64_MAX = 2**32 - 1, 2**64 - 1
_PAGE, _LOOKED_UP = 10_000, 1_000

_T = TypeVar("_T")

_Place = int | None
"""Where one side has a block: in the table of this sequence; None: among the acquired blocks."""


class Kind(Enum):
    """In what way the two sides differ."""

    EPOCH = "the engine's lease is another one"
    NOT_HELD = "the engine has a block which is not its own"
    LEAKED = "a block of the engine's, by the server, is not in what it has"
    MISPLACED = "a block is in another sequence, or in one on one side and acquired on the other"
    TWICE = "the engine has a block twice in its own tables and acquired blocks"
    ORDER = "a table has the same blocks in another order"


@dataclass(frozen=True)
class EngineTables:
    """What one engine has in its tables, and acquired; None there: not to be compared."""

    pool: str
    engine: str
    epoch: int | None
    tables: dict[int, list[int]]
    acquired: list[int] | None


@dataclass(frozen=True)
class Difference:
    """One thing on which the two sides differ; `text` is a sentence about it.

    `sequence_id` is the engine's, of a leaked block the server's; None for acquired blocks.
    """

    kind: Kind
    sequence_id: int | None
    block_number: int | None
    text: str


@dataclass(frozen=True)
class Comparison:
    """What came of comparing one engine.

    `epoch`, `sequences`, `blocks` (in tables) and `acquired_blocks` (in none) are the server's;
    `at_one_moment`: whether all that was compared is of that revision.
    """

    pool: str
    engine: str
    epoch: int
    sequences: int
    blocks: int
    acquired_blocks: int
    revision: int
    at_one_moment: bool
    differences: list[Difference]


def read(path: Path) -> list[EngineTables]:
    """What a file says; `-` is stdin.

    Raises:
        CommandError: it cannot be read, or is none; the text says where.

    """
    try:
        text = sys.stdin.read() if path == STDIN else path.read_text(encoding="utf-8")
        found = json.loads(text)
    except RecursionError:
        raise CommandError(USAGE, f"--from {path}: its brackets are nested too deep") from None
    except OSError as error:
        raise CommandError(USAGE, f"--from {path}: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(USAGE, f"--from {path}: no valid JSON: {error}") from error
    rows = found if isinstance(found, list) else [found]
    return [_engine_tables(f"--from {path}: [{number}]", row) for number, row in enumerate(rows)]


def compare(kv: Client, given: EngineTables) -> Comparison:
    """Compare what one engine has with what the server has for it."""
    pool = given.pool or default_pool(kv)
    if not pool:
        raise CommandError(
            USAGE, f"engine {given.engine} names no pool, and the server has no default one"
        )
    for _ in range(ATTEMPTS):
        comparison = _compare_once(kv, given, pool)
        if comparison.at_one_moment:
            break
    return comparison


def default_pool(kv: Client) -> str:
    """The pool that requests mean which name none; empty: there is no such pool."""
    return next((one.pool for one in kv.list_pools() if one.is_default), "")


def _compare_once(kv: Client, given: EngineTables, pool: str) -> Comparison:
    before = _stats(kv, pool, given.engine)
    tables = _within_limit(
        lambda size: kv.block_tables(pool=pool, engine=given.engine, page_size=size), _PAGE
    )
    served: dict[int, _Place] = {}
    if given.acquired is not None:
        served = dict.fromkeys(_acquired(kv, pool, given.engine))
    in_tables = {block: id_ for id_, table in tables.tables.items() for block in table}
    served |= in_tables
    had: dict[int, _Place] = {}
    differences = list(_twice(given, had))
    differences += _elsewhere(had, served)
    differences += _reordered(given.tables, tables.tables)
    not_held = {block: place for block, place in had.items() if block not in served}
    differences += _not_held(kv, pool, not_held, before.total_blocks)
    after = _stats(kv, pool, given.engine)
    epoch = after.engines[0].epoch
    if given.epoch not in (None, epoch):
        has = f"epoch {epoch}" if epoch else "no lease of it"
        text = f"the engine has epoch {given.epoch}, the server has {has}"
        differences.insert(0, Difference(Kind.EPOCH, None, None, text))
    still = tables.at_one_moment and before.engines[0].epoch == epoch
    # Who else holds a block, and what is acquired, was asked later than what is in tables.
    asked_later = bool(not_held) or given.acquired is not None
    return Comparison(
        pool=pool,
        engine=given.engine,
        epoch=epoch,
        sequences=len(tables.tables),
        blocks=len(in_tables),
        acquired_blocks=after.engines[0].acquired_blocks,
        revision=tables.revision,
        at_one_moment=still and (not asked_later or after.revision == tables.revision),
        differences=differences,
    )


def _stats(kv: Client, pool: str, engine: str) -> PoolStats:
    """One engine in one pool."""
    pools = kv.stats(pool=pool, engine=engine).pools
    if len(pools) != 1 or len(pools[0].engines) != 1:
        raise CommandError(REFUSED, f"the server answered otherwise than for engine {engine!r}")
    return pools[0]


def _acquired(kv: Client, pool: str, engine: str) -> list[int]:
    """The blocks that the engine has acquired, by the server."""
    from kvblock import BlockState

    def held(size: int) -> list[BlockInfo]:
        rows = kv.list_blocks(pool=pool, engine=engine, states=[BlockState.HELD], page_size=size)
        return list(rows)

    return [row.block_number for row in _within_limit(held, _PAGE) if row.sequence_id is None]


def _twice(given: EngineTables, had: dict[int, _Place]) -> Iterator[Difference]:
    """The blocks that the engine has twice; fills `had` with where it has each one first."""
    rows = [(id_, block) for id_, table in given.tables.items() for block in table]
    for place, block in chain(rows, ((None, block) for block in given.acquired or ())):
        if block not in had:
            had[block] = place
            continue
        where = f"{_named(had[block])} and {_named(place)}"
        if had[block] == place:
            where = f"{_named(place)} twice"
        text = f"block {block} is in the engine's {where}"
        yield Difference(Kind.TWICE, place, block, text)


def _elsewhere(had: dict[int, _Place], served: dict[int, _Place]) -> Iterator[Difference]:
    """The blocks that the server has in another place than the engine, or the server alone."""
    for block, place in had.items():
        if served.get(block, place) != place:
            text = f"block {block} is in the engine's {_named(place)}, but in the server's"
            yield Difference(Kind.MISPLACED, place, block, f"{text} {_named(served[block])}")
    for block, place in served.items():
        if block not in had:
            text = f"block {block} is in the server's {_named(place)}; the engine does not have it"
            yield Difference(Kind.LEAKED, place, block, text)


def _reordered(tables: dict[int, list[int]], served: dict[int, list[int]]) -> Iterator[Difference]:
    """The tables that have the same blocks on both sides, in another order."""
    for sequence_id, table in tables.items():
        answered = served.get(sequence_id, [])
        if table != answered and sorted(table) == sorted(answered):
            at = next(row for row, block in enumerate(table) if block != answered[row])
            text = f"sequence {sequence_id}: at [{at}] the engine has block {table[at]}, the server"
            yield Difference(Kind.ORDER, sequence_id, None, f"{text} {answered[at]}")


def _named(place: _Place) -> str:
    return "acquired blocks" if place is None else f"sequence {place}"


def _not_held(
    kv: Client, pool: str, not_held: dict[int, _Place], total_blocks: int
) -> Iterator[Difference]:
    """Who has the blocks that the engine has and that are not its own."""
    known = sorted(block for block in not_held if block < total_blocks)
    owners: dict[int, BlockInfo] = {}

    def look_up(size: int) -> list[BlockInfo]:
        return list(kv.list_blocks(pool=pool, block_numbers=known[:size], page_size=size))

    while known:
        rows = _within_limit(look_up, _LOOKED_UP)
        owners |= {row.block_number: row for row in rows}
        known = known[len(rows) :]
    for block in sorted(not_held):
        where = f"block {block} is in the engine's {_named(not_held[block])}, but"
        row = owners.get(block)
        told = owner_text(row) if row else f"the pool has only {total_blocks} blocks"
        yield Difference(Kind.NOT_HELD, not_held[block], block, f"{where} {told}")


def owner_text(row: BlockInfo) -> str:
    """Who has a block, as the end of a sentence about it."""
    from kvblock import BlockState

    if row.state is BlockState.HELD:
        if row.sequence_id is None:
            return f"acquired by engine {row.engine}, in no sequence"
        return f"held by engine {row.engine}, sequence {row.sequence_id}"
    if row.state is BlockState.QUARANTINED:
        return f"in quarantine for {row.quarantine_ends_in or 0:.1f} s more; {row.engine} lost it"
    if row.state is BlockState.RESERVED:
        return "reserved, and never issued"
    if row.state is BlockState.FREE:
        return f"free; {row.engine} had it last"
    return "free; nobody ever had it"


def _within_limit(call: Callable[[int], _T], size: int) -> _T:
    """The answer of a call with this page size, or with the server's limit if that is smaller."""
    from kvblock import ErrorReason, InvalidArgumentError

    try:
        return call(size)
    except InvalidArgumentError as error:
        limited = error.reason is ErrorReason.REQUEST_LIMIT
        if not limited or error.metadata.get("limit") != "page_size_max":
            raise
        return call(int(error.metadata["max"]))


def _engine_tables(where: str, row: Any) -> EngineTables:
    _must(isinstance(row, dict), where, "must be an object")
    unknown = sorted(row.keys() - {"pool", "engine", "epoch", "tables", "acquired"})
    _must(not unknown, where, f"has the unknown key {next(iter(unknown), None)!r}")
    tables = row.get("tables")
    _must(isinstance(tables, dict), f"{where}.tables", "must be an object")
    pool, engine = row.get("pool", ""), row.get("engine", "") or "default"
    texts = isinstance(pool, str) and isinstance(engine, str)
    _must(texts, where, "pool and engine must be texts")
    epoch = row.get("epoch")
    # As a text, too: that is how --json has it.
    if isinstance(epoch, str) and _is_id(epoch):
        epoch = int(epoch)
    legal = epoch is None or _is_whole(epoch, _UINT64_MAX)
    _must(legal, f"{where}.epoch", f"{epoch!r} must be from 0 to {_UINT64_MAX}")
    acquired = row.get("acquired")
    if acquired is not None:
        _block_numbers(f"{where}.acquired", acquired)
    return EngineTables(pool, engine, epoch, dict(_tables(where, tables)), acquired)


def _tables(where: str, tables: dict[str, Any]) -> Iterator[tuple[int, list[int]]]:
    for key, table in tables.items():
        there = f"{where}.tables[{key!r}]"
        _must(_is_id(key), there, "the key must be a sequence id")
        _block_numbers(there, table)
        if table:
            yield int(key), table


def _block_numbers(where: str, blocks: Any) -> None:
    _must(isinstance(blocks, list), where, "must be a list of block numbers")
    for row, block in enumerate(blocks):
        legal = _is_whole(block, _UINT32_MAX)
        _must(legal, f"{where}[{row}]", f"{block!r} must be from 0 to {_UINT32_MAX}")


def _must(legal: bool, where: str, problem: str) -> None:
    if not legal:
        raise CommandError(USAGE, f"{where}: {problem}")


def _is_id(text: str) -> bool:
    plain = text.isascii() and text.isdigit() and len(text) <= 20
    return plain and int(text) <= _UINT64_MAX


def _is_whole(value: object, maximum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum
