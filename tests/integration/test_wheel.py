"""The built wheel in empty environments: a light client, a full server, both ends of protobuf."""

import email
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.integration.processes import ROOT, run, serving

CONSTRAINTS = ROOT / "constraints.txt"
POOL = "main:total=64,block_size=16,device=7"
FIRST_CALL = """
import sys
import kvblock
with kvblock.connect(sys.argv[1]) as kv:
    granted = kv.allocate(10, num_blocks=2)
    print(granted.block_numbers, granted.device_id, kv.free_returning_count(10))
"""

# Takes what pip shall install; returns the folder of the executables of a new environment.
Install: TypeAlias = Callable[..., Path]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as a release would be."""
    out = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--dependency-constraints-txt", CONSTRAINTS)
    run(*build, "--outdir", out, ROOT)
    (built,) = out.glob("kvblock-*.whl")
    return built


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Installs packages into an environment that holds nothing, not even pip."""

    def new_environment(*packages: str | Path) -> Path:
        venv = tmp_path_factory.mktemp("venv")
        run(sys.executable, "-m", "venv", "--without-pip", venv)
        pip = (sys.executable, "-m", "pip", "--python", venv / "bin/python")
        run(*pip, "install", "--quiet", *packages)
        return venv / "bin"

    return new_environment


@pytest.fixture(scope="module")
def light(wheel: Path, install: Install) -> Path:
    return install("--constraint", CONSTRAINTS, wheel)


@pytest.fixture(scope="module")
def full(wheel: Path, install: Install) -> Path:
    return install("--constraint", CONSTRAINTS, f"{wheel}[server]")


def test_wheel_carries_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        (metadata,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(files.read(metadata))
        licence = files.read(metadata.replace("METADATA", "licenses/LICENSE"))
    assert (told["License-Expression"], told.get_all("License-File")) == ("Apache-2.0", ["LICENSE"])
    assert licence == (ROOT / "LICENSE").read_bytes()


def test_wheel_holds_the_packages_and_the_protos(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        names = [name for name in files.namelist() if ".dist-info/" not in name]
    tops = {"kvblock", "kvblock_cli", "kvblock_replay", "kvblock_service"}
    assert {name.partition("/")[0] for name in names} == tops
    protos = (ROOT / "protos").rglob("*.proto")
    assert {name for name in names if name.endswith(".proto")} == {
        str(path.relative_to(ROOT / "protos")) for path in protos
    }
    assert {"kvblock/__main__.py", "kvblock/py.typed", "kvblock_replay/bundled.csv"} <= set(names)


def test_light_install_holds_the_client_and_nothing_else(light: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--python", light / "python")
    listed = json.loads(run(*pip, "list", "--format", "json").stdout)
    assert {row["name"] for row in listed} == {"grpcio", "kvblock", "protobuf", "typing_extensions"}
    run(light / "python", "-c", "import kvblock")


def test_light_install_says_which_extra_serves(light: Path) -> None:
    serve = (light / "kvblock", "serve", "--pool", POOL, "--listen", "127.0.0.1:0")
    answer = run(*serve, expect=2)
    assert "its `server` extra" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_server_install_serves_a_light_client(full: Path, light: Path, tmp_path: Path) -> None:
    listen = ("--listen", f"unix:{tmp_path}/kvblock.sock", "--listen", "127.0.0.1:0")
    with serving(full / "kvblock", "serve", "--pool", POOL, *listen) as addresses:
        answers = [run(light / "python", "-c", FIRST_CALL, address).stdout for address in addresses]
    # The freed table [0, 1] comes back as 1, then 0.
    assert answers == ["[0, 1] 7 2\n", "[1, 0] 7 2\n"]


@pytest.mark.parametrize(
    "versions",
    [("grpcio==1.80.1", "protobuf==6.31.1"), ("grpcio==1.85.1", "protobuf==7.36.2")],
    ids=["oldest", "newest"],
)
def test_client_works_at_both_ends_of_what_it_declares(
    versions: tuple[str, ...], wheel: Path, install: Install, full: Path
) -> None:
    python = install(wheel, *versions) / "python"
    with serving(full / "kvblock", "serve", "--pool", POOL, "--listen", "127.0.0.1:0") as addresses:
        assert run(python, "-c", FIRST_CALL, *addresses).stdout == "[0, 1] 7 2\n"
