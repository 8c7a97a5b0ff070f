"""What all processes of one torture have to agree on.

Rules:
- It crosses to other processes as JSON, and never changes.
- `quarantine` is more than `ttl` + `late`: an engine whose lease was taken over learns of it up to
  a TTL later, and what it wrote until then may land `late` seconds after that.
"""

import json
import time
from pathlib import Path
from typing import NamedTuple

POOL = "main"
RESERVED_BLOCKS = 1
"""Of the pool's blocks, which no engine may be granted."""
BATCHES = (1000, 1001)
"""Under what ids an engine's acquired blocks are among its tables: they have no sequence."""


class Setting(NamedTuple):
    """One torture: its seed, its times in seconds, its sizes, and where its files are."""

    seed: int
    seconds: float
    engines: int
    blocks: int
    ttl: float
    quarantine: float
    late: float
    late_share: float
    pace: float
    plant: str
    durability: str
    directory: str

    def as_json(self) -> str:
        """For a command line."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> "Setting":
        """From a command line."""
        return cls(**json.loads(text))

    @property
    def path(self) -> Path:
        """Where all files are."""
        return Path(self.directory)

    @property
    def memory_dir(self) -> Path:
        """Where the server makes the memory of its pool."""
        return self.path / "memory"

    @property
    def settled(self) -> Path:
        """How many writes of each life have landed."""
        return self.path / "settled"

    @property
    def device(self) -> str:
        """The socket of the process that carries out writes."""
        return str(self.path / "device.sock")

    @property
    def server(self) -> str:
        """The server's own Unix socket, past the proxy."""
        return f"unix:{self.path / 'server.sock'}"

    @property
    def proxy(self) -> str:
        """The Unix socket that engines are told."""
        return f"unix:{self.path / 'proxy.sock'}"


def now_ns() -> int:
    """The clock that all processes of the host share, and that never jumps."""
    return time.monotonic_ns()
