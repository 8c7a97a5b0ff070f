"""The one place that wires a server together and runs it.

Rules:
- Everything that can be refused is refused before the ready line is printed.
- The ready line is the only thing on stdout; everything else goes to the log. Whoever does not read
  them delays nothing, and the end only within its grace time.
- No coroutine is made before it can be awaited.
- SIGTERM, SIGINT and the Drain call begin a drain; the exit code is 0 when it ends within the grace
  time.
"""

import asyncio
import logging
import signal
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from kvblock_service import logging_setup, telemetry
from kvblock_service.access import AccessError, RejectedCalls, access_file, tls_files
from kvblock_service.config import ServerSettings
from kvblock_service.config.values import group_number, user_number
from kvblock_service.core.registry import PoolEntry
from kvblock_service.host import Host, HostLimits
from kvblock_service.log_stream import LogStream
from kvblock_service.memory import MemoryFileError
from kvblock_service.open_files import SPARE, OpenFiles, raise_limit
from kvblock_service.persistence import CANNOT_START, PersistentState
from kvblock_service.pool_host import PoolHost
from kvblock_service.ready import ReadyLineError, print_ready
from kvblock_service.reaper import Reaper
from kvblock_service.rpc.edge import Edge, SocketFile
from kvblock_service.rpc.listeners import ListenError
from kvblock_service.rpc.methods import ServiceOptions
from kvblock_service.rpc.server import KVBlockServer
from kvblock_service.rpc.validate import LeaseTerms, RequestLimits
from kvblock_service.telemetry import OFF, Telemetry

