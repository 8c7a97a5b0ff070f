"""deploy/systemd: a unit that systemd accepts, with limits that fit what the server does."""

import json
import os
import re
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

import kvblock
from kvblock_service.logging_setup import END_SECONDS_MAX
from kvblock_service.open_files import SPARE
from tests.integration.deploy.tools import DEPLOY, KVBLOCK, needed
from tests.integration.deploy.unit_file import allowed_calls, assignments, in_bytes
from tests.integration.processes import ROOT, plain_environment, run

UNIT = DEPLOY / "systemd/kvblock.service"
SETTINGS = DEPLOY / "kvblock.toml"
EXPOSURE_MAX = 1.5
"""What `systemd-analyze security` may make of the unit, from 0 (closed) to 10."""


@pytest.fixture
def unit() -> dict[str, list[str]]:
    return assignments(UNIT)


@pytest.fixture
def settings() -> dict[str, Any]:
    shown = run(KVBLOCK, "serve", "--config", SETTINGS, "--check", "--json")
    config: dict[str, Any] = json.loads(shown.stdout)["config"]
    return config


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The unit with the command of this environment, which has to be there for `verify`."""
    path = tmp_path / "kvblock.service"
    path.write_text(UNIT.read_text().replace("/opt/kvblock/bin/kvblock", str(KVBLOCK)))
    return path


def test_systemd_accepts_the_unit(here: Path) -> None:
    systemd_analyze = needed("systemd-analyze", "the unit is not verified")
    verified = run(systemd_analyze, "verify", "--man=no", here)
    assert (verified.stdout, verified.stderr) == ("", "")


def test_systemd_can_make_the_user(unit: dict[str, list[str]]) -> None:
    sysusers = needed("systemd-sysusers", "the file that makes the user is not read")
    tried = run(sysusers, "--dry-run", DEPLOY / "systemd/kvblock.sysusers.conf")
    for key in ("User", "Group"):
        assert f"{key.lower()} '{unit[key][0]}'" in tried.stderr


def test_the_unit_is_hardened(here: Path) -> None:
    systemd_analyze = needed("systemd-analyze", "the unit's exposure is not rated")
    threshold = f"--threshold={round(EXPOSURE_MAX * 10)}"
    run(systemd_analyze, "security", "--offline=true", "--no-pager", threshold, here)


def test_a_drain_ends_before_systemd_kills(
    unit: dict[str, list[str]], settings: dict[str, Any]
) -> None:
    assert unit["KillSignal"] == ["SIGTERM"]
    (seconds,) = unit["TimeoutStopSec"]
    assert float(seconds) > settings["grace"] + END_SECONDS_MAX


def test_there_are_descriptors_for_all_connections(
    unit: dict[str, list[str]], settings: dict[str, Any]
) -> None:
    (limit,) = unit["LimitNOFILE"]
    assert int(limit) >= len(settings["listen"]) * settings["connections_max"] + SPARE
    assert int(limit) >= 7 * settings["connections_max"] + SPARE


def test_memory_is_limited_above_what_the_floods_took(unit: dict[str, list[str]]) -> None:
    decision = (ROOT / "docs/adr/0013-limits-before-admission.md").read_text()
    took = max(int(megabytes) for megabytes in re.findall(r"(\d+) MB \|", decision))
    assert f"{took} MB" in UNIT.read_text()
    (limit,) = unit["MemoryMax"]
    assert in_bytes(limit) >= 2 * took * 10**6


def test_the_paths_are_those_that_systemd_makes(
    unit: dict[str, list[str]], settings: dict[str, Any]
) -> None:
    (command,) = unit["ExecStart"]
    assert command.endswith(f" --state-dir /var/lib/{unit['StateDirectory'][0]}")
    (address,) = settings["listen"]
    assert address.startswith(f"unix:/run/{unit['RuntimeDirectory'][0]}/")


def test_the_journal_sees_whether_the_host_was_rebooted(unit: dict[str, list[str]]) -> None:
    assert "ProcSubset" not in unit, "/proc/sys/kernel/random/boot_id would be hidden"


@pytest.mark.parametrize(
    "line", ["no_such = 1", 'access_file = "/nowhere"'], ids=["unknown setting", "no access file"]
)
def test_what_cannot_heal_is_not_tried_again(
    unit: dict[str, list[str]], tmp_path: Path, line: str
) -> None:
    config = tmp_path / "kvblock.toml"
    config.write_text(f'{line}\npools = [{{name = "a", total = 1}}]\n')
    listen = f"unix:{tmp_path}/s"
    refused = (KVBLOCK, "serve", "--config", config, "--listen", listen)
    ended = subprocess.run(refused, env=plain_environment(), capture_output=True, check=False)
    assert unit["RestartPreventExitStatus"] == [str(ended.returncode)], ended.stderr
    assert unit["Restart"] == ["on-failure"]


def test_the_server_works_within_the_filter_of_system_calls(
    unit: dict[str, list[str]], tmp_path: Path
) -> None:
    systemd_analyze = needed("systemd-analyze", "the filter of system calls is not known")
    strace = needed("strace", "the server's system calls are not compared with the unit's filter")
    trace = tmp_path / "trace"
    environment = plain_environment() | {"KVBLOCK_EPHEMERAL": "false"}
    with subprocess.Popen(
        (strace, "-f", "-qq", "-o", trace, *command(tmp_path)),
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        umask=int(unit["UMask"][0], 8),
    ) as traced:
        assert traced.stdout is not None
        assert traced.stdout.readline().startswith("kvblock ready ")
        server = Path(f"/proc/{traced.pid}/task/{traced.pid}/children").read_text().split()
        try:
            socket = tmp_path / "kvblock.sock"
            assert stat.S_IMODE(socket.stat().st_mode) == 0o660
            with kvblock.connect(f"unix:{socket}") as kv, kv.session() as session:
                session.step(allocate=[1])
        finally:
            os.kill(int(server[0]), signal.SIGTERM)
        assert traced.wait() == 0
    used = set(re.findall(r"^\d+ +([a-z_0-9]+)\(", trace.read_text(), re.MULTILINE))
    assert {"execve", "bind", "listen"} <= used
    assert used - allowed_calls(unit["SystemCallFilter"], systemd_analyze) == set()


def command(folder: Path) -> tuple[str | Path, ...]:
    """The server of the unit, with this folder in place of those that systemd makes."""
    listen, metrics = f"unix:{folder}/kvblock.sock", "127.0.0.1:0"
    where = ("--listen", listen, "--metrics-listen", metrics, "--state-dir", folder / "state")
    return (KVBLOCK, "serve", "--config", SETTINGS, *where)
