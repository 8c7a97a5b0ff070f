"""`kvblock serve`, loaded beforehand: it starts to serve when it reads a line.

Rules:
- Everything is imported before the line, so that a nemesis that kills a server every few seconds
  spends its time on servers that serve.
- A plant is applied to the loaded service, never kept in it.
"""

import os
import sys

from tests.torture.simulation.plants import admit_anybody

import kvblock_service.main
from kvblock.cli import main
from kvblock_service.core.pool import Pool

NO_EPOCH_CHECK = "no-epoch-check"
EARLY_ANSWER = "early-answer"


def plant(name: str) -> None:
    """Put a bug into the service."""
    if name == NO_EPOCH_CHECK:
        Pool._admit = admit_anybody  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    assert kvblock_service.main
    plant(sys.argv[1])
    arguments = sys.argv[2:]
    from pathlib import Path

    from tests.torture.wired import wire

    at = arguments.index("--state-dir")
    wire(Path(arguments[at + 1]))
    del arguments[at : at + 2]
    sys.argv = ["kvblock", "serve", *arguments]
    if sys.stdin.readline():
        sys.stdin.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        main()
