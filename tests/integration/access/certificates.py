"""Certificates for tests, and the files that servers and clients read them from."""

from datetime import datetime
from functools import cache
from pathlib import Path

import trustme

import kvblock


@cache
def authority(name: str = "ours") -> trustme.CA:
    """The authority of that name; it is made when it is first asked for."""
    return trustme.CA(organization_name=name)


class Files:
    """A folder of PEM files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        authority().cert_pem.write_to_path(str(self.ca))

    def issue(
        self,
        stem: str,
        *names: str,
        common_name: str | None = None,
        by: trustme.CA | None = None,
        until: datetime | None = None,
    ) -> tuple[Path, Path]:
        """A certificate and its key, for the alternative names; they replace older ones at once."""
        issuer = by or authority()
        made = issuer.issue_cert(*names, common_name=common_name, not_after=until)
        paths = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        chain = b"".join(one.bytes() for one in made.cert_chain_pems)
        for path, content in zip(paths, (chain, made.private_key_pem.bytes()), strict=True):
            new = path.with_suffix(".new")
            new.write_bytes(content)
            new.chmod(0o600)
            new.replace(path)
        return paths

    def serve_flags(self, *, client_ca: bool = False) -> list[str]:
        """What lets a server use TLS as `localhost`."""
        cert, key = self.issue("server", "localhost", "127.0.0.1", "::1")
        flags = ["--tls-cert", str(cert), "--tls-key", str(key)]
        return [*flags, "--tls-client-ca", str(self.ca)] if client_ca else flags

    def trust(self) -> kvblock.Tls:
        """TLS of a client without a certificate."""
        return kvblock.Tls(ca=self.ca)

    def show(self, *names: str, common_name: str | None = None) -> kvblock.Tls:
        """TLS of a client with a certificate for these names."""
        cert, key = self.issue("client", *names, common_name=common_name)
        return kvblock.Tls(ca=self.ca, cert=cert, key=key)
