"""What docker-compose.yml describes works: its own command lines, started on this machine.

Container paths become paths of the test's folder, and open addresses free ports of the loopback;
nothing else differs.
"""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.processes import ROOT, run, serving

KVBLOCK = Path(sys.executable).with_name("kvblock")
SOCKET_FOLDER = "/run/kvblock"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert isinstance(services, dict)
    return services


def natively(arguments: list[str], folder: Path) -> list[str]:
    """A container's command line for this machine."""
    return [
        re.sub(r"^0\.0\.0\.0:\d+$", "127.0.0.1:0", argument.replace(SOCKET_FOLDER, str(folder)))
        for argument in arguments
    ]


def test_server_answers_its_health_check_and_its_published_port(
    services: dict[str, Any], tmp_path: Path
) -> None:
    server = services["kvblock-server"]
    _, kvblock, *arguments = server["healthcheck"]["test"]
    assert kvblock == KVBLOCK.name
    check: list[str | Path] = [KVBLOCK, *natively(arguments, tmp_path)]
    run(*check, expect=3)
    with serving(KVBLOCK, *natively(server["command"], tmp_path)) as addresses:
        run(*check)
        (port,) = [address for address in addresses if address.startswith("127.0.0.1:")]
        run(KVBLOCK, "stats", "--address", port)


def test_server_accepts_its_command_line_as_it_is(services: dict[str, Any]) -> None:
    run(KVBLOCK, *services["kvblock-server"]["command"], "--check")


def test_replay_runs_against_the_server(services: dict[str, Any], tmp_path: Path) -> None:
    replay = services["replay"]
    assert replay["depends_on"] == {"kvblock-server": {"condition": "service_healthy"}}
    with serving(KVBLOCK, *natively(services["kvblock-server"]["command"], tmp_path)):
        run(KVBLOCK, *natively(replay["command"], tmp_path))


def test_server_is_published_to_this_host_only(services: dict[str, Any]) -> None:
    server = services["kvblock-server"]
    prefix = "0.0.0.0:"
    (port,) = [a.removeprefix(prefix) for a in server["command"] if a.startswith(prefix)]
    assert server["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_services_share_the_socket_and_run_one_image(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["volumes"] == [f"socket:{SOCKET_FOLDER}"]
        assert service["image"] == services["kvblock-server"]["image"]
        assert not {"entrypoint", "user"} & service.keys()
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["kvblock"]' in dockerfile
    assert f"--owner kvblock --group kvblock {SOCKET_FOLDER}" in dockerfile
