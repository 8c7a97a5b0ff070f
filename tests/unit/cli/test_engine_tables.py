"""What an engine has in its tables, and acquired, against what a server answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import kvblock
from kvblock import BlockInfo, BlockState, EngineStats, ErrorReason, InvalidArgumentError, PoolStats
from kvblock.operator_results import EngineTables as ServedTables
from kvblock_cli import engine_tables
from kvblock_cli.engine_tables import ATTEMPTS, Comparison, EngineTables
from kvblock_cli.failures import USAGE, CommandError

PAGE_SIZE_MAX = 2
TOTAL = 16


class Server:
    """Answers as a server whose pool has engine `a` with these blocks, and `b` with block 15.

    `changes` is how many times the pool changes right after its tables were read; `later` are the
    tables that it then has.
    """

    def __init__(
        self,
        tables: dict[int, list[int]] | None = None,
        acquired: list[int] | None = None,
        changes: int = 0,
        later: dict[int, list[int]] | None = None,
    ) -> None:
        self.tables = tables or {}
        self.acquired = acquired or []
        self.revision = 5
        self.listed: list[dict[str, Any]] = []
        self._changes = changes
        self._later = self.tables if later is None else later

    def stats(self, *, pool: str, engine: str) -> kvblock.ServerStats:
        held = sum(map(len, self.tables.values())) + len(self.acquired)
        mine = EngineStats(engine, held, len(self.tables), True, 3, 1.5, len(self.acquired))
        free = TOTAL - held
        row = PoolStats(
            pool, TOTAL, free, held, 16, 0, 0, 0, 0, {}, self.revision, 0, engines=(mine,)
        )
        return kvblock.ServerStats((row,), 1, "1.2.3")

    def block_tables(self, *, pool: str, engine: str, page_size: int) -> ServedTables:
        self._limited(page_size)
        answer = ServedTables(self.tables, self.revision, True)
        if self._changes:
            self._changes -= 1
            self.revision += 1
        return answer

    def list_blocks(self, *, page_size: int, **asked: Any) -> Iterator[BlockInfo]:
        self.listed.append(asked)
        # The first page is asked for when the first row is.
        self._limited(page_size)
        for block in asked.get("block_numbers") or range(TOTAL):
            row = self._row(block)
            if asked.get("engine") in (None, row.engine) and (
                "states" not in asked or row.state in asked["states"]
            ):
                yield row

    def _row(self, block: int) -> BlockInfo:
        places: dict[int, int | None] = dict.fromkeys(self.acquired)
        places |= {number: id_ for id_, table in self._later.items() for number in table}
        if block in places:
            return BlockInfo(block, BlockState.HELD, "a", places[block], 1.0, "", None)
        if block == 15:
            return BlockInfo(block, BlockState.HELD, "b", None, 1.0, "", None)
        if block == 14:
            return BlockInfo(block, BlockState.QUARANTINED, "a", None, 1.0, "", 2.5)
        return BlockInfo(block, BlockState.NEVER_USED, "", None, None, "", None)

    def _limited(self, page_size: int) -> None:
        if page_size > PAGE_SIZE_MAX:
            limit = {"limit": "page_size_max", "max": str(PAGE_SIZE_MAX)}
            raise InvalidArgumentError("", reason=ErrorReason.REQUEST_LIMIT, metadata=limit)


def compared(
    server: Server, tables: dict[int, list[int]], acquired: list[int] | None
) -> Comparison:
    given = EngineTables("main", "a", None, tables, acquired)
    return engine_tables.compare(cast("kvblock.Client", server), given)


def differences(
    server: Server, tables: dict[int, list[int]], acquired: list[int] | None
) -> list[tuple[str, int | None, int | None, str]]:
    found = compared(server, tables, acquired).differences
    return [(one.kind.name, one.sequence_id, one.block_number, one.text) for one in found]


def test_the_same_acquired_blocks_in_any_order() -> None:
    server = Server({7: [0, 1]}, [2, 3, 4, 5])
    found = compared(server, {7: [0, 1]}, [5, 3, 2, 4])
    assert found.differences == []
    assert (found.blocks, found.acquired_blocks, found.at_one_moment) == (2, 4, True)
    assert len(server.listed) == 2, "the server's limit was met, and kept"
    assert server.listed[0] == {"pool": "main", "engine": "a", "states": [BlockState.HELD]}


def test_acquired_blocks_that_are_left_out_are_not_compared() -> None:
    server = Server({7: [0]}, [2, 3])
    found = compared(server, {7: [0]}, None)
    assert (found.differences, found.acquired_blocks) == ([], 2)
    assert server.listed == []


def test_no_acquired_blocks_are_compared_when_the_file_says_so() -> None:
    text = "block 2 is in the server's acquired blocks; the engine does not have it"
    assert differences(Server({}, [2]), {}, []) == [("LEAKED", None, 2, text)]


def test_acquired_blocks_that_are_not_the_engines_own() -> None:
    where = "is in the engine's acquired blocks, but"
    assert differences(Server({}, [2]), {}, [16, 15, 14, 9, 2]) == [
        ("NOT_HELD", None, 9, f"block 9 {where} free; nobody ever had it"),
        ("NOT_HELD", None, 14, f"block 14 {where} in quarantine for 2.5 s more; a lost it"),
        ("NOT_HELD", None, 15, f"block 15 {where} acquired by engine b, in no sequence"),
        ("NOT_HELD", None, 16, f"block 16 {where} the pool has only 16 blocks"),
    ]


def test_blocks_in_a_table_on_one_side_and_acquired_on_the_other() -> None:
    assert differences(Server({7: [0, 1], 8: [4]}, [2, 3]), {7: [0, 2]}, [1, 3, 4]) == [
        *(
            ("MISPLACED", place, block, f"block {block} is in the engine's {text}")
            for place, block, text in (
                (7, 2, "sequence 7, but in the server's acquired blocks"),
                (None, 1, "acquired blocks, but in the server's sequence 7"),
                (None, 4, "acquired blocks, but in the server's sequence 8"),
            )
        ),
    ]
    text = "block 1 is in the engine's sequence 8, but in the server's sequence 7"
    assert differences(Server({7: [1]}), {8: [1]}, []) == [("MISPLACED", 8, 1, text)]


def test_blocks_that_the_engine_has_twice() -> None:
    has = {7: [0, 1, 0], 8: [1]}
    assert differences(Server({7: [0, 1]}, [2]), has, [2, 2, 1]) == [
        ("TWICE", 7, 0, "block 0 is in the engine's sequence 7 twice"),
        ("TWICE", 8, 1, "block 1 is in the engine's sequence 7 and sequence 8"),
        ("TWICE", None, 2, "block 2 is in the engine's acquired blocks twice"),
        ("TWICE", None, 1, "block 1 is in the engine's sequence 7 and acquired blocks"),
    ]


def test_a_table_in_another_order_beside_acquired_blocks() -> None:
    text = "sequence 7: at [0] the engine has block 1, the server 0"
    assert differences(Server({7: [0, 1]}, [2]), {7: [1, 0]}, [2]) == [("ORDER", 7, None, text)]


@pytest.mark.parametrize(("changes", "at_one_moment"), [(1, True), (ATTEMPTS, False)])
def test_acquired_blocks_are_of_the_moment_of_the_tables(changes: int, at_one_moment: bool) -> None:
    found = compared(Server({7: [0]}, [2], changes), {7: [0]}, [2])
    assert (found.differences, found.at_one_moment) == ([], at_one_moment)


def test_what_is_in_a_table_at_either_moment_does_not_count_as_acquired() -> None:
    server = Server({7: [0, 2]}, [2], ATTEMPTS, later={7: [0], 9: [9]})
    found = compared(server, {7: [0, 2]}, [])
    assert (found.differences, found.at_one_moment) == ([], False)


def read(tmp_path: Path, row: dict[str, Any]) -> EngineTables:
    path = tmp_path / "tables.json"
    path.write_text(json.dumps(row))
    (found,) = engine_tables.read(path)
    return found


@pytest.mark.parametrize(
    ("more", "acquired"),
    [
        ({}, None),
        ({"acquired": None}, None),
        ({"acquired": []}, []),
        ({"acquired": [2**32 - 1, 0]}, [2**32 - 1, 0]),
    ],
)
def test_acquired_blocks_of_a_file(
    tmp_path: Path, more: dict[str, Any], acquired: list[int] | None
) -> None:
    found = read(tmp_path, {"tables": {"7": [1]}, "engine": "a"} | more)
    assert found == EngineTables("", "a", None, {7: [1]}, acquired)


@pytest.mark.parametrize(
    ("acquired", "problem"),
    [
        (3, ".acquired: must be a list of block numbers"),
        ({}, ".acquired: must be a list of block numbers"),
        ([3, -1], ".acquired[1]: -1 must be from 0 to 4294967295"),
        ([2**32], ".acquired[0]: 4294967296 must be from 0 to 4294967295"),
        ([True], ".acquired[0]: True must be from 0 to 4294967295"),
        (["3"], ".acquired[0]: '3' must be from 0 to 4294967295"),
    ],
)
def test_acquired_blocks_that_cannot_be(tmp_path: Path, acquired: object, problem: str) -> None:
    with pytest.raises(CommandError) as raised:
        read(tmp_path, {"tables": {}, "acquired": acquired})
    assert str(raised.value) == f"--from {tmp_path}/tables.json: [0]{problem}"
    assert raised.value.exit_code == USAGE
