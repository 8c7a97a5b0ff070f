"""What a server's telemetry looks at."""

from typing import NamedTuple

from kvblock_service.access import RejectedCalls
from kvblock_service.committer import Committer
from kvblock_service.host import Host
from kvblock_service.log_stream import LogStream
from kvblock_service.open_files import OpenFiles


class Sources(NamedTuple):
    """What is shown; `committer` is None for a server without a journal."""

    host: Host
    rejected: RejectedCalls
    log: LogStream
    committer: Committer | None = None
    files: OpenFiles | None = None
