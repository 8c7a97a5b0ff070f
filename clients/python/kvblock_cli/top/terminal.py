"""The terminal of a program that takes all of its screen and is steered by keys.

Rules:
- However the program ends, the terminal is as it was: its mode, its cursor and what it showed.
- Signals are remembered and dealt with between two frames, never amid one: Ctrl-C, SIGTERM and
  SIGHUP end the program, Ctrl-Z stops it on the shell's own screen, a new size draws a new frame.
- Keys are read from stdin where that is a terminal; without one there are none.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections import deque
from types import FrameType
from typing import Any

from rich.console import Console, RenderableType
from rich.control import Control
from rich.screen import Screen

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HANDLED = (*_ENDING, signal.SIGWINCH, signal.SIGTSTP)


class Terminal:
    """The screen and the keys, from entering it to leaving it.

    `ended_by` is the signal that asks the program to end, None while there is none.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stdin = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._mode: list[Any] | None = None
        self._signals: deque[int] = deque()
        self._handlers: dict[int, Any] = {}
        self._wakes, self._wake = os.pipe()
        self.ended_by: int | None = None

    def __enter__(self) -> Terminal:
        for fd in (self._wakes, self._wake):
            os.set_blocking(fd, False)
        for number in _HANDLED:
            # What nohup or a shell has had ignored stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._remember)
        try:
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._give_back()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            os.close(self._wakes)
            os.close(self._wake)

    def draw(self, frame: RenderableType) -> None:
        """Show a frame in place of what is on the screen."""
        with self._console:
            self._console.control(Control.home())
            self._console.print(Screen(frame), end="")

    def wake(self) -> None:
        """Let `wait` return; for other threads."""
        try:
            os.write(self._wake, b"\0")
        except BlockingIOError:
            return  # Enough of them are there.

    def wait(self) -> str:
        """Wait until something happens; answers the keys that were pressed, if any were."""
        keys = [] if self._stdin is None else [self._stdin]
        ready, _, _ = select.select([self._wakes, *keys], (), ())
        if self._wakes in ready:
            os.read(self._wakes, 4096)
        while self._signals:
            self._deal_with(self._signals.popleft())
        if self._stdin is None or self._stdin not in ready:
            return ""
        try:
            pressed = os.read(self._stdin, 4096)
        except OSError:
            pressed = b""
        if not pressed:
            # The terminal is gone, and with it everybody who could see anything.
            self.ended_by = signal.SIGHUP
        return pressed.decode("ascii", "replace")

    def _remember(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)
        self.wake()

    def _deal_with(self, number: int) -> None:
        if number in _ENDING:
            self.ended_by = number
        elif number == signal.SIGTSTP:
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()

    def _take(self) -> None:
        if self._stdin is not None:
            self._mode = termios.tcgetattr(self._stdin)
            tty.setcbreak(self._stdin, termios.TCSADRAIN)
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)

    def _give_back(self) -> None:
        if self._stdin is not None and self._mode is not None:
            termios.tcsetattr(self._stdin, termios.TCSADRAIN, self._mode)
            self._mode = None
        self._console.show_cursor(True)
        self._console.set_alt_screen(False)
