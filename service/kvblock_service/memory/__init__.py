"""The memory of pools as files that the server makes and engines map.

Rules:
- The server makes, checks and removes the files. It never maps them: what is in a block is for
  the engines alone.
- A memory file NAME has a file NAME.owner beside it, which says whose it is, see `owner_file`.
- Nothing that is not known to be this server's is changed or removed.
"""

from kvblock_service.memory.memory_file import FileAccess, MemoryFileError
from kvblock_service.memory.server_files import Begun, FileOwner, ServerFiles, file_owner
from kvblock_service.memory.socket_access import access_of_sockets

__all__ = [
    "Begun",
    "FileAccess",
    "FileOwner",
    "MemoryFileError",
    "ServerFiles",
    "access_of_sockets",
    "file_owner",
]
