"""Whether somebody listens at an address, and who.

Rules:
- A connection is opened and closed again; nothing is sent.
- The process is known only of a Unix socket, by the kernel's word, and only where it runs in this
  or an inner PID namespace.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
import struct

from kvblock_cli.doctor.findings import Finding, ok, problem

CHECK = "socket"
_START = "start it with `kvblock serve`, or name another with --address or KVBLOCK_ADDRESS"
_CREDENTIALS = struct.Struct("3i")


def look(address: str, timeout: float) -> tuple[Finding, int | None]:
    """Try an address that is known to have the right form; gives the server's process, if known."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        return _unix(os.path.abspath(path.removeprefix("//")), timeout)
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout).close()
    except OSError as error:
        return problem(CHECK, f"{address} cannot be reached: {_why(error)}", _START), None
    return ok(CHECK, f"{address} is listened at"), None


def _unix(path: str, timeout: float) -> tuple[Finding, int | None]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        action = f"{_START}; into a container, mount the directory of the socket, not the file"
        return problem(CHECK, f"{path} is not there", action), None
    except OSError as error:
        action = "let this user enter the directories above it"
        return problem(CHECK, f"{path} cannot be looked at: {_why(error)}", action), None
    if not stat.S_ISSOCK(found.st_mode):
        return problem(CHECK, f"{path} is no socket", _START), None
    mode = f"mode {stat.S_IMODE(found.st_mode):04o} of {_owner(found)}"
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            tried.settimeout(timeout)
            tried.connect(path)
            data = tried.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except PermissionError:
        text = f"{path} is closed to this user: {mode}"
        action = "join its group, or set unix_mode, unix_owner or unix_group of the server"
        return problem(CHECK, text, action), None
    except ConnectionRefusedError:
        text = f"nobody listens at {path}: a server that was killed has left it"
        return problem(CHECK, text, f"{_START}; a server that starts takes it over"), None
    except OSError as error:
        action = "see whether the server's process is stopped, or busy without end"
        return problem(CHECK, f"{path} takes no connection: {_why(error)}", action), None
    pid, _, _ = _CREDENTIALS.unpack(data)
    who = f", process {pid}" if pid else ""
    return ok(CHECK, f"{path}, {mode}{who}"), pid or None


def _owner(found: os.stat_result) -> str:
    try:
        user = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        user = str(found.st_uid)
    try:
        return f"{user}:{grp.getgrgid(found.st_gid).gr_name}"
    except KeyError:
        return f"{user}:{found.st_gid}"


def _why(error: OSError) -> str:
    return error.strerror or str(error)
