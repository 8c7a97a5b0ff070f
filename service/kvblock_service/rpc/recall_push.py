"""Sends an engine on its stream, unasked, how many blocks it owes when that has changed.

Rules:
- A push is a whole message between two answers: whoever writes on the stream has its lock.
- It waits for the stream in a task of its own, so nobody waits for a client that reads slowly; once
  the stream takes it, the number is the newest one, and those in between were never made.
- `sent` is the last number that was written, in an answer or by a push.
"""

import asyncio
from collections.abc import Awaitable, Callable

from kvblock.v1 import kvblock_pb2 as pb
from kvblock_service.recalls import Recalls


class RecallPush:
    """The pushes of one stream; `write` sends a message on it.

    `is_over`: nothing more is to be pushed, since the answer that ends the session comes next.
    """

    def __init__(
        self, recall: Recalls, engine: str, write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self.sent = 0
        self.is_over = False
        self._turn = asyncio.Lock()
        self._recall = recall
        self._engine = engine
        self._write = write
        self._due = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())
        recall.watch(engine, self)

    def notify(self) -> None:
        """The engine owes another number than the last one that was sent."""
        self._due.set()

    async def answer(self, data: bytes, owed_blocks: int) -> None:
        """Send an answer that tells what the engine owes."""
        async with self._turn:
            self.sent = owed_blocks
            await self._write(data)
        # It was made before the answers before it were written: another number may be right by now.
        self._recall.changed()

    async def push(self) -> None:
        """Send what the engine owes, if that differs from the last number that was sent."""
        async with self._turn:
            self._due.clear()
            owed = self._recall.owed(self._engine)
            if owed != self.sent and not self.is_over:
                self.sent = owed
                recall = pb.SessionRecall(owed_blocks=owed)
                await self._write(pb.SessionResponse(recall=recall).SerializeToString())

    def end(self) -> None:
        """The stream has ended."""
        self._recall.leave(self)
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            await self._due.wait()
            await self.push()
