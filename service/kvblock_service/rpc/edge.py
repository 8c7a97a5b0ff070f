"""How a server meets its clients: who may come in, over what, and how many at once.

Rules:
- TLS holds for every TCP address; Unix sockets are plain, their files say who may open them.
- Handshakes take the certificates that are in force, and calls the identities: neither waits for a
  file, which threads of their own read.
"""

from typing import Any, NamedTuple

import grpc

from kvblock_service.access import Identities, RejectedCalls, Reloaded, TlsFiles

_PENDING_MIN = 4096
_NO_COMPRESSION = 1
_READ_BYTES = 64 * 1024


class SocketFile(NamedTuple):
    """Who may open a Unix socket: its mode, owner and group; None: as the server's process has."""

    mode: int = 0o600
    owner: int | None = None
    group: int | None = None


class Edge(NamedTuple):
    """Everything about the connections of a server.

    `access` None: whoever can connect may do everything. `tls` None: TCP addresses are plain. A
    peer that leaves a ping unanswered for `keepalive_seconds`, or a session's answer unread for
    `slow_reader_seconds`, is cut off; pings come as often when a connection is silent. A call whose
    request has not arrived after `request_seconds` ends. `connections_max` is for each address.
    """

    rejected: RejectedCalls
    access: Reloaded[Identities] | None = None
    tls: Reloaded[TlsFiles] | None = None
    socket_file: SocketFile = SocketFile()
    concurrent_calls_max: int = 4096
    health_watches_max: int = 256
    keepalive_seconds: float = 30.0
    slow_reader_seconds: float = 30.0
    request_seconds: float = 10.0
    connections_max: int = 1024
    calls_per_connection_max: int = 4096

    def options(self) -> list[tuple[str, int]]:
        """GRPC's options that follow from it."""
        keepalive = round(self.keepalive_seconds * 1000)
        pending = max(self.concurrent_calls_max, _PENDING_MIN)
        return [
            ("grpc.keepalive_time_ms", keepalive),
            # The timeout alone is not followed: gRPC gives a ping a minute by itself.
            ("grpc.keepalive_timeout_ms", keepalive),
            ("grpc.http2.ping_timeout_ms", keepalive),
            ("grpc.keepalive_permit_without_calls", 1),
            # Clients may send pings of their own, as long as they are no flood.
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
            ("grpc.max_allowed_incoming_connections", self.connections_max),
            ("grpc.max_concurrent_streams", self.calls_per_connection_max),
            # A few KiB can unpack to what a request may have at most, once for each call.
            ("grpc.compression_enabled_algorithms_bitset", _NO_COMPRESSION),
            # Calls that gRPC has read and the event loop has not taken yet. Beyond the first number
            # gRPC drops some at random, beyond the second all: with CANCELLED, whoever made them.
            ("grpc.server.max_pending_requests", pending),
            ("grpc.server.max_pending_requests_hard_limit", pending * 5 // 4),
            # A connection that is never silent is left for the others after so many bytes.
            ("grpc.experimental.tcp_max_read_chunk_size", _READ_BYTES),
        ]


def server_credentials(tls: Reloaded[TlsFiles]) -> grpc.ServerCredentials:
    """Credentials for one listener, which follow the files."""
    used = tls.value

    # None means that nothing has changed, which the types of this callback do not know.
    def changed() -> Any:
        nonlocal used
        now = tls.value
        if now is used:
            return None
        used = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used), changed, require_client_authentication=used.client_ca is not None
    )


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(files.key, files.certificate)], root_certificates=files.client_ca
    )
