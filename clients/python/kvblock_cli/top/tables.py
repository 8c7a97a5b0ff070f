"""The frame of `kvblock top`: a header, the pools and the engines, as they fit into a terminal.

Rules:
- The size is asked for when the frame is drawn: a terminal that was resized gets a frame that fits.
- A number is never cut. Where the columns do not fit, whole ones are left out, the least important
  first; what is left when that is not enough is cut by the terminal's edge.
- Rows that do not fit are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from kvblock_cli.output import counted, number, printable
from kvblock_cli.tables import share, table
from kvblock_cli.top.looks import EngineRow, Overview, PoolRow

LEVELS, ASCII_LEVELS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
_TREND = "LAST MINUTE"
_TREND_MAX = 30
_NAME_MIN = 24
"""To how many characters a name may be cut before a column is left out."""
_LATE = 0.75
"""The part of its TTL after which a lease that was not renewed is marked."""


class Order(NamedTuple):
    """A way to sort, before names; each function gives a number, the least comes first."""

    name: str
    pools: Callable[[PoolRow], float]
    engines: Callable[[EngineRow], float]


ORDERS = {
    "h": Order("held", lambda row: -row.held_blocks, lambda row: -row.held_blocks),
    "n": Order("name", lambda _: 0, lambda _: 0),
    "r": Order(
        "rate",
        lambda row: -(row.allocated_per_second or 0.0),
        lambda row: -abs(row.held_change_per_second or 0.0),
    ),
    "b": Order("heartbeat", lambda _: 0, lambda row: -(row.since_heartbeat or 0.0)),
}
"""By the key that chooses it: most held first, names, fastest first, oldest heartbeat first."""


class Column(NamedTuple):
    """A column: `keep` is how important it is, `words` whether it may be cut."""

    head: str
    keep: int
    cells: Sequence[str | Text]
    words: bool = False

    def width(self, name_max: int | None = None) -> int:
        """Its width; of words at most `name_max`."""
        cells = (cell if isinstance(cell, str) else cell.plain for cell in self.cells)
        found = max((cell_len(printable(cell)) for cell in cells), default=0)
        if self.words and name_max is not None:
            found = min(found, name_max)
        return max(found, len(self.head))


def fitting(columns: list[Column], width: int) -> list[Column]:
    """The columns that fit into a line of so many characters; two stay in any case."""
    chosen = list(columns)
    while len(chosen) > 2 and sum(one.width(_NAME_MIN) + 1 for one in chosen) - 1 > width:
        chosen.remove(min(chosen, key=lambda one: one.keep))
    return chosen


def sparkline(trend: Sequence[float | None], *, ascii_only: bool = False) -> str:
    """Shares from 0 to 1 as a line of characters that grow; None is blank."""
    levels = ASCII_LEVELS if ascii_only else LEVELS
    top = len(levels) - 1
    return "".join(
        " " if use is None else levels[min(top, max(0, round(use * top)))] for use in trend
    )


def rate(value: float | None) -> str:
    """A rate for people."""
    if value is None:
        return "-"
    return f"{value:.1f}" if 0 < abs(value) < 10 else f"{value:,.0f}"


@dataclass(frozen=True)
class Frame:
    """All that is shown; on a screen it takes the whole of it."""

    overview: Overview
    address: str
    interval: float
    order: str = "h"
    on_screen: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        pools, engines = self._rows(options.size.height if self.on_screen else None)
        if self.on_screen:
            yield from self._header(options.max_width)
        keys = [(row.pool,) for row in pools]
        yield self._fitted(options, _pool_columns(pools), keys, 1)
        yield _more(len(self.overview.pools) - len(pools), "pools")
        if engines:
            names = [(row.pool, row.engine) for row in engines]
            yield self._fitted(options, _engine_columns(engines), names, 2)
            yield _more(len(self.overview.engines) - len(engines), "engines")
        elif not self.overview.engines:
            yield Text("no engines")

    def _rows(self, height: int | None) -> tuple[list[PoolRow], list[EngineRow]]:
        """The rows that are shown, in order."""
        order = ORDERS[self.order]
        pools = sorted(self.overview.pools, key=lambda row: (order.pools(row), row.pool))
        engines = sorted(
            self.overview.engines, key=lambda row: (order.engines(row), row.pool, row.engine)
        )
        if height is None:
            return pools, engines
        # Three lines are the header's; each table has a head and a line behind it.
        left = max(2, height - 3 - 4)
        for_pools = max(1, min(len(pools), left - min(len(engines), left // 2)))
        return pools[:for_pools], engines[: left - for_pools]

    def _header(self, width: int) -> RenderResult:
        seen = self.overview
        version = printable(seen.look.stats.server_version)
        counts = f"{counted(len(seen.pools), 'pool')}, {counted(len(seen.engines), 'engine')}"
        facts = f"  {counts}, every {self.interval:g} s  {datetime.now():%H:%M:%S}"
        title = Text(f"kvblock {version} at {printable(self.address)}", "bold")
        title.truncate(max(20, width - len(facts)), overflow="ellipsis")
        yield _line(title.append(facts, "not bold"))
        if seen.problem:
            text = f"no answer for {seen.silent_for:,.0f} s: {printable(seen.problem)}"
            yield _line(Text(text, "bold red"))
        else:
            keys = Text("q quit, sort by")
            for key, order in ORDERS.items():
                style = "reverse" if key == self.order else ""
                keys.append("  ").append(f"{key} {order.name}", style)
            yield _line(keys)
        yield Text()

    def _fitted(
        self,
        options: ConsoleOptions,
        columns: list[Column],
        keys: Sequence[tuple[str, ...]],
        left: int,
    ) -> RenderableType:
        """A table whose last minute takes what the other columns leave; `keys` are its rows'."""
        if not self.on_screen:
            # Two looks make no minute.
            columns = [one for one in columns if one.head != _TREND]
        columns = fitting(columns, options.max_width)
        spare = options.max_width - sum(one.width() + 2 for one in columns)
        cells = max(len(_TREND), min(_TREND_MAX, len(_TREND) + spare))
        trends = []
        for key in keys:
            trend = sparkline(self.overview.trend(cells, *key), ascii_only=options.ascii_only)
            trends.append(Text(trend, "cyan", no_wrap=True))
        made = table(*(one.head for one in columns), left=left)
        shown = (trends if one.head == _TREND else one.cells for one in columns)
        for row in zip(*shown, strict=True):
            made.add_row(*row, style="dim" if self.overview.problem else None)
        return made


