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

from kvblock_service.access import Identities, Identity, Reloaded, TurnedAway
from kvblock_service.access.failures import Denial, LoginFailure
from kvblock_service.errors import PermissionDenied, RateLimited, Unauthenticated
from kvblock_service.host import Host
from kvblock_service.rpc import validate
from kvblock_service.rpc.caller import Caller, Shown, shown_by
from kvblock_service.rpc.calls import Admit, Context, Permit
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


METHODS = {
    "Allocate": Takes.OWN,
    "Free": Takes.OWN,
    "FreeReturningCount": Takes.OWN,
    "GetBlockTable": Takes.OWN,
    "CanAllocate": Takes.OWN,
    "Stats": Takes.VIEW,
    "Step": Takes.OWN,
    "AttachEngine": Takes.OWN,
    "RenewLease": Takes.OWN,
    "DetachEngine": Takes.OWN,
    "Session": Takes.SESSION,
    "ListPools": Takes.ADMIN,
    "CreatePool": Takes.ADMIN,
    "DeletePool": Takes.ADMIN,
    "ListEngines": Takes.ADMIN,
    "ReclaimEngine": Takes.ADMIN,
    "ListBlocks": Takes.ADMIN,
    "ListSequences": Takes.ADMIN,
    "Audit": Takes.ADMIN,
    "Drain": Takes.ADMIN,
}


class Gate:
    """The way into a host for those whom an access file names."""

    def __init__(self, host: Host, access: Reloaded[Identities], turned_away: TurnedAway) -> None:
        self._host = host
        self._access = access
        self._turned_away = turned_away
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
            shown = shown_by(context, self._turned_away.logins)
            # They are exchanged by another thread, so they are asked for once.
            known = self.identities
            first = self._identified(shown, known)
            self._count(first.identity)

            def permit(request: Any) -> None:
                caller = first if self.identities is known else self.still(shown)
                if takes is Takes.ADMIN:
                    self.need_admin(caller, method)
                elif takes is Takes.VIEW:
                    self._need_view(caller, request.pool, request.engine)
                else:
                    self.need(caller, request.pool, request.engine)

            return permit

        return enter

    def admit_admin(self, method: str) -> Admit:
        """What lets admins, and nobody else, call a method of another service.

        It raises Unauthenticated or PermissionDenied.
        """

        def enter(context: Context) -> Permit:
            self.need_admin(self.caller(context), method)
            return lambda _: None

        return enter

    def session(self, context: Context) -> "SessionPass":
        """The pass of a session whose stream has just been opened.

        Raises:
            Unauthenticated: nobody knows who opened it.
            RateLimited: it has made too many calls before.

        """
        shown = shown_by(context, self._turned_away.logins)
        self._count(self._identified(shown, self.identities).identity)
        return SessionPass(self, shown)

    def caller(self, context: Context) -> Caller:
        """Who calls a method, by the access file as it is now.

        Raises:
            Unauthenticated: nobody knows.

        """
        shown = shown_by(context, self._turned_away.logins)
        return self._identified(shown, self.identities)

    def still(self, shown: Shown) -> Caller:
        """Who has shown this, by the identities that are in force by now.

        Raises:
            Unauthenticated: nobody any more.

        """
        identity = shown.identity(self.identities)
        if identity is None:
            raise self.failed(LoginFailure.WITHDRAWN, shown.peer)
        return Caller(identity, shown.peer)

    def failed(self, failure: LoginFailure, peer: str) -> Unauthenticated:
        """A failed login: it is counted, and the caller learns why."""
        self._turned_away.logins.count(failure, peer)
        return Unauthenticated(failure.value)

    def rate(self, identity: Identity) -> Rate | None:
        """How fast an identity is; None when it may be as fast as it likes."""
        allowed = identity.calls_per_second
        if allowed is None:
            return None
        rate = self._rates.get(identity.name)
        if rate is None or rate.per_second != allowed:
            rate = self._rates[identity.name] = Rate(allowed, time.monotonic())
        return rate

    def need(self, caller: Caller, pool: str, engine: str) -> None:
        """Let a caller be this engine in this pool; empty names mean the default ones.

        Raises:
            PermissionDenied: it may not.
            InvalidField: a name is none.

        """
        engine = validate.engine_name(engine)
        if not caller.identity.may_use_engine(engine):
            raise self._denied(Denial.ENGINE, caller, f"be engine {engine!r}")
        pool = validate.pool_name(pool) or self._host.default_pool
        # Without a default pool an empty name is an error of its own.
        if pool and not caller.identity.may_use_pool(pool):
            raise self._denied(Denial.POOL, caller, f"use pool {pool!r}")

    def need_admin(self, caller: Caller, method: str) -> None:
        """Let a caller use a method that is for admins.

        Raises:
            PermissionDenied: it is no admin.

        """
        if not caller.identity.admin:
            raise self._denied(Denial.ADMIN, caller, f"call {method}, which is for admins")

    def _need_view(self, caller: Caller, pool: str, engine: str) -> None:
        identity = caller.identity
        if identity.admin:
            return
        if not engine and not identity.may_use_every_engine:
            raise self._denied(Denial.ENGINE, caller, "look at every engine; name one")
        if engine and not identity.may_use_engine(validate.engine_name(engine)):
            raise self._denied(Denial.ENGINE, caller, f"look at engine {engine!r}")
        for name in [validate.pool_name(pool)] if pool else self._host.pools:
            if not identity.may_use_pool(name):
                what = f"look at pool {pool!r}" if pool else "look at every pool; name one"
                raise self._denied(Denial.POOL, caller, what)

    def _identified(self, shown: Shown, known: Identities) -> Caller:
        identity = shown.identity(known)
        if identity is None:
            raise self.failed(shown.failure(), shown.peer)
        return Caller(identity, shown.peer)

    def _denied(self, denial: Denial, caller: Caller, what: str) -> PermissionDenied:
        identity = caller.identity.name
        self._turned_away.denials.count(denial, caller.peer, identity, what)
        return PermissionDenied(identity, what)

    def _count(self, identity: Identity) -> None:
        rate = self.rate(identity)
        if rate is not None:
            wait = rate.refused_for(time.monotonic())
            if wait:
                raise RateLimited(identity.name, f"{rate.per_second:g}", wait)


class SessionPass:
    """Lets one session through, as long as its caller may be its engine."""

    def __init__(self, gate: Gate, shown: Shown) -> None:
        self._gate = gate
        self._shown = shown
        self._pool = self._engine = ""
        self._known = gate.identities
        self._rate: Rate | None = None

    def attach(self, pool: str, engine: str) -> None:
        """Settle who the session is; empty names mean the default ones.

        Raises:
            PermissionDenied: its caller may not be this engine in this pool.
            InvalidField: a name is none.

        """
        self._pool, self._engine = pool, engine
        self._renew()

    async def step(self) -> None:
        """Let the next message through, when its time has come.

        Raises:
            Unauthenticated: the access file has changed and does not know the caller any more.
            PermissionDenied: it has changed, and the caller may not be this engine any more.

        """
        if self._gate.identities is not self._known:
            self._renew()
        if self._rate is not None:
            wait = self._rate.held_for(time.monotonic())
            if wait:
                await asyncio.sleep(wait)

    def _renew(self) -> None:
        known = self._gate.identities
        caller = self._gate.still(self._shown)
        self._gate.need(caller, self._pool, self._engine)
        self._rate = self._gate.rate(caller.identity)
        self._known = known
