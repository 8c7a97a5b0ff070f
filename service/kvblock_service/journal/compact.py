"""A process that makes a snapshot of what a server has written, beside that server.

    python -m kvblock_service.journal.compact DIRECTORY EPOCH POSITION REQUEST_IDS_MAX DURABILITY
    python -m kvblock_service.journal.compact serve

The second form waits for jobs: it reads lines with the arguments of the first form as a JSON list,
runs each in a process of its own, and answers a line with its exit code and stderr as JSON. It
exists because a server with much memory, or on a busy host, should not start processes while it
serves: it stands still until they have begun.

Rules:
- It recovers the pools as a restart would, and reads only closed segments.
- The snapshot appears whole, or not at all; it removes nothing.
- Exit code 0: the snapshot is there. 1: it is not; stderr says why.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from kvblock_service.core.audit import audit
from kvblock_service.core.pool import Bounds
from kvblock_service.journal import snapshot
from kvblock_service.journal.interface import JournalDamaged, JournalError, Source
from kvblock_service.journal.reader import FileReader
from kvblock_service.journal.recovery import recover

LOWEST_PRIORITY = 19
STDERR_MAX = 500
"""Characters of stderr in an answer, which then is written to the pipe in one piece."""


def compact(journal: Source, position: int, request_ids_max: int) -> None:
    """Write the snapshot of a journal at a position.

    Raises:
        JournalDamaged: the records up to there cannot be read, or lead to a pool that is not sound.
        JournalError: the snapshot cannot be written.

    """
    recovered = recover(journal, Bounds(1, 1, request_ids_max), up_to=position)
    for entry in recovered.state.pools:
        violations = audit(entry.pool).violations
        if violations:
            name = entry.pool.geometry.name
            raise JournalDamaged(f"pool {name} is not sound at record {position}: {violations[0]}")
    journal.put_snapshot(position, snapshot.encode(recovered.state))


def serve() -> int:
    """Run jobs until its input ends; gives the exit code."""
    os.nice(LOWEST_PRIORITY)
    for line in sys.stdin:
        command = [sys.executable, "-m", "kvblock_service.journal.compact", *json.loads(line)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        answer = {"exit_code": done.returncode, "stderr": done.stderr[-STDERR_MAX:]}
        try:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            return 0
    return 0


def main(arguments: list[str]) -> int:
    """Run with the arguments of a command line; gives the exit code."""
    if arguments == ["serve"]:
        return serve()
    directory, server_epoch, position, request_ids_max, durability = arguments
    os.nice(LOWEST_PRIORITY)
    try:
        reader = FileReader(Path(directory), int(server_epoch), synced=durability == "host")
        compact(reader, int(position), int(request_ids_max))
    except (JournalDamaged, JournalError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
