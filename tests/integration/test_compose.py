"""What docker-compose.yml describes works: its own command lines, started on this machine.

Container paths become paths of the test's folder, and open addresses free ports of the loopback;
its configs and secrets become files there, filled from the variables that its head tells to make.
Nothing else differs.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.integration.docs.markdown import blocks
from tests.integration.processes import ROOT, plain_environment, run, serving

KVBLOCK = Path(sys.executable).with_name("kvblock")
COMPOSE = ROOT / "docker-compose.yml"
SOCKET_FOLDER = "/run/kvblock"
DEPLOYING = ROOT / "docs/deploy.md"
PLACES = (SOCKET_FOLDER, "/run/secrets", "/etc/kvblock")


class Project(NamedTuple):
    """What the file says, with the variables of .env, and the folder that stands for containers."""

    document: dict[str, Any]
    folder: Path
    variables: dict[str, str]

    @property
    def services(self) -> dict[str, Any]:
        services = self.document["services"]
        assert isinstance(services, dict)
        return services

    def natively(self, text: str) -> str:
        """A word of a container's command line or environment, for this machine."""
        for place in PLACES:
            text = text.replace(place, f"{self.folder}{place}")
        return re.sub(r"^0\.0\.0\.0:\d+$", "127.0.0.1:0", text)

    def command(self, service: str) -> list[str]:
        return [self.natively(word) for word in self.services[service]["command"]]

    def environment(self, service: str) -> dict[str, str]:
        variables: dict[str, str] = self.services[service]["environment"]
        return {name: self.natively(value) for name, value in variables.items()}

    def mount(self) -> None:
        """Make the files that every service is given."""
        for place in PLACES:
            Path(f"{self.folder}{place}").mkdir(parents=True)
        for service in self.services.values():
            for kind, folder in (("configs", "/"), ("secrets", "/run/secrets")):
                for file in service.get(kind, []):
                    source = self.document[kind][file["source"]]
                    there = Path(folder) / file.get("target", file["source"])
                    path = Path(f"{self.folder}{there}")
                    path.unlink(missing_ok=True)
                    path.write_text(self.filled(source))
                    path.chmod(file["mode"])

    def filled(self, source: dict[str, str]) -> str:
        if "environment" in source:
            return self.variables[source["environment"]]
        return re.sub(
            r"\$\{(\w+):\?[^}]+\}", lambda found: self.variables[found[1]], source["content"]
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("c")
    text = COMPOSE.read_text()
    # What the head of the file tells to make the tokens with.
    (recipe,) = re.findall(r"^#   (for .+?) {3,}makes them, once$", text, re.MULTILINE | re.DOTALL)
    script = recipe.replace("\n#", "\n")
    subprocess.run(["bash", "-euc", script], cwd=folder, env=plain_environment(), check=True)
    lines = (folder / ".env").read_text().splitlines()
    project = Project(yaml.safe_load(text), folder, dict(line.split("=") for line in lines))
    project.mount()
    return project


def test_server_answers_its_health_check_and_its_published_port(project: Project) -> None:
    _, kvblock, *arguments = project.services["kvblock-server"]["healthcheck"]["test"]
    assert kvblock == KVBLOCK.name
    credentials = project.environment("kvblock-server")
    run(KVBLOCK, *arguments, env=credentials, expect=3)
    with serving(KVBLOCK, *project.command("kvblock-server")) as addresses:
        run(KVBLOCK, *arguments, env=credentials)
        (port,) = [address for address in addresses if address.startswith("127.0.0.1:")]
        run(KVBLOCK, "stats", "--address", port, env=credentials)
        socket = project.folder / "run/kvblock/kvblock.sock"
        assert f"{socket.stat().st_mode & 0o777:04o}" == "0660"
        for address in addresses:
            told = run(KVBLOCK, "stats", "--address", address, expect=1).stderr
            assert "no credentials were shown" in told


def test_engines_are_held_to_their_names(project: Project) -> None:
    token = project.folder / "engine"
    token.write_text(project.variables["ENGINE_TOKEN"])
    shown = project.environment("kvblock-server") | {"KVBLOCK_TOKEN_FILE": str(token)}
    with serving(KVBLOCK, *project.command("kvblock-server")):
        run(KVBLOCK, "allocate", "1", "--engine", "engine-0", env=shown)
        run(KVBLOCK, "allocate", "1", "--engine", "other", env=shown, expect=1)
        run(KVBLOCK, "audit", env=shown, expect=1)


def test_server_accepts_its_command_line(project: Project) -> None:
    run(KVBLOCK, *project.command("kvblock-server"), "--check")


def test_replay_runs_against_the_server(project: Project) -> None:
    replay = project.services["replay"]
    assert replay["depends_on"] == {"kvblock-server": {"condition": "service_healthy"}}
    with serving(KVBLOCK, *project.command("kvblock-server")):
        run(KVBLOCK, *project.command("replay"), env=project.environment("replay"))


def test_files_are_the_servers_own_and_nobody_elses(project: Project) -> None:
    user = re.search(r"useradd --uid (\d+)", (ROOT / "Dockerfile").read_text())
    assert user is not None
    for service in project.services.values():
        for file in (*service.get("configs", []), *service["secrets"]):
            assert (file["uid"], file["gid"], file["mode"]) == (user[1], user[1], 0o400)


def test_server_is_published_to_this_host_only(project: Project) -> None:
    server = project.services["kvblock-server"]
    prefix = "0.0.0.0:"
    (port,) = [a.removeprefix(prefix) for a in server["command"] if a.startswith(prefix)]
    assert server["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_services_share_the_socket_and_run_one_image(project: Project) -> None:
    for service in project.services.values():
        assert service["volumes"] == [f"socket:{SOCKET_FOLDER}"]
        assert service["image"] == project.services["kvblock-server"]["image"]
        assert not {"entrypoint", "user"} & service.keys()
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["kvblock"]' in dockerfile
    assert f"--owner kvblock --group kvblock {SOCKET_FOLDER}" in dockerfile


def test_the_volume_for_memory_is_large_enough_and_where_the_server_looks(tmp_path: Path) -> None:
    (text,) = (block.text for block in blocks(DEPLOYING) if "memory=shm" in block.text)
    document = yaml.safe_load(text)
    server = document["services"]["kvblock-server"]
    listen = f"unix:{tmp_path}/kv.sock"
    command = (*server["command"], "--ephemeral", "--listen", listen, "--check", "--json")
    config = json.loads(run(KVBLOCK, *command).stdout)["config"]
    (pool,) = config["pools"]
    assert pool["memory"] == "shm"
    options = document["volumes"]["memory"]["driver_opts"]
    size = re.search(r"size=(\d+)m", options["o"])
    assert size is not None
    assert int(pool["total"]) * int(pool["block_bytes"]) <= int(size[1]) * 2**20
    volume = f"memory:{config['memory_dir']}"
    assert all(one["volumes"] == [volume] for one in document["services"].values())
    assert "gid=10001" in options["o"]
