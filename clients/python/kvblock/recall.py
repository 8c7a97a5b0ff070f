"""What an engine says that it lacks and could give back, and what it owes to others.

Rules:
- What is owed is a level: the newest number counts, and comes with each answer. On a stream that
  was asked for it also comes unasked. The answers of renewals, which have no place in the order of
  that stream, count only while there is none.
- Background renewals carry the last hints, so that a restarted server learns them, as they are by
  then: what was granted since is not wanted any more, and what was refused last still is.
- What settles an engine's blocks by itself is asked for the hints of a renewal, instead.
- Nothing here refers to a session, but for what `on_recall` refers to.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import TypeAlias

from kvblock import arguments
from kvblock.hints import EngineHints
from kvblock.results import RefusalReason, StepResult
from kvblock.v1 import kvblock_pb2 as pb

OnRecall: TypeAlias = Callable[[int], None]

_log = logging.getLogger(__name__)


def fill_hints(message: pb.EngineHints, hints: EngineHints) -> None:
    """Write hints into a message, which is there then even if all of them are zero.

    Raises:
        InvalidArgumentError: they are no EngineHints, or not of whole numbers.

    """
    if not isinstance(hints, EngineHints):
        raise arguments.invalid("hints", hints, "must be EngineHints or None")
    largest = arguments.UINT32_MAX
    want = arguments.whole_number("hints.want_blocks", hints.want_blocks, largest)
    idle = arguments.whole_number("hints.idle_blocks", hints.idle_blocks, largest)
    message.SetInParent()
    message.want_blocks, message.idle_blocks = want, idle


class Recall:
    """The hints and the level of one lease; threads may share it.

    `owed_blocks` is the newest level. `listeners` are called with a level that comes unasked and is
    another one than before.
    """

    def __init__(self) -> None:
        self.owed_blocks = 0
        self.listeners: list[OnRecall] = []
        self._streamed = False
        self._hints: EngineHints | None = None
        self._source: weakref.WeakMethod[Callable[[], EngineHints]] | None = None
        self._refused = 0

    @property
    def hints(self) -> EngineHints | None:
        """What a background renewal says; None: nothing was ever said."""
        source = None if self._source is None else self._source()
        if source is not None:
            return source()
        hints = self._hints
        if hints is None or not self._refused:
            return hints
        return EngineHints(max(hints.want_blocks, self._refused), hints.idle_blocks)

    def ask(self, source: Callable[[], EngineHints] | None) -> None:
        """Have renewals say what this method says then, as long as its object exists.

        None: have them say the last hints again.
        """
        self._source = None if source is None else weakref.WeakMethod(source)

    def say(self, hints: EngineHints) -> None:
        """Have renewals say this from now on."""
        self._hints, self._refused = hints, 0

    def stepped(self, hints: EngineHints | None, result: StepResult) -> None:
        """A step was answered that gave these hints."""
        hints = hints or self._hints
        granted = len(result.block_numbers) + len(result.acquired_block_numbers)
        if hints is not None:
            if granted and hints.want_blocks:
                left = max(0, hints.want_blocks - granted)
                hints = EngineHints(left, hints.idle_blocks)
            refusal = result.refusal
            lacks = refusal is not None and refusal.reason is RefusalReason.POOL_EXHAUSTED
            self._hints = hints
            self._refused = refusal.needed if refusal is not None and lacks else 0
        if not self._streamed:
            self.owed_blocks = result.owed_blocks

    def renewed(self, hints: EngineHints | None, owed_blocks: int) -> None:
        """A renewal was answered that the user made, and that gave these hints."""
        if hints is not None:
            self.say(hints)
        if not self._streamed:
            self.owed_blocks = owed_blocks

    def renewed_in_background(self, owed_blocks: int) -> None:
        """A renewal was answered that nobody waits for."""
        if not self._streamed:
            self._pushed(owed_blocks)

    def arrived(self, message: pb.SessionResponse) -> bool:
        """A message came on a stream that was asked for levels; whether it is nobody's answer."""
        kind = message.WhichOneof("message")
        if kind == "recall":
            self._pushed(message.recall.owed_blocks)
            return True
        if kind == "attached":
            self._streamed = True
            self._pushed(0)
        elif kind == "stepped":
            self.owed_blocks = message.stepped.owed_blocks
        elif kind == "renewed":
            self.owed_blocks = message.renewed.owed_blocks
        return False

    def stream_ended(self) -> None:
        """Nothing comes on the stream any more."""
        self._streamed = False

    def _pushed(self, owed_blocks: int) -> None:
        before, self.owed_blocks = self.owed_blocks, owed_blocks
        if owed_blocks == before:
            return
        for listener in self.listeners:
            try:
                listener(owed_blocks)
            except Exception:  # noqa: BLE001 - it is the user's own, and is logged
                _log.exception("on_recall failed")
