"""What a lease costs: steps of an engine that is attached against steps of one that never was.

Rules:
- Both engines are on the same server and make unary steps, the only ones that an engine without a
  lease has; each step of the attached one names its epoch, and renews its lease.
"""

from __future__ import annotations

from benchmarks import raw
from benchmarks.context import Context
from benchmarks.interleave import interleave
from benchmarks.workload import StepBytes

SIZE = 32


async def leases(context: Context) -> None:
    """Unary steps with a lease against unary steps without one."""
    servers = context.servers
    free, leased = f"{context.engine}-free", f"{context.engine}-leased"
    epoch = await raw.attach(servers.ours, servers.pool, leased)
    # Both subjects get requests of the same index; each has its own engine's bytes for it.
    without = StepBytes(SIZE, servers.pool, free)
    with_lease = StepBytes(SIZE, servers.pool, leased, epoch=epoch)
    async with (
        raw.steps(servers.ours, with_lease, SIZE) as leased_calls,
        raw.steps(servers.ours, without, SIZE) as free_calls,
    ):
        found = await interleave(
            {"leased": raw.Pick(1, leased_calls), "none": raw.Pick(0, free_calls)},
            lambda count: list(zip(without.unary(count), with_lease.unary(count), strict=True)),
            context.plan(10),
            context.part(0, 1),
        )
    await raw.detach(servers.ours, servers.pool, leased, epoch)
    context.add_single("leases_over_none", found, "leased", "none", step_size=SIZE)
