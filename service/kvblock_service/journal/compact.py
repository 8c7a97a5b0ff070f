"""A process that makes a snapshot of what a server has written, beside that server.

    python -m kvblock_service.journal.compact DIRECTORY EPOCH POSITION REQUEST_IDS_MAX DURABILITY

Rules:
- It recovers the pools as a restart would, and reads only segments that nobody writes to.
- The snapshot appears whole, or not at all; it removes nothing.
- Exit code 0: the snapshot is there. 1: it is not; stderr says why.
"""

import os
import sys
from pathlib import Path

from kvblock_service.core.audit import audit
from kvblock_service.core.pool import Bounds
from kvblock_service.journal import snapshot
from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.journal.recovery import recover
from kvblock_service.journal.sqlite import SqliteReader


def compact(
    directory: Path, server_epoch: int, position: int, request_ids_max: int, *, synced: bool
) -> None:
    """Write the snapshot at a position.

    Raises:
        JournalDamaged: the records up to there cannot be read, or lead to a pool that is not sound.
        JournalError: the snapshot cannot be written.

    """
    reader = SqliteReader(directory, server_epoch)
    recovered = recover(reader, Bounds(1, 1, request_ids_max), up_to=position)
    reached = recovered.snapshot_position + recovered.records
    if reached < position:
        raise JournalDamaged(f"the records end at {reached}, not at {position}")
    for entry in recovered.state.pools:
        violations = audit(entry.pool).violations
        if violations:
            name = entry.pool.geometry.name
            raise JournalDamaged(f"pool {name} is not sound at record {position}: {violations[0]}")
    reader.put_snapshot(position, snapshot.encode(recovered.state), synced=synced)


def main(arguments: list[str]) -> int:
    """Run with the arguments of a command line; gives the exit code."""
    directory, server_epoch, position, request_ids_max, durability = arguments
    os.nice(19)
    try:
        compact(
            Path(directory),
            int(server_epoch),
            int(position),
            int(request_ids_max),
            synced=durability == "host",
        )
    except (JournalDamaged, JournalError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
