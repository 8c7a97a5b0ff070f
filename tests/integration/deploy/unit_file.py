"""What a systemd unit file says: its assignments in order, and the quantities in them."""

from collections.abc import Sequence
from pathlib import Path

from tests.integration.processes import run

UNIT_BYTES = {"K": 2**10, "M": 2**20, "G": 2**30}


def assignments(path: Path) -> dict[str, list[str]]:
    """The values that each key of a unit file is given, in their order."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def in_bytes(text: str) -> int:
    return int(text[:-1]) * UNIT_BYTES[text[-1]]


def allowed_calls(filters: Sequence[str], systemd_analyze: Path) -> set[str]:
    """The system calls that a list of SystemCallFilter= lets through; the first one allows."""
    allowed = group("@default", systemd_analyze)
    for line in filters:
        names = line.removeprefix("~").split()
        calls = {call for name in names for call in group(name, systemd_analyze)}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed


def group(name: str, systemd_analyze: Path) -> set[str]:
    """The system calls of a group such as `@system-service`; of another name, the call itself."""
    if not name.startswith("@"):
        return {name}
    printed = run(systemd_analyze, "syscall-filter", name).stdout.splitlines()
    members = [line.strip() for line in printed[1:]]
    return {
        call
        for member in members
        if member and not member.startswith("#")
        for call in group(member, systemd_analyze)
    }
