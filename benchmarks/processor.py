"""How much processor time processes use: whether the load or the server is the bottleneck."""

from __future__ import annotations

import os
import time
from pathlib import Path


def own_seconds() -> float:
    """Processor time of this process so far, all threads."""
    return time.process_time()


def seconds_of(process: int) -> float | None:
    """Processor time of another process so far; None where the system has no /proc."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident_bytes() -> int | None:
    """Resident memory of this process; None where the system has no /proc."""
    try:
        text = Path("/proc/self/statm").read_text(encoding="ascii")
    except OSError:
        return None
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")
