"""The results of recent requests, so that a request that is sent again changes nothing.

Rules:
- A result is known by its key: engine, epoch and request_id. Another command under the same key is
  told apart by comparing the commands.
- There are at most `results_max` results, and at most NUMBERS_PER_RESULT times as many sequence and
  block numbers in them; the oldest go first. A request that comes again after that counts as new.
- Without a lease no epoch tells a later engine of the same name from an earlier one. So what an
  engine was answered without a lease is stale once the engine has ended: it is still known, and
  never answered again.
"""

from typing import Any, Generic, TypeAlias, TypeVar

from kvblock_service.core.commands import Allocate, Attach, Command, CreatePool, Free, Reclaim, Step

NUMBERS_PER_RESULT = 16

CommandT = TypeVar("CommandT", bound="tuple[Any, ...]")
AnswerT = TypeVar("AnswerT", bound="tuple[Any, ...]")
Key: TypeAlias = tuple[str, int, str]
Known: TypeAlias = tuple[CommandT, AnswerT, bool]
"""A command that was carried out, its answer, and whether that is stale."""

_SERVER_FIELDS: dict[type, tuple[str, ...]] = {
    Attach: ("quarantine_ms",),
    Reclaim: ("quarantine_ms",),
    CreatePool: ("epoch_floor", "configured"),
}
"""What the server adds to a request, from what it knows at the moment."""


class IdempotencyCache(Generic[CommandT, AnswerT]):
    """Results by key, the oldest first."""

    def __init__(self, results_max: int) -> None:
        self.results_max = results_max
        self.results: dict[Key, Known[CommandT, AnswerT]] = {}
        self.numbers = 0
        self._unleased: dict[str, dict[Key, None]] = {}

    def put(self, key: Key, command: CommandT, answer: AnswerT, *, stale: bool = False) -> None:
        """Remember a result; an older one under the same key is replaced."""
        self.forget(key)
        self.results[key] = (command, answer, stale)
        if not (stale or key[1]) and isinstance(command, Allocate | Free | Step):
            self._unleased.setdefault(key[0], {})[key] = None
        self.numbers += _numbers(command, answer)
        while (
            len(self.results) > self.results_max
            or self.numbers > self.results_max * NUMBERS_PER_RESULT
        ):
            self.forget(next(iter(self.results)))

    def end(self, engine: str) -> None:
        """An engine has ended: what it was answered without a lease is stale."""
        for key in self._unleased.pop(engine, ()):
            command, answer, _ = self.results[key]
            self.results[key] = (command, answer, True)

    def forget(self, key: Key) -> None:
        """Let a command with this key count as new."""
        known = self.results.pop(key, None)
        if known is None:
            return
        self.numbers -= _numbers(known[0], known[1])
        unleased = self._unleased.get(key[0])
        if unleased is not None:
            unleased.pop(key, None)
            if not unleased:
                del self._unleased[key[0]]


def key_of(command: Command) -> Key:
    """The key of a pool's command."""
    return (command.engine, command.epoch, command.request_id)


def is_same(command: Any, first: Any) -> bool:
    """Whether a command is the first one under its key sent again."""
    if type(command) is not type(first):
        return False
    ours = {name: getattr(first, name) for name in _SERVER_FIELDS.get(type(first), ())}
    return bool(command._replace(**ours) == first)


def _numbers(command: tuple[object, ...], answer: tuple[object, ...]) -> int:
    return sum([len(field) for field in command + answer if type(field) is list])
