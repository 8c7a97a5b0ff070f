"""Who is calling, and whether that caller may do what it asks for.

Rules:
- Who is calling is settled before a request is read, and what it asks for before anything is looked
  up: a caller that may not use a pool does not learn whether it exists.
- METHODS says for each method what it takes; a method that is not there takes an admin.
- A session's caller is settled at the attach. Later only a change of the access file matters: a
  session whose caller is not known any more, or may not be this engine any more, ends.
- So does a call that has waited, for blocks, when it is about to go on.
- Calls beyond an identity's rate are refused; steps of a session beyond it are held back, because
  an error would end the session.
- Failed logins and denied permissions are counted before they are answered.
"""

import asyncio
import time
from enum import Enum
from typing import Any

from kvblock_service.access import Identities, Identity, RejectedCalls, Reloaded
from kvblock_service.access.rejected_calls import Denial, LoginFailure
from kvblock_service.errors import PermissionDenied, RateLimited, Unauthenticated
from kvblock_service.host import Host
from kvblock_service.rpc import validate
from kvblock_service.rpc.calls import Admit, Context, Permit
from kvblock_service.rpc.peer import Credentials, Peer, credentials_of
from kvblock_service.rpc.rate import Rate


class Takes(Enum):
    """What a method takes."""

    OWN = 1
    """To be the engine, in the pool, that the request names; an empty name is the default one."""
    VIEW = 2
    """The same, but an empty name means every engine, or every pool."""
    SESSION = 3
    """To be the engine that the stream's attach names."""
    ADMIN = 4
    """To be an admin."""


_OWN = "Allocate Free FreeReturningCount GetBlockTable CanAllocate Step"
_LEASES = "AttachEngine RenewLease DetachEngine"
_ADMIN = "ListPools CreatePool DeletePool ListEngines ReclaimEngine ListBlocks ListSequences Audit"

METHODS = {
    **dict.fromkeys(f"{_OWN} {_LEASES}".split(), Takes.OWN),
    "Stats": Takes.VIEW,
    "Session": Takes.SESSION,
    **dict.fromkeys(f"{_ADMIN} Drain".split(), Takes.ADMIN),
}


