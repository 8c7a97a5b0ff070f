"""A server of one's own, as a child process: for tests, replays and trying things out.

Rules:
- It listens on a Unix socket in a private directory, which goes away with it. Where the path of a
  socket in the usual directory for temporary files would not do, another one is used.
- Its arguments configure it: `KVBLOCK_*` variables of this process are meant for other servers and
  do not reach it, all others do.
- It keeps no journal, unless its arguments name a state directory.
- It is stopped with SIGTERM, and killed only when it does not end in time; at the latest at
  interpreter exit.
- It belongs to the process that started it: a forked child can use it and cannot end it.
- An error that it did not start has what it wrote to stderr, its last error in front.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import IO

from kvblock.errors import KVBlockError
from kvblock.owner import NotCopied, OwnerProcess

READY = "kvblock ready "
SOCKET_NAME = "kvblock.sock"
SOCKET_BYTES_MAX = 103 if sys.platform == "darwin" else 107
"""Bytes in the path of a Unix socket, without the zero that ends it."""
OTHER_DIRECTORIES = ("/tmp", "/var/tmp", "/dev/shm")
_PREFIX = "kvblock-"
_RANDOM_BYTES = 8
_NOT_IN_PATH = re.compile(r"[\s%?#\x00-\x1f\x7f]")
"""What a server does not take in the path of a socket."""
STOP_SECONDS = 15.0
"""How long a server may take to stop after SIGTERM, before it is killed."""


class ServerStartError(KVBlockError):
    """The server did not start; the text holds what it wrote to stderr."""


class EmbeddedServer(NotCopied):
    """A `kvblock serve` that lives as long as the `with` block.

    `pools` are written as for `--pool`; `extra_args` go behind the other arguments; `env` is added
    to the environment that it inherits; `start_timeout` is in seconds. It keeps no journal
    unless `extra_args` name a `--state-dir`.
    """

    def __init__(
        self,
        pools: Sequence[str] = ("default:total=4096,block_size=16,device=0",),
        extra_args: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        self._arguments = [part for pool in pools for part in ("--pool", pool)]
        self._extra_arguments = list(extra_args)
        if not any(part.partition("=")[0] == "--state-dir" for part in extra_args):
            self._arguments.append("--ephemeral")
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("KVBLOCK_")}
        self._env.update(env or {})
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path()
        self._owner = OwnerProcess()
        self._ready: list[tuple[str, str]] = []
        self._stderr: str | None = None

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Its Unix socket, for `connect`."""
        return self.addresses[0]

    @property
    def addresses(self) -> tuple[str, ...]:
        """All that it listens on, the Unix socket first."""
        return tuple(value for key, value in self._ready if key == "listen")

    @property
    def metrics_address(self) -> str | None:
        """Where its metrics are scraped; None unless its arguments ask for that."""
        return dict(self._ready).get("metrics")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The child process.

        Raises:
            KVBlockError: it was not started.

        """
        if self._process is None:
            raise KVBlockError("this server was not started; enter it first")
        return self._process

    @property
    def stderr(self) -> str:
        """What it has written to stderr so far: its log."""
        if self._stderr is not None:
            return self._stderr
        return (self._directory / "stderr").read_text(errors="replace") if self._process else ""

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            ServerStartError: it ended, or was not ready in time; or there is no directory in which
                it could have its socket.
            KVBlockError: it was started before.

        """
        if self._process is not None:
            raise KVBlockError("this server was started before; make a new one")
        self._owner = OwnerProcess()
        self._directory = _make_directory()
        listen = ["--listen", f"unix:{self._directory / SOCKET_NAME}"]
        command = [sys.executable, "-m", "kvblock", "serve"]
        with (self._directory / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [*command, *self._arguments, *listen, *self._extra_arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=self._env,
                # Ctrl-C reaches the whole foreground: whoever uses the server decides when it ends.
                start_new_session=True,
            )
        process, directory = self._process, self._directory
        self._clean_up = self._owner.finalize(self, lambda: _clean_up(process, directory))
        assert process.stdout is not None
        line = _first_line(process.stdout, self._start_timeout)
        if line is None or not line.startswith(READY):
            raise self._start_failure(line)
        pairs = (pair.partition("=") for pair in line.removeprefix(READY).split())
        self._ready = [(key, value) for key, _, value in pairs]

    def stop(self) -> int | None:
        """Stop it, if it runs, and answer its exit code; None when it was never started.

        In a forked child of the process that started it this does nothing, and answers None.
        """
        if self._process is None or not self._owner.is_here:
            return None
        if self._stderr is None:
            _end(self._process)
            self._stderr = self.stderr
            self._clean_up()
        return self._process.returncode

    def _start_failure(self, line: str | None) -> ServerStartError:
        """Why it did not start, whose first line on stdout was this; None: there was none in time.

        It is stopped, if it still runs.
        """
        process = self.process
        what = f"was not ready within {self._start_timeout:g} s, and was stopped"
        if line is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            what = "ended before it was ready"
        self.stop()
        code = process.returncode
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        written = (self._stderr or line or "").strip()
        lines = written.splitlines() or ["it wrote nothing to stderr"]
        error = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
        rest = "" if written in ("", error) else f"\n{written}"
        return ServerStartError(f"the server {what} ({how}): {error}{rest}")


def _make_directory() -> Path:
    """A private directory in which a socket can be.

    Raises:
        ServerStartError: there is none.

    """
    unfit = []
    for parent in (tempfile.gettempdir(), *OTHER_DIRECTORIES):
        path = os.path.join(parent, _PREFIX + "x" * _RANDOM_BYTES, SOCKET_NAME)
        size = len(os.fsencode(path))
        if size > SOCKET_BYTES_MAX:
            why = f"the path of a socket in it has {size} bytes, of at most {SOCKET_BYTES_MAX}"
        elif _NOT_IN_PATH.search(path):
            why = "has a character that the path of a socket must not have"
        else:
            try:
                return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            except OSError as error:
                why = str(error.strerror)
        unfit.append(f"{parent}: {why}")
    places = "; ".join(unfit)
    raise ServerStartError(f"no directory can hold the server's socket (set TMPDIR): {places}")


def _first_line(stream: IO[bytes], timeout: float) -> str | None:
    """The first line of a child's output, or what there is of it at its end; None: too late."""
    deadline = monotonic() + timeout
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while b"\n" not in text:
            if not selector.select(max(0.0, deadline - monotonic())):
                return None
            read = os.read(stream.fileno(), 4096)
            if not read:
                break
            text += read
    return text.partition(b"\n")[0].decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _clean_up(process: subprocess.Popen[bytes], directory: Path) -> None:
    _end(process)
    shutil.rmtree(directory, ignore_errors=True)
