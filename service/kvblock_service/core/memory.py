"""The results of recent requests, so that a request that is sent again changes nothing.

Rules:
- A result is known by engine, epoch and request_id; the same key with another command is told
  apart by comparing the commands.
- At most `results_max` results are kept, and at most NUMBERS_PER_RESULT times as many sequence and
  block numbers in them; the oldest go first. A request that comes again after that counts as new.
- Without a lease no epoch tells a later engine of the same name from an earlier one. So what an
  engine was answered without a lease is over when the engine ends: it is kept, to be known, and
  never answered again.
"""

from typing import NamedTuple, TypeAlias

from kvblock_service.core.commands import (
    Allocate,
    Answer,
    Attach,
    Command,
    Free,
    Granted,
    Reclaim,
    Step,
    Stepped,
)

NUMBERS_PER_RESULT = 16

Key: TypeAlias = tuple[str, int, str]


class Known(NamedTuple):
    """A command that was carried out, and its result."""

    command: Command
    answer: Answer

    def is_of(self, command: Command) -> bool:
        """Whether this is the same command sent again.

        How long blocks wait is the server's to say, from what it knows at the moment: it is no part
        of what was sent.
        """
        if isinstance(command, Attach | Reclaim) and isinstance(self.command, Attach | Reclaim):
            return command._replace(quarantine_ms=self.command.quarantine_ms) == self.command
        return command == self.command


class Memory:
    """Results by key, the oldest first."""

    def __init__(self, results_max: int) -> None:
        self.results_max = results_max
        self.results: dict[Key, Known] = {}
        self.over: dict[Key, None] = {}
        self.numbers = 0
        self._unleased: dict[str, dict[Key, None]] = {}

    def get(self, command: Command) -> Known | None:
        """What is known of a command with this engine, epoch and request_id."""
        return self.results.get((command.engine, command.epoch, command.request_id))

    def put(self, command: Command, answer: Answer, *, over: bool = False) -> None:
        """Keep a result; an older one under the same key is replaced."""
        key = (command.engine, command.epoch, command.request_id)
        self._drop(key)
        self.results[key] = Known(command, answer)
        if over:
            self.over[key] = None
        elif not command.epoch and isinstance(command, Allocate | Free | Step):
            self._unleased.setdefault(command.engine, {})[key] = None
        self.numbers += _numbers(command, answer)
        while (
            len(self.results) > self.results_max
            or self.numbers > self.results_max * NUMBERS_PER_RESULT
        ):
            self._drop(next(iter(self.results)))

    def is_over(self, command: Command) -> bool:
        """Whether what is known of a command was answered to an engine that has ended."""
        return (command.engine, command.epoch, command.request_id) in self.over

    def end(self, engine: str) -> None:
        """An engine has ended: what it was answered without a lease is over."""
        self.over.update(self._unleased.pop(engine, {}))

    def forget(self, command: Command) -> None:
        """Let a command with this engine, epoch and request_id count as new."""
        self._drop((command.engine, command.epoch, command.request_id))

    def _drop(self, key: Key) -> None:
        known = self.results.pop(key, None)
        if known is None:
            return
        self.numbers -= _numbers(*known)
        self.over.pop(key, None)
        unleased = self._unleased.get(key[0])
        if unleased is not None:
            unleased.pop(key, None)
            if not unleased:
                del self._unleased[key[0]]


def _numbers(command: Command, answer: Answer) -> int:
    count = 0
    if isinstance(command, Step):
        count += len(command.free_ids) + len(command.allocate_ids) + len(command.num_blocks)
    if isinstance(answer, Granted | Stepped):
        count += len(answer.blocks)
    if isinstance(answer, Stepped):
        count += len(answer.freed_counts)
    return count
