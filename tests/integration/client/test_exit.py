"""Programs that forget to close end all the same, at once and without a word."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import kvblock
from tests.conftest import ServerFactory

HANGING = 600.0
"""Seconds after which a program counts as hanging."""

PLAIN = """
import os, signal, sys, threading
import kvblock
engine = str(os.getpid())
kv = kvblock.connect(sys.argv[1], engine=engine, timeout=30.0)
def freeze(): os.kill(int(sys.argv[2]), signal.SIGSTOP)
"""
SESSION = """
session = kv.session()
session.attach()
session.step(allocate=[1])
"""
AWAITED = """
import asyncio, os, signal, sys
import kvblock
def freeze(): os.kill(int(sys.argv[2]), signal.SIGSTOP)
async def main():
    global kv, session, task, rows
    kv = kvblock.connect_async(sys.argv[1], engine=str(os.getpid()), timeout=30.0)
    session = kv.session()
    await session.attach()
    await session.step(allocate=[1])
"""
RUN = "\nasyncio.run(main())"
STEP = "session._make_step([], [2], [], kvblock.StepPolicy.ALL_OR_NOTHING, ((), 0, (), (), ()))"

PLAIN_PROGRAMS = {
    "unused": "",
    "client": "kv.health()",
    "session": SESSION,
    "session in a cycle": SESSION + "session.self = session; kv.it = session",
    "many sessions": """
sessions = [kv.session(engine=f"{engine}-{number}") for number in range(8)]
for session in sessions:
    session.attach()
    session.step()
""",
    "exit inside": """
with kv, kv.session() as session:
    session.step()
    sys.exit()
""",
    "busy thread": SESSION
    + """
seen = threading.Event()
def loop():
    try:
        while True:
            session.step(allocate=[2], free=[1])
            session.step(allocate=[1], free=[2])
            seen.set()
    except kvblock.KVBlockError:
        pass
threading.Thread(target=loop, daemon=True).start()
seen.wait()
""",
    "unread answer": SESSION + f"session._link.stream._requests.put({STEP})",
    "half a list": SESSION + "rows = kv.list_sequences(); next(rows)",
    "frozen server": SESSION + "freeze()",
    "forgotten client": SESSION + "del kv\nsession.step(allocate=[2])",
    "forgotten client of a lease": "lease = kv.attach_engine(); del kv",
    "lease": "lease = kv.attach_engine(); kv.allocate(1)",
    "lease in a cycle": """
lease = kv.attach_engine(on_lease_lost=lambda error: print(lease))
lease.self = lease
""",
    "frozen server, renewal running": """
import logging
logging.getLogger("kvblock").addHandler(logging.NullHandler())
session = kv.session(ttl=1.0)
session.attach()
left = session.lease_remaining
while session.lease_remaining <= left: left = session.lease_remaining
freeze()
while session.lease_remaining > 0.4: pass
""",
    "frozen server, lease lost": """
import logging
logging.getLogger("kvblock").addHandler(logging.NullHandler())
told = threading.Event()
lease = kv.attach_engine(ttl=1.0, on_lease_lost=lambda error: told.set())
freeze()
told.wait()
""",
    "frozen server, large step": SESSION
    + """
freeze()
try: session.step(free=range(60_000), timeout=0.2)
except kvblock.DeadlineExceededError: pass
""",
    "frozen server, large call": """
kv.health()
freeze()
try: kv.step(free=range(60_000), timeout=0.2)
except kvblock.DeadlineExceededError: pass
""",
}
AWAITED_PROGRAMS = {
    "async": RUN,
    "async, lease": "    lease = await kv.attach_engine(engine=f'{kv.engine}-2')" + RUN,
    "async, lease lost after the loop": """
    global lease
    lease = await kv.attach_engine(engine=f'{kv.engine}-2', ttl=1.0)
"""
    + RUN
    + "\nimport logging\nlogging.getLogger('kvblock').addHandler(logging.NullHandler())"
    + "\nfreeze()\nwhile lease.lease_valid: pass",
    "async, loop left open": "asyncio.new_event_loop().run_until_complete(main())",
    "async, task running": """
    seen = asyncio.Event()
    async def loop():
        while True:
            await session.step(allocate=[2], free=[1])
            await session.step(allocate=[1], free=[2])
            seen.set()
    task = asyncio.create_task(loop())
    await seen.wait()