def _pool_columns(rows: list[PoolRow]) -> list[Column]:
    return [
        Column("POOL", 15, [row.pool for row in rows], words=True),
        Column("TOTAL", 8, [number(row.total_blocks) for row in rows]),
        Column("FREE", 13, [number(row.free_blocks) for row in rows]),
        Column("HELD", 14, [number(row.held_blocks) for row in rows]),
        *_acquired_columns(rows),
        Column("QUAR", 5, [number(row.quarantined_blocks) for row in rows]),
        *_reserved_columns(rows),
        Column("USE", 12, [share(row.held_blocks, row.issuable_blocks) for row in rows]),
        Column(_TREND, 4, []),
        Column("ALLOC/S", 11, [rate(row.allocated_per_second) for row in rows]),
        Column("FREED/S", 3, [rate(row.freed_per_second) for row in rows]),
        Column("REFUSED/S", 10, [_bad(row.refused_per_second) for row in rows]),
        Column("CHANGES/S", 1, [rate(row.changes_per_second) for row in rows]),
        Column("WAITING", 2, [number(row.waiting) for row in rows]),
        *_recall_columns(rows),
    ]


def _engine_columns(rows: list[EngineRow]) -> list[Column]:
    return [
        Column("POOL", 10, [row.pool for row in rows], words=True),
        Column("ENGINE", 14, [row.engine for row in rows], words=True),
        Column("HELD", 13, [number(row.held_blocks) for row in rows]),
        *_acquired_columns(rows),
        Column("SHARE", 3, [f"{100 * row.share:.1f} %" for row in rows]),
        Column(_TREND, 2, []),
        Column("HELD +/S", 4, [rate(row.held_change_per_second) for row in rows]),
        Column("SEQS", 1, [number(row.sequences) for row in rows]),
        Column("HEARTBEAT", 11, [_seconds(row.since_heartbeat) for row in rows]),
        Column("LEASE", 12, [_lease(row) for row in rows]),
        Column("EPOCH", 0, [str(row.epoch) if row.epoch else "-" for row in rows]),
        *_recall_columns(rows),
    ]


def _acquired_columns(rows: Sequence[PoolRow | EngineRow]) -> list[Column]:
    """What is held outside any table, where there is any of it."""
    if not any(row.acquired_blocks for row in rows):
        return []
    return [Column("ACQ", 7, [number(row.acquired_blocks) for row in rows])]


def _reserved_columns(rows: Sequence[PoolRow]) -> list[Column]:
    """What is never issued, where there is any of it."""
    if not any(row.reserved_blocks for row in rows):
        return []
    return [Column("RESV", 6, [number(row.reserved_blocks) for row in rows])]


def _recall_columns(rows: Sequence[PoolRow | EngineRow]) -> list[Column]:
    """What is lacked, idle and owed, where there is any of it."""
    if not any(row.want_blocks or row.idle_blocks for row in rows):
        return []
    return [
        Column("WANT", 9, [number(row.want_blocks) for row in rows]),
        Column("IDLE", 8, [number(row.idle_blocks) for row in rows]),
        Column("OWED", 9, [number(row.owed_blocks) for row in rows]),
    ]


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _more(hidden: int, what: str) -> Text:
    return _line(Text(f"and {number(hidden)} more {what}" if hidden else "", "italic"))


def _bad(value: float | None) -> Text:
    return Text(rate(value), "red" if value else "")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} s"


def _lease(row: EngineRow) -> Text:
    left = row.lease_expires_in
    if left is None:
        return Text("none", "yellow" if row.held_blocks else "")
    age = row.since_heartbeat
    late = left <= 0 or (age is not None and age > _LATE * (age + left))
    return Text(f"{left:,.1f} s", "bold red" if late else "green")
