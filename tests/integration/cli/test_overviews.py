"""`stats`, `pools`, `sequences`, `audit`: text, and JSON with the names of the proto."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

import kvblock
from kvblock.v1 import admin_pb2, kvblock_pb2
from tests.integration.cli.console import KVBLOCK, Console


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def names(message: type[Message]) -> set[str]:
    return {field.name for field in message.DESCRIPTOR.fields}


def test_stats(console: Console) -> None:
    console.out("allocate", 10, 2, "--engine", "a")
    console.out("allocate", 11, 65, "--engine", "a", expect=1)
    text = console.out("stats")
    assert rows(text) == [
        ["POOL", "TOTAL", "FREE", "HELD", "QUARANTINE", "USE", "SEQUENCES", "WAITING"],
        ["main", "64", "62", "2", "0", "3.1", "%", "1", "0"],
        ["small", "3", "3", "0", "0", "0.0", "%", "0", "0"],
        ["wide", "2,147,483,647", "2,147,483,647", "0", "0", "0.0", "%", "0", "0"],
        [],
        [
            "POOL",
            "ALLOCATED",
            "FREED",
            "RECLAIMED",
            "EXPIRED",
            "REFUSED",
            "BLOCK",
            "SIZE",
            "DEVICE",
        ],
        ["main", "2", "0", "0", "0", "1", "16", "7"],
        ["small", "0", "0", "0", "0", "0", "16", "0"],
        ["wide", "0", "0", "0", "0", "0", "16", "0"],
        [],
        ["POOL", "ENGINE", "HELD", "SHARE", "SEQUENCES", "EPOCH", "LEASE"],
        ["main", "a", "2", "3.1", "%", "1", "-", "none"],
    ]
    assert max(map(len, text.splitlines())) <= 80


def test_recall_is_shown_where_there_is_any(console: Console) -> None:
    with kvblock.connect(console.address) as kv:
        kv.step(engine="a", allocate=[1], num_blocks=[64], hints=kvblock.EngineHints(idle_blocks=9))
        with kv.session(engine="b") as session:
            session.renew(hints=kvblock.EngineHints(want_blocks=5))
            stats, engines = rows(console.out("stats")), rows(console.out("engines"))
            top = rows(console.out("top"))
    assert stats[0][-3:] == ["WANT", "IDLE", "OWED"]
    assert stats[1][-3:] == ["5", "9", "5"]
    assert stats[2][-3:] == ["0", "0", "0"]
    for found in (stats, engines, top):
        (a,) = (row for row in found if row[:2] == ["main", "a"])
        (b,) = (row for row in found if row[:2] == ["main", "b"])
        assert (a[-3:], b[-3:]) == (["0", "9", "5"], ["5", "0", "0"])


def test_blocks_by_number(console: Console, tmp_path: Path) -> None:
    with kvblock.connect(console.address, engine="a") as kv:
        kv.step(allocate=[7], num_blocks=[4], acquire=2)
        kv.step(trim=[7], trim_head=[3], trim_tail=[0])
        stats, engines = rows(console.out("stats")), rows(console.out("engines"))
    assert stats[0][:5] == ["POOL", "TOTAL", "FREE", "HELD", "ACQUIRED"]
    assert stats[1][:5] == ["main", "64", "61", "3", "2"]
    assert stats[-2:] == [
        ["POOL", "ENGINE", "HELD", "ACQUIRED", "SHARE", "SEQUENCES", "EPOCH", "LEASE"],
        ["main", "a", "3", "2", "4.7", "%", "1", "-", "none"],
    ]
    assert engines[0][:5] == ["POOL", "ENGINE", "HELD", "ACQUIRED", "SEQUENCES"]
    assert engines[1][:5] == ["main", "a", "3", "2", "1"]
    top = rows(console.out("top"))
    assert top[0][:5] == ["POOL", "TOTAL", "FREE", "HELD", "ACQ"]
    (a,) = (row for row in top if row[:2] == ["main", "a"])
    assert a[2:4] == ["3", "2"]
    assert rows(console.out("sequences")) == [
        ["BLOCKS", "FIRST", "SEQUENCE", "ENGINE"],
        ["1", "3", "7", "a"],
    ]
    table = console.out("table", 7, "--engine", "a")
    assert table == "1 block of 16 tokens on device 7, 3 dropped before\n3\n"
    told = console.out("holder", 3, 4).splitlines()
    assert told[0].startswith("block 3: held by engine a, sequence 7; granted ")
    assert told[1].startswith("block 4: acquired by engine a, in no sequence; granted ")
    assert [row[2] for row in rows(console.out("blocks", "--held"))] == [
        *("SEQUENCE", "7", "acquired", "acquired"),
    ]
    path = tmp_path / "tables.json"
    path.write_text('{"engine": "a", "tables": {"7": [3]}}')
    audit = rows(console.out("audit", "--pool", "main", "--from", path))
    assert audit == [
        ["POOL", "RESULT", "TOTAL", "FREE", "HELD", "ACQUIRED", "QUARANTINE", "SEQUENCES"],
        ["main", "clean", "64", "61", "3", "2", "0", "1"],
        [],
        ["POOL", "ENGINE", "RESULT", "EPOCH", "SEQUENCES", "BLOCKS", "ACQUIRED"],
        ["main", "a", "same", "no", "lease", "1", "1", "2"],
    ]


def test_stats_in_json_is_the_response(console: Console) -> None:
    console.out("allocate", 10, 2, "--engine", "a")
    console.out("allocate", 11, 65, expect=1)
    answer = json.loads(console.out("stats", "--json"))
    assert set(answer) == names(kvblock_pb2.StatsResponse)
    main, small, wide = answer["pools"]
    assert set(main) == names(kvblock_pb2.PoolStats)
    assert main["refusals"] == [{"reason": "EXCEEDS_POOL", "count": "1"}]
    assert set(main["refusals"][0]) == names(kvblock_pb2.RefusalCount)
    (engine,) = main["engines"]
    assert set(engine) == names(kvblock_pb2.EngineStats)
    assert engine == {
        "engine": "a",
        "held_blocks": 2,
        "sequences": "1",
        "attached": False,
        "epoch": "0",
        "lease_expires_in": None,
        "acquired_blocks": 0,
        "want_blocks": "0",
        "idle_blocks": 0,
        "owed_blocks": 0,
    }
    assert wide["total_blocks"] == 2**31 - 1
    console.out("allocate", 10, "--pool", "small", "--engine", "z")
    only = json.loads(console.out("stats", "--pool", "small", "--engine", "z", "--json"))
    (pool,) = only["pools"]
    assert pool["pool"] == small["pool"] == "small"
    assert [engine["engine"] for engine in pool["engines"]] == ["z"]


def test_stats_of_an_engine_that_is_not_there(console: Console) -> None:
    told = console.error("stats", "--engine", "TYPO", expect=1)
    nobody = "engine 'TYPO' has neither a block nor a lease in"
    assert told == f"error: {nobody} any pool; the engines there: none\n"
    console.out("allocate", 10, "--engine", "b")
    console.out("allocate", 10, "--engine", "a", "--pool", "small")
    told = console.error("stats", "--engine", "TYPO", expect=1)
    assert told == f"error: {nobody} any pool; the engines there: a, b\n"
    told = console.error("stats", "--engine", "a", "--pool", "main", "--watch", expect=1)
    assert told.endswith(" in pool 'main'; the engines there: b\n")
    answer = json.loads(console.out("stats", "--engine", "TYPO", "--json", expect=1))
    assert (answer["reason"], answer["exit_code"]) == ("ENGINE_NOT_FOUND", 1)


def test_stats_of_a_pool_that_is_not_there(console: Console) -> None:
    told = console.error("stats", "--pool", "nope", expect=1)
    assert told == "error: there is no pool 'nope'; this server's pools: main, small, wide\n"


def test_watching_prints_one_object_a_line_until_it_is_interrupted(console: Console) -> None:
    with subprocess.Popen(
        [*KVBLOCK, "stats", "--watch", "0.05", "--json"],
        env=console.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        seen: list[dict[str, Any]] = [json.loads(watching.stdout.readline()) for _ in range(3)]
        watching.send_signal(signal.SIGINT)
        _, complaints = watching.communicate()
    assert watching.returncode == 130
    assert complaints == ""
    assert [pool["pool"] for pool in seen[2]["pools"]] == ["main", "small", "wide"]


def test_an_interval_needs_a_watch(console: Console) -> None:
    told = console.error("stats", "3", expect=2)
    assert "an interval goes with --watch" in told


def test_pools(console: Console) -> None:
    assert rows(console.out("pools")) == [
        ["POOL", "BLOCKS", "BLOCK", "SIZE", "DEVICE", "DEFAULT"],
        ["main", "64", "16", "7", "yes"],
        ["small", "3", "16", "0", "no"],
        ["wide", "2,147,483,647", "16", "0", "no"],
    ]
    answer = json.loads(console.out("pools", "--json"))
    assert set(answer) == names(admin_pb2.ListPoolsResponse)
    assert {frozenset(pool) for pool in answer["pools"]} == {frozenset(names(admin_pb2.Pool))}


def test_sequences_over_several_pages(console: Console) -> None:
    assert console.out("sequences") == "no sequences\n"
    assert json.loads(console.out("sequences", "--json")) == {"sequences": []}
    fill(console, 250)
    header, *found = rows(console.out("sequences", "--pool", "wide"))
    assert header == ["BLOCKS", "FIRST", "SEQUENCE", "ENGINE"]
    assert found == [["1", "0", str(sequence), "filler"] for sequence in range(250)]
    answer = json.loads(console.out("sequences", "--pool", "wide", "--json"))
    assert set(answer) == {"sequences"}
    assert len(answer["sequences"]) == 250
    assert set(answer["sequences"][0]) == names(admin_pb2.SequenceInfo)
    assert console.out("sequences", "--pool", "wide", "--engine", "other") == "no sequences\n"


def test_a_reader_that_goes_away_ends_a_listing_quietly(console: Console) -> None:
    fill(console, 250)
    with subprocess.Popen(
        [*KVBLOCK, "sequences", "--pool", "wide"],
        env=console.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.close()
        assert listing.stderr.read() == ""
    assert listing.returncode == 141


def test_audit(console: Console) -> None:
    console.out("allocate", 10, 2)
    assert rows(console.out("audit", "--pool", "main")) == [
        ["POOL", "RESULT", "TOTAL", "FREE", "HELD", "QUARANTINE", "SEQUENCES"],
        ["main", "clean", "64", "62", "2", "0", "1"],
    ]
    answer = json.loads(console.out("audit", "--json"))
    assert set(answer) == names(admin_pb2.AuditResponse)
    assert {frozenset(report) for report in answer["reports"]} == {
        frozenset(names(admin_pb2.AuditReport))
    }
    assert [report["clean"] for report in answer["reports"]] == [True, True, True]


def fill(console: Console, sequences: int) -> None:
    """Let the engine `filler` hold one block for each of so many sequences of the pool wide."""
    import kvblock

    with kvblock.connect(console.address, pool="wide", engine="filler", timeout=60.0) as kv:
        assert kv.step(allocate=range(sequences)).granted == sequences
