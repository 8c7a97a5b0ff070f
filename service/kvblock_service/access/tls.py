"""The certificate, the key and the authorities of the TLS listeners.

Rules:
- They are PEM files. A certificate that its key does not belong to, an encrypted key, and a file
  without a certificate are refused here, because gRPC would only fail handshakes.
- A key that other users may read is used, and warned of: file systems of containers often show it
  that way.
"""

import logging
import ssl
import stat
from pathlib import Path
from typing import NamedTuple

from kvblock_service.access.reloaded import AccessError, Reloaded

_log = logging.getLogger(__name__)


class TlsFiles(NamedTuple):
    """The contents of the files; `client_ca` None: clients show no certificate."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None

    def __repr__(self) -> str:
        return "TlsFiles(...)"


def tls_files(certificate: Path, key: Path, client_ca: Path | None) -> Reloaded[TlsFiles]:
    """The files, read again when they change.

    Raises:
        AccessError: one of them cannot be used; the text names its setting.

    """
    paths = [certificate, key, *([client_ca] if client_ca else [])]
    return Reloaded(paths, lambda: _read(certificate, key, client_ca))


def _read(certificate: Path, key: Path, client_ca: Path | None) -> TlsFiles:
    files = TlsFiles(
        _content("tls_cert", certificate),
        _content("tls_key", key),
        _content("tls_client_ca", client_ca) if client_ca else None,
    )
    if b"PRIVATE KEY" not in files.key:
        raise AccessError(f"tls_key {key}: has no private key in PEM form")
    if b"BEGIN CERTIFICATE" not in files.certificate:
        raise AccessError(f"tls_cert {certificate}: has no certificate in PEM form")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _check_pair(context, certificate, key)
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except OSError:
            raise AccessError(
                f"tls_client_ca {client_ca}: has no certificate in PEM form"
            ) from None
    return files


def _check_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    pair = f"tls_cert {certificate}, tls_key {key}"
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
        mode = key.stat().st_mode
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise AccessError(
                f"tls_key {key}: is not the key of the certificate in {certificate}"
            ) from None
        raise AccessError(
            f"{pair}: cannot be read as a certificate and its key ({error.reason or 'not PEM'})"
        ) from None
    except OSError as error:
        raise AccessError(f"{pair}: {error.strerror}") from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        _log.warning("other users of this machine can read the key", extra={"tls_key": str(key)})


def _no_password() -> str:
    raise AccessError("tls_key: is encrypted; give a key without a password")


def _content(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AccessError(f"{setting} {path}: {error.strerror}") from error
