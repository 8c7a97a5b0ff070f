"""The judge: merges what all processes wrote down, and says what never may have happened.

Rules:
- A block is an engine's from the answer that granted it up to the last moment at which the engine
  knew its lease to be valid before it let go: shorter than what the engine believed, never longer.
  Two such times of one block never overlap. A reserved block is nobody's at any time.
- After a start the server has what was answered before, for every lease that goes on to be
  answered, but for sequences of a call that was under way.
- A late call may be carried out until its epoch is over for sure: until its engine was told so, or
  a lease with a later epoch of the same name was answered. Sent after that, it has to be refused.
- What an engine itself found wrong is reported as it wrote it down.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.torture.history import Entry, read
from tests.torture.late import CARRIED_OUT, REFUSED, UNANSWERED
from tests.torture.setting import BATCHES, RESERVED_BLOCKS, Setting

COUNTED = {
    "attached": "leases begun",
    "lost": "leases lost",
    "again": "calls made again by engines",
    "detached": "detaches",
}
SECOND = 1e9


class Verdict(NamedTuple):
    """What was seen, and what is wrong."""

    counts: "Counter[str]"
    violations: list[str]


class Held(NamedTuple):
    """A block in a table, from when to when (nanoseconds)."""

    begin: int
    end: int
    engine: str
    life: int
    epoch: int
    sequence: str


class Lease:
    """One lease of one life, as its engine saw it; `late`: what it sent after the end."""

    def __init__(self, entry: Entry) -> None:
        self.life: int = entry["life"]
        self.engine: str = entry["engine"]
        self.epoch: int = entry["epoch"]
        self.has_stash: bool = entry.get("stash", False)
        self.entries: list[Entry] = []
        self.late: list[Entry] = []

    def held(self) -> Iterator[tuple[int, Held]]:
        """Each block with its time."""
        open_: dict[str, list[tuple[int, int]]] = {}
        valid = 0
        for entry in self.entries:
            if entry["kind"] in ("answered", "verified"):
                valid = entry["t"]
            for sequence, blocks in entry.get("grants", {}).items():
                open_.setdefault(sequence, []).extend((block, entry["t"]) for block in blocks)
            for freed in entry.get("frees", ()):
                yield from self._close(str(freed), open_.pop(str(freed), []), valid)
        for sequence, blocks in open_.items():
            yield from self._close(sequence, blocks, valid)

    def _close(
        self, sequence: str, blocks: list[tuple[int, int]], end: int
    ) -> Iterator[tuple[int, Held]]:
        for block, begin in blocks:
            yield block, Held(begin, end, self.engine, self.life, self.epoch, sequence)

    def answered_after(self, moment: int) -> bool:
        """Whether a call that was sent after a moment was answered by the server."""
        sent = {e["id"]: e["t"] for e in self.entries if e["kind"] == "call" and "id" in e}
        return any(
            entry["kind"] == "answered"
            and not entry.get("local")
            and sent.get(entry["id"], 0) > moment
            for entry in reversed(self.entries)
        )

    def tables(self, moment: int, until: int) -> tuple[dict[str, list[int]], set[str]]:
        """The tables at a moment, and the sequences of calls under way then or until later."""
        tables: dict[str, list[int]] = {}
        touched: set[str] = set()
        for entry in self.entries:
            if entry["t"] > until:
                break
            names = {str(one) for one in (*entry.get("frees", ()), *entry.get("grows", ()))}
            if entry["t"] > moment:
                touched |= names | entry.get("grants", {}).keys()
                continue
            if entry["kind"] == "call":
                touched = names
                for name in names & {str(one) for one in entry["frees"]}:
                    tables.pop(name, None)
            elif entry["kind"] == "answered":
                touched = set()
                for sequence, blocks in entry["grants"].items():
                    tables.setdefault(sequence, []).extend(blocks)
        return tables, touched


def judge(setting: Setting) -> Verdict:
    """Read all histories and judge."""
    counts: Counter[str] = Counter()
    violations: list[str] = []
    leases: list[Lease] = []
    for path in sorted(setting.path.glob("engine-*.log")):
        leases += _leases(path.name, list(read(path)), counts, violations)
    violations += _double(leases)
    nemesis = list(read(setting.path / "nemesis.log"))
    violations += _late(leases, nemesis, counts)
    violations += _lost(leases, nemesis, counts)
    return Verdict(counts, violations)


def _leases(
    name: str, entries: list[Entry], counts: "Counter[str]", violations: list[str]
) -> Iterator[Lease]:
    lease: Lease | None = None
    for entry in entries:
        kind = entry["kind"]
        if kind in COUNTED:
            counts[COUNTED[kind]] += 1
        if kind == "attached":
            lease = last = Lease(entry)
            yield lease
        elif kind == "violation":
            facts = {key: value for key, value in entry.items() if key not in ("t", "kind", "what")}
            violations.append(f"{entry['what']}: {facts} at {entry['t'] / SECOND:.3f} ({name})")
        elif kind == "verified":
            counts["stamps verified"] += entry["blocks"]
        elif kind == "looked":
            counts["tables compared by engines"] += entry["tables"]
        if kind == "late call":
            last.late.append(entry)
        elif lease is not None:
            lease.entries.append(entry)
        if kind == "answered":
            counts["calls answered"] += 1
            granted = sum(map(len, entry["grants"].values()))
            counts["blocks granted"] += granted
            counts["acknowledged grants"] += len(entry["grants"])
        if kind == "lost":
            lease = None


def _double(leases: list[Lease]) -> Iterator[str]:
    """Blocks in two tables at one time, and reserved ones in any."""
    by_block: dict[int, list[Held]] = defaultdict(list)
    for lease in leases:
        for block, held in lease.held():
            by_block[block].append(held)
    for block, times in sorted(by_block.items()):
        times.sort()
        if block < RESERVED_BLOCKS:
            yield f"block {block} is reserved, and was granted: {_words(times[0])}"
        last = times[0]
        for held in times[1:]:
            if held.begin <= last.end:
                overlap = (min(held.end, last.end) - held.begin) / SECOND
                yield (
                    f"block {block} is in two live tables for {overlap:.3f} s from"
                    f" {held.begin / SECOND:.3f}: {_words(last)}; {_words(held)}"
                )
            last = max(last, held, key=lambda one: one.end)


def _words(held: Held) -> str:
    return f"{held.engine}, life {held.life}, epoch {held.epoch}, sequence {held.sequence}"


def _late(leases: list[Lease], nemesis: list[Entry], counts: "Counter[str]") -> Iterator[str]:
    """Late calls that should have been refused; those of dead engines the nemesis has sent."""
    begun: dict[str, list[tuple[int, int]]] = defaultdict(list)
    told: dict[tuple[str, int], int] = {}
    calls = [entry for entry in nemesis if entry["kind"] == "late call"]
    for lease in leases:
        begun[lease.engine].append((lease.epoch, lease.entries[0]["t"]))
        for entry in (*lease.entries, *lease.late):
            if entry.get("told"):
                told[lease.engine, lease.epoch] = entry["t"]
        calls += lease.late
    for call in sorted(calls, key=lambda one: one["sent"]):
        engine, epoch, outcome = call["engine"], call["epoch"], call["outcome"]
        counts["late calls sent"] += 1
        later = [t for other, t in begun[engine] if other > epoch]
        over_at = min(later, default=call["t"])
        over_at = min(over_at, told.get((engine, epoch), over_at))
        where = f"{engine}, life {call['life']}, epoch {epoch}, sequence {call['sequence']}"
        if outcome == REFUSED:
            counts["late calls refused"] += 1
            told.setdefault((engine, epoch), call["t"])
        elif outcome == UNANSWERED:
            counts["late calls without an answer"] += 1
        elif outcome != CARRIED_OUT:
            yield f"a late {call['op']} ended with {outcome}: {where}"
        elif over_at >= call["sent"]:
            counts["late calls under a lease that went on"] += 1
        else:
            late = (call["sent"] - over_at) / SECOND
            yield f"a late {call['op']} is carried out {late:.3f} s after the epoch's end: {where}"


def _lost(leases: list[Lease], nemesis: list[Entry], counts: "Counter[str]") -> Iterator[str]:
    """Acknowledged grants that a server did not have after its start, and audits."""
    by_engine: dict[str, list[Lease]] = defaultdict(list)
    for lease in leases:
        if lease.entries:
            by_engine[lease.engine].append(lease)
    for entries in by_engine.values():
        entries.sort(key=lambda one: one.entries[0]["t"])
    starts = {name: [one.entries[0]["t"] for one in many] for name, many in by_engine.items()}
    for entry in nemesis:
        if entry["kind"] != "server has":
            continue
        for sentence in entry["audit"]:
            yield f"audit after a start at {entry['t'] / SECOND:.3f}: {sentence}"
        for name, many in by_engine.items():
            if name in entry["changed"]:
                continue
            for lease in many[: bisect_right(starts[name], entry["begun"])]:
                yield from _compare(lease, entry, counts)


def _compare(lease: Lease, entry: Entry, counts: "Counter[str]") -> Iterator[str]:
    begun, asked = entry["begun"], entry["t"]
    if lease.entries[-1]["t"] < asked or not lease.answered_after(asked):
        return
    has = entry["engines"].get(lease.engine, {"epoch": 0, "tables": {}, "acquired": []})
    where = f"after the start at {asked / SECOND:.3f}: {lease.engine}, life {lease.life}"
    if has["epoch"] != lease.epoch:
        yield f"{where}: its lease of epoch {lease.epoch} is lost"
        return
    tables, touched = lease.tables(begun, asked)
    batches = {str(one) for one in BATCHES}
    if not batches & touched:
        acquired = sorted(block for one in batches for block in tables.get(one, ()))
        # What else it has may be in the stash.
        kept = sorted(set(acquired) & set(has["acquired"]) if lease.has_stash else has["acquired"])
        if acquired != kept:
            yield (
                f"{where}, epoch {lease.epoch}: acquired {acquired}, the server has"
                f" {has['acquired']}"
            )
    for sequence in (tables.keys() | has["tables"].keys()) - touched - batches:
        counts["grants compared after a start"] += 1
        told, kept = tables.get(sequence, []), has["tables"].get(sequence, [])
        if told != kept:
            yield (
                f"{where}, epoch {lease.epoch}, sequence {sequence}: answered {told}, the server"
                f" has {kept}"
            )
