"""Addresses to listen on: how they are written, and which of them reach beyond this machine.

Rules:
- An address is `unix:PATH`, `HOST:PORT` or `[IPv6]:PORT`; what is returned is its one spelling,
  a Unix path made absolute.
- A path has no character that means something else in the ready line or in a gRPC address.
- Only `localhost` and loopback addresses count as loopback: a name that happens to resolve to one
  today may not tomorrow.
"""

import ipaddress
import os
import re
from pathlib import Path

UNIX_PATH_BYTES_MAX = 107
"""Bytes in the path of a Unix socket: `sockaddr_un` has 108, one of them for the closing zero."""

_HOST_AND_PORT = re.compile(r"(\[(?P<ipv6>[^\]\s]+)\]|(?P<host>[A-Za-z0-9._-]*)):(?P<port>[0-9]+)")
_NOT_IN_PATH = re.compile(r"[\s%?#\x00-\x1f\x7f]")
_PORT_MAX = 65_535


def listen_address(text: str) -> str:
    """The address in its one spelling; raises ValueError, which says why it is none."""
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    if _HOST_AND_PORT.fullmatch(text) is None:
        raise ValueError("must be unix:PATH, HOST:PORT or [IPv6]:PORT")
    return tcp_address(text)


def tcp_address(text: str) -> str:
    """A `HOST:PORT` or `[IPv6]:PORT` in its one spelling; port 0 stands for any free one.

    It raises ValueError, which says why it is none.
    """
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None:
        raise ValueError("must be HOST:PORT or [IPv6]:PORT")
    if found["ipv6"] is None and not found["host"]:
        raise ValueError("names no host; for this machine only, write 127.0.0.1:PORT")
    if found["ipv6"] is not None:
        try:
            ipaddress.IPv6Address(found["ipv6"])
        except ValueError:
            raise ValueError(f"{found['ipv6']} is no IPv6 address") from None
    port = int(found["port"])
    if port > _PORT_MAX:
        raise ValueError(f"port {port} must be 0 to {_PORT_MAX}")
    return f"{found[1]}:{port}"


def is_loopback(address: str) -> bool:
    """Whether only processes on this machine reach an address that was found legal."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_listen() -> str | None:
    """Where a server listens without `listen`; None when this user has no such place.

    `unix:/run/kvblock.sock` for root, `unix:$XDG_RUNTIME_DIR/kvblock.sock` for others. Root's does
    not follow the variable, which a login shell has and a system service has not.
    """
    directory = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
    return f"unix:{directory}/kvblock.sock" if directory else None


def _unix(written: str) -> str:
    path = written
    if path.startswith("//"):
        authority, slash, rest = path[2:].partition("/")
        if authority or not slash:
            raise ValueError("must be unix:PATH or unix:///PATH")
        path = f"/{rest}"
    if _NOT_IN_PATH.search(path):
        raise ValueError("the path of a socket must have no space, % ? # or control character")
    if not Path(path).name:
        raise ValueError("names no file; write unix:/PATH/TO/NAME.sock")
    absolute = Path(path).absolute()
    size = len(os.fsencode(absolute))
    if size > UNIX_PATH_BYTES_MAX:
        limit = f"the path of a Unix socket has at most {UNIX_PATH_BYTES_MAX}"
        raise ValueError(f"{absolute} has {size} bytes; {limit}")
    return f"unix:{absolute}"
