"""A session's stream in the synchronous client: one message out, one message in.

Rules:
- `exchange` is used by one thread at a time; `close` may come from any thread and ends a running
  exchange.
- The answers are read by a thread of the stream's own. An exception that a signal raises, Ctrl-C
  above all, may leave gRPC's locks held in the thread that it hits, which is the caller's: there it
  finds only a queue, that it cannot harm.
- The stream is cancelled explicitly, never left to the garbage collector: at interpreter exit that
  deadlocks. So nothing that lives as long as the stream (gRPC's threads, the reader) may refer to
  the session that owns it; its finalizer, which runs before exit, calls `close`.
- After `close` nothing refers to the call, and no thread of it is left waiting.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Protocol, TypeAlias

from kvblock import retained
from kvblock._sync.transport import Stream, StreamEnded
from kvblock.owner import OwnerProcess
from kvblock.recall import Recall
from kvblock.stalled import SendMonitor
from kvblock.v1 import kvblock_pb2 as pb


class Call(Protocol):
    """A running Session call."""

    def __next__(self) -> pb.SessionResponse:
        """The next answer."""

    def cancel(self) -> bool:
        """End it."""


_Answers: TypeAlias = "SimpleQueue[pb.SessionResponse | Exception]"


class SessionStream(Stream):
    """One running Session call; `sends` is that of its connection.

    `recall` gets what comes unasked; None: nothing does.
    """

    def __init__(
        self,
        start: Callable[[Iterator[pb.SessionRequest]], Call],
        sends: SendMonitor,
        recall: Recall | None,
    ) -> None:
        self.timed_out = False
        self._owner = OwnerProcess()
        self._sends = sends
        self._requests: SimpleQueue[pb.SessionRequest | None] = SimpleQueue()
        self._answers: _Answers = SimpleQueue()
        self._call: Call | None = start(iter(self._requests.get, None))
        retained.register(self)
        threading.Thread(
            target=_read,
            args=(self._call, self._answers, recall),
            name="kvblock-answers",
            daemon=True,
        ).start()

    def exchange(self, request: pb.SessionRequest, timeout: float | None) -> pb.SessionResponse:
        """Send a message and answer the next one that comes."""
        if self._call is None:
            raise StreamEnded
        size = request.ByteSize()
        self._sends.begin(size)
        late: bool | None = None
        try:
            self._requests.put(request)
            answer = self._answers.get(timeout=timeout)
            if isinstance(answer, pb.SessionResponse):
                late = False
                return answer
        except Empty:
            self.timed_out = late = True
            raise StreamEnded from None
        finally:
            self._sends.end(size, late)
        raise StreamEnded if isinstance(answer, StopIteration) else answer

    def finish(self, timeout: float | None) -> None:
        """Read a call to its end that has nothing more to say."""
        if self._call is not None:
            self._requests.put(None)
            with contextlib.suppress(Empty):
                self._answers.get(timeout=timeout)

    def close(self) -> None:
        """Cancel the call if it is still running."""
        if not self._owner.is_here:
            return
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self._requests.put(None)


def _read(call: Call, answers: _Answers, recall: Recall | None) -> None:
    """Pass on what a call answers, and at last what it ends with."""
    try:
        while True:
            answer = next(call)
            if recall is None or not recall.arrived(answer):
                answers.put(answer)
    except Exception as end:  # noqa: BLE001 - `exchange` raises it
        if recall is not None:
            recall.stream_ended()
        answers.put(end)
