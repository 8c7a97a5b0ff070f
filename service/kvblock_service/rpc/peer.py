"""Who is calling: the credentials that come with a call, and whose they are.

Rules:
- Who shows a token is held to it, wherever it comes from. Else a client certificate says who it is;
  else, on a Unix socket, the access file does.
"""

from typing import NamedTuple

from kvblock_service.access import Identities, Identity, digest_of
from kvblock_service.access.rejected_calls import LoginFailure
from kvblock_service.rpc.calls import Context

_BEARER = "bearer "


class Credentials(NamedTuple):
    """A token's digest, or a certificate's names, or nothing; `address` is the caller's.

    `malformed`: its authorization metadata cannot be read.
    """

    digest: bytes | None
    names: tuple[str, ...]
    address: str
    malformed: bool = False

    def identity(self, known: Identities) -> Identity | None:
        """Whose they are, None when none of those known has them."""
        if self.malformed:
            return None
        if self.digest is not None:
            return known.by_token(self.digest)
        if self.names:
            return known.by_certificate(self.names)
        return known.unix if self.address.startswith("unix") else None

    def failure(self) -> LoginFailure:
        """Why they are nobody's."""
        if self.malformed:
            return LoginFailure.MALFORMED
        if self.digest is not None:
            return LoginFailure.UNKNOWN_TOKEN
        return LoginFailure.UNKNOWN_CERTIFICATE if self.names else LoginFailure.NO_CREDENTIALS


class Peer(NamedTuple):
    """A caller who is known, and where it calls from."""

    identity: Identity
    address: str


def credentials_of(context: Context) -> Credentials:
    """What the caller of a method has shown."""
    address = context.peer()
    given = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    digest = None
    if given:
        scheme_and_token = given[0] if len(given) == 1 and isinstance(given[0], str) else ""
        if not scheme_and_token.lower().startswith(_BEARER):
            return Credentials(None, (), address, malformed=True)
        digest = digest_of(scheme_and_token[len(_BEARER) :])
    # Subject alternative names, or the common name of a certificate that has none.
    names = tuple(name.decode(errors="replace") for name in context.peer_identities() or ())
    return Credentials(digest, names, address)
