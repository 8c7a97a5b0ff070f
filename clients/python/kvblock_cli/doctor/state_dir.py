"""The state directory of a server on this machine: its disk and its journal.

Rules:
- A directory that nobody named is looked at only if it is known to be this server's: its lock names
  the server's process.
- Nothing is changed; the journal is read as `kvblock journal verify` reads it, beside the server.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from kvblock.extras import install_hint
from kvblock_cli.doctor.findings import Finding, in_bytes, ok, problem, skipped, warning
from kvblock_cli.doctor.process import pids_of
from kvblock_cli.output import counted

_OCTAL = re.compile(r"\\([0-7]{3})")
"""How a blank and the like is written in a list of mounts."""
_MOUNTS = Path("/proc/self/mountinfo")
_FREE_MIN, _FREE_LOW = 256 * 1024**2, 1024**3
_ROOM = "make room, or move the state directory; snapshot_bytes bounds what is written"
_NAME_IT = "name the server's with --state-dir, if it is on this machine and keeps a journal"
_AS_OWNER = "run this as the server's user, or as root"
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.sshfs", "glusterfs"})


def look(named: Path | None, pid: int | None) -> Iterator[Finding]:
    """Disk and journal; `named` by the user, None: the one that a server would have here.

    `pid` is the server's process, None: not known.
    """
    path = named
    try:
        path = path or _usual()
    except ModuleNotFoundError as error:
        text = f"reading it needs {error.name}, which is not installed"
        yield skipped("journal", text, install_hint("server"))
        return
    reason = _not_looked_at(path, pid, is_named=named is not None)
    if reason:
        yield reason
        return
    yield disk(path)
    yield from filesystem(path)
    yield from journal(path)


def disk(path: Path) -> Finding:
    """Whether there is room for snapshots."""
    found = os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    text = f"{in_bytes(free)} free for {path}"
    if found.f_files and not found.f_favail:
        return problem("disk", f"no file can be made in {path}: no inode is free", _ROOM)
    if free < _FREE_MIN:
        return problem("disk", text, _ROOM)
    return warning("disk", text, _ROOM) if free < _FREE_LOW else ok("disk", text)


def filesystem(path: Path, mounts: Path = _MOUNTS) -> Iterator[Finding]:
    """Whether the directory lives as long as it should."""
    kind = kind_of(path, mounts)
    if kind in ("tmpfs", "ramfs") and _durability(path) == "host":
        text = f"{path} is in memory ({kind}), and durability = host promises to outlive the host"
        yield problem("disk", text, "put it on a disk, or set durability = process")
    elif kind == "overlay":
        text = f"{path} is in a layer of a container, and gone with it"
        yield warning("disk", text, "mount a volume there, or run with --ephemeral")
    elif kind in _NETWORK:
        text = f"{path} is on a file system of the network ({kind})"
        yield warning("disk", text, "put it on a disk of this host: locks and syncs have to hold")


def journal(path: Path) -> Iterator[Finding]:
    """Whether the journal can be read, and adds up."""
    from kvblock_service.journal.inspect import read_contents
    from kvblock_service.journal.interface import JournalDamaged, JournalError

    try:
        contents = read_contents(path)
    except (JournalDamaged, JournalError) as error:
        action = "keep a copy; `kvblock journal verify` and docs/adr/0011-journal.md tell more"
        yield problem("journal", str(error), action)
        return
    for one in contents.problems:
        yield problem("journal", one, "keep a copy of the directory, and report it")
    if not contents.problems:
        found = contents.summary()
        held = f"{counted(len(found['pools']), 'pool')}, {found['records']:,} records"
        yield ok("journal", f"{path} is sound: {held} behind its snapshot")


def kind_of(path: Path, mounts: Path = _MOUNTS) -> str:
    """The kind of file system that a path is in; empty where nobody tells."""
    found = (0, "")
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    place = path.resolve()
    for line in lines:
        before, _, behind = line.partition(" - ")
        mounted = Path(_OCTAL.sub(lambda found: chr(int(found[1], 8)), before.split()[4]))
        if place.is_relative_to(mounted) and len(mounted.parts) >= found[0]:
            found = (len(mounted.parts), behind.split()[0])
    return found[1]


def _usual() -> Path:
    from kvblock_cli.failures import USAGE, CommandError
    from kvblock_service.config import ConfigError
    from kvblock_service.config.load import load_state_dir

    try:
        return Path(load_state_dir())
    except ConfigError as error:
        raise CommandError(USAGE, str(error)) from None


def _not_looked_at(path: Path, pid: int | None, *, is_named: bool) -> Finding | None:
    """Why a directory is not looked at; None: it is."""
    try:
        lock = json.loads((path / "lock").read_text())
        owner = lock["pid"] if isinstance(lock, dict) else None
    except PermissionError:
        return skipped("journal", f"{path} is closed to this user", _AS_OWNER)
    except (FileNotFoundError, NotADirectoryError):
        if is_named:
            return problem("journal", f"{path} is no state directory: it has no lock", _NAME_IT)
        return skipped("journal", f"no server keeps its state in {path}", _NAME_IT)
    except (OSError, ValueError, KeyError):
        owner = None
    is_its = pid is not None and owner in pids_of(pid)
    if is_its or (is_named and pid is None):
        return None
    if is_named:
        text = f"{path} is the state directory of process {owner}, the server is process {pid}"
        return problem("journal", text, _NAME_IT)
    return skipped("journal", f"{path} is not known to be this server's", _NAME_IT)


def _durability(path: Path) -> str:
    try:
        return str(json.loads((path / "identity.json").read_text())["durability"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
