"""Tables on a terminal: in one piece where they fit, else going on below; nothing is cut."""

import io
from dataclasses import replace
from textwrap import dedent
from typing import Literal

from rich.console import Console, RenderableType

from kvblock import AuditReport, EngineInfo, EngineStats, PoolStats, ServerStats
from kvblock_cli import stats
from kvblock_cli.engines import _ENGINES
from kvblock_cli.pools import _REPORTS
from kvblock_cli.tables import Column, table_of, unusual, with_recall

PREFILL = EngineStats("engine-prefill-0", 64_009, 2, False)
DECODE = EngineStats("engine-decode-1", 20, 0, True, 1_796_023_386_308, 6.94)
MAIN = PoolStats(
    pool="main",
    total_blocks=65_537,
    free_blocks=1_508,
    held_blocks=64_029,
    block_size=16,
    device_id=0,
    sequences=2,
    allocated_blocks_total=64_032,
    freed_blocks_total=3,
    refusals={},
    revision=7,
    waiting=0,
    engines=(DECODE, PREFILL),
)
BUSY = replace(
    MAIN,
    free_blocks=1_507,
    reserved_blocks=1,
    acquired_blocks=4_020,
    want_blocks=5_000,
    idle_blocks=3_900,
    owed_blocks=3_493,
    engines=(
        replace(DECODE, acquired_blocks=20, want_blocks=5_000),
        replace(PREFILL, acquired_blocks=4_000, idle_blocks=3_900, owed_blocks=3_493),
    ),
)


def drawn(shown: RenderableType, width: int = 80, *, colours: bool = False) -> str:
    out = io.StringIO()
    system: Literal["standard"] | None = "standard" if colours else None
    Console(file=out, width=width, force_terminal=True, color_system=system).print(shown)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def overview(*pools: PoolStats) -> RenderableType:
    return stats.overview(ServerStats(pools, 1, "1.2.3"))


def is_drawn(shown: RenderableType, expected: str, width: int = 80) -> None:
    assert drawn(shown, width) == dedent(expected).lstrip("\n")


def test_what_nobody_has_is_not_there() -> None:
    expected = """
        POOL   TOTAL   FREE    HELD  QUARANTINE     USE  SEQUENCES  WAITING
        main  65,537  1,508  64,029           0  97.7 %          2        0

        POOL  ALLOCATED  FREED  RECLAIMED  EXPIRED  REFUSED  BLOCK SIZE  DEVICE
        main     64,032      3          0        0        0          16       0

        POOL  ENGINE              HELD   SHARE  SEQUENCES          EPOCH  LEASE
        main  engine-decode-1       20   0.0 %          0  1796023386308  6.9 s
        main  engine-prefill-0  64,009  97.7 %          2              -   none
        """
    is_drawn(overview(MAIN), expected)


def test_stats_with_all_columns() -> None:
    expected = """
        POOL   TOTAL   FREE    HELD  ACQUIRED  QUARANTINE  RESERVED     USE  SEQUENCES
        main  65,537  1,507  64,029     4,020           0         1  97.7 %          2

        POOL  WAITING   WANT   IDLE   OWED
        main        0  5,000  3,900  3,493

        POOL  ALLOCATED  FREED  RECLAIMED  EXPIRED  REFUSED  BLOCK SIZE  DEVICE
        main     64,032      3          0        0        0          16       0

        POOL  ENGINE              HELD  ACQUIRED   SHARE  SEQUENCES          EPOCH
        main  engine-decode-1       20        20   0.0 %          0  1796023386308
        main  engine-prefill-0  64,009     4,000  97.7 %          2              -

        POOL  ENGINE            LEASE   WANT   IDLE   OWED
        main  engine-decode-1   6.9 s  5,000      0      0
        main  engine-prefill-0   none      0  3,900  3,493
        """
    is_drawn(overview(BUSY), expected)


def test_numbers_of_the_largest_pool() -> None:
    largest = 2**31 - 1
    pool = replace(
        BUSY,
        total_blocks=largest,
        free_blocks=largest,
        held_blocks=largest,
        acquired_blocks=largest,
        quarantined_blocks=largest,
        want_blocks=largest,
        idle_blocks=largest,
        owed_blocks=largest,
        engines=(),
    )
    text = drawn(overview(pool))
    assert text.count("2,147,483,647") == 8
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_engines_with_all_columns() -> None:
    rows = [
        EngineInfo("main", "engine-decode-1", 1_796_023_386_308, 6.94, 20, 0, True, 2.0, 20, 5_000),
        EngineInfo("main", "engine-prefill-0", 0, None, 64_009, 2, False, None, 4_000, 0, 3_900, 9),
    ]
    expected = """
        POOL  ENGINE              HELD  ACQUIRED  SEQUENCES          EPOCH  EXPIRES IN
        main  engine-decode-1       20        20          0  1796023386308       6.9 s
        main  engine-prefill-0  64,009     4,000          2       no lease

        POOL  ENGINE            STREAM   WANT   IDLE  OWED
        main  engine-decode-1      yes  5,000      0     0
        main  engine-prefill-0      no      0  3,900     9
        """
    columns = with_recall(unusual(_ENGINES, rows), rows)
    is_drawn(table_of(rows, columns, left=2), expected)


def test_an_audit_with_all_columns() -> None:
    report = AuditReport("main", True, 65_537, 1_507, 64_029, 2, (), 0, 1, 4_020)
    expected = """
        POOL  RESULT   TOTAL   FREE    HELD  ACQUIRED  QUARANTINE  RESERVED  SEQUENCES
        main  clean   65,537  1,507  64,029     4,020           0         1          2
        """
    is_drawn(table_of([report], unusual(_REPORTS, [report]), left=2), expected)


NAMES: dict[str, Column] = {
    "POOL": lambda _: "main",
    "ENGINE": lambda row: row,
    "HELD": lambda _: "1,234,567",
    "EPOCH": lambda _: "1796023386308",
    "WANT": lambda _: "1",
    "IDLE": lambda _: "2",
    "OWED": lambda _: "3",
}


def test_a_table_stands_closer_before_it_goes_on_below() -> None:
    one_piece = """
        POOL ENGINE      HELD         EPOCH WANT IDLE OWED
        main e      1,234,567 1796023386308    1    2    3
        """
    is_drawn(table_of("e", NAMES, left=2), one_piece, 50)
    two_pieces = """
        POOL  ENGINE       HELD          EPOCH
        main  e       1,234,567  1796023386308

        POOL  ENGINE  WANT  IDLE  OWED
        main  e          1     2     3
        """
    is_drawn(table_of("e", NAMES, left=2), two_pieces, 49)


def test_only_a_name_that_is_too_long_even_below_is_cut() -> None:
    whole = drawn(table_of(["e" * 57], NAMES, left=2), 80)
    assert whole.count(" " + "e" * 57 + " ") == 3
    cut = drawn(table_of(["e" * 100], NAMES, left=2), 80)
    assert cut.count("e…") == 1
    for number in ("1,234,567", "1796023386308"):
        assert number in cut
    assert max(map(len, cut.splitlines())) <= 80


def test_pieces_have_the_colours_of_their_cells() -> None:
    text = drawn(overview(BUSY), colours=True)
    assert text.count("\x1b[31m97.7 %\x1b[0m") == 2
    assert text.count("\x1b[32m 0.0 %\x1b[0m") == 1


def test_where_there_is_room_a_table_is_in_one_piece() -> None:
    lines = drawn(overview(BUSY), 10_000).splitlines()
    assert [line.split()[0] for line in lines if line] == [*["POOL", "main"] * 3, "main"]
