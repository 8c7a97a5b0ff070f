"""A small disk for the state directory, which can be filled.

Rules:
- Root gets a file system of its own, in memory; without root, or where mounting is not permitted, a
  disk cannot be filled, and the report says so.
"""

import contextlib
import subprocess
from pathlib import Path

SIZE = "256m"
CHUNK = bytes(1 << 16)


class Disk:
    """A mounted directory, or just a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)]
        done = subprocess.run(command, capture_output=True, check=False)
        self.can_fill = done.returncode == 0
        self.filled = False
        self._filler = path / "filler"

    def fill(self) -> None:
        """Take all the space that is left."""
        self.filled = True
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(CHUNK)

    def relieve(self) -> None:
        """Give the space back."""
        self.filled = False
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it; what is on it is gone."""
        if self.can_fill:
            subprocess.run(["umount", "-l", str(self.path)], capture_output=True, check=False)
