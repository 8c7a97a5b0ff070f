"""What a server says does nothing to a terminal, and ends no command with a traceback."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from kvblock.v1 import admin_pb2 as admin
from kvblock.v1 import kvblock_pb2 as pb
from tests.integration.cli.console import Console
from tests.integration.cli.every_command import Here

EVIL = (
    "[/]",
    "[bold red]x[/bold red]",
    "[link=https://example.org]x",
    "\x1b]0;owned\x07\x1b[2J",
    "\x9b31m\x7f",
    "a\nb\r\tc",
    "\u202eright\u2028to left",
    "two words " * 20,
    "\u540d\u524d" * 60,
    "",
)
EVIL_TEXT = "bad \x1b[31mnews\x07\nerror: another line [/]"
MOST = 2**64 - 1


def stats() -> pb.StatsResponse:
    pools = [
        pb.PoolStats(
            pool=name,
            allocated_blocks_total=MOST,
            sequences=MOST,
            held_blocks=7,
            engines=[pb.EngineStats(engine=name, held_blocks=7, sequences=1, epoch=MOST)],
            refusals=[pb.RefusalCount(reason=99, count=1)],  # type: ignore[arg-type]
        )
        for name in EVIL
    ]
    return pb.StatsResponse(pools=pools)


def engines() -> admin.ListEnginesResponse:
    rows = [admin.EngineInfo(pool=name, engine=name, epoch=MOST) for name in EVIL]
    for row in rows:
        row.lease_expires_in.seconds = -1
        row.since_heartbeat.seconds = 10**11
    return admin.ListEnginesResponse(engines=rows)


def blocks() -> admin.ListBlocksResponse:
    rows = [admin.BlockInfo(engine=name, trace_id=name, state=99) for name in EVIL]  # type: ignore[arg-type]
    for row in rows:
        row.since.seconds = 10**17
    return admin.ListBlocksResponse(blocks=rows)


ANSWERS: dict[str, Callable[[], Message]] = {
    "Stats": stats,
    "ListPools": lambda: admin.ListPoolsResponse(pools=[admin.Pool(pool=one) for one in EVIL]),
    "ListEngines": engines,
    "ListBlocks": blocks,
    "ListSequences": lambda: admin.ListSequencesResponse(
        sequences=[admin.SequenceInfo(engine=one, sequence_id=MOST) for one in EVIL]
    ),
    "Audit": lambda: admin.AuditResponse(
        reports=[admin.AuditReport(pool=one, violations=[one]) for one in EVIL]
    ),
}
SHOWN = {
    "stats": 0,
    "top": 0,
    "pools": 0,
    "engines": 0,
    "blocks": 0,
    "sequences": 0,
    "audit": 1,
    "holder": 1,
}
"""Commands that show answers, and their exit codes."""


class Hostile(grpc.GenericRpcHandler):
    """Answers what nobody should, and to other calls an error."""

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]

        def call(_: bytes, context: grpc.ServicerContext) -> bytes:
            if name not in ANSWERS:
                context.abort(grpc.StatusCode.INTERNAL, EVIL_TEXT)
            return ANSWERS[name]().SerializeToString()

        return grpc.unary_unary_rpc_method_handler(call)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Hostile()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)


def arguments(command: str) -> list[str]:
    return ["0"] if command == "holder" else []


@pytest.mark.parametrize("command", SHOWN)
def test_names_are_shown_as_they_are(command: str, address: str, here: Here) -> None:
    done = here.run(command, *arguments(command), "--address", address)
    assert (done.code, done.err) == (SHOWN[command], "")
    assert "".join(done.out.split("\n")).isprintable()
    for told in ("[/]", "[bold red]x[/bold red]", r"\x1b]0;owned\x07\x1b[2J", r"a\nb\r\tc"):
        assert told in done.out
    assert r"\u202eright\u2028to left" in done.out


@pytest.mark.parametrize("command", SHOWN)
def test_json_is_escaped_and_whole(command: str, address: str, here: Here) -> None:
    done = here.run(command, *arguments(command), "--address", address, "--json")
    assert done.code == SHOWN[command]
    assert "".join(done.out.split("\n")).isprintable()
    rows = next(rows for rows in json.loads(done.out).values() if isinstance(rows, list))
    key = "pool" if "pool" in rows[0] else "engine"
    assert [row[key] for row in rows] == list(EVIL)


@pytest.mark.parametrize("command", [*SHOWN, "table"])
def test_nothing_reaches_a_terminal(command: str, address: str) -> None:
    typed = ["10"] if command == "table" else arguments(command)
    shown = Console(address).on_terminal(command, *typed, NO_COLOR="1", COLUMNS="80", TERM="dumb")
    assert "Traceback" not in shown
    assert "".join(shown.split("\r\n")).isprintable()


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_doctor_survives_its_patient(address: str, here: Here, extra: list[str]) -> None:
    done = here.run("doctor", "--address", address, *extra)
    assert (done.code, done.err) == (1, "")
    assert "".join(done.out.split("\n")).isprintable()
    assert r"bad \x1b[31mnews\x07\nerror: another line [/]" in done.out or extra


def test_the_message_of_an_error_is_one_line(address: str, here: Here) -> None:
    done = here.run("table", "10", "--address", address)
    assert (done.code, done.out) == (1, "")
    assert done.err == r"error: bad \x1b[31mnews\x07\nerror: another line [/]" + "\n"
    told = json.loads(here.run("table", "10", "--address", address, "--json").out)
    assert (told["message"], told["reason"]) == (EVIL_TEXT, "INTERNAL")


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_an_audit_of_both_sides(address: str, here: Here, tmp_path: Any, extra: list[str]) -> None:
    path = tmp_path / "tables.json"
    path.write_text('{"pool": "a", "tables": {"1": [0]}}')
    done = here.run("audit", "--from", str(path), "--address", address, *extra)
    assert done.code == 1
    assert "the server answered otherwise than for engine" in done.err + done.out
