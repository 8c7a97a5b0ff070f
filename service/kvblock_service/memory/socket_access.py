"""Who may open memory files: those who may open a Unix socket of the server, and nobody else.

Rules:
- To connect takes the permission to write to the socket, and to search each directory above it.
  Memory files have neither the socket's directory nor its other permissions above them, so what
  these hold back is held back by the mode of the file.
- Of several sockets it is enough to reach one. Without any, only the server's user opens the files.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from kvblock_service.memory.memory_file import FileAccess

_READ_AND_WRITE = 0o6
_USER, _GROUP, _OTHERS = 6, 3, 0


def access_of_sockets(
    sockets: Sequence[Path], mode: int, owner: int | None, group: int | None
) -> FileAccess:
    """The owner, group and mode of memory files, from those of the sockets at these paths."""
    if not sockets:
        return FileAccess()
    found = 0
    for path in sockets:
        found |= _reaching(path, mode, os.getegid() if group is None else group)
    return FileAccess(found, owner, group)


def _reaching(path: Path, mode: int, group: int) -> int:
    """The mode of a file for those who can connect to a socket."""
    passes = {shift for shift in (_USER, _GROUP, _OTHERS) if mode >> shift & stat.S_IWOTH}
    for directory in path.absolute().resolve().parents:
        try:
            found = directory.stat()
        except OSError:
            return _READ_AND_WRITE << _USER
        if not found.st_mode & stat.S_IXOTH:
            passes.discard(_OTHERS)
            if found.st_gid != group or not found.st_mode & stat.S_IXGRP:
                passes.discard(_GROUP)
    return sum(_READ_AND_WRITE << shift for shift in passes)
