"""Keeps a lease alive, and reports its loss.

Rules:
- A daemon thread with a connection of its own renews the lease a third of the TTL after the last
  call that the server answered. It needs neither the application's event loop nor its streams, so
  a busy or blocked application keeps its lease as long as the process runs at all.
- The thread lives while the lease does, and refers to nothing that would keep a session from being
  collected, except what `on_lost` refers to.
- It connects when it renews for the first time. A server that does not answer is tried again on a
  new connection; only a server that says so, or the local deadline, ends the lease.
- Nothing that goes wrong in it ends the thread: it is logged and the renewal is tried again, until
  the deadline ends the lease and the loss is reported.
- It needs no other thread, so that it goes on where none can be started for now. So a renewal under
  way is not cancelled when the lease is released: it ends with its answer or its own deadline.
- It reports a loss once, and never the end of a lease that was released.
- It is not there in a forked child, in which the lease is its parent's.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from time import monotonic

import grpc

from kvblock import retained
from kvblock.answers import seconds
from kvblock.errors import DeadlineExceededError, LeaseLostError
from kvblock.failures import error_of
from kvblock.lease import Lease, OnLeaseLost
from kvblock.recall import fill_hints
from kvblock.retry import backoff
from kvblock.settings import ClientSettings, open_channel
from kvblock.stalled import close_in_time
from kvblock.v1 import kvblock_pb2 as pb
from kvblock.v1 import kvblock_pb2_grpc

RENEW_AFTER = 1 / 3
"""The part of the TTL after which a lease is renewed."""
CALL_SECONDS_MIN = 0.05

_log = logging.getLogger(__name__)


class Renewal:
    """The thread of one lease."""

    def __init__(
        self, lease: Lease, settings: ClientSettings, pool: str, on_lost: OnLeaseLost
    ) -> None:
        self._lease = lease
        self._settings = settings
        self._request = pb.RenewLeaseRequest(pool=pool, engine=lease.engine, epoch=lease.epoch)
        self._on_lost = on_lost
        self._channel: grpc.Channel | None = None
        self._not_before = 0.0
        self._failures = 0
        self._logged = False
        retained.register(self)
        thread = threading.Thread(target=self._run, name="kvblock-renewal", daemon=True)
        thread.start()

    def stop(self) -> None:
        """Release the lease; from any thread, more than once if need be."""
        self._lease.release()

    def _run(self) -> None:
        while self._wait_until_due():
            try:
                self._renew()
            except Exception:  # noqa: BLE001 - a lease must not end unseen, whatever it is
                self._failed_unexpectedly()
        self._close_channel()
        if self._lease.lost is not None:
            try:
                self._on_lost(self._lease.lost)
            except Exception:  # noqa: BLE001 - it is the user's own, and is logged
                _log.exception("on_lease_lost failed")

    def _wait_until_due(self) -> bool:
        """Sleep until the lease has to be renewed; False when it has ended."""
        lease = self._lease
        with lease.changed:
            while not lease.ended:
                now = monotonic()
                confirmed_at = lease.confirmed_at
                ends_at = confirmed_at + lease.ttl
                due_at = max(confirmed_at + lease.ttl * RENEW_AFTER, self._not_before)
                if now >= ends_at:
                    lease.expire()
                elif now >= due_at:
                    return True
                else:
                    lease.changed.wait(min(due_at, ends_at) - now)
        return False

    def _renew(self) -> None:
        lease = self._lease
        sent = monotonic()
        # Half of what is left: there is time for another try on another connection.
        timeout = max(lease.remaining / 2, CALL_SECONDS_MIN)
        if self._channel is None:
            self._channel = open_channel(self._settings, grpc.insecure_channel, grpc.secure_channel)
        if (hints := lease.recall.hints) is not None:
            fill_hints(self._request.hints, hints)
        stub = kvblock_pb2_grpc.KVBlockServiceStub(self._channel)
        try:
            # Not `future`, which starts a thread per call. When that fails gRPC waits for ever: for
            # the channel's next call, and when the channel is closed or collected.
            answer = stub.RenewLease(
                self._request, timeout=timeout, metadata=self._settings.credentials.metadata
            )
        except grpc.RpcError as failed:
            self._failed(failed)
        else:
            self._failures = 0
            self._logged = False
            lease.confirm(sent, seconds(answer.ttl))
            lease.recall.renewed_in_background(answer.owed_blocks)

    def _failed(self, failed: grpc.RpcError) -> None:
        error = error_of(failed, self._settings.address)
        if isinstance(error, LeaseLostError):
            self._lease.lose(error)
            return
        if not self._lease.ended and not self._failures:
            _log.warning("the lease of %r cannot be renewed now: %s", self._lease.engine, error)
        self._try_later(error.retry_after)
        if isinstance(error, DeadlineExceededError) or error.reason is None:
            # No thread waits in gRPC during the delay, so nothing would come of a connection that
            # is being made: see `kvblock._sync.connection`.
            self._close_channel()

    def _failed_unexpectedly(self) -> None:
        """Something else than a call has failed: to be called where the exception is handled."""
        if not self._lease.ended and not self._logged:
            # Once in a row of failures: the tries are many, and their tracebacks alike.
            _log.exception("the lease of %r cannot be renewed now", self._lease.engine)
        self._logged = True
        self._try_later()

    def _try_later(self, retry_after: float | None = None) -> None:
        self._failures += 1
        pause = (retry_after or 0.0) + backoff(self._failures)
        pause = min(pause, self._lease.remaining / 4)
        self._not_before = monotonic() + pause

    def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            # Where no thread can be started to close it in, it is closed by being dropped.
            with contextlib.suppress(RuntimeError):
                close_in_time(channel.close)
