"""Snapshots of a journal in files by another process, see `compact`.

Rules:
- Processes are started at the start, not while the server serves: the one that `compact` calls
  `serve` runs the snapshots.
- A snapshot is made of closed files.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from kvblock_service.journal.interface import Made

_ANSWER_MAX = 65_536


class SnapshotProcess:
    """Makes snapshots; see `Snapshots`.

    `freeze` answers the last position in closed files, None while there is none; `arguments` are
    those of `compact`, where the position is None.
    """

    def __init__(self, freeze: Callable[[], int | None], *arguments: object) -> None:
        self._freeze = freeze
        self._arguments = arguments
        self._position = 0
        self._started = 0.0
        self._helper: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Start the process that runs snapshots, if there is none; see `Snapshots`."""
        if self._helper is not None:
            return
        self._helper = subprocess.Popen(
            [sys.executable, "-m", "kvblock_service.journal.compact", "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # Ctrl-C is meant for the server; and one signal ends the helper with its snapshot.
            start_new_session=True,
        )
        assert self._helper.stdout is not None
        os.set_blocking(self._helper.stdout.fileno(), False)

    def begin(self) -> bool:
        """Begin a snapshot; see `Snapshots`."""
        position = self._freeze()
        if position is None:
            return False
        self._position, self._started = position, time.monotonic()
        arguments = [str(position if part is None else part) for part in self._arguments]
        assert self._helper is not None
        assert self._helper.stdin is not None
        # A helper that is gone is noticed when its answer is read.
        with suppress(BrokenPipeError):
            self._helper.stdin.write(json.dumps(arguments).encode() + b"\n")
        return True

    def made(self) -> Made | None:
        """What became of it; see `Snapshots`."""
        helper = self._helper
        assert helper is not None
        assert helper.stdout is not None
        try:
            line = os.read(helper.stdout.fileno(), _ANSWER_MAX)
        except BlockingIOError:
            return None
        if line:
            answer = json.loads(line)
            exit_code, stderr = answer["exit_code"], answer["stderr"].strip()
        else:
            self.stop()
            exit_code, stderr = helper.returncode, "the helper process is gone"
        problem = {"exit_code": exit_code, "problem": stderr} if exit_code else {}
        return Made(self._position, time.monotonic() - self._started, problem)

    def stop(self) -> None:
        """End the helper, and a snapshot with it."""
        helper, self._helper = self._helper, None
        if helper is None:
            return
        if helper.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(helper.pid, signal.SIGKILL)
        helper.wait()
        for stream in (helper.stdin, helper.stdout):
            if stream is not None:
                stream.close()
