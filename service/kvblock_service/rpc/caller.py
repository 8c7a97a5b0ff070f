"""Who is calling: what a call shows of it, and whose that is.

Rules:
- Who shows a token is held to it, wherever it comes from. Else a client certificate says who it is;
  else, on a Unix socket, the access file does.
"""

from typing import NamedTuple

from kvblock_service.access import Identities, Identity, digest_of
from kvblock_service.access.failures import LoginFailure, LoginFailures
from kvblock_service.errors import Unauthenticated
from kvblock_service.rpc.calls import Context

_BEARER = "bearer "


class Shown(NamedTuple):
    """What a caller has shown: a digest, or a certificate's names, or nothing on a Unix socket."""

    digest: bytes | None
    names: tuple[str, ...]
    unix: bool
    peer: str

    def identity(self, known: Identities) -> Identity | None:
        """Whose it is, None when nobody of those known has it."""
        if self.digest is not None:
            return known.by_token(self.digest)
        if self.names:
            return known.by_certificate(self.names)
        return known.unix if self.unix else None

    def failure(self) -> LoginFailure:
        """Why nobody knows it."""
        if self.digest is not None:
            return LoginFailure.UNKNOWN_TOKEN
        return LoginFailure.UNKNOWN_CERTIFICATE if self.names else LoginFailure.NO_CREDENTIALS


class Caller(NamedTuple):
    """A caller who is known, and where it calls from."""

    identity: Identity
    peer: str


def shown_by(context: Context, failures: LoginFailures) -> Shown:
    """What the caller of a method has shown.

    Raises:
        Unauthenticated: its authorization metadata is nothing that can be read.

    """
    peer = context.peer()
    given = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    digest = None
    if given:
        scheme_and_token = given[0] if len(given) == 1 and isinstance(given[0], str) else ""
        if not scheme_and_token.lower().startswith(_BEARER):
            failures.count(LoginFailure.MALFORMED, peer)
            raise Unauthenticated(LoginFailure.MALFORMED.value)
        digest = digest_of(scheme_and_token[len(_BEARER) :])
    # Subject alternative names, or the common name of a certificate that has none.
    names = tuple(name.decode(errors="replace") for name in context.peer_identities() or ())
    return Shown(digest, names, peer.startswith("unix"), peer)
