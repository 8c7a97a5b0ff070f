"""Programs that forget to close end all the same, at once and without a word."""

import os
import signal
import subprocess
import sys

import kvblock
import pytest

HANGING = 120.0
"""Seconds after which a program counts as hanging."""

PLAIN = """
import sys, threading, os, signal
import kvblock
kv = kvblock.connect(sys.argv[1], timeout=30.0)
def freeze(): os.kill(int(sys.argv[2]), signal.SIGSTOP)
"""
AWAITED = """
import sys, asyncio, os, signal
import kvblock
def freeze(): os.kill(int(sys.argv[2]), signal.SIGSTOP)
async def main():
    global kv, session, task
    kv = kvblock.connect_async(sys.argv[1], timeout=30.0)
    session = kv.session()
    await session.attach()
    await session.step(allocate=[1])
"""
SESSION = """
session = kv.session()
session.attach()
session.step(allocate=[1])
"""
BUSY = """
def loop():
    try:
        while True:
            session.step(allocate=[2], free=[1])
            session.step(allocate=[1], free=[2])
            seen.set()
    except kvblock.KVBlockError:
        pass
seen = threading.Event()
threading.Thread(target=loop, daemon=True).start()
seen.wait()
"""
UNREAD = "session._make_step([], [2], [], kvblock.StepPolicy.ALL_OR_NOTHING)"

PROGRAMS = {
    "client": PLAIN + "kv.health()",
    "unused client": PLAIN,
    "session": PLAIN + SESSION,
    "session in a cycle": PLAIN + SESSION + "session.self = session; kv.it = session",
    "many sessions": PLAIN
    + "some = [kv.session(engine=str(i)) for i in range(8)]\nfor one in some: one.attach()",
    "exit inside": PLAIN + "with kv, kv.session() as session: session.step(); sys.exit()",
    "busy thread": PLAIN + SESSION + BUSY,
    "unread answer": PLAIN + SESSION + f"session._stream._requests.put({UNREAD})",
    "half a list": PLAIN + SESSION + "rows = kv.list_sequences(engine='default'); next(rows)",
    "frozen server": PLAIN + SESSION + "freeze()",
    "frozen server, step": PLAIN
    + SESSION
    + "freeze()\nthreading.Thread(target=session.close).start()",
    "frozen server, large step": PLAIN
    + SESSION
    + "freeze()\ntry: session.step(free=range(60_000), timeout=0.2)\n"
    + "except kvblock.DeadlineExceededError: pass",
    "frozen server, large call": PLAIN
    + "kv.health(); freeze()\ntry: kv.step(free=range(60_000), timeout=0.2)\n"
    + "except kvblock.DeadlineExceededError: pass",
    "async client and session": AWAITED + "asyncio.run(main())",
    "async, loop left open": AWAITED + "asyncio.new_event_loop().run_until_complete(main())",
    "async, task running": AWAITED
    + """
    async def loop():
        while True:
            await session.step(allocate=[2], free=[1])
            await session.step(allocate=[1], free=[2])
            seen.set()
    seen = asyncio.Event()
    task = asyncio.create_task(loop())
    await seen.wait()
asyncio.run(main())
""",
    "async, unread answer": AWAITED
    + f"    await session._stream._call.write({UNREAD})\nasyncio.run(main())",
    "async, half a list": AWAITED
    + "    global rows; rows = kv.list_sequences(); await rows.__anext__()\nasyncio.run(main())",
    "async, frozen server": AWAITED
    + "    freeze(); task = asyncio.create_task(session.step(timeout=20.0))\n"
    + "    await asyncio.sleep(0)\nasyncio.run(main())",
    "async, frozen server, large step": AWAITED
    + "    freeze()\n    try: await session.step(free=range(60_000), timeout=0.2)\n"
    + "    except kvblock.DeadlineExceededError: pass\nasyncio.run(main())",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_program_ends(server: kvblock.EmbeddedServer, program: str) -> None:
    assert run(server, program) == (0, "")


@pytest.mark.parametrize("kind", ["plain", "awaited"])
def test_program_ends_when_its_server_is_gone(server: kvblock.EmbeddedServer, kind: str) -> None:
    gone = "os.kill(int(sys.argv[2]), signal.SIGKILL)"
    ends = {
        "plain": PLAIN + SESSION + gone,
        "awaited": AWAITED + f"    {gone}\nasyncio.run(main())",
    }
    assert run(server, ends[kind]) == (0, "")
    server.process.wait()
    server.process.returncode = 0


def test_interrupted_step(server: kvblock.EmbeddedServer) -> None:
    """Ctrl-C while a step waits: the program ends as if it had waited for anything else."""
    program = (
        PLAIN
        + SESSION
        + "freeze()\n"
        + "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        + "try: session.step()\n"
        + "except KeyboardInterrupt: print('interrupted')\n"
        + "try: session.step()\n"
        + "except kvblock.ClosedError as error: assert 'interrupted' in str(error)"
    )
    assert run(server, program) == (0, "interrupted\n")


def run(server: kvblock.EmbeddedServer, program: str) -> tuple[int, str]:
    """The exit code of a program and everything that it printed."""
    arguments = [server.address, str(server.process.pid)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=HANGING,
            check=False,
        )
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    return done.returncode, done.stdout
