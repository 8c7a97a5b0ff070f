"""`pool`, `engines`, `reclaim`, `blocks`, `holder`, `drain`, and `audit --from`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import kvblock
from kvblock.v1 import admin_pb2
from tests.conftest import ServerFactory
from tests.integration.cli.console import Console
from tests.integration.cli.test_overviews import names, rows

WHEN = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def answer_of(console: Console, *arguments: object, expect: int = 0) -> Any:
    return json.loads(console.out(*arguments, "--json", expect=expect))


def test_a_pool_comes_and_goes(console: Console) -> None:
    made = console.out("pool", "create", "extra", 8, "--device", 3, "--quarantine", 1.5)
    assert made == "created pool extra: 8 blocks of 16 tokens on device 3\n"
    assert ["extra", "8", "16", "3", "no"] in rows(console.out("pools"))
    told = console.error("pool", "create", "extra", 8, expect=1)
    assert told.startswith("error: pool 'extra' exists already;")
    console.out("allocate", 1, "--pool", "extra")
    told = console.error("pool", "delete", "extra", "--yes", expect=1)
    assert told.startswith("error: pool 'extra' is in use: 1 blocks held,")
    console.out("free", 1, "--pool", "extra")
    assert console.out("pool", "delete", "extra", "--yes") == "deleted pool extra\n"
    assert console.error("pool", "delete", "extra", "--yes", expect=1).startswith(
        "error: there is no pool 'extra'"
    )


def test_a_pool_with_everything_that_engines_may_expect(console: Console) -> None:
    options = ("--reserved", 2, "--block-bytes", 4096, "--regions", 4, "--layout", "NHD, fp8")
    made = console.out("pool", "create", "extra", 8, *options)
    assert made == "created pool extra: 8 blocks of 16 tokens on device 0, 2 of them reserved\n"
    header, *found = rows(console.out("pools"))
    names_of = ["RESERVED", "BLOCK", "BYTES", "REGIONS", "LAYOUT"]
    assert header[-5:] == names_of
    assert ["extra", "8", "16", "0", "no", "2", "4,096", "4", "NHD,", "fp8"] in found
    assert ["small", "3", "16", "0", "no", "0", "-", "1", "-"] in found
    assert "granted 3 blocks: 2 3 4\n" in console.out("allocate", 1, 3, "--pool", "extra")
    assert ["extra", "8", "3", "3", "0", "2", "50.0", "%", "1", "0"] in rows(console.out("stats"))
    assert ["extra", "clean", "8", "3", "3", "0", "2", "1"] in rows(console.out("audit"))
    lines = console.out("blocks", "--pool", "extra").splitlines()
    assert lines[1].split() == ["0", "reserved", "-", "-", "-", "-"]
    said = console.out("holder", 1, "--pool", "extra", expect=1)
    assert said == "block 1: reserved, and never issued\n"
    told = console.error("pool", "create", "more", 8, "--reserved", 8, expect=2)
    assert "reserved_blocks: 8 must be below total_blocks = 8" in told
    console.out("free", 1, "--pool", "extra")
    console.out("pool", "delete", "extra", "--yes")


def test_a_pool_in_json_is_the_response(console: Console) -> None:
    made = answer_of(console, "pool", "create", "extra", 8)
    assert set(made) == names(admin_pb2.CreatePoolResponse)
    assert set(made["pool"]) == names(admin_pb2.Pool)
    assert answer_of(console, "pool", "delete", "extra", "--yes") == {}


def test_a_pool_that_cannot_be(console: Console) -> None:
    assert "total_blocks: 0 must be from 1" in console.error("pool", "create", "x", 0, expect=2)
    assert "pool: 'a b' must be" in console.error("pool", "create", "a b", 1, expect=2)


def test_engines(console: Console) -> None:
    assert console.out("engines") == "no engines\n"
    console.out("allocate", 10, 2, "--engine", "a")
    assert rows(console.out("engines")) == [
        ["POOL", "ENGINE", "HELD", "SEQUENCES", "EPOCH", "EXPIRES", "IN", "STREAM"],
        ["main", "a", "2", "1", "no", "lease", "no"],
    ]
    assert console.out("engines", "--pool", "small") == "no engines\n"
    answer = answer_of(console, "engines")
    assert set(answer) == {"engines"}
    assert set(answer["engines"][0]) == names(admin_pb2.EngineInfo)


def test_blocks(console: Console) -> None:
    assert console.out("blocks") == "no blocks\n"
    console.out("allocate", 10, 2, "--engine", "a")
    console.out("allocate", 11, 1, "--engine", "b")
    console.out("free", 11, "--engine", "b")
    header, *found = console.out("blocks").splitlines()
    assert header.split() == ["BLOCK", "STATE", "SEQUENCE", "GRANTED", "TRACE", "ENGINE"]
    assert re.fullmatch(rf" +0  held +10  {WHEN}  - +a", found[0])
    assert re.fullmatch(rf" +2  free +-  {WHEN}  - +b", found[2])
    assert len(console.out("blocks", "--held").splitlines()) == 3
    assert len(console.out("blocks", "--engine", "b").splitlines()) == 1
    assert "never used" in console.out("blocks", "--block", 9)
    (block,) = answer_of(console, "blocks", "--block", 1)["blocks"]
    assert set(block) == names(admin_pb2.BlockInfo)
    assert (block["state"], block["sequence_id"]) == ("HELD", "10")


def test_the_holder_of_a_block(console: Console) -> None:
    console.out("allocate", 10, 2, "--engine", "a")
    said = console.out("holder", 1)
    assert re.fullmatch(rf"block 1: held by engine a, sequence 10; granted {WHEN}\n", said)
    console.out("free", 10, "--engine", "a")
    said = console.out("holder", 1, 9, expect=1)
    assert re.fullmatch(
        rf"block 1: free; a had it last; granted {WHEN}\nblock 9: free; nobody ever had it\n", said
    )
    assert answer_of(console, "holder", 9, expect=1)["blocks"][0]["state"] == "NEVER_USED"
    told = console.error("holder", 64, expect=2)
    assert told == "error: block 64 must be below the pool's 64 blocks\n"


def test_a_reclaim(console: Console) -> None:
    console.out("allocate", 10, 2, "--engine", "a")
    told = console.error("reclaim", "a", "--epoch", 9, "--yes", expect=1)
    assert "epoch 9 is stale" in told
    assert console.out("reclaim", "a", "--yes") == "reclaimed 2 blocks of engine a\n"
    told = console.error("reclaim", "a", "--yes", expect=1)
    assert told == "error: engine 'a' has neither a block nor a lease in pool 'main'\n"
    said = console.out("holder", 0, expect=1)
    assert re.match(r"block 0: in quarantine for \d+\.\d s more; a lost it; granted ", said)
    console.out("allocate", 10, 2, "--engine", "b")
    assert answer_of(console, "reclaim", "b", "--yes") == {"reclaimed_blocks": 2}


@pytest.mark.parametrize(("typed", "code", "left"), [("n", 1, 2), ("y", 0, 0)])
def test_a_reclaim_asks_on_a_terminal(console: Console, typed: str, code: int, left: int) -> None:
    console.out("allocate", 10, 2, "--engine", "a")
    done = console.typed(typed, "reclaim", "a")
    question = "engine a in pool main holds 2 blocks and has no lease. Take them?"
    assert done.stderr.startswith(question)
    assert done.returncode == code
    assert done.stdout == (
        "reclaimed 2 blocks of engine a\n" if not code else "nothing was changed\n"
    )
    (main, *_) = answer_of(console, "stats", "--pool", "main")["pools"]
    assert main["held_blocks"] == left


def test_a_drain(server_factory: ServerFactory) -> None:
    server = server_factory()
    assert Console(server.address).out("drain", "--yes") == "the server is draining\n"
    assert server.process.wait(timeout=60) == 0


def test_sequences_with_their_blocks(console: Console) -> None:
    console.out("allocate", 10, 2, "--engine", "a")
    assert rows(console.out("sequences", "--blocks"))[1] == ["2", "0", "10", "a", "0", "1"]
    assert answer_of(console, "sequences", "--blocks")["sequences"][0]["block_numbers"] == [0, 1]


def tables_file(tmp_path: Path, *engines: dict[str, Any]) -> Path:
    path = tmp_path / "tables.json"
    path.write_text(json.dumps(list(engines)))
    return path


def test_an_engine_that_has_what_the_server_has(console: Console, tmp_path: Path) -> None:
    console.out("allocate", 10, 2, "--engine", "a")
    path = tables_file(tmp_path, {"engine": "a", "epoch": 0, "tables": {"10": [0, 1], "11": []}})
    text = console.out("audit", "--pool", "main", "--from", path)
    assert rows(text)[-2:] == [
        ["POOL", "ENGINE", "RESULT", "EPOCH", "SEQUENCES", "BLOCKS"],
        ["main", "a", "same", "no", "lease", "1", "2"],
    ]
    single = tmp_path / "single.json"
    single.write_text(json.dumps({"pool": "small", "tables": {}}))
    answer = answer_of(console, "audit", "--from", single)
    assert set(answer) == {"reports", "comparisons"}
    (comparison,) = answer["comparisons"]
    assert (comparison["pool"], comparison["engine"]) == ("small", "default")
    assert (comparison["at_one_moment"], comparison["differences"]) == (True, [])


def test_an_engine_that_has_other_tables(console: Console, tmp_path: Path) -> None:
    console.out("allocate", 10, 3, "--engine", "a")
    console.out("allocate", 20, 1, "--engine", "b")
    console.out("allocate", 11, 2, "--engine", "a")
    console.out("allocate", 12, 2, "--engine", "a")
    tables = {"10": [0, 3, 70, 9, 9], "11": [5, 4], "13": [6]}
    path = tables_file(tmp_path, {"pool": "main", "engine": "a", "epoch": "3", "tables": tables})
    (comparison,) = answer_of(console, "audit", "--from", path, expect=1)["comparisons"]
    found = {
        (one["kind"], one["sequence_id"], one["block_number"]) for one in comparison["differences"]
    }
    assert found == {
        ("EPOCH", None, None),
        ("NOT_HELD", "10", 3),
        ("NOT_HELD", "10", 70),
        ("NOT_HELD", "10", 9),
        ("TWICE", "10", 9),
        ("LEAKED", "10", 1),
        ("LEAKED", "10", 2),
        ("ORDER", "11", None),
        ("MISPLACED", "13", 6),
        ("LEAKED", "12", 7),
    }
    assert len(comparison["differences"]) == len(found)
    assert comparison["at_one_moment"]
    text = console.out("audit", "--from", path, expect=1)
    for line in (
        "main, a: EPOCH: the engine has epoch 3, the server has no lease of it",
        "main, a: NOT_HELD: block 3 is in the engine's sequence 10, but held by engine b,"
        " sequence 20",
        "main, a: NOT_HELD: block 70 is in the engine's sequence 10, but the pool has only 64"
        " blocks",
        "main, a: LEAKED: block 7 is in the server's sequence 12; the engine does not have it",
        "main, a: ORDER: sequence 11: at [0] the engine has block 5, the server 4",
    ):
        assert line in text.splitlines()


def test_an_engine_that_has_acquired_blocks(console: Console, tmp_path: Path) -> None:
    with kvblock.connect(console.address, engine="b") as kv:
        assert kv.step(acquire=1).acquired_block_numbers == [0]
    with kvblock.connect(console.address, engine="a") as kv:
        kv.step(allocate=[7], num_blocks=[2], acquire=3)
    given = {"engine": "a", "tables": {"7": [1, 2]}, "acquired": [5, 3, 4]}
    text = console.out("audit", "--pool", "main", "--from", tables_file(tmp_path, given))
    assert rows(text)[-2:] == [
        ["POOL", "ENGINE", "RESULT", "EPOCH", "SEQUENCES", "BLOCKS", "ACQUIRED"],
        ["main", "a", "same", "no", "lease", "1", "2", "3"],
    ]
    path = tables_file(tmp_path, given | {"tables": {"7": [1, 5]}, "acquired": [4, 4, 2, 0]})
    text = console.out("audit", "--pool", "main", "--from", path, expect=1)
    assert text.splitlines()[-5:] == [
        "main, a: TWICE: block 4 is in the engine's acquired blocks twice",
        "main, a: MISPLACED: block 5 is in the engine's sequence 7, but in the server's acquired"
        " blocks",
        "main, a: MISPLACED: block 2 is in the engine's acquired blocks, but in the server's"
        " sequence 7",
        "main, a: LEAKED: block 3 is in the server's acquired blocks; the engine does not have it",
        "main, a: NOT_HELD: block 0 is in the engine's acquired blocks, but acquired by engine b,"
        " in no sequence",
    ]
    (found,) = answer_of(console, "audit", "--from", path, expect=1)["comparisons"]
    assert (found["blocks"], found["acquired_blocks"], found["at_one_moment"]) == (2, 3, True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "no valid JSON"),
        ("[" * 100_000, "its brackets are nested too deep"),
        ('{"tables": {}, "epoch": "1_0"}', "[0].epoch: '1_0' must be from 0 to"),
        ("[1]", "[0]: must be an object"),
        ("{}", "[0].tables: must be an object"),
        ('{"tables": {}, "tabels": {}}', "[0]: has the unknown key 'tabels'"),
        ('{"tables": {"x": [1]}}', "[0].tables['x']: the key must be a sequence id"),
        ('{"tables": {"1": 1}}', "[0].tables['1']: must be a list of block numbers"),
        ('{"tables": {"1": [0, -1]}}', "[0].tables['1'][1]: -1 must be from 0 to 4294967295"),
        ('{"tables": {}, "epoch": true}', "[0].epoch: True must be from 0 to"),
        ('{"tables": {}, "acquired": [0, -1]}', "[0].acquired[1]: -1 must be from 0 to 4294967295"),
        ('{"tables": {}, "pool": 3}', "[0]: pool and engine must be texts"),
    ],
)
def test_a_file_that_says_nothing(
    console: Console, tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "tables.json"
    path.write_text(text)
    told = console.error("audit", "--from", path, expect=2)
    assert told.startswith(f"error: --from {path}: ")
    assert problem in told


def test_a_file_that_is_not_there(console: Console, tmp_path: Path) -> None:
    told = console.error("audit", "--from", tmp_path / "none.json", expect=2)
    assert told == f"error: --from {tmp_path}/none.json: No such file or directory\n"


LONG_NAME = "production-inference-engine-with-a-long-name-0001"


def test_tables_on_a_terminal_of_80_columns(console: Console) -> None:
    epoch = 0
    console.out("pool", "create", "a-pool-of-a-large-accelerator-0", 2**31 - 1)
    with kvblock.connect(console.address, engine=LONG_NAME) as kv, kv.attach_engine() as lease:
        epoch = lease.epoch
        kv.allocate(2**64 - 1, 2)
        for command, numbers in (
            ("stats", ["2,147,483,647", "64", "62", str(epoch)]),
            ("engines", ["2", "1", str(epoch)]),
            ("blocks", ["0", "1", str(2**64 - 1)]),
            ("sequences", ["2", str(2**64 - 1)]),
            ("pools", ["2,147,483,647", "64", "16"]),
            ("audit", ["2,147,483,647", "62", "2"]),
        ):
            shown = console.on_terminal(command, COLUMNS="80", NO_COLOR="1")
            lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.split("\r\n")]
            assert max(map(len, lines)) <= 80, shown
            words = {word for line in lines for word in line.split()}
            assert set(numbers) <= words, (command, shown)
            rows_of_engine = [line for line in lines if "production" in line]
            expected = {"stats": 2, "engines": 3, "blocks": 2, "sequences": 1}.get(command, 0)
            assert len(rows_of_engine) == expected, shown
            # Tables go on below; a listing that is printed as it comes has a line for each row.
            whole = command in ("stats", "engines")
            assert all((LONG_NAME if whole else "…") in line for line in rows_of_engine), shown
    wide = console.on_terminal("blocks", COLUMNS="200", NO_COLOR="1")
    assert LONG_NAME in wide
    assert "TRACE" in wide
