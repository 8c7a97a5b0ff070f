"""The memory of a server's pools, as this user has it on this machine, and what was left over.

Rules:
- Where a pool's memory is comes from the server; the directory that is looked through is the one
  that a server would have here.
- Nothing is mapped, and nothing is removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from kvblock.extras import install_hint
from kvblock_cli.doctor.findings import Finding, in_bytes, ok, problem, skipped, warning
from kvblock_cli.output import counted

if TYPE_CHECKING:
    from kvblock import Client, PoolInfo

_SCHEME = "shm://"
_SAME_PLACE = (
    "look from where the server runs: a container needs its memory_dir, under the same path"
)
_SAME_USERS = "run engines as a user that may open the server's socket: see unix_mode, unix_group"


def pools(kv: Client) -> Iterator[Finding]:
    """Whether an engine of this user could map the memory of each pool."""
    for pool in kv.list_pools():
        if pool.memory_uri.startswith(_SCHEME):
            yield _mapped(pool, Path(unquote(pool.memory_uri.removeprefix(_SCHEME))))


def directory() -> Iterator[Finding]:
    """How much is left where memory files are made, and files that nobody needs any more."""
    try:
        from kvblock_service.config import ConfigError
        from kvblock_service.config.load import load_memory_dir
        from kvblock_service.memory import MemoryFileError
        from kvblock_service.memory.inventory import FileState, memory_files
    except ModuleNotFoundError as error:
        text = f"looking through it needs {error.name}, which is not installed"
        yield skipped("memory_dir", text, install_hint("server"))
        return
    try:
        path = Path(load_memory_dir())
        orphans = [one for one in memory_files(path) if one.state is FileState.ORPHAN]
        found = os.statvfs(path)
    except (ConfigError, MemoryFileError, OSError) as error:
        action = "make it, or name another one with memory_dir, for pools with memory=shm"
        yield warning("memory_dir", str(error), action)
        return
    yield ok("memory_dir", f"{in_bytes(found.f_bavail * found.f_frsize)} free in {path}")
    if orphans:
        size = in_bytes(sum(one.file_bytes for one in orphans))
        text = f"{counted(len(orphans), 'file')} in {path}, {size}, that nobody needs any more"
        yield warning("memory_dir", text, "`kvblock memory clean` removes them")


def _mapped(pool: PoolInfo, path: Path) -> Finding:
    size = pool.total_blocks * pool.block_bytes
    try:
        found = path.stat()
    except OSError as error:
        text = f"{path}, the memory of pool {pool.pool}, is not here: {error.strerror}"
        return problem("memory", text, _SAME_PLACE)
    if found.st_size != size:
        text = f"{path} has {found.st_size} bytes, pool {pool.pool} has {size}"
        return problem("memory", text, _SAME_PLACE)
    if not os.access(path, os.R_OK | os.W_OK):
        text = f"{path}, the memory of pool {pool.pool}, is closed to this user"
        return problem("memory", text, _SAME_USERS)
    return ok("memory", f"{pool.pool}: {in_bytes(size)} in {path}")
