"""The plain install needs grpcio and protobuf, nothing else."""

import subprocess
import sys

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
