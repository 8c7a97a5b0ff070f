"""Client for kvblock, the service that hands out the paged-KV-cache blocks of a host.

Rules:
- This package imports grpc, protobuf and the standard library, nothing else; what needs more
  (`kvblock_cli`, `kvblock_replay`, ...) is imported by those who use it.
- The names in `__all__` are the interface; modules below may change.
- A name is loaded when it is first used: gRPC reads its settings from the environment when it is
  loaded, and kvblock's own programs set some of them before that.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from kvblock.version import VERSION

if TYPE_CHECKING:
    from kvblock._async.block_pool import AsyncBlockPool
    from kvblock._async.client import AsyncClient
    from kvblock._async.client import AsyncClient as connect_async
    from kvblock._async.engine_lease import AsyncEngineLease
    from kvblock._async.session import AsyncSession
    from kvblock._sync.block_pool import BlockPool
    from kvblock._sync.client import Client
    from kvblock._sync.client import Client as connect
    from kvblock._sync.engine_lease import EngineLease
    from kvblock._sync.session import Session
    from kvblock.arena import Arena
    from kvblock.credentials import Tls
    from kvblock.embedded import EmbeddedServer, ServerStartError
    from kvblock.errors import (
        AlreadyExistsError,
        ClosedError,
        DeadlineExceededError,
        ErrorReason,
        FailedPreconditionError,
        FieldViolation,
        InvalidArgumentError,
        KVBlockError,
        LeaseLostError,
        MemoryUnusableError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitedError,
        SessionReplacedError,
        Then,
        UnansweredError,
        UnauthenticatedError,
        UnavailableError,
        UsageError,
    )
    from kvblock.expect import Expect
    from kvblock.hints import EngineHints
    from kvblock.operator_results import (
        AuditReport,
        BlockInfo,
        BlockState,
        EngineInfo,
        EngineTables,
        PoolInfo,
        SequenceInfo,
    )
    from kvblock.results import (
        BlockTable,
        Capacity,
        EngineStats,
        Granted,
        PoolStats,
        RefusalReason,
        Refused,
        ServerStats,
        StepPolicy,
        StepResult,
    )

__version__ = VERSION

_MODULES = (
    "errors",
    "results",
    "operator_results",
    "arena",
    "expect",
    "hints",
    "credentials",
    "_sync.client",
    "_async.client",
    "_sync.block_pool",
    "_async.block_pool",
    "embedded",
)
"""Those that define or import what `__all__` names, the lightest first."""
_ALIASES = {"connect": "Client", "connect_async": "AsyncClient"}


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in _MODULES:
            home = import_module(f"kvblock.{module}")
            if hasattr(home, _ALIASES.get(name, name)):
                value: object = getattr(home, _ALIASES.get(name, name))
                globals()[name] = value
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "AlreadyExistsError",
    "Arena",
    "AsyncBlockPool",
    "AsyncClient",
    "AsyncEngineLease",
    "AsyncSession",
    "AuditReport",
    "BlockInfo",
    "BlockPool",
    "BlockState",
    "BlockTable",
    "Capacity",
    "Client",
    "ClosedError",
    "DeadlineExceededError",
    "EmbeddedServer",
    "EngineHints",
    "EngineInfo",
    "EngineLease",
    "EngineStats",
    "EngineTables",
    "ErrorReason",
    "Expect",
    "FailedPreconditionError",
    "FieldViolation",
    "Granted",
    "InvalidArgumentError",
    "KVBlockError",
    "LeaseLostError",
    "MemoryUnusableError",
    "NotFoundError",
    "PermissionDeniedError",
    "PoolInfo",
    "PoolStats",
    "RateLimitedError",
    "RefusalReason",
    "Refused",
    "SequenceInfo",
    "ServerStartError",
    "ServerStats",
    "Session",
    "SessionReplacedError",
    "StepPolicy",
    "StepResult",
    "Then",
    "Tls",
    "UnansweredError",
    "UnauthenticatedError",
    "UnavailableError",
    "UsageError",
    "__version__",
    "connect",
    "connect_async",
]
