"""What must never be collected: channels and calls of gRPC in a forked child and at exit.

A channel or a call that is collected is closed, which waits for other threads. A forked child has
none of them, and at interpreter exit they stand still: it would wait for ever.

Rules:
- What holds a channel or a running call is registered here when it is made.
- In a forked child, and before the interpreter is finalized, everything registered gets a reference
  that is never released. Its memory goes with the process.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import weakref

_retained: weakref.WeakSet[object] = weakref.WeakSet()


def register(what: object) -> None:
    """Never collect `what` in a forked child or at interpreter exit."""
    _retained.add(what)


def _retain() -> None:
    for one in list(_retained):
        # A reference from Python would be released with its module, at the latest.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


atexit.register(_retain)
os.register_at_fork(after_in_child=_retain)
