"""The tables that commands print.

Rules:
- Cells are escaped as all that is printed.
- A table that is wider than the terminal has its columns closer together, or else goes on below
  with the columns that did not fit, behind those that say whose row it is. Only names that are too
  long even so are cut, which shows as an ellipsis; a number never is.
- Columns about what most pools and engines have none of are there where one has any.
- Where stdout is no terminal a table is in one piece, however wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kvblock_cli.output import UNBOUNDED, number, printable

Column = str | Callable[[Any], RenderableType]
"""What is in a column: the name of a row's field, or a function of the row."""

_GAP = 2
"""Blanks between two columns where there is room."""
_RECALL = ("WANT", "IDLE", "OWED")
"""Columns that are read together: none of them goes on below alone."""


class _Table(Table):
    """A table whose cells, where they are mere text, are shown as they are.

    `keys`: so many of its first columns are repeated where it goes on below; 0: it does not.
    """

    keys = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(console, options)
        close = _width(widths, _GAP) > options.max_width
        self.padding = (0, 1 if close else _GAP, 0, 0)
        if not self.keys or _width(widths, 1) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        for index, others in enumerate(self._pieces(widths, options.max_width)):
            if index:
                yield Text()
            yield self._piece([*range(self.keys), *others])

    def add_row(self, *renderables: RenderableType | None, **options: Any) -> None:
        """Add a row."""
        cells = [
            # A name may have blanks: it is cut all the same.
            Text(printable(cell), no_wrap=column.overflow == "ellipsis" or None)
            if isinstance(cell, str)
            else cell
            for cell, column in zip(renderables, self.columns, strict=True)
        ]
        super().add_row(*cells, **options)

    def _widths(self, console: Console, options: ConsoleOptions) -> list[int]:
        """How wide each column is when nothing is cut."""
        unbounded = options.update(width=UNBOUNDED)
        return [
            max(
                Measurement.get(console, unbounded, cell).maximum
                for cell in (column.header, *column.cells)
            )
            for column in self.columns
        ]

    def _pieces(self, widths: list[int], width: int) -> Iterator[list[int]]:
        """The columns behind the keys, as many at a time as fit into so many characters."""
        units = list(self._units())
        for gap in (_GAP, 1):
            keys = _width(widths[: self.keys], gap)
            widest = max(_width([widths[column] for column in unit], gap) for unit in units)
            if keys + gap + widest <= width:
                break
        else:
            # The names are cut: they leave the numbers half of the line.
            keys = min(keys, width // 2)
        piece: list[int] = []
        for unit in units:
            behind = _width([widths[column] for column in (*piece, *unit)], gap)
            if piece and keys + gap + behind > width:
                yield piece
                piece = []
            piece = [*piece, *unit]
        yield piece

    def _units(self) -> Iterator[list[int]]:
        """The columns behind the keys; those that are read together are one unit."""
        recall = [row for row, one in enumerate(self.columns) if one.header in _RECALL]
        for column in range(self.keys, len(self.columns)):
            if column not in recall:
                yield [column]
            elif column == recall[0]:
                yield recall

    def _piece(self, chosen: list[int]) -> Table:
        """A table of these columns alone."""
        made = _plain_table()
        columns = [self.columns[index] for index in chosen]
        for one in columns:
            made.add_column(
                one.header, justify=one.justify, no_wrap=one.no_wrap, overflow=one.overflow
            )
        for row in zip(*(one.cells for one in columns), strict=True):
            made.add_row(*row)
        return made


def _plain_table() -> _Table:
    return _Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))


def _width(widths: Sequence[int], gap: int) -> int:
    """How wide columns are together, with so many blanks between two."""
    return sum(widths) + gap * (len(widths) - 1)


def table(*columns: str, left: int = 1, wrap: bool = False) -> Table:
    """A table in one piece; its first `left` columns hold words, the others numbers.

    On a narrow terminal words are cut, or wrapped if `wrap` says so.
    """
    return _table(columns, left, wrap=wrap)


def _table(columns: Iterable[str], left: int, *, wrap: bool = False) -> _Table:
    made = _plain_table()
    for index, column in enumerate(columns):
        words = index < left
        made.add_column(
            column,
            justify="left" if words else "right",
            no_wrap=not words,
            overflow="ellipsis" if words and not wrap else "fold",
        )
    return made


def table_of(rows: Iterable[Any], columns: Mapping[str, Column], *, left: int = 1) -> Table:
    """A table with a column for each heading; its first `left` columns say whose row it is.

    On a narrow terminal it goes on below with the columns that did not fit.
    """
    made = _table(columns, left)
    made.keys = left
    for row in rows:
        made.add_row(*(_cell(row, column) for column in columns.values()))
    return made


def with_recall(
    columns: Mapping[str, Column], rows: Sequence[Any], of: Callable[[Any], Any] | None = None
) -> Mapping[str, Column]:
    """Columns, and what is lacked, idle and owed where in `of` a row there is any of it."""
    of = of or _itself
    if not any(row.want_blocks or row.idle_blocks for row in map(of, rows)):
        return columns
    return {
        **columns,
        "WANT": lambda row: number(of(row).want_blocks),
        "IDLE": lambda row: number(of(row).idle_blocks),
        "OWED": lambda row: number(of(row).owed_blocks),
    }


def _itself(row: Any) -> Any:
    return row


def _cell(row: Any, column: Column) -> RenderableType:
    if callable(column):
        return column(row)
    value = row[column] if isinstance(row, Mapping) else getattr(row, column)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int) else str(value)


_USUAL: dict[str, tuple[str, object]] = {
    "ACQUIRED": ("acquired_blocks", 0),
    "RESERVED": ("reserved_blocks", 0),
    "BLOCK BYTES": ("block_bytes", 0),
    "REGIONS": ("regions", 1),
    "LAYOUT": ("layout", ""),
    "MEMORY": ("memory_uri", ""),
}
"""Columns about what most have in the usual way: the field, and its usual value."""


def unusual(columns: Mapping[str, Column], rows: Iterable[object]) -> dict[str, Column]:
    """The columns without those of `_USUAL` in which no row says anything else."""
    rows = list(rows)
    silent = {
        head
        for head, (field, usual) in _USUAL.items()
        if head in columns and all(getattr(row, field) == usual for row in rows)
    }
    return {head: column for head, column in columns.items() if head not in silent}


def share(part: int, whole: int) -> Text:
    """A part of a whole in percent; what is nearly used up is marked."""
    percent = 100 * part / whole if whole else 0.0
    style = "red" if percent > 95 else "yellow" if percent > 80 else "green"
    return Text(f"{percent:.1f} %", style=style)
