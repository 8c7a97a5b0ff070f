"""What an engine pays for a call of its own for each step, against a session's stream.

Rules:
- Both engines are on the same server, have a lease, and make the same steps in turns. Each unary
  step is as the documented loop makes it: with its epoch and a request_id that no other one has.
"""

from __future__ import annotations

from functools import partial

from benchmarks import raw
from benchmarks.context import Context
from benchmarks.interleave import interleave
from benchmarks.workload import StepBytes

STREAM, UNARY = "session", "unary"


async def unary_loop(context: Context) -> None:
    """A unary Step under a lease against a step in a session."""
    servers = context.servers
    engine = f"{context.engine}-loop"
    for index, size in enumerate(context.sizes):
        epoch = await raw.attach(servers.ours, servers.pool, engine)
        streamed = StepBytes(size, servers.pool, context.engine)
        called = StepBytes(size, servers.pool, engine, epoch, with_ids=True)
        async with (
            raw.session(servers.ours, servers.pool, context.engine, size) as session,
            raw.steps(servers.ours, called, size) as calls,
        ):
            found = await interleave(
                {STREAM: raw.Pick(0, session), UNARY: raw.Pick(1, calls)},
                partial(_both, streamed, called),
                context.plan(8),
                context.part(index, len(context.sizes)),
            )
        await raw.detach(servers.ours, servers.pool, engine, epoch)
        context.add("unary_step_over_stream_step", size, found, UNARY, STREAM)


def _both(streamed: StepBytes, called: StepBytes, count: int) -> list[tuple[bytes, bytes]]:
    """The next steps, each for the session and for the unary engine."""
    return list(zip(streamed.session(count), called.unary(count), strict=True))
