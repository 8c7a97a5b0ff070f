"""Who a client says it is, and how it makes sure of its server.

Rules:
- A token is never part of a text: not of an error, not of a repr. It goes out with every call, over
  TLS, over a Unix socket, or to this machine; over anything else it is refused before it is sent.
- Files are read when the client is made, as `trusted_file` reads them; a client that is to use
  other ones is made anew.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import NamedTuple

import grpc

from kvblock.arguments import invalid
from kvblock.trusted_file import UnusableFileError, read_file

_TOKEN = re.compile(r"[!-~]+")


class Tls(NamedTuple):
    """TLS to the server.

    `ca`: a PEM file with the authorities that the server's certificate may come from; None: those
    that gRPC brings with it. `cert` and `key`: PEM files with the client's own certificate, for a
    server that asks for one. `server_name`: the name in the server's certificate, where it is not
    the one in the address.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    server_name: str | None = None


class Credentials(NamedTuple):
    """What goes into a channel and into each of its calls."""

    channel: grpc.ChannelCredentials | None = None
    metadata: tuple[tuple[str, str], ...] | None = None
    options: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return "Credentials(...)"

    @classmethod
    def of(cls, address: str, token: str | None, tls: Tls | bool) -> Credentials:
        """Check what a client was given.

        Raises:
            InvalidArgumentError: a file cannot be read, or the token cannot be sent.

        """
        settings = Tls() if tls is True else tls or None
        if not isinstance(settings, Tls | None):
            raise invalid("tls", tls, "must be True, False or a kvblock.Tls")
        channel = None
        options: tuple[tuple[str, str], ...] = ()
        if settings is not None:
            if address.startswith("unix:"):
                raise invalid("tls", settings, "goes with HOST:PORT; a Unix socket is plain")
            channel = _channel(settings)
            if settings.server_name is not None:
                options = (("grpc.ssl_target_name_override", settings.server_name),)
        if token is None:
            return cls(channel, None, options)
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise invalid("token", _HIDDEN, "must be printable ASCII characters without blanks")
        if channel is None and not stays_here(address):
            problem = f"would go to {address} readable for everyone on the way; use TLS (tls=...)"
            raise invalid("token", _HIDDEN, problem)
        return cls(channel, (("authorization", f"Bearer {token}"),), options)


class _Hidden:
    def __repr__(self) -> str:
        return "(not shown)"


_HIDDEN = _Hidden()


def stays_here(address: str) -> bool:
    """Whether what is sent to an address stays on this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _channel(tls: Tls) -> grpc.ChannelCredentials:
    if (tls.cert is None) != (tls.key is None):
        missing = "key" if tls.key is None else "cert"
        raise invalid(f"tls.{missing}", None, "must be given: a certificate goes with its key")
    return grpc.ssl_channel_credentials(
        _content("tls.ca", tls.ca, "CERTIFICATE"),
        _content("tls.key", tls.key, "PRIVATE KEY"),
        _content("tls.cert", tls.cert, "CERTIFICATE"),
    )


def _content(field: str, path: str | os.PathLike[str] | None, kind: str) -> bytes | None:
    if path is None:
        return None
    try:
        content = read_file(path).content
    except UnusableFileError as error:
        raise invalid(field, os.fspath(path), f"cannot be read: {error}") from error
    # gRPC would take any bytes, and only ever fail to connect.
    if kind.encode() not in content:
        raise invalid(field, os.fspath(path), f"must be a PEM file with a {kind.lower()}")
    return content
