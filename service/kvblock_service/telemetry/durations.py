"""The histograms: how long calls, steps, commits and waits took.

Rules:
- Durations are recorded once the answer is on its way, with attributes that were built before;
  what is collected holds all that were measured until then.
- A stream is counted when it ends, and not measured: it may last as long as its engine.
"""

import asyncio
import contextlib
import time
from collections import deque

import grpc
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, Meter

from kvblock_service.rpc.observe import AppliedCommand
from kvblock_service.telemetry import names

NO_CONTEXT = Context()
"""The context of what has no span."""

_HISTOGRAMS = (
    (
        "rpc.server.call.duration",
        "Time from the start of a call's handler to its end, by method and status; no streams.",
        (
            *(0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0025, 0.005),
            *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0),
        ),
    ),
    (
        "kvblock.step.duration",
        "Time to carry out one step of a session, without reading and writing it.",
        (
            *(0.00001, 0.00002, 0.00003, 0.00005, 0.000075, 0.0001, 0.00015, 0.00025, 0.0005),
            *(0.001, 0.0025, 0.005, 0.01, 0.05, 0.25),
        ),
    ),
    (
        "kvblock.journal.commit.duration",
        "Time of one write to the journal, in which the records of several commands may be.",
        (
            *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
            *(0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
        ),
    ),
    (
        "kvblock.allocation.wait.duration",
        "Time that an Allocate call has waited for blocks, whatever came of it.",
        (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    ),
)

_BATCH = 16


class Durations:
    """Filled in the event loop: when calls, steps, commits, waits and streams end.

    The SDK takes longer to record a duration than the core to carry out a small step, and several
    times as long when its code has left the processor's caches. So durations are recorded a few at
    a time after an answer was sent, and those that are left when metrics are collected.
    """

    def __init__(self, meter: Meter) -> None:
        self._soon = asyncio.get_running_loop().call_soon
        self._pending: deque[tuple[Histogram, float, dict[str, str] | None, Context]] = deque()
        self._attributes: dict[tuple[str, grpc.StatusCode], dict[str, str]] = {}
        self._calls, self._steps, self._commits, self._waits = (
            meter.create_histogram(
                name, unit="s", description=text, explicit_bucket_boundaries_advisory=seconds
            )
            for name, text, seconds in _HISTOGRAMS
        )
        self._streams = meter.create_counter(
            "kvblock.streams.ended", "{stream}", "Streams that have ended, by method and status."
        )

    def call(self, method: str, code: grpc.StatusCode, seconds: float, context: Context) -> None:
        """A call has ended; `context` holds its span, if it has one."""
        self._add(self._calls, seconds, self._ended(method, code), context)

    def stream(self, method: str, code: grpc.StatusCode) -> None:
        """A stream has ended."""
        self._streams.add(1, self._ended(method, code), NO_CONTEXT)

    def commit(self, seconds: float) -> None:
        """Records were written to the journal."""
        self._add(self._commits, seconds, None, NO_CONTEXT)

    def wait(self, pool: str, seconds: float) -> None:
        """An allocation waits no longer."""
        self._add(self._waits, seconds, {"pool": pool}, NO_CONTEXT)

    def observe(self, applied: AppliedCommand) -> None:
        """A command was carried out."""
        if applied.step_id:
            # The wall clock may have been set back meanwhile.
            seconds = max(0, time.time_ns() - applied.started_ns) / 1e9
            self._add(self._steps, seconds, None, NO_CONTEXT)

    def record(self) -> None:
        """Hand to the SDK what is pending; any thread may do so."""
        with contextlib.suppress(IndexError):
            while True:
                histogram, seconds, attributes, context = self._pending.popleft()
                histogram.record(seconds, attributes, context)

    def _ended(self, method: str, code: grpc.StatusCode) -> dict[str, str]:
        attributes = self._attributes.get((method, code))
        if attributes is None:
            attributes = names.method_attributes(method) | names.status_attributes(code)
            self._attributes[method, code] = attributes
        return attributes

    def _add(
        self,
        histogram: Histogram,
        seconds: float,
        attributes: dict[str, str] | None,
        context: Context,
    ) -> None:
        self._pending.append((histogram, seconds, attributes, context))
        if len(self._pending) == _BATCH:
            self._soon(self.record)
