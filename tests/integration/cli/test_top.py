"""`kvblock top` on a terminal of its own, against real servers."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvblock
from tests.conftest import ServerFactory
from tests.integration.cli.conftest import here
from tests.integration.cli.console import KVBLOCK
from tests.integration.cli.every_command import Here
from tests.integration.cli.screen import ALTERNATE, Terminal
from tests.integration.processes import serving
from tests.waiting import happens

__all__ = ["here"]

OFTEN = ("--interval", "0.05")
COLOUR = re.compile(rb"\x1b\[(?:[0-9]+;)*(?:3[0-7]|38|4[0-7]|48|9[0-7])[;m]")
SIZES = {"big": 1024, "main": 64, "small": 4}


@pytest.fixture
def address(server_factory: ServerFactory) -> Iterator[str]:
    """A server with three pools, in which engines hold 8, 2 and 4 blocks."""
    specs = [f"{name}:total={size}" for name, size in SIZES.items()]
    server = server_factory(specs, ["--default-pool", "main"])
    with kvblock.connect(server.address) as kv:
        kv.allocate(1, 8, pool="big", engine="crowd")
        kv.allocate(1, 4, pool="small", engine="loose")
        with kv.attach_engine(engine="zed", ttl=3600.0):
            kv.allocate(1, 2, engine="zed")
            yield server.address


def top(address: str, *arguments: str, **options: object) -> Terminal:
    return Terminal("top", "--address", address, *OFTEN, *arguments, **options)  # type: ignore[arg-type]


def test_pools_and_engines_in_the_order_of_the_key(address: str) -> None:
    with top(address, columns=120) as shown:
        shown.until("big", "zed", "REFUSED/S", "3 pools, 3 engines, every 0.05 s")
        assert shown.column("POOL", "FREE") == ["1,016", "0", "62"]
        assert shown.column("POOL", "ENGINE") == ["crowd", "loose", "zed"]
        assert shown.rows()[1].startswith("q quit, sort by  h held  n name")
        shown.press("b")
        happens(lambda: shown.column("POOL", "ENGINE") == ["zed", "crowd", "loose"])
        shown.press("n")
        happens(lambda: shown.column("POOL", "ENGINE") == ["crowd", "zed", "loose"])
        happens(lambda: shown.column("POOL", "FREE") == ["1,016", "62", "0"])
        shown.press("h")
        happens(lambda: shown.column("POOL", "ENGINE") == ["crowd", "loose", "zed"])
        shown.press("q")
        assert shown.ended() == 0
    assert ALTERNATE[0].encode() in shown.shown


def test_what_happens_is_seen(address: str) -> None:
    with top(address, "--pool", "main", columns=120) as shown, kvblock.connect(address) as kv:
        shown.until("main", "HELD")
        assert shown.column("POOL", "ENGINE") == ["zed"]
        sequence = 100
        while shown.column("POOL", "ALLOC/S")[0] in ("0", "-"):
            kv.step(allocate=[sequence], engine="busy")
            sequence += 1
            if sequence % 32 == 0:
                kv.step(free=range(sequence - 32, sequence), engine="busy")
        while shown.column("POOL", "REFUSED/S")[0] in ("0", "-"):
            assert isinstance(kv.allocate(1, 64, engine="greedy"), kvblock.Refused)
        shown.until("busy", "▁")
        shown.press("q")
        assert shown.ended() == 0


@pytest.mark.parametrize(
    ("key", "number", "code"),
    [("\x03", None, 0), ("", signal.SIGINT, 0), ("", signal.SIGTERM, -signal.SIGTERM)],
    ids=["Ctrl-C", "SIGINT", "SIGTERM"],
)
def test_however_it_ends_the_terminal_is_as_it_was(
    address: str, key: str, number: signal.Signals | None, code: int
) -> None:
    with top(address) as shown:
        shown.until("zed")
        assert shown.mode() != shown.before
        if number is None:
            shown.press(key)
        else:
            shown.process.send_signal(number)
        assert shown.ended() == code


def test_stopped_by_ctrl_z_it_lends_the_screen_and_comes_back(address: str) -> None:
    def state() -> str:
        return Path(f"/proc/{shown.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    with top(address) as shown:
        shown.until("zed")
        shown.press("\x1a")
        happens(lambda: state() == "T")
        assert shown.mode() == shown.before
        happens(lambda: ALTERNATE[1].encode() in shown.shown)
        drawn = len(shown.shown)
        shown.process.send_signal(signal.SIGCONT)
        happens(lambda: b"zed" in shown.shown[drawn:])
        assert shown.mode() != shown.before
        shown.press("q")
        assert shown.ended() == 0


def test_a_frame_fits_whatever_the_size_is(address: str) -> None:
    with top(address, columns=80) as shown:
        shown.until("zed", "REFUSED/S")
        for head in ("TOTAL", "FREE", "HELD", "QUAR", "USE"):
            assert shown.column("POOL", head)
        shown.resize(30, 24)
        happens(lambda: "REFUSED/S" not in shown.text())
        shown.until("big", "FREE", "HELD", "zed")
        assert shown.column("POOL", "FREE") == ["1,016", "0", "62"]
        shown.resize(130, 10)
        shown.until("REFUSED/S", "WAITING", "CHANGES/S", "EPOCH", "and 1 more pools")
        shown.press("q")
        assert shown.ended() == 0


def test_a_server_that_goes_away_is_told_of_until_it_is_back(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    serve = (*KVBLOCK, "serve", "--pool", "main:total=64", "--listen", address)
    with top(address) as shown:
        assert shown.process.wait() == 3
        assert "error: " in shown.text()
        assert ALTERNATE[0].encode() not in shown.shown
    with serving(*serve):
        shown = top(address).__enter__()
        shown.until("main", "q quit")
    shown.until("main", "no answer for ")
    with serving(*serve):
        shown.until("main", "q quit")
        shown.press("q")
        assert shown.ended() == 0
        shown.__exit__(None, None, None)


def test_keys_work_while_the_server_does_not_answer(server: kvblock.EmbeddedServer) -> None:
    with top(server.address) as shown:
        shown.until("main", "h held")
        server.process.send_signal(signal.SIGSTOP)
        try:
            shown.press("q")
            assert shown.ended() == 0
        finally:
            server.process.send_signal(signal.SIGCONT)


def test_colours_only_where_they_are_wanted(address: str) -> None:
    for variables, colours in (({}, True), ({"NO_COLOR": "1"}, False)):
        with top(address, **variables) as shown:
            shown.until("zed")
            shown.press("q")
            assert shown.ended() == 0
        assert bool(COLOUR.search(shown.shown)) == colours


def test_without_a_screen_it_prints_one_frame(address: str, here: Here) -> None:
    done = here.run("top", "--address", address, *OFTEN)
    assert (done.code, done.err) == (0, "")
    pools, engines = done.out.strip().split("\n\n")
    assert [line.split()[:4] for line in pools.splitlines()] == [
        ["POOL", "TOTAL", "FREE", "HELD"],
        ["big", "1,024", "1,016", "8"],
        ["small", "4", "0", "4"],
        ["main", "64", "62", "2"],
    ]
    assert pools.splitlines()[1].split()[4:] == ["0", "0.8", "%", "0", "0", "0", "0", "0"]
    assert engines.splitlines()[1].split()[:5] == ["big", "crowd", "8", "0.8", "%"]
    with top(address, TERM="dumb") as shown:
        assert shown.process.wait() == 0
        shown.until("ENGINE", "zed")
    assert ALTERNATE[0].encode() not in shown.shown


def test_a_terminal_that_is_gone_ends_it(address: str) -> None:
    with top(address) as shown:
        shown.until("zed")
        shown.process.send_signal(signal.SIGHUP)
        assert shown.process.wait() == -signal.SIGHUP
        assert shown.mode() == shown.before
