"""The drivers on the Python clients; the argument says which: `sync` or `asyncio`.

What they read and write is told in ../CLIENTS.md. Both are this one program: what a client answers
is awaited where it can be.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from google.protobuf import json_format
from opentelemetry import propagate, trace
from opentelemetry.context import attach, detach

import kvblock
import kvblock.otel
from kvblock.v1 import kvblock_pb2 as pb
from tests.conformance.drivers import python_values as values
from tests.conformance.drivers.python_values import awaited

Json: TypeAlias = dict[str, Any]
FLAVOURS = {
    "sync": (kvblock.Client, kvblock.BlockPool, kvblock.otel.client_interceptors),
    "asyncio": (kvblock.AsyncClient, kvblock.AsyncBlockPool, kvblock.otel.aio_client_interceptors),
}


class UnsupportedError(Exception):
    """Something that this driver does not know."""


class Session:
    """A session, and how often it was told that its lease is lost."""

    def __init__(self) -> None:
        self.lost = 0
        self.session: Any = None

    def on_lost(self, _: kvblock.LeaseLostError) -> None:
        """Count."""
        self.lost += 1


class Driver:
    """The objects of a driver, and what lines do with them."""

    def __init__(self, flavour: str) -> None:
        self._client, self._pool, self._interceptors = FLAVOURS[flavour]
        self._objects: dict[str, Any] = {}
        self._connected: dict[str, Json] = {}

    async def answer(self, line: Json) -> Json:
        """What a line is answered."""
        do = getattr(self, f"_{line['do']}", None)
        if do is None:
            return {"error": {"kind": "unsupported"}}
        try:
            with current(line.get("traceparent")):
                made = await do(line)
        except kvblock.KVBlockError as error:
            return {"error": values.error(error)}
        except UnsupportedError as error:
            return {"error": {"kind": "unsupported", "message": str(error)}}
        if "as" in line:
            self._objects[line["as"]], made = made
        return {"ok": {} if made is None else made}

    async def _connect(self, line: Json) -> tuple[Any, Json]:
        self._connected[line["as"]] = line
        return self._make_client(line), {}

    def _make_client(self, line: Json, **more: Any) -> Any:
        tls = line.get("tls")
        settings = {
            "pool": line.get("pool", ""),
            "engine": line.get("engine", ""),
            "timeout": line.get("timeout", 60.0),
            "retries": line.get("retries", True),
            "token": line.get("token"),
            "tls": False if tls is None else kvblock.Tls(**tls),
            "interceptors": self._interceptors(),
        }
        return self._client(line["address"], **(settings | more))

    async def _call(self, line: Json) -> Json:
        method: Any = values.UNARY.get(line["method"])
        if method is None:
            raise UnsupportedError(line["method"])
        request: Any = json_format.ParseDict(line.get("request", {}), method.request())
        epoch = getattr(request, "epoch", 0)
        timeout = line.get("timeout")
        if not epoch or not method.fenced_by_client:
            return await method.carry_out(self._objects[line["on"]], request, timeout)  # type: ignore[no-any-return]
        # Who makes calls under a lease that another process renews makes a client with its epoch.
        where = {"pool": request.pool, "engine": request.engine, "epoch": epoch}
        client = self._make_client(self._connected[line["on"]], **where)
        try:
            return await method.carry_out(client, request, timeout)  # type: ignore[no-any-return]
        finally:
            await awaited(client.close())

    async def _attach(self, line: Json) -> tuple[Session, Json]:
        request = json_format.ParseDict(line.get("request", {}), pb.SessionAttach())
        made = Session()
        made.session = self._objects[line["on"]].session(
            **values.attach(request), on_lease_lost=made.on_lost
        )
        await awaited(made.session.attach(timeout=line.get("timeout")))
        return made, values.attached(made.session)

    async def _step(self, line: Json) -> Json:
        step = json_format.ParseDict(line.get("step", {}), pb.EngineStep())
        arguments = values.step(step)
        if "hints" in line:
            arguments["hints"] = kvblock.EngineHints(**line["hints"])
        session = self._objects[line["on"]].session
        return values.stepped(await awaited(session.step(**arguments, timeout=line.get("timeout"))))

    async def _recover(self, line: Json) -> Json:
        session = self._objects[line["on"]].session
        return values.stepped(await awaited(session.recover(timeout=line.get("timeout"))))

    async def _renew(self, line: Json) -> None:
        await awaited(self._objects[line["on"]].session.renew())

    async def _detach(self, line: Json) -> Json:
        session = self._objects[line["on"]].session
        return {"freed_blocks": await awaited(session.detach(timeout=line.get("timeout")))}

    async def _close(self, line: Json) -> None:
        target = self._objects[line["on"]]
        await awaited((target.session if isinstance(target, Session) else target).close())

    async def _state(self, line: Json) -> Json:
        target = self._objects[line["on"]]
        session = target.session
        return {
            "attached": session.attached,
            "lease_valid": session.lease_valid,
            "unanswered": session.unanswered,
            "lost": target.lost,
            "epoch": session.epoch,
        }

    async def _arena(self, line: Json) -> tuple[kvblock.Arena, Json]:
        arena = self._objects[line["on"]].session.arena()
        told = ("piece_bytes", "total_blocks", "regions")
        return arena, {name: getattr(arena, name) for name in told}

    async def _write(self, line: Json) -> None:
        data = bytes.fromhex(line["bytes"])
        at = line.get("at", 0)
        with self._block(line) as block:
            block[at : at + len(data)] = data

    async def _read(self, line: Json) -> Json:
        at = line.get("at", 0)
        with self._block(line) as block:
            return {"bytes": bytes(block[at : at + line["count"]]).hex()}

    def _block(self, line: Json) -> memoryview:
        arena: kvblock.Arena = self._objects[line["on"]]
        return arena.block(line["block"], line.get("region", 0))

    async def _block_pool(self, line: Json) -> tuple[Any, Json]:
        return self._pool(self._objects[line["on"]].session), {}

    async def _acquire(self, line: Json) -> Json:
        taken = await awaited(self._objects[line["on"]].acquire(line.get("count", 1)))
        if isinstance(taken, kvblock.Refused):
            return {"refused": values.shown(taken)}
        return {"blocks": taken}

    async def _release(self, line: Json) -> None:
        await awaited(self._objects[line["on"]].release(line["blocks"]))

    async def _flush(self, line: Json) -> None:
        await awaited(self._objects[line["on"]].flush(wait=True))

    async def _counts(self, line: Json) -> Json:
        pool = self._objects[line["on"]]
        return {"ready": pool.ready_blocks, "free": pool.free_blocks}

    async def _fork(self, line: Json) -> Json:
        session = self._objects[line["on"]].session
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.write(writing, _used_and_ended(session).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            text = told.read()
        # The child has said its word, and does nothing more.
        os.waitpid(pid, 0)  # noqa: ASYNC222
        return {"child": text}


def _used_and_ended(session: Any) -> str:
    """What a use of a session failed with, in a child; it is left there, too."""
    text = ""
    try:
        at_once(awaited(session.step()))
    except kvblock.KVBlockError as error:
        text = str(error)
    if isinstance(session, kvblock.AsyncSession):
        at_once(session.__aexit__(None, None, None))
    else:
        session.__exit__(None, None, None)
    return text


@contextmanager
def current(traceparent: str | None) -> Iterator[None]:
    """Let the span of a traceparent be the current one."""
    if traceparent is None:
        yield
        return
    token = attach(propagate.extract({"traceparent": traceparent}))
    try:
        assert trace.get_current_span().get_span_context().is_valid, traceparent
        yield
    finally:
        detach(token)


def at_once(work: "Coroutine[Any, Any, Any]") -> Any:
    """What a coroutine answers that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def serve(flavour: str) -> None:
    """Answer lines until stdin ends."""
    driver = Driver(flavour)
    if flavour == "sync":
        for line in sys.stdin:
            print(json.dumps(at_once(driver.answer(json.loads(line)))), flush=True)
        return
    asyncio.run(_serve_in_loop(driver))


async def _serve_in_loop(driver: Driver) -> None:
    """The loop goes on between two lines, as that of an application does."""
    read: Callable[[], str] = sys.stdin.readline
    while line := await asyncio.to_thread(read):
        print(json.dumps(await driver.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
