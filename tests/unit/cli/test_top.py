"""`kvblock top`: rates, the last minute, and a frame that fits."""

import io
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console
from rich.text import Text

import kvblock
from kvblock import EngineInfo, EngineStats, PoolStats, RefusalReason, ServerStats
from kvblock_cli.top import looks
from kvblock_cli.top.looks import Look, Looker, Overview
from kvblock_cli.top.tables import Column, Frame, fitting, rate, sparkline


def pool(name: str = "main", held: int = 0, allocated: int = 0, **others: int) -> PoolStats:
    refused = others.pop("refused", 0)
    return PoolStats(
        pool=name,
        total_blocks=8,
        free_blocks=8 - held,
        held_blocks=held,
        block_size=16,
        device_id=0,
        sequences=0,
        allocated_blocks_total=allocated,
        freed_blocks_total=others.get("freed", 0),
        refusals={RefusalReason.POOL_EXHAUSTED: refused, RefusalReason.EXCEEDS_POOL: 1},
        revision=others.get("revision", 0),
        waiting=0,
        engines=(EngineStats("e", held, 1, True, 5, 1.5, 2, 3, 4, 5),),
    )


def engine(held: int, name: str = "e") -> EngineInfo:
    return EngineInfo("main", name, 5, 7.5, held, 1, False, 2.5)


