"""Who is calling, and whether that caller may do what it asks for.

Rules:
- Who shows a token is held to it, wherever it comes from. Else a client certificate says who it is;
  else, on a Unix socket, the access file does.
- Who is calling is settled before a request is read, and what it asks for before anything is looked
  up: a caller that may not use a pool does not learn whether it exists.
- METHODS says for each method what it takes; a method that is not there takes an admin.
- A session's caller is settled at the attach. Later only a change of the access file matters: a
  session whose caller is not known any more, or may not be this engine any more, ends.
- Calls beyond an identity's rate are refused; steps of a session beyond it are held back, because
  an error would end the session.
- Health checks are open to all who can connect; reflection, channelz and whatever else is served
  beside kvblock's own services take an admin.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, NamedTuple

import grpc

from kvblock_service.access import (
    Identities,
    Identity,
    LoginFailures,
    Reloaded,
    digest_of,
)
from kvblock_service.access.failures import LoginFailure
from kvblock_service.errors import CallError, PermissionDenied, RateLimited, Unauthenticated
from kvblock_service.host import Host
from kvblock_service.rpc import calls
from kvblock_service.rpc.calls import Admit, Context, Permit
from kvblock_service.rpc.rate import Rate

REFRESH_SECONDS = 1.0
"""How long a change of the access file may stay unseen when nobody calls."""

_OWN_SERVICES = "/kvblock.v1."
_HEALTH = "/grpc.health.v1.Health/"
_BEARER = "bearer "


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


class _Shown(NamedTuple):
    """What a caller has shown: a digest, or a certificate's names, or nothing on a Unix socket."""

    digest: bytes | None
    names: tuple[str, ...]
    unix: bool
    peer: str

    def identity(self, known: Identities) -> Identity | None:
        if self.digest is not None:
            return known.by_token(self.digest)
        if self.names:
            return known.by_certificate(self.names)
        return known.unix if self.unix else None

    def failure(self) -> LoginFailure:
        if self.digest is not None:
            return LoginFailure.UNKNOWN_TOKEN
        return LoginFailure.UNKNOWN_CERTIFICATE if self.names else LoginFailure.NO_CREDENTIALS


class Gate:
    """The way into a host for those whom an access file names."""

    def __init__(self, host: Host, access: Reloaded[Identities], failures: LoginFailures) -> None:
        self._host = host
        self._access = access
        self._failures = failures
        self._rates: dict[str, Rate] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look for changes of the access file from now on, also when nobody calls."""
        self._access.refresh()
        self._timer = asyncio.get_running_loop().call_later(REFRESH_SECONDS, self.start)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def identities(self) -> Identities:
        """Those in force."""
        return self._access.value

    def admit(self, method: str) -> Admit:
        """What lets callers of a unary method in.

        It is called with the context and gives what has to be called with the request. Both raise
        Unauthenticated, PermissionDenied or RateLimited.
        """
        takes = METHODS.get(method, Takes.ADMIN)

        def enter(context: Context) -> Permit:
            identity = self.identified(shown_by(context, self._failures))
            self._count(identity)

            def permit(request: Any) -> None:
                if takes is Takes.ADMIN:
                    need_admin(identity, method)
                elif takes is Takes.VIEW:
                    self._need_view(identity, request.pool, request.engine)
                else:
                    self.need(identity, request.pool, request.engine)

            return permit

        return enter

    def session(self, context: Context) -> "SessionPass":
        """The pass of a session whose stream has just been opened.

        Raises:
            Unauthenticated: nobody knows who opened it.
            RateLimited: it has made too many calls before.

        """
        shown = shown_by(context, self._failures)
        self._count(self.identified(shown))
        return SessionPass(self, shown)

    def identified(self, shown: _Shown) -> Identity:
        """Whose credentials these are, by the access file as it is now."""
        identity = shown.identity(self._access.refresh())
        if identity is None:
            raise self.failed(shown.failure(), shown.peer)
        return identity

    def failed(self, failure: LoginFailure, peer: str) -> Unauthenticated:
        """A failed login: it is counted, and the caller learns why."""
        self._failures.count(failure, peer)
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

    def need(self, identity: Identity, pool: str, engine: str) -> None:
        """Raises PermissionDenied unless it may be this engine in this pool; empty: the default."""
        engine = engine or "default"
        if not identity.may_use_engine(engine):
            raise PermissionDenied(identity.name, f"be engine {engine!r}")
        pool = pool or self._host.default_pool
        # Without a default pool an empty name is an error of its own.
        if pool and not identity.may_use_pool(pool):
            raise PermissionDenied(identity.name, f"use pool {pool!r}")

    def _need_view(self, identity: Identity, pool: str, engine: str) -> None:
        if identity.admin:
            return
        if not engine and not identity.may_use_every_engine:
            raise PermissionDenied(identity.name, "look at every engine; name one")
        if engine and not identity.may_use_engine(engine):
            raise PermissionDenied(identity.name, f"look at engine {engine!r}")
        for name in [pool] if pool else self._host.pools:
            if not identity.may_use_pool(name):
                what = f"look at pool {pool!r}" if pool else "look at every pool; name one"
                raise PermissionDenied(identity.name, what)

    def _count(self, identity: Identity) -> None:
        rate = self.rate(identity)
        if rate is not None:
            wait = rate.refused_for(time.monotonic())
            if wait:
                raise RateLimited(identity.name, rate.per_second, wait)


class SessionPass:
    """Lets one session through, as long as its caller may be its engine."""

    def __init__(self, gate: Gate, shown: _Shown) -> None:
        self._gate = gate
        self._shown = shown
        self._pool = self._engine = ""
        self._known = gate.identities
        self._rate: Rate | None = None

    def attach(self, pool: str, engine: str) -> None:
        """Settle who the session is; empty names mean the default ones.

        Raises:
            PermissionDenied: its caller may not be this engine in this pool.

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
        identity = self._shown.identity(known)
        if identity is None:
            raise self._gate.failed(LoginFailure.WITHDRAWN, self._shown.peer)
        self._gate.need(identity, self._pool, self._engine)
        self._rate = self._gate.rate(identity)
        self._known = known


class Guard(grpc.aio.ServerInterceptor):
    """Keeps everybody but admins from the services that are not kvblock's own, but for health."""

    def __init__(self, gate: Gate, failures: LoginFailures) -> None:
        self._gate = gate
        self._failures = failures

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Awaitable[Any]"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a method, guarded if it has to be; None for a method that is unknown."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith((_OWN_SERVICES, _HEALTH)):
            return handler
        kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
        return handler._replace(**{kind: self._guarded(getattr(handler, kind), method)})

    async def _enter(self, context: Context, method: str) -> None:
        try:
            need_admin(self._gate.identified(shown_by(context, self._failures)), method[1:])
        except CallError as error:
            await calls.refuse(context, error)

    def _guarded(self, inner: Any, method: str) -> Any:
        async def call(request: Any, context: Any) -> Any:
            await self._enter(context, method)
            return await inner(request, context)

        async def generate(request: Any, context: Any) -> Any:
            await self._enter(context, method)
            async for answer in inner(request, context):
                yield answer

        return generate if inspect.isasyncgenfunction(inner) else call


_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def need_admin(identity: Identity, method: str) -> None:
    """Raises PermissionDenied unless it is an admin."""
    if not identity.admin:
        raise PermissionDenied(identity.name, f"call {method}, which is for admins")


def shown_by(context: Context, failures: LoginFailures) -> _Shown:
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
    return _Shown(digest, names, peer.startswith("unix"), peer)
