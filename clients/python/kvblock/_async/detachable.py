"""What an asyncio session and an engine's lease do alike: renew, leave, detach, close."""

from __future__ import annotations

import logging
from time import monotonic

from kvblock._async.event import StopEvent
from kvblock._async.transport import Stream, Transport
from kvblock.errors import KVBlockError, LeaseLostError
from kvblock.hints import EngineHints
from kvblock.lease import AttachOptions, Lease
from kvblock.lease_user import CLOSED, DETACHED, LeaseUser
from kvblock.lifecycle import Event
from kvblock.link import Link
from kvblock.recall import OnRecall
from kvblock.renewal import Renewal
from kvblock.retry import Retries

_log = logging.getLogger(__name__)


class Detachable(LeaseUser):
    """What holds a lease; its settings are there before it is made."""

    def __init__(self, connection: Transport, options: AttachOptions) -> None:
        self._connection = connection
        self._on_recall = options.on_recall
        self._link: Link[Stream, StopEvent] = Link(StopEvent(), options.on_lost)
        self._settings.owner.finalize(self, self._link.close)

    async def __aexit__(self, *_: object) -> None:
        if not self._settings.owner.is_here:
            return
        try:
            if self.lease_valid:
                await self._end_running_call()
                await self.detach()
        except (KVBlockError, RuntimeError) as failure:
            _log.warning("engine %r could not detach: %s", self.engine, failure)
        finally:
            await self.close()

    async def renew(self, *, hints: EngineHints | None = None, timeout: float | None = None) -> int:
        """Renew the lease now; answers how many of the engine's idle blocks others lack.

        `hints`: what the engine lacks and could give back; None: as it said last. Nobody has to
        call this to keep the lease: that is done in the background.

        Raises:
            DeadlineExceededError, UnavailableError: no answer until the timeout.
            LeaseLostError: the lease is lost, and with it all blocks of the engine.
            ClosedError: it is not attached, or was detached or closed.

        """
        deadline = self._settings.deadline(timeout)
        self._check_call()
        with self._busy:
            request, lease = self._make_renewal(hints), self._lease
            method = self._connection.stubs.service.RenewLease
            sent = monotonic()
            try:
                answer = await self._connection.call(method, request, deadline, 0, lease)
            except LeaseLostError as failure:
                lease.lose(failure)
                raise
            if not lease.answered(sent):
                raise self._unusable()
            self._recall.renewed(hints, answer.owed_blocks)
            return answer.owed_blocks

    async def detach(self, *, timeout: float | None = None) -> int:
        """End the lease and free all of the engine's blocks; answers how many these were.

        Raises:
            DeadlineExceededError, UnavailableError: no answer until the timeout, or for as long as
                the lease can last, since it is not renewed any more; detach again to learn of its
                end.
            LeaseLostError: the lease is lost, and with it all blocks of the engine.
            ClosedError: it is not attached, or was detached or closed.

        """
        deadline = self._settings.deadline(timeout)
        self._check_call()
        with self._busy:
            request, deadline = self._make_detach(deadline)
            retries = Retries(monotonic(), deadline)
            if self._link.stream is not None:
                await self._link.stream.finish(retries.remaining())
                self._link.replace(None)
            method = self._connection.stubs.service.DetachEngine
            try:
                answer = await self._connection.call(method, request, retries.remaining())
            except LeaseLostError as failure:
                self._close(Event.DETACH_ANSWERED, str(failure))
                raise
            self._close(Event.DETACH_ANSWERED, DETACHED)
        return answer.freed_blocks

    async def close(self) -> None:
        """Keep the lease no longer, without a detach: it expires, then its blocks are taken."""
        if self._settings.owner.is_here:
            self._close(Event.CLOSED, CLOSED)
            self._link.close()

    def _renew(self, lease: Lease) -> None:
        """Renew the lease in the background from now on."""
        on_lost = self._connection.callback(self._link.lost)
        self._link.renew_by(Renewal(lease, self._settings, self.pool, on_lost))

    def hear_recall(self, call: OnRecall) -> None:
        """Have this called, too, as `on_recall` is; it keeps alive what it refers to."""
        self._recall.listeners.append(self._connection.callback(call))

    def _listen(self) -> None:
        """Have `on_recall` called from now on where the user expects it."""
        if self._on_recall is not None:
            self.hear_recall(self._on_recall)

    def _check_call(self) -> None:
        """See whether a call can be made here and now.

        Raises:
            UsageError: it cannot be used here, or a call is running.

        """
        self._connection.check_caller()

    async def _end_running_call(self) -> None:
        """End a call that is running, where there can be one."""
