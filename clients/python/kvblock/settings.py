"""What a client was made with, and the gRPC channel options that follow from the API's promises.

Rules:
- A call means the client's pool and engine unless it names others; views of the server (stats,
  audit, the list of sequences) are not narrowed by them.
- A call without a timeout of its own has the client's.
- gRPC's own retries are off: what may be sent again, and when, is for `kvblock.retry` to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, SupportsIndex, TypeVar

from kvblock import arguments
from kvblock.address import target_of
from kvblock.credentials import Credentials, Tls
from kvblock.lease import Leases
from kvblock.owner import NotCopied, OwnerProcess

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""Longest answer that a client takes: a step of 65,536 sequences fits many times."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # A connection per client: sessions of two clients never share one socket.
    ("grpc.use_local_subchannel_pool", 1),
    # An engine's http_proxy variable is not meant for its block server.
    ("grpc.enable_http_proxy", 0),
    # A connection that failed is tried again after 100 ms, then after 1.6 times as long each time,
    # up to a second: a restart has ended soon, and a server that is down for long is left in peace.
    # gRPC would begin with a second and go up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # How long making one connection may take, TLS included, which gRPC gives 20 seconds: a server
    # that stands still, or dies meanwhile, must not hold up the next try for a lease's whole TTL.
    ("grpc.min_reconnect_backoff_ms", 2000),
)

ChannelT = TypeVar("ChannelT")

CLOSED = "this client is closed"


class ClientSettings(NamedTuple):
    """What a client was made with."""

    address: str
    target: str
    pool: str
    engine: str
    timeout: float | None
    retries: bool
    leases: Leases
    owner: OwnerProcess
    credentials: Credentials = Credentials()

    @classmethod
    def of(
        cls,
        address: str,
        pool: str,
        engine: str,
        timeout: float | None,
        epoch: SupportsIndex = 0,
        *,
        retries: bool = True,
        token: str | None = None,
        tls: Tls | bool = False,
    ) -> ClientSettings:
        """Check the arguments of a client.

        Raises:
            InvalidArgumentError: one of them can never be right.

        """
        return cls(
            address,
            target_of(address),
            arguments.name("pool", pool),
            arguments.name("engine", engine),
            arguments.timeout(timeout),
            bool(retries),
            Leases(pool, engine, arguments.whole_number("epoch", epoch, arguments.UINT64_MAX)),
            OwnerProcess(),
            Credentials.of(address, token, tls),
        )

    def pool_of(self, pool: str | None) -> str:
        """The pool that a call means."""
        return self.pool if pool is None else arguments.name("pool", pool)

    def engine_of(self, engine: str | None) -> str:
        """The engine that a call means."""
        return self.engine if engine is None else arguments.name("engine", engine)

    def deadline(self, timeout: float | None, wait: float | None = None) -> float | None:
        """Seconds until a call fails with DEADLINE_EXCEEDED, None for never.

        The client's own timeout is longer by the time that the call asks the server to wait, up to
        TIMEOUT_MAX: a wait that is too long is the server's to refuse.
        """
        if timeout is not None:
            return arguments.timeout(timeout)
        if self.timeout is None:
            return None
        return min(self.timeout + (wait or 0.0), arguments.TIMEOUT_MAX)


def open_channel(
    settings: ClientSettings,
    insecure: Callable[..., ChannelT],
    secure: Callable[..., ChannelT],
    **more: object,
) -> ChannelT:
    """A channel, made by gRPC's functions for synchronous or for asyncio's stubs."""
    credentials = settings.credentials
    options = (*CHANNEL_OPTIONS, *credentials.options)
    if credentials.channel is None:
        return insecure(settings.target, options, **more)
    return secure(settings.target, credentials.channel, options, **more)


class Configured(NotCopied):
    """What both clients tell about themselves."""

    _settings: ClientSettings

    @property
    def address(self) -> str:
        """The server's address, as it was given."""
        return self._settings.address

    @property
    def pool(self) -> str:
        """The pool that calls mean which name none; empty: the server's default pool."""
        return self._settings.pool

    @property
    def engine(self) -> str:
        """The engine that calls mean which name none."""
        return self._settings.engine