def look(
    at: float, *pools: PoolStats, engines: tuple[EngineInfo, ...] = (), epoch: int = 1
) -> Look:
    return Look(at, ServerStats(pools, epoch, "1.2.3"), engines)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock; the last entry is what it shows."""
    times = [100.0]
    monkeypatch.setattr(looks, "monotonic", lambda: times[-1])
    return times


def test_rates_are_the_growth_of_counters_by_time() -> None:
    seen = Overview(look(100.0, pool(allocated=10, freed=4, refused=2, revision=7)))
    (row,) = seen.pools
    assert (row.allocated_per_second, row.freed_per_second) == (None, None)
    now = pool(allocated=30, freed=5, refused=6, revision=8)
    seen.add(look(102.0, now, engines=(engine(3),)))
    (row,) = seen.pools
    assert (row.allocated_per_second, row.freed_per_second) == (10.0, 0.5)
    assert (row.refused_per_second, row.changes_per_second) == (2.0, 0.5)
    assert seen.seconds == 2.0
    assert seen.engines[0].held_change_per_second is None
    seen.add(look(104.0, now, engines=(engine(1),)))
    assert seen.engines[0].held_change_per_second == -1.0


def test_counters_that_begin_anew_have_no_rate() -> None:
    seen = Overview(look(100.0, pool(allocated=10)))
    seen.add(look(101.0, pool(allocated=20), epoch=2))
    assert seen.pools[0].allocated_per_second is None
    seen.add(look(102.0, pool(allocated=5), pool("new"), epoch=2))
    assert [row.allocated_per_second for row in seen.pools] == [None, None]


def test_the_last_minute(now: list[float]) -> None:
    seen = Overview(look(100.2, pool(held=2)))
    seen.add(look(100.6, pool(held=1)))
    now.append(101.5)
    seen.add(look(101.5, pool(held=4)))
    assert seen.trend(60, "main")[-3:] == [None, 0.25, 0.5]
    assert seen.trend(6, "main") == [None] * 5 + [0.5]
    now.append(104.5)
    seen.fail("nobody answers")
    assert (seen.problem, seen.silent_for) == ("nobody answers", 3.0)
    assert seen.trend(60, "main")[-5:] == [0.25, 0.5, 0.5, 0.5, None]
    now.append(107.0)
    seen.add(look(107.0, pool(held=8)))
    assert seen.problem == ""
    assert seen.trend(60, "main")[-4:] == [None, None, None, 1.0]
    now.append(165.5)
    seen.add(look(165.5, pool("other")))
    assert seen.trend(60, "main")[:3] == [None, 1.0, 1.0]
    now.append(168.0)
    seen.add(look(168.0, pool("other")))
    assert seen.trend(60, "main") == [None] * 60


class Refusing:
    """A client of a caller that is no admin."""

    def __init__(self) -> None:
        self.asked = 0

    def stats(self, **_: str) -> ServerStats:
        return ServerStats((pool(held=2),), 1)

    def list_engines(self, **_: str) -> Iterator[EngineInfo]:
        self.asked += 1
        raise kvblock.PermissionDeniedError("no admin")


def test_who_may_not_list_engines_asks_once_and_sees_what_stats_tells() -> None:
    kv = Refusing()
    looker = Looker(kv, "", "")  # type: ignore[arg-type]
    for _ in range(3):
        seen = Overview(looker.look())
        (row,) = seen.engines
        assert (row.engine, row.held_blocks, row.lease_expires_in) == ("e", 2, 1.5)
        assert row.since_heartbeat is None
        recall = (row.want_blocks, row.idle_blocks, row.owed_blocks)
        assert (row.acquired_blocks, *recall) == (2, 3, 4, 5)
    assert kv.asked == 1


def test_a_sparkline() -> None:
    assert sparkline([None, 0.0, 0.5, 1.0, 1.5]) == " ▁▅██"
    assert sparkline([None, 0.0, 0.5, 1.0], ascii_only=True) == " _=#"


def test_a_rate_in_words() -> None:
    assert [rate(one) for one in (None, 0, 0.25, -9.95, 12.4, 12_345.6)] == [
        "-",
        "0",
        "0.2",
        "-9.9",
        "12",
        "12,346",
    ]


def test_columns_that_do_not_fit_are_left_out_by_their_importance() -> None:
    columns = [
        Column("NAME", 3, ["a" * 40], words=True),
        Column("FIRST", 9, ["1"]),
        Column("SECOND", 1, [Text("22")]),
        Column("THIRD", 5, ["123,456"]),
    ]
    heads = {width: [one.head for one in fitting(columns, width)] for width in (45, 44, 37, 12, 1)}
    assert heads == {
        45: ["NAME", "FIRST", "SECOND", "THIRD"],
        44: ["NAME", "FIRST", "THIRD"],
        37: ["FIRST", "THIRD"],
        12: ["FIRST", "THIRD"],
        1: ["FIRST", "THIRD"],
    }


def drawn(overview: Overview, width: int, height: int) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    console.print(Frame(overview, "unix:/s\x1b[2J", 1.0), end="")
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [24, 40, 80, 200])
def test_rows_that_do_not_fit_are_counted(width: int) -> None:
    pools = [pool(f"pool-{index}", held=index) for index in range(8)]
    rows = tuple(engine(index, f"engine-{index:02}") for index in range(50))
    lines = drawn(Overview(look(100.0, *pools, engines=rows)), width, 24)
    assert len(lines) <= 24
    shown = [line.split()[0] for line in lines if line.startswith("pool-")]
    assert shown == [f"pool-{index}" for index in range(7, -1, -1)]
    assert lines[-1] == f"and {50 - 24 + 3 + 4 + 8} more engines"
    lines = drawn(Overview(look(100.0, *pools)), width, 12)
    assert "no engines" in lines
    assert "and 3 more pools" in lines


def test_what_comes_from_elsewhere_does_nothing_to_the_terminal() -> None:
    seen = Overview(look(100.0, pool("evil\x1b[2J"), engines=(engine(1, "a\rb"),)))
    seen.fail("bad \x1b[31mnews")
    text = "\n".join(drawn(seen, 150, 24))
    for told in (r"unix:/s\x1b[2J", r"evil\x1b[2J", r"a\rb", r" s: bad \x1b[31mnews"):
        assert told in text


def test_all_columns_of_a_busy_server_stand_in_80_columns() -> None:
    busy = replace(
        pool(),
        total_blocks=65_537,
        free_blocks=1_507,
        held_blocks=64_029,
        reserved_blocks=1,
        acquired_blocks=4_020,
        want_blocks=5_000,
        idle_blocks=3_900,
        owed_blocks=3_493,
    )
    row = replace(
        engine(64_009, "engine-prefill-0"),
        acquired_blocks=4_000,
        idle_blocks=3_900,
        owed_blocks=3_493,
    )
    lines = drawn(Overview(look(100.0, busy, engines=(row,))), 80, 24)
    assert lines[3:] == [
        "POOL  TOTAL  FREE   HELD   ACQ RESV    USE ALLOC/S REFUSED/S  WANT  IDLE  OWED",
        "main 65,537 1,507 64,029 4,020    1 97.7 %       -         - 5,000 3,900 3,493",
        "",
        "POOL ENGINE             HELD   ACQ HELD +/S HEARTBEAT LEASE WANT  IDLE  OWED",
        "main engine-prefill-0 64,009 4,000        -     2.5 s 7.5 s    0 3,900 3,493",
        "",
    ]
