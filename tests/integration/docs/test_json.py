"""docs/json.md against the real output of every command that has --json."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

import kvblock
from kvblock.v1 import admin_pb2, kvblock_pb2
from kvblock_cli.output import wide_fields
from tests.conftest import ServerFactory
from tests.integration.cli.conftest import here
from tests.integration.cli.every_command import Here, commands
from tests.integration.docs.markdown import ROOT, blocks

__all__ = ["here"]

SHAPES: dict[str, Any] = {
    name: json.loads(block.text)
    for block in blocks(ROOT / "docs/json.md")
    if block.language == "json"
    for name in ((" ".join(block.marks),) if "refused" in block.marks else block.marks)
}
WITHOUT_JSON = {"trace generate"}
"""Commands that write a file and answer nothing."""

POOLS = ("main:total=64,block_size=16,device=7", "shared:total=2048", "gpu0:total=64")
DIGITS = re.compile(r"0|[1-9][0-9]*")


def differs(shape: Any, value: Any, where: str = "$") -> list[str]:
    """Where a value is not what its shape says."""
    if isinstance(shape, str):
        return [] if fits(shape, value) else [f"{where}: {value!r} is no {shape}"]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        return [one for entry in value for one in differs(shape[0], entry, f"{where}[]")]
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no object"]
    named = shape.keys() - {"*"}
    missing = [f"{where}.{key} is missing" for key in named - value.keys()]
    unknown = [f"{where}.{key} is not in the shape" for key in value.keys() - shape.keys()]
    found = missing if "*" in shape else missing + unknown
    for key, entry in value.items():
        found += differs(shape.get(key, shape.get("*", "any")), entry, f"{where}.{key}")
    return found


def fits(shape: str, value: Any) -> bool:
    kind, _, null = shape.partition(" or ")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is None:
        return bool(null) or kind == "any"
    return {
        "any": True,
        "text": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "uint32": is_number and isinstance(value, int) and 0 <= value < 2**32,
        "uint64": isinstance(value, str) and bool(DIGITS.fullmatch(value)),
        "seconds": is_number and value >= 0,
        "number": is_number,
    }[kind]


def test_what_fits_and_what_does_not() -> None:
    shape = {"a": ["uint64"], "b": "text or null"}
    assert differs(shape, {"a": ["1"], "b": None}) == []
    assert differs(shape, {"a": [1], "b": 2}) == [
        "$.a[]: 1 is no uint64",
        "$.b: 2 is no text or null",
    ]
    assert differs(shape, {"a": [], "c": 1})[0] == "$.b is missing"


def test_the_page_has_every_command_that_has_json() -> None:
    with_json = {
        name.replace(" ", "-")
        for name, command in commands().items()
        if "as_json" in inspect.signature(command).parameters
    }
    assert set(commands()) - WITHOUT_JSON == {
        name for name in commands() if name.replace(" ", "-") in with_json
    }
    assert set(SHAPES) == with_json | {"error", "allocate refused"}


def test_a_field_that_has_64_bits_somewhere_has_them_everywhere() -> None:
    for file in (admin_pb2.DESCRIPTOR, kvblock_pb2.DESCRIPTOR):
        for message in file.message_types_by_name.values():
            for field in message.fields:
                small = (field.CPPTYPE_INT32, field.CPPTYPE_UINT32)
                assert field.cpp_type not in small or field.name not in wide_fields()


class Checked:
    """Runs commands with --json and holds their output against the page."""

    def __init__(self, here: Here, address: str) -> None:
        self._here = here
        self._address = address
        self.seen: set[str] = set()

    def __call__(self, command: str, *arguments: str, code: int = 0, shape: str = "") -> Any:
        """The output of one command; of several lines the first."""
        local = command.split()[0] in ("serve", "journal", "memory")
        where = () if local else ("--address", self._address)
        done = self._here.run(command, *arguments, *where, "--json")
        assert (done.code, "error:" in done.err) == (code, False), done
        name = shape or command.replace(" ", "-")
        lines = done.out.splitlines() if name == "journal-dump" else [done.out]
        answers = [json.loads(line) for line in lines]
        for answer in answers:
            assert differs(SHAPES[name], answer) == [], (command, answer)
        self.seen.add(name)
        return answers[0]


BIG = str(2**64 - 1)


def engines_and_blocks(check: Checked) -> None:
    assert check("allocate", BIG, "2", "--engine", "a")["granted"]["block_numbers"] == [0, 1]
    check("allocate", "7", "65", code=1, shape="allocate refused")
    check("allocate", "7", "1", "--engine", "b")
    check("reclaim", "b", "--yes")
    assert len(check("table", BIG, "--engine", "a")["block_numbers"]) == 2
    check("can-allocate", "1")


def what_operators_see(check: Checked, address: str, tables: Path) -> None:
    with kvblock.connect(address, engine="leased") as kv, kv.attach_engine() as lease:
        kv.allocate(1)
        (pool, *_) = check("stats", "--pool", "main")["pools"]
        assert [one["engine"] for one in pool["engines"]] == ["a", "leased"]
        assert pool["engines"][1]["epoch"] == str(lease.epoch)
        assert pool["refusals"] == [{"reason": "EXCEEDS_POOL", "count": "1"}]
        assert check("engines")["engines"][1]["since_heartbeat"] >= 0
    assert check("top", "--interval", "0.05")["engines"][0]["engine"] == "a"
    assert check("sequences", "--blocks")["sequences"][0]["sequence_id"] == BIG
    assert check("blocks")["blocks"][0]["sequence_id"] == BIG
    check("holder", "2", code=1)
    tables.write_text(json.dumps({"engine": "a", "epoch": "3", "tables": {BIG: [1, 9]}}))
    compared = check("audit", "--from", str(tables), code=1)["comparisons"][0]
    assert compared["differences"][-1]["sequence_id"] == BIG
    check("pools")
    check("pool create", "extra", "8")
    check("pool delete", "extra", "--yes")


def what_is_kept(check: Checked, state: Path) -> None:
    check("serve", "--check", "--pool", "main:total=1")
    assert check("journal verify", str(state))["pools"][0]["held"] == 2
    checks = check("doctor", "--state-dir", str(state))["checks"]
    assert ("journal", "ok") in {(one["check"], one["status"]) for one in checks}
    check("journal dump", str(state))
    (pool, *_) = check("journal export", str(state))["pools"]
    assert pool["engines"][0]["sequences"][0]["sequence_id"] == BIG


def test_every_output_has_the_shape_of_the_page(
    server_factory: ServerFactory, tmp_path: Path, here: Here
) -> None:
    state = tmp_path / "state"
    flags = ["--default-pool", "main", "--state-dir", str(state)]
    server = server_factory(POOLS, flags, env={"KVBLOCK_EPHEMERAL": "false"})
    check = Checked(here, server.address)
    engines_and_blocks(check)
    what_operators_see(check, server.address, tmp_path / "tables.json")
    what_is_kept(check, state)
    check("replay", "--mode", "shared", "--limit", "1")
    check("free", BIG, "--engine", "a")
    check("drain", "--yes")
    assert server.process.wait(timeout=60) == 0
    check("journal discard", str(state), "--pool", "main", "--yes")
    check("journal set-aside", str(state), "--yes")
    (tmp_path / "kvblock-1-a-main.owner").touch()
    (found,) = check("memory list", "--memory-dir", str(tmp_path))["files"]
    assert found["state"] == "ORPHAN"
    assert check("memory clean", "--memory-dir", str(tmp_path), "--yes")["removed"]
    check("stats", code=3, shape="error")
    assert check("table", "x", code=2, shape="error")["hint"] == "see `kvblock table --help`"
    assert check.seen == set(SHAPES)


@pytest.mark.parametrize(
    ("command", "arguments", "code", "reason"),
    [
        ("table", ["1"], 1, "SEQUENCE_NOT_FOUND"),
        ("allocate", ["1", "0"], 2, "INVALID_FIELD"),
        ("stats", ["--pool", "none"], 1, "POOL_NOT_FOUND"),
        ("stats", ["--timeout", "0"], 2, "INVALID_FIELD"),
        ("stats", ["--nope"], 2, None),
        ("nope", [], 2, None),
        ("audit", ["--from", "/nowhere"], 2, None),
        ("stats", ["--token-file", "/nowhere"], 2, None),
    ],
)
def test_an_error_is_an_object_on_stdout(
    shared_server: kvblock.EmbeddedServer,
    here: Here,
    command: str,
    arguments: list[str],
    code: int,
    reason: str | None,
) -> None:
    where = () if command == "nope" else ("--address", shared_server.address)
    done = here.run(command, *arguments, "--json", *where)
    answer = json.loads(done.out)
    assert differs(SHAPES["error"], answer) == []
    assert (done.code, answer["exit_code"], answer["reason"]) == (code, code, reason)
    assert done.err == ""
