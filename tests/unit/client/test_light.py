"""The plain install needs grpcio and protobuf, nothing else."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import kvblock

# grpc comes first: it imports its sister packages by itself where they are installed.
LIST_PACKAGES = """
import sys
import grpc
before = set(sys.modules)
import kvblock
for name in kvblock.__all__:
    getattr(kvblock, name)
for name in set(sys.modules) - before:
    spec = sys.modules[name].__spec__
    if spec is not None and spec.origin and "site-packages" in spec.origin:
        print(".".join(name.split(".")[:2]))
"""


def test_a_copy_without_the_metadata_of_an_installation(tmp_path: Path) -> None:
    """The sources alone on the path, as somebody has them who carries a copy of the client."""
    assert kvblock.__version__ == version("kvblock")
    package = Path(kvblock.__file__).parent
    shutil.copytree(package, tmp_path / "kvblock", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import importlib.metadata as metadata, sys\n"
        "found = metadata.distribution\n"
        "def without(name):\n"
        "    if name == 'kvblock': raise metadata.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "metadata.distribution = without\n"
        "import kvblock, kvblock.otel, kvblock_cli\n"
        "assert all(getattr(kvblock, name) for name in kvblock.__all__)\n"
        "print(kvblock.__file__, kvblock.__version__, flush=True)\n"
        "sys.argv = ['kvblock', '--version']\n"
        "kvblock_cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    shown = f"{tmp_path}/kvblock/__init__.py {kvblock.__version__}\nkvblock {kvblock.__version__}\n"
    assert (done.stdout, done.stderr) == (shown, "")


def test_import_loads_no_other_package() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIST_PACKAGES], check=True, capture_output=True, text=True
    )
    assert set(done.stdout.split()) <= {"google.protobuf", "google._upb", "grpc._utilities"}


def test_import_starts_no_thread() -> None:
    code = "import kvblock, threading; kvblock.Client; assert threading.active_count() == 1"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_alone_does_not_load_grpc_and_every_name_is_there() -> None:
    code = (
        "import sys, kvblock; assert 'grpc' not in sys.modules;"
        "assert all(getattr(kvblock, name) for name in kvblock.__all__);"
        "assert set(kvblock.__all__) <= set(dir(kvblock))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
