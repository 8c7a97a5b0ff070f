"""The addresses a server listens on.

Rules:
- `unix:PATH` is bound with mode 0600, and then given its owner, group and mode: at no moment may
  more users open it than are meant to. `PATH.lock` is locked as long as the server lives, so that
  only the socket file of a dead server is removed. A living process behind the path is never cut
  off, whoever it is.
- `HOST:PORT` is bound by one server only, with TLS if there are credentials; port 0 means any free
  port.
- What cannot be bound raises ListenError, whose text says why and what to do.
"""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

import grpc

from kvblock_service.rpc.edge import SocketFile


class ListenError(Exception):
    """An address that the server cannot listen on."""


class UnixSocketGuard:
    """Holds a Unix socket's path for this process until `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_path = path.with_name(f"{path.name}.lock")
        self._lock = self._locked()
        try:
            self._clear_path()
        except ListenError:
            self._drop_lock()
            raise

    def release(self) -> None:
        """Remove the socket file and let others have the path."""
        self.path.unlink(missing_ok=True)
        self._drop_lock()

    def _locked(self) -> IO[bytes]:
        while True:
            try:
                lock = self._lock_path.open("ab")
            except OSError as error:
                raise ListenError(f"unix:{self.path}: {error.strerror}") from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                problem = f"unix:{self.path}: a living kvblock server has this socket"
                raise ListenError(problem) from None
            if self._is_current(lock):
                return lock
            lock.close()

    def _is_current(self, lock: IO[bytes]) -> bool:
        """Whether the locked file is still the one behind its path."""
        try:
            there = self._lock_path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(lock.fileno()))

    def _drop_lock(self) -> None:
        self._lock_path.unlink(missing_ok=True)
        self._lock.close()

    def _clear_path(self) -> None:
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ListenError(f"unix:{self.path}: there is a file that is not a socket; remove it")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.path))
            except ConnectionRefusedError:
                self.path.unlink()
                return
            except OSError as error:
                raise ListenError(f"unix:{self.path}: {error.strerror}") from error
        raise ListenError(f"unix:{self.path}: another process listens on this socket")


class Listeners:
    """Binds addresses for a server and gives them up again."""

    def __init__(
        self, credentials: Callable[[], grpc.ServerCredentials] | None, socket_file: SocketFile
    ) -> None:
        self._credentials = credentials
        self._socket_file = socket_file
        self.bound: list[str] = []
        self._guards: list[UnixSocketGuard] = []

    def bind(self, server: grpc.aio.Server, address: str) -> None:
        """Bind one address; raises ListenError where it is taken, or not this machine's."""
        if address.startswith("unix:"):
            self._bind_unix(server, Path(address.removeprefix("unix:")).absolute())
        else:
            self._bind_tcp(server, address)

    def release(self) -> None:
        """Give up what is left of the addresses once the server has stopped."""
        for guard in self._guards:
            guard.release()
        self._guards.clear()

    def _bind_unix(self, server: grpc.aio.Server, path: Path) -> None:
        guard = UnixSocketGuard(path)
        self._guards.append(guard)
        before = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise ListenError(f"unix:{path}: cannot be bound") from error
        finally:
            os.umask(before)
        self._hand_over(path)
        self.bound.append(f"unix:{path}")

    def _hand_over(self, path: Path) -> None:
        """Let those open the socket who are meant to."""
        mode, owner, group = self._socket_file
        try:
            if owner is not None or group is not None:
                os.chown(path, -1 if owner is None else owner, -1 if group is None else group)
            path.chmod(mode)
        except OSError as error:
            problem = f"unix_owner, unix_group, unix_mode: {error.strerror}"
            raise ListenError(f"unix:{path}: {problem}") from error

    def _bind_tcp(self, server: grpc.aio.Server, address: str) -> None:
        host, _, port = address.rpartition(":")
        _probe(host.strip("[]"), int(port), address)
        try:
            if self._credentials is None:
                chosen = server.add_insecure_port(address)
            else:
                chosen = server.add_secure_port(address, self._credentials())
        except RuntimeError as error:
            raise ListenError(f"{address}: cannot be bound") from error
        self.bound.append(f"{host}:{chosen}")


def not_bound(address: str, error: OSError) -> ListenError:
    """The error for an address that cannot be bound."""
    taken = "another process listens on this port" if error.errno == errno.EADDRINUSE else None
    return ListenError(f"{address}: {taken or error.strerror}")


def _probe(host: str, port: int, address: str) -> None:
    """Find out why an address cannot be bound, which gRPC does not tell."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ListenError(f"{address}: {error.strerror}") from error
    for family, kind, protocol, _, where in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(where)
            except OSError as error:
                raise not_bound(address, error) from error
