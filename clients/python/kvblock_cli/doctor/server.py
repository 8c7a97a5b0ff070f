"""What a server answers: its health, its version, a lease, engines, pools and times.

Rules:
- The lease is taken under a random name, so that no engine is meant, and is detached at once; the
  call that renews it frees a sequence that is not there.
- What a caller may not see is skipped.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from kvblock.version import VERSION
from kvblock_cli.doctor.findings import Finding, ok, problem, skipped, warning

if TYPE_CHECKING:
    from kvblock import Client, ServerStats

_CALLS = 5
_SLOW_SECONDS = 0.05
_TTL_IN_ROUND_TRIPS = 20
_LATE = 0.75
"""The part of its TTL after which a lease that was not renewed gets a warning."""
_QUARANTINE = 0.25
"""The share of a pool in quarantine that gets a warning."""
_NAMES_MAX = 5
_AHEAD_SECONDS = 2.0
_ROWS = 100
"""Blocks of each pool whose times are looked at."""

_LEASE_ACTIONS = {
    "DRAINING": "wait until it is up again: it is shutting down",
    "JOURNAL_UNWRITABLE": "see the server's log; make room on its disk, then restart it",
    "STATE_LIMIT": "raise the limit, or end engines that are gone: `kvblock engines`, `reclaim`",
    "RATE_LIMITED": "try again later, or raise calls_per_second of this identity",
}


def health(kv: Client) -> Iterator[Finding]:
    """Whether it serves, and how long an answer takes."""
    took = []
    serves = True
    for _ in range(_CALLS):
        begun = time.monotonic()
        serves = kv.health()
        took.append(time.monotonic() - begun)
    if serves:
        yield ok("health", "it serves")
    else:
        text = "it says NOT_SERVING: it shuts down, or cannot write its journal"
        yield problem("health", text, "see the server's log; restart it if it does not end")
    median = statistics.median(took)
    text = f"an answer takes {1000 * median:.1f} ms"
    if median > _SLOW_SECONDS:
        action = "run engines on the server's host; see whether its processors are all busy"
        yield warning("round trip", text, action)
    else:
        yield ok("round trip", text)


def version(stats: ServerStats) -> Iterator[Finding]:
    """Whether the server is of this package's version."""
    if stats.server_version == VERSION:
        yield ok("version", f"server and client are both {VERSION}")
        return
    server = stats.server_version or "older than its version field"
    text = f"the server is {server}, this client is {VERSION}"
    action = "update the server first: an older client works with a newer server"
    yield warning("version", text, action)


def lease(kv: Client, stats: ServerStats, pool: str) -> Iterator[Finding]:
    """Whether an engine can attach, renew and detach."""
    from kvblock import KVBlockError, PermissionDeniedError

    pool = pool or next((one.pool for one in stats.pools), "")
    if not pool:
        yield skipped("lease", "there is no pool", "make one: `kvblock pool create`")
        return
    engine = f"doctor-{secrets.token_hex(6)}"
    begun = time.monotonic()
    try:
        with kv.attach_engine(pool=pool, engine=engine) as held:
            kv.free(0, pool=pool, engine=engine)
    except PermissionDeniedError as error:
        action = "none, unless this caller is to be an engine: let its identity use the name"
        yield skipped("lease", str(error), action)
        return
    except KVBlockError as error:
        reason = error.reason.name if error.reason else ""
        action = _LEASE_ACTIONS.get(reason, "see the server's log")
        yield problem("lease", f"no engine can attach to pool {pool}: {error}", action)
        return
    took = time.monotonic() - begun
    text = (
        f"attached to pool {pool}, renewed and detached in {1000 * took:.0f} ms, TTL {held.ttl:g} s"
    )
    if held.ttl < _TTL_IN_ROUND_TRIPS * took / 3:
        yield warning("lease", text, "raise lease_ttl: one slow renewal would lose the lease")
    else:
        yield ok("lease", text)


def engines(kv: Client) -> Iterator[Finding]:
    """Whether leases are renewed in time, and who holds blocks without one."""
    rows = list(kv.list_engines())
    late = [
        f"{row.engine} in {row.pool} ({row.lease_expires_in:.1f} s left)"
        for row in rows
        if row.lease_expires_in is not None
        and (row.since_heartbeat or 0.0)
        > _LATE * ((row.since_heartbeat or 0.0) + row.lease_expires_in)
    ]
    loose = [
        f"{row.engine} in {row.pool} ({row.held_blocks:,})"
        for row in rows
        if row.lease_expires_in is None and row.held_blocks
    ]
    if late:
        action = "see whether these processes live, and get enough of a processor to renew"
        yield warning("engines", f"leases that were not renewed in time: {_some(late)}", action)
    if loose:
        action = "attach these engines; blocks of one that is gone: `kvblock reclaim`"
        text = f"blocks held without a lease, which nothing takes back: {_some(loose)}"
        yield warning("engines", text, action)
    if not late and not loose:
        yield ok("engines", f"{len(rows):,}, all with a lease that is renewed in time")


def pools(stats: ServerStats) -> Iterator[Finding]:
    """Whether there are blocks to be had."""
    used = [one.pool for one in stats.pools if not one.free_blocks]
    waiting = [
        f"{one.pool} ({one.quarantined_blocks / one.issuable_blocks:.0%})"
        for one in stats.pools
        if one.quarantined_blocks > _QUARANTINE * one.issuable_blocks
    ]
    if waiting:
        action = (
            "find out which engine vanished: it left these blocks; they come back by themselves"
        )
        yield warning("quarantine", f"much of a pool waits: {_some(waiting)}", action)
    else:
        yield ok("quarantine", f"at most {_QUARANTINE:.0%} of any pool")
    if used:
        action = "see who holds them: `kvblock top`; then add blocks, or take some back"
        yield warning("pools", f"no block is free: {_some(used)}", action)
    elif stats.pools:
        yield ok("pools", f"{len(stats.pools):,}, all with free blocks")
    else:
        yield warning("pools", "there is none", "make one: `kvblock pool create`")


def clock(kv: Client, stats: ServerStats) -> Iterator[Finding]:
    """Whether the server's wall clock is ahead of this one: what was granted, was in the past."""
    ahead = 0.0
    for pool in stats.pools:
        for row in islice(kv.list_blocks(pool=pool.pool, page_size=_ROWS), _ROWS):
            ahead = max(ahead, (row.since or 0.0) - time.time())
    if ahead > _AHEAD_SECONDS:
        text = f"the server's is ahead of this machine's by {ahead:.1f} s or more"
        yield warning("clock", text, "synchronise both: `since` and logs are compared by eye")
    else:
        yield ok("clock", "no block was granted in the future")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return ", ".join(names[:_NAMES_MAX]) + more
