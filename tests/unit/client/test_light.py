"""The plain install needs grpcio and protobuf, nothing else."""

import subprocess
import sys

# grpc comes first: it imports its sister packages by itself where they are installed.
LIST_PACKAGES = """
import sys
import grpc
before = set(sys.modules)
import kvblock
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
    code = "import kvblock, threading; assert threading.active_count() == 1"
    subprocess.run([sys.executable, "-c", code], check=True)
