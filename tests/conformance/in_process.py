"""The server in this process and without sockets: its checks, conversions, core and answers.

A call comes as bytes to the handler that gRPC would give it to; its context is ours. So the vectors
that need no connection show what is the server's own, and what gRPC adds to it.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from kvblock_service import main
from kvblock_service.access import RejectedCalls
from kvblock_service.config.load import load_settings
from kvblock_service.persistence import PersistentState
from kvblock_service.reaper import Reaper
from kvblock_service.rpc import calls, session
from kvblock_service.rpc.admin import KVBlockAdmin
from kvblock_service.rpc.edge import Edge
from kvblock_service.rpc.server import ADMIN, SERVICE, KVBlockServer
from kvblock_service.rpc.service import KVBlockService
from kvblock_service.rpc.slow_readers import SlowReaders
from tests.conformance.bench import ARGUMENTS, METHODS, POOLS, Bench
from tests.conformance.cases import Json
from tests.conformance.driving import Outcome, read_status

PATIENCE = 60.0
T = TypeVar("T")


class AbortedError(Exception):
    """The end of a call with a status."""

    def __init__(self, code: grpc.StatusCode, text: str, trailers: Any) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.trailers = dict(trailers)


class Context:
    """A call's context: what is read comes from a queue, None ends it; what is written is kept."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def peer(self) -> str:
        """Where the call comes from."""
        return "in process"

    async def abort(self, code: grpc.StatusCode, text: str, trailers: Any) -> NoReturn:
        """End the call."""
        raise AbortedError(code, text, trailers)

    async def read(self) -> "bytes | object":
        """The next message of the client."""
        data = await self.inbox.get()
        return grpc.aio.EOF if data is None else data

    async def write(self, data: bytes) -> None:
        """An answer."""
        await self.answers.put(data)


class Server:
    """A server whose handlers are called in a thread with an event loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Server":
        self._thread.start()
        self.do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """What something comes to in the loop."""
        done: T = self.begin(work).result(PATIENCE)
        return done

    def begin(self, work: Coroutine[Any, Any, T]) -> Any:
        """Something that goes on in the loop, as a future."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def call(self, method: str, data: bytes) -> bytes:
        """The answer to a unary call; raises AbortedError."""
        # A task of its own: its context variables are those of one call.
        answer: bytes = await asyncio.create_task(
            self._handlers[method].unary_unary(data, Context())
        )
        return answer

    def open(self, context: Context) -> "asyncio.Task[None]":
        """Begin a Session call; to be called in the loop."""
        return asyncio.create_task(self._session.stream_stream(None, context))

    async def _start(self) -> None:
        flags: dict[str, object] = {"pools": POOLS, "ephemeral": True}
        for argument in ARGUMENTS:
            name, _, value = argument.removeprefix("--").partition("=")
            flags[name.replace("-", "_")] = value
        flags["listen"] = ("unix:never-bound.sock",)
        config = load_settings(flags).settings
        self._state = PersistentState(config)
        host = main.build_host(config, self._state)
        options = main.service_options(config)
        server = KVBlockServer(host, options)
        service = KVBlockService(host, options)
        self._handlers: dict[str, Any] = server._unary(SERVICE, service)
        self._handlers |= server._unary(ADMIN, KVBlockAdmin(host, options))
        slow = SlowReaders(Edge(RejectedCalls()).slow_reader_seconds)
        self._session: Any = session.handler(service, calls.Activity(), None, slow)
        self._upkeep = asyncio.create_task(Reaper(host).run())

    async def _end(self) -> None:
        self._upkeep.cancel()
        with suppress(asyncio.CancelledError):
            await self._upkeep
        await self._state.close()


class Call:
    """One method, as a stub has it."""

    def __init__(self, server: Server, method: str) -> None:
        self._server = server
        self._method = method
        self._answer = GetMessageClass(METHODS[method].output_type)

    def __call__(self, request: Any) -> Any:
        if METHODS[self._method].client_streaming:
            answers, failure = self._server.do(converse(self._server, [*request]))
            assert failure is None, failure
            return [self._answer.FromString(one) for one in answers]
        data = self._server.do(self._server.call(self._method, request.SerializeToString()))
        return self._answer.FromString(data)

    def future(self, request: Message) -> Any:
        """The call, in the background."""
        return self._server.begin(self._server.call(self._method, request.SerializeToString()))


class Stubs:
    """All methods of both services."""

    def __init__(self, server: Server) -> None:
        for method in METHODS:
            setattr(self, method, Call(server, method))


async def converse(
    server: Server, messages: "list[Message]"
) -> "tuple[list[bytes], AbortedError | None]":
    """The answers of a Session call, and the error that has ended it."""
    context = Context()
    task = server.open(context)
    answers: list[bytes] = []
    for message in messages:
        context.inbox.put_nowait(message.SerializeToString())
        waiting = asyncio.create_task(context.answers.get())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            break
        answers.append(waiting.result())
    context.inbox.put_nowait(None)
    failure = None
    try:
        await task
    except AbortedError as aborted:
        failure = aborted
    while not context.answers.empty():
        answers.append(context.answers.get_nowait())
    return answers, failure


class InProcess:
    """A driver that has the server in this process."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def send(self, _: str, path: str, messages: list[Json], linger: bool = False) -> None:
        """Carry out a call."""
        assert not linger, "what waits for the end of a server takes a connection"
        method = path.rpartition("/")[2]
        described = METHODS[method]
        kind = GetMessageClass(described.input_type)
        requests: list[Message] = [json_format.ParseDict(one, kind()) for one in messages]
        failure: AbortedError | None = None
        answers: list[bytes] = []
        if described.client_streaming:
            answers, failure = self._server.do(converse(self._server, requests))
        else:
            try:
                (request,) = requests
                work = self._server.call(method, request.SerializeToString())
                answers = [self._server.do(work)]
            except AbortedError as aborted:
                failure = aborted
        answer = GetMessageClass(described.output_type)
        shown = [
            json_format.MessageToDict(answer.FromString(one), preserving_proto_field_name=True)
            for one in answers
        ]
        trailers = dict(failure.trailers) if failure else {}
        details = trailers.pop("grpc-status-details-bin", b"")
        code = failure.code.name if failure else "OK"
        self._outcome = Outcome(shown, read_status(code, details, trailers))

    def receive(self) -> Outcome:
        """What came of it."""
        return self._outcome


class InProcessBench(Bench):
    """A bench whose server is in this process."""

    def __init__(self, server: Server) -> None:
        super().__init__("in process", Stubs(server))
        self._server = server

    @contextmanager
    def _attached(self, engine: str) -> Iterator[int]:
        request = GetMessageClass(METHODS["Session"].input_type)(attach={"engine": engine})

        async def open_stream() -> tuple[Context, "asyncio.Task[None]", bytes]:
            context = Context()
            task = self._server.open(context)
            context.inbox.put_nowait(request.SerializeToString())
            return context, task, await context.answers.get()

        async def leave(context: Context, task: "asyncio.Task[None]") -> None:
            context.inbox.put_nowait(None)
            with suppress(AbortedError):
                await task

        context, task, data = self._server.do(open_stream())
        answer: Any = GetMessageClass(METHODS["Session"].output_type).FromString(data)
        yield answer.attached.lease.epoch
        self._server.do(leave(context, task))
