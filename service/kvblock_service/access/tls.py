"""The certificate, the key and the authorities of the TLS listeners.

Rules:
- They are PEM files. A certificate that its key does not belong to, an encrypted key, and a file
  without a certificate are refused here, because gRPC would only fail handshakes.
- A key that other users may read is used, and warned of: file systems of containers often show it
  that way.
"""

import logging
import os
import ssl
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kvblock.trusted_file import FileRead
from kvblock_service.access.reloaded import AccessError, Reloaded

_CERTIFICATE, _KEY, _CLIENT_CA = "tls_cert", "tls_key", "tls_client_ca"

_log = logging.getLogger(__name__)


class TlsFiles(NamedTuple):
    """The contents of the files; `client_ca` None: clients show no certificate."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None

    def __repr__(self) -> str:
        return "TlsFiles(...)"


def tls_files(certificate: Path, key: Path, client_ca: Path | None) -> Reloaded[TlsFiles]:
    """The files, followed once they are watched; raises AccessError, which names a setting."""
    paths = {_CERTIFICATE: certificate, _KEY: key}
    if client_ca is not None:
        paths[_CLIENT_CA] = client_ca
    return Reloaded(paths, lambda found: _parsed(found, paths))


def _parsed(found: Mapping[str, FileRead], paths: Mapping[str, Path]) -> TlsFiles:
    certificate, key = found[_CERTIFICATE], found[_KEY]
    client_ca = found[_CLIENT_CA].content if _CLIENT_CA in found else None
    if b"PRIVATE KEY" not in key.content:
        raise AccessError(f"{_KEY} {paths[_KEY]}: has no private key in PEM form")
    if b"BEGIN CERTIFICATE" not in certificate.content:
        raise AccessError(f"{_CERTIFICATE} {paths[_CERTIFICATE]}: has no certificate in PEM form")
    _check_pair(certificate.content, key.content, paths)
    if client_ca is not None:
        _check_authorities(client_ca, paths[_CLIENT_CA])
    if key.mode & (stat.S_IROTH | stat.S_IWOTH):
        _log.warning("other users of this machine can read the key", extra={_KEY: str(paths[_KEY])})
    return TlsFiles(certificate.content, key.content, client_ca)


def _check_pair(certificate: bytes, key: bytes, paths: Mapping[str, Path]) -> None:
    """Judge what was read, and not what may stand in the files by now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    named = f"{_KEY} {paths[_KEY]}"
    with _in_memory(certificate) as certificate_path, _in_memory(key) as key_path:
        try:
            context.load_cert_chain(certificate_path, key_path, password=_no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                problem = f"is not the key of the certificate in {paths[_CERTIFICATE]}"
                raise AccessError(f"{named}: {problem}") from None
            raise AccessError(
                f"{_CERTIFICATE} {paths[_CERTIFICATE]}, {named}: cannot be read as a certificate"
                f" and its key ({error.reason or 'not PEM'})"
            ) from None


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The path of a file that is on no disk: the standard library takes a pair by paths alone."""
    with open(os.memfd_create("kvblock-tls"), "wb") as memory:
        memory.write(content)
        memory.flush()
        yield f"/proc/self/fd/{memory.fileno()}"


def _check_authorities(content: bytes, path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=content.decode("ascii", errors="ignore"))
    except (ssl.SSLError, ValueError):
        raise AccessError(f"{_CLIENT_CA} {path}: has no certificate in PEM form") from None


def _no_password() -> str:
    raise AccessError("tls_key: is encrypted; give a key without a password")
