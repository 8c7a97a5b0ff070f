"""What limits the process of a server on this machine: descriptors and memory, and its clock.

Rules:
- All of it is read from /proc and /sys. What this user may not read, or what this system does not
  have, is left out.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from kvblock_cli.doctor.findings import Finding, in_bytes, ok, warning

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_NEARLY = 0.8
_RAISE = "raise LimitNOFILE= or ulimit -n"
_DESCRIPTORS = 1024 + 64
"""What a server takes whose connections_max is as by itself, for one address."""
_TIMEX_BYTES, _TIME_ERROR = 512, 5


def limits(pid: int, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Iterator[Finding]:
    """Descriptors and memory of a process."""
    soft = _descriptors_max(proc / str(pid) / "limits")
    if soft is not None:
        yield _descriptors(soft, _entries(proc / str(pid) / "fd"))
    status = _table(proc / str(pid) / "status")
    group = _group(proc / str(pid) / "cgroup", cgroups)
    if "VmRSS" in status:
        resident = int(status["VmRSS"].split()[0]) * 1024
        yield _memory(resident, _number(group / "memory.max") if group else None)
    killed = _table(group / "memory.events", " ").get("oom_kill", "0") if group else "0"
    if killed != "0":
        text = f"the kernel has ended {killed} processes of its group for want of memory"
        yield warning("memory", text, "raise MemoryMax= or the container's limit")


def synchronised() -> Iterator[Finding]:
    """Whether the kernel says that this machine's clock is kept by NTP."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    state = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)) if adjtimex else -1
    if state == _TIME_ERROR:
        text = "nothing keeps this machine's clock: the kernel calls it unsynchronised"
        action = "run chrony or systemd-timesyncd: logs, traces and `since` have its times"
        yield warning("clock", text, action)
    elif state >= 0:
        yield ok("clock", "this machine's clock is synchronised")


def pids_of(pid: int, proc: Path = _PROC) -> set[int]:
    """The numbers that a process has, here and in the namespaces that it is in."""
    names = _table(proc / str(pid) / "status").get("NSpid", "")
    return {pid, *(int(one) for one in names.split())}


def _descriptors(soft: int, used: int | None) -> Finding:
    text = f"{soft:,} descriptors" + (f", {used:,} in use" if used is not None else "")
    if used is not None and used > _NEARLY * soft:
        return warning("limits", text, f"{_RAISE}: connections will not be accepted")
    if soft < _DESCRIPTORS:
        action = f"{_RAISE} to {_DESCRIPTORS}, unless connections_max is less"
        return warning("limits", text, action)
    return ok("limits", text)


def _memory(resident: int, limit: int | None) -> Finding:
    text = f"{in_bytes(resident)} in use" + (f" of {in_bytes(limit)}" if limit else ", no limit")
    if limit and resident > _NEARLY * limit:
        action = "raise MemoryMax= or the container's limit: snapshots take more for a while"
        return warning("memory", text, action)
    return ok("memory", text)


def _descriptors_max(path: Path) -> int | None:
    for line in _text(path).splitlines():
        if line.startswith("Max open files"):
            soft = line.removeprefix("Max open files").split()[0]
            return int(soft) if soft.isdigit() else None
    return None


def _entries(path: Path) -> int | None:
    try:
        return len(os.listdir(path))
    except OSError:
        return None


def _group(path: Path, cgroups: Path) -> Path | None:
    """The directory of a process's group, where this system has version 2 of them."""
    for line in _text(path).splitlines():
        if line.startswith("0::/"):
            return cgroups / line.removeprefix("0::/")
    return None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _table(path: Path, between: str = ":") -> dict[str, str]:
    rows = (line.partition(between) for line in _text(path).splitlines())
    return {name: value.strip() for name, _, value in rows}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
