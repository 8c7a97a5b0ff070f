"""What every method of both services has in common: bytes in, bytes out, errors as statuses.

Rules:
- A request is parsed here and not by gRPC, so that a malformed or an over-long one gets the same
  kind of answer as any other bad request.
- A draining server takes no new call.
- An error that follows from what the server holds is sent when that is in the journal; where that
  cannot be written, the call's error is JournalUnwritable.
- An exception that is no CallError is a bug: it is logged with its traceback, and the client gets
  INTERNAL without any of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from kvblock_service.call_error import CallError, Then
from kvblock_service.errors import MalformedMessage, RequestLimit
from kvblock_service.host import Host
from kvblock_service.rpc.errors import then_trailers, trailers_of

RequestT = TypeVar("RequestT", bound=Message)
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Permit: TypeAlias = Callable[[Any], None]
Admit: TypeAlias = Callable[[Context], Permit]
"""Lets a caller in by its context, and gives what permits its request; both raise CallErrors."""

admitted: ContextVar[Permit | None] = ContextVar("kvblock.admitted", default=None)
"""What permits the request of the call that runs in this task; None: it needs no permission."""
current: ContextVar[Context] = ContextVar("kvblock.context")
"""The context of the call that runs in this task."""
_permit: ContextVar[Callable[[], None] | None] = ContextVar("kvblock.permit", default=None)
_log = logging.getLogger(__name__)


def peer() -> str:
    """Where the call comes from that runs in this task, as gRPC names it."""
    return current.get().peer()


def permit_again() -> None:
    """Let this task's unary call go on after its wait; raises CallError if it may not any more."""
    if permit := _permit.get():
        permit()


def parse(message_type: type[RequestT], data: bytes, bytes_max: int) -> RequestT:
    """The message in `data`; raises RequestLimit beyond `bytes_max`, or MalformedMessage."""
    if len(data) > bytes_max:
        raise RequestLimit("request", len(data), "message_bytes_max", bytes_max)
    try:
        return message_type.FromString(data)
    except DecodeError:
        raise MalformedMessage(message_type.DESCRIPTOR.full_name) from None


class Activity:
    """Counts the calls that are being served, so that a drain can wait for the last one.

    `begun` is how many calls there ever were.
    """

    def __init__(self) -> None:
        self.begun = 0
        self._running = 0
        self._idle: asyncio.Event | None = None

    def __enter__(self) -> None:
        self.begun += 1
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1
        if self._idle is not None and not self._running:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return at a moment when no call is being served."""
        self._idle = asyncio.Event()
        while self._running:
            self._idle.clear()
            await self._idle.wait()


def unary(
    host: Host,
    activity: Activity,
    message_type: type[RequestT],
    bytes_max: int,
    method: Callable[[RequestT], Awaitable[Message]],
) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """A handler that serves one unary method over bytes."""
    persisted = getattr(method, "is_persisted", False)

    async def behaviour(data: bytes, context: Context) -> bytes:
        with activity:
            current.set(context)
            try:
                try:
                    if host.draining:
                        host.refuse_when_draining()
                    permit = admitted.get()
                    request = parse(message_type, data, bytes_max)
                    if permit:
                        permit(request)
                        _permit.set(partial(permit, request))
                    answer = await method(request)
                    if persisted and not host.is_settled:
                        await host.settled()
                    return answer.SerializeToString()
                except CallError as error:
                    if error.of_state:
                        await host.settled()
                    raise
            except CallError as error:
                await refuse(context, error)
            except Exception:  # noqa: BLE001 - break_off logs it
                await break_off(context, message_type.DESCRIPTOR.name)

    return grpc.unary_unary_rpc_method_handler(behaviour)


async def refuse(context: Context, error: CallError) -> NoReturn:
    """End a call with the status of an error."""
    await context.abort(grpc.StatusCode[error.code], str(error), trailers_of(error))


async def end(context: Context, code: grpc.StatusCode, text: str, then: Then) -> NoReturn:
    """End a call with a status that has no reason."""
    await context.abort(code, text, then_trailers(then))


async def break_off(context: Context, call: str) -> NoReturn:
    """End a call that ran into a bug; to be called while the exception is being handled."""
    _log.exception("a call failed on a bug of the server", extra={"call": call})
    text = "internal error; the server's log says more"
    await end(context, grpc.StatusCode.INTERNAL, text, Then.GIVE_UP)
