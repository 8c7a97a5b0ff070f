"""Where a client can work: with real threads, or in asyncio's event loop.

Rules:
- What cannot work fails at the first call, with a sentence that says what to do: gRPC itself would
  wait for ever, or fail with a message that does not.
- Nobody's library is imported to find out whether it is in use.
"""

from __future__ import annotations

import asyncio
import sys

from kvblock.errors import UsageError

NO_LOOP = "the asyncio client needs a running event loop of asyncio"


def check_threads() -> None:
    """See whether threads are such as gRPC waits in.

    Raises:
        UsageError: gevent or eventlet has put its own in their place.

    """
    if _gevent_has_patched():
        core = sys.modules.get("grpc._cython.cygrpc")
        # Without the flag gRPC is another than we know, which may need no call.
        if not getattr(core, "g_gevent_activated", True):
            raise UsageError(
                "gevent has patched threads, and gRPC hangs with them unless it is prepared: call"
                " grpc.experimental.gevent.init_gevent() right after monkey.patch_all()"
            )
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        raise UsageError(
            "eventlet has patched threads, and gRPC hangs with them: call"
            " eventlet.monkey_patch(thread=False), or use threads, gevent or asyncio"
        )


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop that runs here.

    Raises:
        UsageError: there is none.

    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        if _in_trio():
            raise _trio_error() from None
        raise UsageError(f"{NO_LOOP}; in a plain program use kvblock.Client") from None


def check_loop() -> None:
    """See whether the code that runs is asyncio's, and its loop one that gRPC can wake.

    Raises:
        UsageError: the code is trio's, which may share a thread with a loop of asyncio (guest
            mode); or gevent or eventlet has put its own threads in the place of real ones.

    """
    if _in_trio():
        raise _trio_error()
    if _gevent_has_patched():
        raise UsageError(
            "gevent has patched threads, and gRPC for asyncio hangs with them; use kvblock.Client"
        )
    check_threads()


def _trio_error() -> UsageError:
    return UsageError(f"{NO_LOOP}, not trio's; in trio use kvblock.Client in worker threads")


def _in_trio() -> bool:
    # Releases before 0.23 cannot be asked.
    asked = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    return asked is not None and bool(asked())


def _gevent_has_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and any(
        monkey.is_module_patched(module) for module in ("threading", "queue")
    )