class Gate:
    """The way into a host for those whom an access file names."""

    def __init__(self, host: Host, access: Reloaded[Identities], rejected: RejectedCalls) -> None:
        self._host = host
        self._access = access
        self._rejected = rejected
        self._rates: dict[str, Rate] = {}

    @property
    def identities(self) -> Identities:
        """Those in force."""
        return self._access.value

    def admit(self, method: str) -> Admit:
        """What lets callers of a unary method in.

        It is called with the context and gives what has to be called with the request, and again
        when the call has waited. Both raise Unauthenticated, PermissionDenied, InvalidField or
        RateLimited.
        """
        takes = METHODS.get(method, Takes.ADMIN)

        def enter(context: Context) -> Permit:
            shown = credentials_of(context)
            # They are exchanged by another thread, so they are asked for once.
            known = self.identities
            first = self._enter(shown, known)

            def permit(request: Any) -> None:
                peer = first if self.identities is known else self.still(shown)
                if takes is Takes.ADMIN:
                    self._need_admin(peer, method)
                elif takes is Takes.VIEW:
                    self._need_view(peer, request.pool, request.engine)
                else:
                    self.need(peer, request.pool, request.engine)

            return permit

        return enter

    def admit_admin(self, method: str) -> Admit:
        """What lets admins, and nobody else, call a method of another service.

        It raises Unauthenticated or PermissionDenied.
        """

        def enter(context: Context) -> Permit:
            shown = credentials_of(context)
            self._need_admin(self._peer(shown, self.identities, shown.failure()), method)
            return lambda _: None

        return enter

    def session(self, context: Context) -> "SessionPass":
        """The pass of a stream that was just opened; raises Unauthenticated, RateLimited."""
        shown = credentials_of(context)
        self._enter(shown, self.identities)
        return SessionPass(self, shown)

    def still(self, shown: Credentials) -> Peer:
        """Who has shown this, by the identities now in force; raises Unauthenticated for nobody."""
        return self._peer(shown, self.identities, LoginFailure.WITHDRAWN)

    def rate(self, identity: Identity) -> Rate | None:
        """How fast an identity is; None when it may be as fast as it likes."""
        allowed = identity.calls_per_second
        if allowed is None:
            return None
        rate = self._rates.get(identity.name)
        if rate is None or rate.per_second != allowed:
            rate = self._rates[identity.name] = Rate(allowed, time.monotonic())
        return rate

    def need(self, peer: Peer, pool: str, engine: str) -> None:
        """Let a caller be this engine in this pool; empty names mean the default ones.

        It raises PermissionDenied, or InvalidField for what is no name.
        """
        engine = validate.engine_name(engine)
        if not peer.identity.may_use_engine(engine):
            raise self._denied(Denial.ENGINE, peer, f"be engine {engine!r}")
        pool = validate.pool_name(pool) or self._host.default_pool
        # Without a default pool an empty name is an error of its own.
        if pool and not peer.identity.may_use_pool(pool):
            raise self._denied(Denial.POOL, peer, f"use pool {pool!r}")

    def _need_admin(self, peer: Peer, method: str) -> None:
        if not peer.identity.admin:
            raise self._denied(Denial.ADMIN, peer, f"call {method}, which is for admins")

    def _need_view(self, peer: Peer, pool: str, engine: str) -> None:
        identity = peer.identity
        if identity.admin:
            return
        if not engine and not identity.may_use_every_engine:
            raise self._denied(Denial.ENGINE, peer, "look at every engine; name one")
        if engine and not identity.may_use_engine(validate.engine_name(engine)):
            raise self._denied(Denial.ENGINE, peer, f"look at engine {engine!r}")
        for name in [validate.pool_name(pool)] if pool else self._host.pools:
            if not identity.may_use_pool(name):
                what = f"look at pool {pool!r}" if pool else "look at every pool; name one"
                raise self._denied(Denial.POOL, peer, what)

    def _enter(self, shown: Credentials, known: Identities) -> Peer:
        """Who begins a call, which counts against its rate."""
        peer = self._peer(shown, known, shown.failure())
        rate = self.rate(peer.identity)
        wait = rate.refused_for(time.monotonic()) if rate else 0.0
        if rate and wait:
            raise RateLimited(peer.identity.name, f"{rate.per_second:g}", wait)
        return peer

    def _peer(self, shown: Credentials, known: Identities, failure: LoginFailure) -> Peer:
        identity = shown.identity(known)
        if identity is None:
            self._rejected.logins.add(failure, peer=shown.address)
            raise Unauthenticated(failure.value)
        return Peer(identity, shown.address)

    def _denied(self, denial: Denial, peer: Peer, what: str) -> PermissionDenied:
        identity = peer.identity.name
        self._rejected.denials.add(denial, peer=peer.address, identity=identity, what=what)
        return PermissionDenied(identity, what)


class SessionPass:
    """Lets one session through, as long as its caller may be its engine."""

    def __init__(self, gate: Gate, shown: Credentials) -> None:
        self._gate = gate
        self._shown = shown
        self._pool = self._engine = ""
        self._known = gate.identities
        self._rate: Rate | None = None

    def attach(self, pool: str, engine: str) -> None:
        """Settle who the session is; `pool`, `engine` and what it raises are as in `Gate.need`."""
        self._pool, self._engine = pool, engine
        self._renew()

    async def step(self) -> None:
        """Let the next message through, when its time has come.

        A change of the access file can make it raise Unauthenticated or PermissionDenied.
        """
        if self._gate.identities is not self._known:
            self._renew()
        if self._rate is not None:
            wait = self._rate.held_for(time.monotonic())
            if wait:
                await asyncio.sleep(wait)

    def _renew(self) -> None:
        known = self._gate.identities
        peer = self._gate.still(self._shown)
        self._gate.need(peer, self._pool, self._engine)
        self._rate = self._gate.rate(peer.identity)
        self._known = known
