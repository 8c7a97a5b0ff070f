"""A state directory for its readers: counts, records and block tables, with no server needed.

Rules:
- Nothing is changed and no lock is taken. A server that removes old segments meanwhile makes a
  reading begin anew.
- A server that is running may be in the middle of a write: then a torn tail is none.
- JournalDamaged says that something cannot be read, JournalError that there is none.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kvblock_service.core.audit import audit
from kvblock_service.core.engine import blocks_of
from kvblock_service.core.pool import Bounds
from kvblock_service.journal import codec
from kvblock_service.journal.reader import FileReader
from kvblock_service.journal.recovery import Recovered, decoded, recover
from kvblock_service.journal.state_dir import (
    host_died,
    journal_directory,
    naming_the_remedy,
    present_identity,
)

ATTEMPTS = 10
_BOUNDS = Bounds(1, 1, 2**20)

_Result = TypeVar("_Result")


class Contents(NamedTuple):
    """What a directory holds; `problems` are sentences, none when it is sound."""

    recovered: Recovered
    pools: list[dict[str, Any]]
    remarks: list[str]
    problems: list[str]

    def summary(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return {
            "server_epoch": self.recovered.state.server_epoch,
            "position": self.recovered.position,
            "snapshot_position": self.recovered.snapshot_position,
            "records": self.recovered.records,
            "pools": self.pools,
            "remarks": self.remarks,
            "problems": self.problems,
        }


def read_contents(state_dir: Path) -> Contents:
    """Replay a directory and audit its pools."""
    with naming_the_remedy(state_dir):
        return _again(lambda: _contents(state_dir))


def described(state_dir: Path, first: int) -> Iterator[dict[str, Any]]:
    """The records from a position on, behind the newest snapshot, field by field."""
    with naming_the_remedy(state_dir):
        reader = _reader(state_dir)
        for position, record in decoded(reader.read(reader.snapshot_position)):
            if position >= first:
                yield {"position": position, **codec.shown(record)}


def exported(state_dir: Path) -> Iterator[str]:
    """Every block table as the text of one JSON object, in pieces; 64-bit numbers are strings."""
    with naming_the_remedy(state_dir):
        state = _again(lambda: recover(_reader(state_dir), _BOUNDS)).state
    yield f'{{"server_epoch": "{state.server_epoch}", "pools": ['
    for index, (pool, configured, _) in enumerate(state.pools):
        geometry = pool.geometry._asdict()
        head = {"pool": geometry.pop("name"), **geometry, "configured": configured}
        head["block_bytes"] = str(head["block_bytes"])
        yield f'{", " if index else ""}{json.dumps(head)[:-1]}, "engines": ['
        for place, engine in enumerate(pool.engines.values()):
            sequences = [
                {"sequence_id": str(sequence_id), "blocks": list(blocks_of(held))}
                for sequence_id, held in engine.tables.items()
            ]
            row = {"engine": engine.name, "epoch": str(engine.epoch), "sequences": sequences}
            yield f"{', ' if place else ''}{json.dumps(row)}"
        waiting = [
            {"engine": one.engine, "epoch": str(one.epoch), "blocks": one.blocks.tolist()}
            for one in pool.blocks.quarantine.values()
        ]
        yield f'], "quarantine": {json.dumps(waiting)}}}'
    yield "]}"


def _reader(state_dir: Path) -> FileReader:
    identity = present_identity(state_dir)
    return FileReader(
        journal_directory(state_dir, identity),
        identity.server_epoch,
        host_died=host_died(identity),
        is_marked=identity.format > 1,
    )


def _contents(state_dir: Path) -> Contents:
    reader = _reader(state_dir)
    recovered = recover(reader, _BOUNDS)
    remarks = [f"{tail.path} ends in an unfinished write" for tail in reader.tails]
    pools = []
    problems = []
    for pool, configured, _ in recovered.state.pools:
        report = audit(pool)
        problems += [f"pool {pool.geometry.name}: {text}" for text in report.violations]
        pools.append(
            {
                "pool": pool.geometry.name,
                "configured": configured,
                "held": report.held_blocks,
                "quarantined": report.quarantined_blocks,
                "free": report.free_blocks,
                "engines": len(pool.engines),
                "sequences": report.sequences,
            }
        )
    return Contents(recovered, pools, remarks, problems)


def _again(read: Callable[[], _Result]) -> _Result:
    for _ in range(ATTEMPTS - 1):
        try:
            return read()
        except FileNotFoundError:
            # A server has removed what a new snapshot covers; that snapshot is there now.
            continue
    return read()