_LOG_END_SECONDS_MIN = 0.25
"""Shortest time that the reader of the log is given at the end, also after the grace time."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_REFUSALS: dict[type[BaseException], tuple[int, str]] = {
    AccessError: (2, "cannot use a file"),
    ListenError: (1, "cannot listen"),
    telemetry.TelemetryError: (2, "cannot set up telemetry"),
    MemoryFileError: (1, "cannot have the memory of a pool"),
    **dict.fromkeys(CANNOT_START, (1, "cannot serve from the state directory")),
    ReadyLineError: (4, "cannot write the ready line to stdout"),
}
"""The exit code, and the event for the log, of what ends a start."""

_log = logging.getLogger("kvblock")


def run(config: ServerSettings) -> int:
    """Serve until a signal asks for the end; answers the exit code.

    0: drained. 1: an address could not be bound, or the state directory cannot be served from. 2:
    the telemetry that the `OTEL_*` variables ask for cannot be set up, or a file of certificates or
    identities cannot be used. 4: the ready line cannot be written. The log says which and why.
    """
    log = logging_setup.configure(config.log_format, config.log_level)
    deadline, code = None, 0
    try:
        deadline = uvloop.run(_serve(config, log))
    except tuple(_REFUSALS) as error:
        code, event = next(_REFUSALS[kind] for kind in type(error).__mro__ if kind in _REFUSALS)
        _log.error(event, extra={"problem": str(error)})
    # A second signal must not change the code of an end that is in order.
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    left = logging_setup.END_SECONDS_MAX if deadline is None else deadline - time.monotonic()
    log.end(max(_LOG_END_SECONDS_MIN, min(left, logging_setup.END_SECONDS_MAX)))
    return code


async def _serve(config: ServerSettings, log: LogStream) -> float:
    """Serve until the end; answers when, by the monotonic clock, the grace time has passed."""
    edge = build_edge(config)
    state = PersistentState(config)
    try:
        return await _serve_state(config, edge, state, log)
    finally:
        await state.close()


async def _serve_state(
    config: ServerSettings, edge: Edge, state: PersistentState, log: LogStream
) -> float:
    host = build_host(config, state)
    files = OpenFiles()
    sources = telemetry.Sources(host, edge.rejected, log, state.committer, files)
    watch = telemetry.start(sources, config.metrics_listen)
    server = KVBlockServer(host, service_options(config, watch), watch.wrappers, edge)
    upkeep: list[asyncio.Task[None]] = []
    deadline = 0.0
    try:
        _make_room_for_connections(config)
        for address in config.listen:
            server.bind(address)
        await server.start()
        upkeep += _begin_upkeep(server, Reaper(host), state, files)
        stop = _stop_asked(host)
        _tell_start(config, server.bound)
        printed = print_ready(server.bound, watch.metrics_address, host.ask_to_stop)
        asked_by = await stop
        _log.info("draining", extra={"asked_by": asked_by, "grace_seconds": config.grace})
        deadline = time.monotonic() + config.grace
        await server.drain(config.grace)
    finally:
        for task in upkeep:
            task.cancel()
        server.release()
        await watch.stop(deadline - time.monotonic())
    if printed.done():
        printed.result()
    _log.info("stopped")
    return deadline


def _begin_upkeep(
    server: KVBlockServer, reaper: Reaper, state: PersistentState, files: OpenFiles
) -> "list[asyncio.Task[None]]":
    loop = asyncio.get_running_loop()
    works = (
        (reaper.run, "leases are no longer looked after"),
        (state.run, "the journal is no longer looked after"),
        (state.watch, "the journal is no longer written"),
        (state.remove_former, "what was set aside is no longer removed"),
        (files.run, "open files are no longer watched"),
    )
    return [loop.create_task(_looked_after(server, work, broken)) for work, broken in works]


def build_host(config: ServerSettings, state: PersistentState) -> Host:
    """The pools of a configuration, as the state has them."""
    waits = {
        pool.name: None if pool.quarantine is None else round(pool.quarantine * 1000)
        for pool in config.pools
    }

    def hosted(entry: PoolEntry) -> PoolHost:
        quarantine_ms = waits.get(entry.pool.geometry.name, entry.quarantine_ms)
        return PoolHost(entry.pool, config.wait_queue_max, quarantine_ms, state.committer)

    # Pools that were made at run time and came back do not change what an empty name means.
    only = config.pools[0].name if len(config.pools) == 1 else ""
    host_limits = HostLimits(config.sessions_max, 1.0, config.pools_max)
    return Host(
        state.registry,
        hosted,
        config.default_pool or only,
        host_limits,
        state.server_epoch,
        state.committer,
        state.memory,
    )


def build_edge(config: ServerSettings) -> Edge:
    """How clients are met under a configuration; raises AccessError for a file it cannot use."""
    tls = None
    if config.tls_cert and config.tls_key:
        client_ca = Path(config.tls_client_ca) if config.tls_client_ca else None
        tls = tls_files(Path(config.tls_cert), Path(config.tls_key), client_ca)
    access = access_file(Path(config.access_file)) if config.access_file else None
    owner = user_number(config.unix_owner) if config.unix_owner else None
    group = group_number(config.unix_group) if config.unix_group else None
    socket_file = SocketFile(int(config.unix_mode, 8), owner, group)
    # All else has the name of its setting.
    limits = config.model_dump(include=set(Edge._fields))
    return Edge(RejectedCalls(), access, tls, socket_file, **limits)


def service_options(config: ServerSettings, watch: Telemetry = OFF) -> ServiceOptions:
    """How the methods behave under a configuration."""
    limits = RequestLimits(**config.model_dump(include=set(RequestLimits._fields)))
    terms = LeaseTerms(config.lease_ttl, config.lease_ttl_min, config.lease_ttl_max)
    return ServiceOptions(
        limits, terms, config.retry_after, watch.observer, watch.trace_id, watch.waited
    )


async def _looked_after(
    server: KVBlockServer, work: Callable[[], Awaitable[None]], broken: str
) -> None:
    """Let the health go to NOT_SERVING when something fails that has to go on."""
    try:
        await work()
    except Exception:  # noqa: BLE001 - it is logged, and the health says so
        _log.critical(broken, exc_info=True)
        server.break_down(broken)


def _make_room_for_connections(config: ServerSettings) -> None:
    """Let the process have as many open files as its connections need, or say what lacks."""
    wanted = len(config.listen) * config.connections_max + SPARE
    allowed = raise_limit(wanted)
    if allowed < wanted:
        _log.warning(
            "the limit of open files is too low for connections_max; raise it (ulimit -n,"
            " LimitNOFILE=) or lower connections_max",
            extra={"limit": allowed, "needed": wanted},
        )


def _stop_asked(host: Host) -> "asyncio.Future[str]":
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[str] = loop.create_future()

    def ask(name: str) -> None:
        if not stop.done():
            stop.set_result(name)

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, ask, signal.Signals(number).name)
    host.ask_to_stop = ask
    return stop


def _tell_start(config: ServerSettings, bound: list[str]) -> None:
    for pool in config.pools:
        sizes = pool.model_dump(exclude={"name", "quarantine"})
        _log.info("pool", extra={"pool": pool.name, **sizes})
    for address in config.exposed():
        _log.warning("other machines reach this without protection", extra={"address": address})
    for address in config.unguarded():
        _log.warning(
            "whoever reaches this may do everything; tls_client_ca or access_file would ask who it"
            " is",
            extra={"address": address},
        )
    if int(config.unix_mode, 8) & stat.S_IWOTH:
        for address in bound:
            if address.startswith("unix:"):
                _log.warning("every user of this machine may open this", extra={"address": address})
