"""One way to write a test for both clients."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kvblock


class Flavour:
    """Makes clients of one class, and carries their calls out."""

    name = "sync"
    client: Callable[..., Any] = kvblock.Client
    session: type = kvblock.Session

    def do(self, answer: Any) -> Any:
        """What a call answers; an iterator's items as a list."""
        return list(answer) if isinstance(answer, Iterator) else answer

    def meanwhile(self, other: Callable[[], Any]) -> Any:
        """What something else answers that takes time, while the client may go on."""
        return other()

    @contextmanager
    def entered(self, manager: Any) -> Iterator[Any]:
        """A client or session inside its context."""
        with manager as value:
            yield value

    def end(self) -> None:
        """Let go of everything."""


class AsyncFlavour(Flavour):
    """The asyncio classes, in a loop that runs while something is done."""

    name = "async"
    client = kvblock.AsyncClient
    session = kvblock.AsyncSession

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def do(self, answer: Any) -> Any:
        if isinstance(answer, AsyncIterator):
            return self.loop.run_until_complete(self._collect(answer))
        if inspect.isawaitable(answer):
            return self.loop.run_until_complete(self._await(answer))
        return answer

    def meanwhile(self, other: Callable[[], Any]) -> Any:
        return self.loop.run_until_complete(asyncio.to_thread(other))

    @contextmanager
    def entered(self, manager: Any) -> Iterator[Any]:
        value = self.do(manager.__aenter__())
        try:
            yield value
        except BaseException as error:
            if not self.do(manager.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self.do(manager.__aexit__(None, None, None))

    def end(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    @staticmethod
    async def _collect(items: AsyncIterator[Any]) -> list[Any]:
        return [item async for item in items]

    @staticmethod
    async def _await(answer: Any) -> Any:
        return await answer
