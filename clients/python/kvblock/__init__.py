"""Client for kvblock, the service that hands out the paged-KV-cache blocks of a host.

Rules:
- This package imports grpc, protobuf and the standard library, nothing else; what needs more
  (`kvblock.cli`, `kvblock.replay`, ...) is imported by those who use it.
- What stands in `__all__` is the interface; modules below may change.
"""

from importlib.metadata import version

from kvblock.client import AsyncClient
from kvblock.embedded import EmbeddedServer, ServerStartError
from kvblock.errors import (
    ClosedError,
    DeadlineExceededError,
    ErrorReason,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    KVBlockError,
    NotFoundError,
    UnavailableError,
)
from kvblock.results import (
    AuditReport,
    BlockTable,
    Capacity,
    EngineStats,
    Granted,
    PoolInfo,
    PoolStats,
    RefusalReason,
    Refused,
    SequenceInfo,
    ServerStats,
    StepPolicy,
    StepResult,
)
from kvblock.session import AsyncSession
from kvblock.sync import Client
from kvblock.sync_session import Session

__version__ = version("kvblock")

connect = Client
"""Make a Client: `with kvblock.connect("unix:/run/kvblock.sock") as kv: ...`."""
connect_async = AsyncClient
"""Make an AsyncClient: `async with kvblock.connect_async("unix:/run/kvblock.sock") as kv: ...`."""

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "AuditReport",
    "BlockTable",
    "Capacity",
    "Client",
    "ClosedError",
    "DeadlineExceededError",
    "EmbeddedServer",
    "EngineStats",
    "ErrorReason",
    "FailedPreconditionError",
    "FieldViolation",
    "Granted",
    "InvalidArgumentError",
    "KVBlockError",
    "NotFoundError",
    "PoolInfo",
    "PoolStats",
    "RefusalReason",
    "Refused",
    "SequenceInfo",
    "ServerStartError",
    "ServerStats",
    "Session",
    "StepPolicy",
    "StepResult",
    "UnavailableError",
    "__version__",
    "connect",
    "connect_async",
]
