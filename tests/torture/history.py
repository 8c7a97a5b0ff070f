"""What a process saw, as an append-only file: a JSON object per line, each written at once.

Rules:
- A line is written in one call, so that a process that is killed leaves whole lines, and at
  most one torn one at the end.
- `t` is nanoseconds of the host's monotonic clock; it is taken before the line is written.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from tests.torture.setting import now_ns

Entry: TypeAlias = dict[str, Any]


class History:
    """A file to append to."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, kind: str, t: int | None = None, **facts: Any) -> None:
        """Append an entry; `t`: when it was, if that is not now."""
        entry = {"t": now_ns() if t is None else t, "kind": kind, **facts}
        os.write(self._file, json.dumps(entry).encode() + b"\n")


def read(path: Path) -> Iterator[Entry]:
    """The entries of a file, none without one; a torn last line is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        if line.endswith(b"}"):
            try:
                yield json.loads(line)
            except ValueError:
                continue
