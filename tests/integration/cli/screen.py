"""A command on a terminal of its own: keys go in, and what the screen shows can be read."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import pyte

from tests import waiting
from tests.integration.cli.console import KVBLOCK
from tests.integration.processes import plain_environment

ALTERNATE = ("\x1b[?1049h", "\x1b[?1049l")
CURSOR = ("\x1b[?25l", "\x1b[?25h")

_OWN_TERMINAL = """
import fcntl, os, signal, sys, termios
os.setsid()
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs its arguments in a session whose terminal is stdin: Ctrl-C, Ctrl-Z and sizes reach them.
SIGHUP has its default, also where these tests run under nohup."""


class Terminal:
    """Runs `kvblock ARGUMENTS` on a terminal of `columns` by `lines` until the block ends.

    `shown` is all that was written to it, `before` its mode before the command began.
    """

    def __init__(
        self, *arguments: str, columns: int = 100, lines: int = 24, **variables: str
    ) -> None:
        self._arguments = arguments
        environment = {key: v for key, v in plain_environment().items() if key != "NO_COLOR"}
        for key in ("COLUMNS", "LINES"):
            environment.pop(key, None)
        self._environment: Mapping[str, str] = environment | {"TERM": "xterm-256color"} | variables
        self._lock = threading.Lock()
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.shown = b""

    def __enter__(self) -> "Terminal":
        self._ours, self._theirs = pty.openpty()
        self._set_size()
        self.before = self.mode()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL, *KVBLOCK, *self._arguments],
            env=self._environment,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print("\n".join(self.rows()))
        self.process.kill()
        self.process.wait()
        os.close(self._theirs)
        os.close(self._ours)
        self._reader.join()

    def rows(self) -> list[str]:
        """What the screen shows, line by line."""
        with self._lock:
            return [line.rstrip() for line in self.screen.display]

    def text(self) -> str:
        return "\n".join(self.rows())

    def until(self, *parts: str) -> list[str]:
        """The rows of the screen once all of these texts are on it."""
        waiting.happens(lambda: all(part in self.text() for part in parts))
        return self.rows()

    def column(self, first: str, head: str) -> list[str]:
        """The words under a head, in the first table whose heads begin with `first` and have it."""
        rows = self.rows()
        index = next(
            i for i, row in enumerate(rows) if row.startswith(first) and head in row.split()
        )
        at = rows[index].split().index(head)
        table = rows[index + 1 : rows.index("", index)] if "" in rows[index:] else rows[index + 1 :]
        return [row.split()[at] for row in table]

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        with self._lock:
            self.screen.resize(lines, columns)
            self._set_size()

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self._theirs)

    def ended(self) -> int:
        """The exit code; the terminal has to be as it was."""
        code = self.process.wait(timeout=waiting.LAST_RESORT)
        assert self.mode() == self.before
        waiting.happens(lambda: self._is_off(*ALTERNATE) and self._is_off(*CURSOR))
        return code

    def _is_off(self, on: str, off: str) -> bool:
        """Whether what `on` began was ended by `off`, or never began."""
        begun, ended = (self.shown.rfind(one.encode()) for one in (on, off))
        return begun < ended or begun == ended == -1

    def _set_size(self) -> None:
        size = struct.pack("HHHH", self.screen.lines, self.screen.columns, 0, 0)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, size)

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._ours, 65_536)
            except OSError:
                return
            with self._lock:
                self.shown += part
                self._stream.feed(part)
