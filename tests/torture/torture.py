"""One torture from beginning to end.

Rules:
- It ends with all engines gone, the disk relieved and the server running; then every block has to
  come back, the audit has to be clean, and both have to survive one more kill.
- It leaves no process and no mount behind.
"""

import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import kvblock
from kvblock.errors import KVBlockError
from tests.torture.arena import Memory, Settled
from tests.torture.crew import Crew
from tests.torture.disk import Disk
from tests.torture.history import History
from tests.torture.nemesis import Nemesis
from tests.torture.oracle import judge
from tests.torture.processes import engine_forks, server_forks
from tests.torture.proxy import Proxy
from tests.torture.serving import Serving
from tests.torture.setting import POOL, RESERVED_BLOCKS, Setting

PLANTS: dict[str, dict[str, Any]] = {
    # Writes land long after their engine is gone, and nothing waits for them.
    "no-quarantine": {"quarantine": 0.0, "ttl": 2.0, "late": 1.5, "late_share": 0.25},
    "no-epoch-check": {},
    "early-answer": {},
    "issued-reserved": {},
    "freed-twice": {},
    "released-twice": {},
    "stash-forgotten": {},
}
SLACK = 10.0
NO_SPACE = "No space left on device"
KINDS = {
    "lost": ("is lost", "the server has"),
    "double": ("two live tables",),
    "stamps overwritten": ("stamp was overwritten",),
    "reserved": ("is reserved",),
    "counts": ("a detach freed another count",),
}
OTHER = "other violations"


class Report(NamedTuple):
    """What was done, seen and found."""

    counts: dict[str, int]
    violations: list[str]
    missing: list[str]

    def by_kind(self) -> dict[str, list[str]]:
        """The violations of each kind."""
        found: dict[str, list[str]] = {kind: [] for kind in (*KINDS, OTHER)}
        for violation in self.violations:
            kinds = (
                kind for kind, words in KINDS.items() if any(word in violation for word in words)
            )
            found[next(kinds, OTHER)].append(violation)
        return found


def torture(setting: Setting) -> Report:
    """Run one torture."""
    counts: Counter[str] = Counter()
    missing: list[str] = []
    Settled(setting.settled)
    with ExitStack() as stack:
        disk = Disk(setting.path / "disk")
        stack.callback(disk.close)
        forks, jumps = server_forks(setting)
        serving = Serving(setting, forks, disk.path / "state")
        stack.callback(serving.close)
        proxy = Proxy(setting.server, setting.proxy, Random(f"{setting.seed}/proxy"))
        stack.enter_context(proxy)
        history = History(setting.path / "nemesis.log")
        serving.start()
        device = _device(setting)
        stack.enter_context(device)
        stack.callback(device.kill)
        addresses = [setting.proxy, proxy.tcp_address]
        crew = Crew(setting, engine_forks(), addresses, Random(f"{setting.seed}/crew"))
        stack.callback(crew.close)
        nemesis = Nemesis(setting, serving, crew, proxy, disk, history, jumps=jumps)
        nemesis.run()
        crew.end()
        found = [*nemesis.found, *crew.failed, *_reclaimed(setting)]
        serving.kill()
        nemesis.restart()
        found += _reclaimed(setting)
        counts += nemesis.counts
        counts["connections cut"] = proxy.cuts
        counts["bytes delivered after their client was gone"] = proxy.late
        if not disk.can_fill:
            missing.append("filling the disk: that needs root and mount")
        if not jumps:
            missing.append("jumps of the wall clock: they need Debian's package faketime")
    found += _complaints(setting.path / "server.log", "server")
    found += _complaints(setting.path / "engines.log", "engines")
    verdict = judge(setting)
    return Report(dict(counts + verdict.counts), verdict.violations + found, missing)


def _device(setting: Setting) -> "subprocess.Popen[str]":
    with kvblock.Client(setting.server, timeout=10.0) as kv:
        (pool,) = kv.list_pools()
    memory = Memory(*(getattr(pool, name) for name in Memory._fields))
    told = (setting.as_json(), memory.as_json())
    command = [sys.executable, "-m", "tests.torture.device", *told]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "the device does not start"
    return process


def _reclaimed(setting: Setting) -> list[str]:
    """Wait until everything is free; what is wrong if it is not."""
    gives_up = time.monotonic() + setting.ttl + setting.quarantine + SLACK
    issuable = setting.blocks - RESERVED_BLOCKS
    found = ["the server does not answer at the end"]
    while time.monotonic() < gives_up:
        try:
            with kvblock.Client(setting.server, pool=POOL, timeout=2.0) as kv:
                (pool,) = kv.stats(pool=POOL).pools
                found = [sentence for report in kv.audit() for sentence in report.violations]
        except KVBlockError as error:
            found = [f"the server does not answer at the end: {error}"]
            continue
        if pool.free_blocks == issuable:
            return found
        found.append(
            f"at the end {pool.held_blocks} blocks are held and {pool.quarantined_blocks} in"
            f" quarantine, {pool.free_blocks} of {issuable} are free"
        )
        time.sleep(0.2)
    return found


def _complaints(path: Path, who: str) -> list[str]:
    """Tracebacks in a log."""
    text = path.read_text(errors="replace") if path.exists() else ""
    lines = [
        line
        for line in text.splitlines()
        if ("Traceback" in line or '"critical"' in line) and NO_SPACE not in line
    ]
    return [f"a traceback in the log of the {who}: {line[:2000]}" for line in lines[:5]]
