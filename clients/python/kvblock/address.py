"""Where a server listens: `unix:PATH`, `unix:///PATH` or `HOST:PORT`.

Rules:
- A relative socket path is taken from the working directory of the moment it is parsed.
- What gRPC would read as markup in a path (blank, `%`, `#`, `?`, ...) is escaped, so every file
  name works.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from kvblock.arguments import invalid

SOCKET_PATH_BYTES_MAX = 107
"""Longest path of a Unix socket that the operating system takes, in bytes."""

_FORMS = "must be unix:PATH, unix:///PATH or HOST:PORT"
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def target_of(address: str) -> str:
    """The gRPC target of an address.

    Raises:
        InvalidArgumentError: it has none of the forms, or names a path or a port that cannot be.

    """
    if not isinstance(address, str):
        raise invalid("address", address, _FORMS)
    if address.startswith("unix:"):
        return _unix_target(address)
    match = _HOST_PORT.fullmatch(address)
    if match is None:
        raise invalid("address", address, _FORMS)
    if not 1 <= int(match[2]) <= 65_535:
        raise invalid("address", address, "must have a port from 1 to 65535")
    return f"dns:///{address}"


def _unix_target(address: str) -> str:
    path = address.removeprefix("unix:")
    if path.startswith("//"):
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise invalid("address", address, "must have an absolute path after unix://")
    if not path or "\0" in path:
        raise invalid("address", address, _FORMS)
    path = os.path.abspath(path)
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES_MAX:
        problem = f"has a path of {size} bytes; a socket's path has at most {SOCKET_PATH_BYTES_MAX}"
        raise invalid("address", address, problem)
    return f"unix:{quote(os.fsencode(path))}"