"""
    + RUN,
    "async, unread answer": f"    await session._link.stream._call.write({STEP})" + RUN,
    "async, half a list": "    rows = kv.list_sequences(); await rows.__anext__()" + RUN,
    "async, frozen server": """
    freeze()
    task = asyncio.create_task(session.step(timeout=20.0))
    await asyncio.sleep(0)
"""
    + RUN,
    "async, frozen server, large step": """
    freeze()
    try: await session.step(free=range(60_000), timeout=0.2)
    except kvblock.DeadlineExceededError: pass
"""
    + RUN,
}
FULL_DISK = "import resource; resource.prlimit(int(sys.argv[2]), resource.RLIMIT_FSIZE, (0, -1))\n"
NOBODY = "kv.close(); kv = kvblock.connect('unix:/nonexistent.sock', engine=engine, timeout=0.5)\n"
UNCAUGHT = {
    "call": "kv.allocate(2, timeout=0.5)",
    "read of what is not written": "try: kv.free(1, timeout=0.5)\n"
    "except kvblock.UnavailableError: pass\n"
    "kv.get_block_table(1, timeout=0.5)",
    "lease": "kv.attach_engine(engine='other', timeout=0.5)",
    "session": "session = kv.session(engine='other', timeout=0.5); session.attach()",
    "left session": "with kv.session(engine='other', timeout=0.5): pass",
    "kept error": "try: kv.allocate(2, timeout=0.5)\n"
    "except kvblock.UnavailableError as error: kept = error\n"
    "raise kept",
}
PROGRAMS = {
    **{name: PLAIN + text for name, text in PLAIN_PROGRAMS.items()},
    **{name: AWAITED + text for name, text in AWAITED_PROGRAMS.items()},
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_program_ends(shared_server: kvblock.EmbeddedServer, program: str) -> None:
    assert run(shared_server, program) == (0, "")


@pytest.mark.parametrize("kind", ["plain", "awaited"])
def test_program_ends_when_its_server_is_gone(server: kvblock.EmbeddedServer, kind: str) -> None:
    gone = "os.kill(int(sys.argv[2]), signal.SIGKILL)"
    ends = {
        "plain": PLAIN + SESSION + gone,
        "awaited": AWAITED + f"    {gone}" + RUN,
    }
    assert run(server, ends[kind]) == (0, "")
    server.process.wait()
    server.process.returncode = 0


@pytest.mark.parametrize("call", UNCAUGHT.values(), ids=UNCAUGHT.keys())
def test_program_ends_with_the_error_of_a_full_disk(
    server_factory: ServerFactory, tmp_path: Path, call: str
) -> None:
    """Nothing is closed: the error that ends it came after tries, with pauses between them."""
    server = server_factory(extra_args=["--state-dir", str(tmp_path)])
    code, said = run(server, f"{PLAIN}kv.allocate(1)\n{FULL_DISK}{call}")
    assert code == 1
    assert "\nkvblock.errors.UnavailableError: the server cannot write its journal" in said
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


@pytest.mark.parametrize("call", UNCAUGHT.values(), ids=UNCAUGHT.keys())
def test_program_ends_with_the_error_of_a_server_that_is_not_there(
    shared_server: kvblock.EmbeddedServer, call: str
) -> None:
    code, said = run(shared_server, PLAIN + NOBODY + call)
    assert code == 1
    assert "\nkvblock.errors.UnavailableError: no server answers at unix:/nonexistent" in said


def test_interrupted_step(shared_server: kvblock.EmbeddedServer) -> None:
    """Ctrl-C while a step waits: the program ends as if it had waited for anything else."""
    program = (
        PLAIN
        + SESSION
        + "freeze()\n"
        + "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        + "try: session.step()\n"
        + "except KeyboardInterrupt: print('interrupted')\n"
        + "try: session.step()\n"
        + "except kvblock.UnansweredError: pass"
    )
    assert run(shared_server, program) == (0, "interrupted\n")


def test_interrupted_at_any_moment(shared_server: kvblock.EmbeddedServer, seed: int) -> None:
    """An exception out of a signal handler, wherever it meets a session: it goes on."""
    program = (
        PLAIN
        + SESSION
        + f"""
import random
random.seed({seed})
def interrupt(*_): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
for _ in range(300):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.003))
        while True: session.step(free=[1], allocate=[1])
    except KeyboardInterrupt:
        pass
    if session.unanswered: session.recover()
    session.step(free=[1], allocate=[1])
print(session.detach())
"""
    )
    assert run(shared_server, program) == (0, "1\n")


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
