"""Identities: what each may do, and how the one that belongs to credentials is found.

Rules:
- A pattern is a shell pattern (`*`, `?`, `[...]`) for a whole name; case counts.
- Tokens are compared by their digests, in constant time, and with every digest there is: how long
  a comparison takes says nothing about any of them.
- A certificate is matched by its subject alternative names, or, if it has none, by its common
  name; the first identity in the file that matches is meant.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

ANY = ("*",)


@dataclass(frozen=True)
class Identity:
    """One caller: by what it is known, and what it may do.

    `token_digests` and `certificates` (patterns) are what it is known by. `engines` and `pools` are
    patterns of the names that it may use; `admin`: whether it may call KVBlockAdmin, reflection and
    channelz. `calls_per_second` None: as many as it likes.
    """

    name: str
    token_digests: tuple[bytes, ...] = field(default=(), repr=False)
    certificates: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    admin: bool = False
    calls_per_second: float | None = None

    def may_use_engine(self, engine: str) -> bool:
        """Whether it may call itself by that name."""
        return _matches(engine, self.engines)

    def may_use_pool(self, pool: str) -> bool:
        """Whether it may use the pool of that name."""
        return _matches(pool, self.pools)

    @property
    def may_use_every_engine(self) -> bool:
        """Whether no engine name is closed to it."""
        return "*" in self.engines


LOCAL_OPERATOR = Identity("local operator", engines=ANY, pools=ANY, admin=True)
"""Whoever may open a Unix socket, where the access file leaves that to the socket's file."""


@dataclass(frozen=True)
class Identities:
    """All identities of a server, in the order of the access file.

    `unix` is what the peer of a Unix socket is that shows no credentials; None: it has to show
    some.
    """

    identities: tuple[Identity, ...]
    unix: Identity | None = LOCAL_OPERATOR

    def by_token(self, digest: bytes) -> Identity | None:
        """The identity that has the token of this digest."""
        found = None
        for identity in self.identities:
            for known in identity.token_digests:
                if hmac.compare_digest(known, digest):
                    found = identity
        return found

    def by_certificate(self, names: Iterable[str]) -> Identity | None:
        """The first identity that has a certificate of one of these names."""
        shown = tuple(names)
        for identity in self.identities:
            if any(_matches(name, identity.certificates) for name in shown):
                return identity
        return None


def digest_of(token: str) -> bytes:
    """What of a token is stored and compared."""
    return hashlib.sha256(token.encode()).digest()


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
