"""What a run's figures depend on: the machine and the versions."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import placement

_PACKAGES = ("grpcio", "protobuf", "redis", "hiredis", "opentelemetry-sdk")


def facts() -> dict[str, object]:
    """Processor, cores, kernel and versions; what is not installed is left out."""
    found: dict[str, object] = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "cpu": _processor(),
        "cores": len(placement.CORES) or os.cpu_count() or 1,
        "placement": placement.description(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    server = shutil.which("redis-server")
    if server is not None:
        words = subprocess.run([server, "--version"], capture_output=True, text=True, check=False)
        found["redis-server"] = words.stdout.partition("v=")[2].partition(" ")[0]
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
