"""Lets `kvblock` processes start as forks of one that has loaded everything.

Loading takes ten times as long as what most tests want of a process.

Rules:
- `Popen` takes over from subprocess's own in all tests: whoever starts `python -m kvblock` or this
  environment's `kvblock` is given a process of his own, his child, with the arguments, environment,
  directory and standard streams that he has asked for.
- Whatever else is started is started as usual, and so is `kvblock` where the way it is loaded would
  matter: with other variables for Python, gRPC or the loader, with a `preexec_fn`, descriptors or
  a user of its own.
- `TEST_FRESH_STARTS=1` lets everything start as usual.
"""

import atexit
import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STREAMS = 3
_SET_CHILD_SUBREAPER = 36
_MESSAGE_BYTES_MAX = 1 << 20
_LOADED_BY = (
    *("FORCE_COLOR", "GRPC_", "LANG", "LC_", "LD_", "MALLOC_", "OTEL_PROPAGATORS", "OTEL_PYTHON_"),
    *("PYTHON", "TZ"),
)
"""Variables that are read when something is loaded, by how their names begin."""


class Preloaded:
    """The process that has loaded everything, and forks others."""

    def __init__(self, environment: "dict[str, str]") -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._environment = environment
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        command = [sys.executable, "-m", "tests.preloaded_main", str(theirs.fileno())]
        with theirs:
            self._process = USUAL(
                command,
                cwd=ROOT,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        atexit.register(self._end)

    def takes(self, environment: "dict[str, str]") -> bool:
        """Whether a fork would be what such a start gives."""
        return os.getpid() == self._owner and (
            _load_variables(environment) == _load_variables(self._environment)
        )

    def start(self, request: "dict[str, Any]", streams: list[int]) -> int:
        """The process number of a new child of this process."""
        data = json.dumps(request).encode()
        with self._lock:
            # The fork of a fork becomes our child when the one between them ends.
            _adopt(True)
            try:
                socket.send_fds(self._control, [data], streams)
                pid = int(self._control.recv(_MESSAGE_BYTES_MAX))
                assert self._control.recv(_MESSAGE_BYTES_MAX) == b"alone"
            finally:
                _adopt(False)
        return pid

    def _end(self) -> None:
        if os.getpid() == self._owner:
            self._control.close()
            self._process.wait()


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """A `subprocess.Popen` whose child may be a fork of the preloaded process."""

    _preloaded: "Preloaded | None" = None
    # As it was before any test: a test may change it for what it starts.
    _environment: "dict[str, str]" = {}  # noqa: RUF012

    def _execute_child(self, *given: Any) -> None:
        args, executable, preexec_fn, close_fds, pass_fds, cwd, env, _, _, shell = given[:10]
        p2cread, _, _, c2pwrite, _, errwrite, _, gid, gids, uid, umask, new_session = given[10:22]
        environment = dict(os.environ if env is None else env)
        usual = (preexec_fn, shell, executable, pass_fds, gid, gids, uid)
        if (
            any(one not in (None, False, ()) for one in usual)
            or not close_fds
            or any(number != -1 for number in given[22:])
            or (words := kvblock_words(args)) is None
            or not self._taken_over(environment)
        ):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        request = {
            "words": words,
            "environment": environment,
            "directory": os.path.abspath(cwd or "."),
            "umask": umask if umask >= 0 else _current_umask(),
            "new_session": new_session,
        }
        asked = (p2cread, c2pwrite, errwrite)
        streams = [usual if one == -1 else one for usual, one in enumerate(asked)]
        assert Popen._preloaded is not None
        self.pid = Popen._preloaded.start(request, streams)
        self._child_created = True
        self._close_child_ends(*given[10:16])

    @classmethod
    def _taken_over(cls, environment: "dict[str, str]") -> bool:
        if cls._preloaded is None:
            cls._preloaded = Preloaded(cls._environment)
        return cls._preloaded.takes(environment)

    def _close_child_ends(self, *ends: int) -> None:
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = ends
        devnull = getattr(self, "_devnull", None)
        for child, parent in ((p2cread, p2cwrite), (c2pwrite, c2pread), (errwrite, errread)):
            if -1 not in (child, parent) and child != devnull:
                os.close(child)
        if devnull is not None:
            os.close(devnull)
        self._closed_child_pipe_fds = True


USUAL = subprocess.Popen


def install() -> None:
    """Let all processes of this program be started by `Popen`."""
    if sys.platform == "linux" and not os.environ.get("TEST_FRESH_STARTS"):
        Popen._environment = dict(os.environ)
        subprocess.Popen = Popen  # type: ignore[misc]


def kvblock_words(args: Any) -> "list[str] | None":
    """How kvblock is named and its arguments, if a command runs this environment's."""
    if isinstance(args, str | bytes | os.PathLike):
        args = [args]
    with contextlib.suppress(TypeError):
        words = [os.fsdecode(word) for word in args]
        if words[:3] == [sys.executable, "-m", "kvblock"]:
            return words[2:]
        if words[:1] == [str(Path(sys.executable).with_name("kvblock"))]:
            return words
    return None


def _load_variables(environment: "dict[str, str]") -> "dict[str, str]":
    return {key: value for key, value in environment.items() if key.startswith(_LOADED_BY)}


def _current_umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _adopt(on: bool) -> None:
    """Begin or cease to be who orphans become children of."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
