"""Programs in which a client cannot work as it is used: one sentence says so at the first call."""

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import kvblock
from tests.integration.client.conftest import Connect
from tests.integration.client.flavours import Flavour
from tests.integration.client.leasing import attach, both_kinds

HANGING = 120.0
GEVENT = "from gevent import monkey; monkey.patch_all()\nimport sys, kvblock\n"
TOLD = "import grpc.experimental.gevent as told; told.init_gevent()\n"
CALLS = """
import os, time
with kvblock.connect(sys.argv[1], engine=f"e{os.getpid()}", timeout=60.0) as kv:
    with kv.session(ttl=1.0) as session:
        print(session.step(allocate=[1]).granted)
        left = 1.0
        while session.lease_remaining <= left: left = session.lease_remaining; time.sleep(0.01)
        print(session.step(allocate=[2]).granted)
"""
AWAITED = """
async def main():
    async with kvblock.connect_async(sys.argv[1], timeout=60.0) as kv:
        await kv.health()
"""
CAUGHT = "try: {}\nexcept kvblock.UsageError as error: print(error)\n"
GUEST = """
import asyncio
async def host():
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    trio.lowlevel.start_guest_run(
        main, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
    )
    (await done).unwrap()
"""
ASKS = "the asyncio client needs a running event loop of asyncio"
PROGRAMS = {
    "gevent": (
        GEVENT + CAUGHT.format("kvblock.connect(sys.argv[1]).health()"),
        "gevent has patched threads, and gRPC hangs with them unless it is prepared: call"
        " grpc.experimental.gevent.init_gevent() right after monkey.patch_all()\n",
    ),
    "gevent, told": (GEVENT + TOLD + CALLS, "1\n1\n"),
    "gevent, later": (
        "import sys, kvblock\nkv = kvblock.connect(sys.argv[1])\n"
        + GEVENT
        + CAUGHT.format("kv.session().attach()"),
        "gevent has patched threads, and gRPC hangs with them unless it is prepared: call"
        " grpc.experimental.gevent.init_gevent() right after monkey.patch_all()\n",
    ),
    "gevent, threads and queues left alone": (
        GEVENT.replace("()", "(thread=False, queue=False)") + CALLS,
        "1\n1\n",
    ),
    "gevent, asyncio": (
        GEVENT + TOLD + AWAITED + "import asyncio\n" + CAUGHT.format("asyncio.run(main())"),
        "gevent has patched threads, and gRPC for asyncio hangs with them; use kvblock.Client\n",
    ),
    # What eventlet says of itself when it is asked; it is not developed any more.
    "eventlet": (
        "import sys, types, kvblock\n"
        "patcher = sys.modules['eventlet.patcher'] = types.ModuleType('eventlet.patcher')\n"
        "patcher.is_monkey_patched = lambda module: module == 'thread'\n"
        + CAUGHT.format("kvblock.connect(sys.argv[1]).health()"),
        "eventlet has patched threads, and gRPC hangs with them: call"
        " eventlet.monkey_patch(thread=False), or use threads, gevent or asyncio\n",
    ),
    "trio": (
        "import sys, trio, kvblock\n" + AWAITED + CAUGHT.format("trio.run(main)"),
        f"{ASKS}, not trio's; in trio use kvblock.Client in worker threads\n",
    ),
    "trio, guest of asyncio": (
        "import sys, trio, kvblock\n" + AWAITED + GUEST + CAUGHT.format("asyncio.run(host())"),
        f"{ASKS}, not trio's; in trio use kvblock.Client in worker threads\n",
    ),
    "trio, but asyncio runs": (
        "import asyncio, sys, trio, kvblock\n" + AWAITED + "asyncio.run(main()); print('fine')",
        "fine\n",
    ),
    "no loop": (
        "import sys, kvblock\n"
        + CAUGHT.format("kvblock.connect_async(sys.argv[1]).health().send(None)"),
        f"{ASKS}; in a plain program use kvblock.Client\n",
    ),
}


@pytest.mark.parametrize(("program", "says"), PROGRAMS.values(), ids=PROGRAMS.keys())
def test_what_is_said(shared_server: kvblock.EmbeddedServer, program: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, shared_server.address],
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (says, "", 0)


@pytest.fixture
def other_loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Carries something out in an event loop that runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_session_in_a_second_event_loop(
    server: kvblock.EmbeddedServer, other_loop: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    """Nothing is sent, and all goes on in the loop that it belongs to."""

    async def refused(*calls: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        for call in calls:
            with pytest.raises(kvblock.UsageError, match="belong to another event loop"):
                await call()

    async def main() -> None:
        async with (
            kvblock.connect_async(server.address, timeout=30.0) as kv,
            kv.session() as session,
            await kv.attach_engine(engine="other") as lease,
        ):
            await session.step(allocate=[1])
            fresh = kv.session(engine="fresh")
            calls = (
                session.step,
                session.recover,
                session.detach,
                lease.detach,
                fresh.attach,
                kv.health,
                lambda: kv.allocate(3),
            )
            await asyncio.to_thread(other_loop, refused(*calls))
            assert (await session.step(allocate=[2])).block_numbers == [1]
            assert await session.detach() == 2
            assert lease.lease_valid
            assert await lease.detach() == 0
            await fresh.attach()

    asyncio.run(main())


COPIES: dict[str, Callable[[Any], object]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
}
cannot_be_copied = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES.keys())


@cannot_be_copied
@both_kinds
def test_nothing_that_holds_a_connection_is_copied(
    flavour: Flavour,
    connect: Connect,
    server: kvblock.EmbeddedServer,
    kind: str,
    duplicate: Callable[[Any], object],
) -> None:
    kv = connect(server)
    ours = attach(flavour, kv, kind)
    for one in (kv, ours, server):
        with pytest.raises(TypeError, match=f"^{type(one).__name__} cannot be copied or pickled: "):
            duplicate(one)
    assert flavour.do(kv.allocate(1)).block_numbers == [0]
    assert ours.lease_valid


def test_errors_are_pickled_with_their_facts(server: kvblock.EmbeddedServer) -> None:
    with (
        kvblock.connect(server.address, timeout=30.0) as kv,
        pytest.raises(kvblock.NotFoundError) as caught,
    ):
        kv.get_block_table(1)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), vars(again)) == (
        kvblock.NotFoundError,
        str(caught.value),
        vars(caught.value),
    )
