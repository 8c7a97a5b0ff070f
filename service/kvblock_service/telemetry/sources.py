"""What a server's telemetry looks at."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from kvblock_service.access import RejectedCalls
from kvblock_service.host import Host
from kvblock_service.log_stream import LogStream
from kvblock_service.open_files import OpenFiles


class JournalFigures(Protocol):
    """The figures of a journal; the properties may be read by any thread."""

    @property
    def size_bytes(self) -> int:
        """Space that its files take."""

    @property
    def bytes_written(self) -> int:
        """Length of the records that were written since the start."""

    @property
    def unwritable(self) -> bool:
        """Whether it cannot be written now."""

    def tell_commits(self, observer: Callable[[float], None]) -> None:
        """Call this with the seconds that each write took, from now on, in the event loop."""


class Sources(NamedTuple):
    """What is shown; `journal` is None for a server without a journal."""

    host: Host
    rejected: RejectedCalls
    log: LogStream
    journal: JournalFigures | None = None
    files: OpenFiles | None = None
