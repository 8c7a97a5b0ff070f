"""Ours against a bare gRPC echo of the same bytes: what kvblock adds to gRPC.

Rules:
- An echo gets the very requests that ours gets, and answers by an answer that ours gave.
- All serve from processes of their own and are asked through the same code of one client.
- The figure is against a bare grpc.aio echo as one gets it. Beside it is the one against an
  echo that is tuned as our server is: what is done to a message, apart from how gRPC is set up.
"""

from __future__ import annotations

from benchmarks import raw, workload
from benchmarks.context import Context
from benchmarks.interleave import interleave

OURS = "kvblock"
ECHO = "echo"
TUNED = "tuned echo"

_WARM_UP = 130
"""Steps before the answer that the echo gets to give: from here on a step_id has two bytes."""


async def stream(context: Context) -> None:
    """A step in a session against a message on a stream."""
    servers = context.servers
    for index, size in enumerate(context.sizes):
        steps = workload.StepBytes(size, servers.pool, context.engine)
        async with raw.session(servers.ours, servers.pool, context.engine, size) as session:
            await session.run(steps.session(_WARM_UP))
            async with (
                raw.echo_stream(servers.echo, session.last_answer) as bare,
                raw.echo_stream(servers.tuned_echo, session.last_answer) as tuned,
            ):
                found = await interleave(
                    {OURS: session, ECHO: bare, TUNED: tuned},
                    steps.session,
                    context.plan(10),
                    context.part(index, len(context.sizes)),
                )
        context.add("stream_step_over_echo", size, found, OURS, ECHO)
        context.add("stream_step_over_tuned_echo", size, found, OURS, TUNED)


async def unary(context: Context) -> None:
    """A unary Step against a unary echo, and an Allocate with a Free against two."""
    servers = context.servers
    parts = len(context.sizes) + 1
    for index, size in enumerate(context.sizes):
        steps = workload.StepBytes(size, servers.pool, context.engine)
        async with raw.steps(servers.ours, steps, size) as calls:
            await calls.run(steps.unary(_WARM_UP))
            echoes = {
                name: raw.Calls(await raw.echo_method(channel, "step", calls.last_answer))
                for name, channel in ((ECHO, servers.echo), (TUNED, servers.tuned_echo))
            }
            found = await interleave(
                {OURS: calls, **echoes}, steps.unary, context.plan(8), context.part(index, parts)
            )
        context.add("unary_step_over_echo", size, found, OURS, ECHO)
        context.add("unary_step_over_tuned_echo", size, found, OURS, TUNED)
    await _allocate(context, parts)


async def _allocate(context: Context, parts: int) -> None:
    echo = context.servers.echo
    pairs = workload.Pairs(context.servers.pool, context.engine)
    calls = raw.allocate_and_free(context.servers.ours)
    await calls.run(pairs.take(_WARM_UP))
    granted, freed = calls.last_answer
    bare = raw.paired_calls(
        await raw.echo_method(echo, "allocate", granted), await raw.echo_method(echo, "free", freed)
    )
    found = await interleave(
        {OURS: calls, ECHO: bare}, pairs.take, context.plan(10), context.part(parts - 1, parts)
    )
    context.add_single("unary_allocate_over_echo", found, OURS, ECHO)
