"""`kvblock serve`: the flags of the server.

Rules:
- There is a flag for every setting; its parameter has the setting's name. Values are handed on as
  they were written, so that the configuration judges flags, variables and the file alike.
- The service is loaded when the command runs; besides here only in `kvblock journal`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from kvblock.cli.failures import USAGE, CommandError, not_installed
from kvblock.cli.output import console, print_json, table
from kvblock.cli.register import add_command
from kvblock.extras import install_hint

if TYPE_CHECKING:
    from kvblock_service.config import LoadedConfig

_NOT_SETTINGS = ("config_file", "check", "as_json")
_POOLS, _ACCESS, _STATE = "Pools and addresses", "Access", "State"
_BEHAVIOUR, _LIMITS = "Behaviour", "Limits"


def _flag(metavar: str, help_text: str, panel: str, *names: str) -> Any:
    return typer.Option(
        *names, metavar=metavar, help=help_text, rich_help_panel=panel, show_default=False
    )


def _limit(help_text: str, default: str) -> Any:
    return _flag("N", f"{help_text} [dim]\\[default: {default}][/]", _LIMITS)


Pools = Annotated[
    list[str] | None,
    _flag(
        "SPEC",
        "A pool: NAME:total=4096, then, if they differ, ,block_size=16 and ,device=0 and"
        " ,quarantine=SECONDS. Once for each pool, at least one.",
        _POOLS,
        "--pool",
    ),
]
DefaultPool = Annotated[
    str | None,
    _flag(
        "NAME", "What requests mean that name no pool. [dim]\\[default: the only pool][/]", _POOLS
    ),
]
Listen = Annotated[
    list[str] | None,
    _flag(
        "ADDRESS",
        "unix:PATH, HOST:PORT or \\[IPv6]:PORT; port 0 is any free one. Once for each address."
        " [dim]\\[default: unix:/run/kvblock.sock for root, for others kvblock.sock in"
        " $XDG_RUNTIME_DIR][/]",
        _POOLS,
    ),
]
MetricsListen = Annotated[
    str | None,
    _flag("HOST:PORT", "Where Prometheus may scrape. [dim]\\[default: nowhere][/]", _POOLS),
]
Insecure = Annotated[
    bool | None,
    typer.Option(
        "--insecure",
        help="Permit addresses that other machines can reach without TLS.",
        rich_help_panel=_ACCESS,
        show_default=False,
    ),
]
TlsCert = Annotated[
    str | None,
    _flag("FILE", "The certificate of the TCP addresses, with its chain, PEM.", _ACCESS),
]
TlsKey = Annotated[str | None, _flag("FILE", "The certificate's key, PEM.", _ACCESS)]
TlsClientCa = Annotated[
    str | None, _flag("FILE", "Authorities whose certificates clients have to show, PEM.", _ACCESS)
]
AccessFile = Annotated[
    str | None,
    _flag("FILE", "Who may do what, TOML. [dim]\\[default: everybody everything][/]", _ACCESS),
]
UnixMode = Annotated[
    str | None, _flag("MODE", "Of Unix sockets. [dim]\\[default: 0600][/]", _ACCESS)
]
UnixOwner = Annotated[
    str | None, _flag("USER", "Of Unix sockets. [dim]\\[default: the server's][/]", _ACCESS)
]
UnixGroup = Annotated[
    str | None, _flag("GROUP", "Of Unix sockets. [dim]\\[default: the server's][/]", _ACCESS)
]
ConfigFile = Annotated[
    Path | None,
    _flag(
        "FILE", "A TOML file with settings (KVBLOCK_CONFIG names one, too).", _BEHAVIOUR, "--config"
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Show every setting, its value and its source, and start nothing.",
        rich_help_panel=_BEHAVIOUR,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="With --check: as JSON.", rich_help_panel=_BEHAVIOUR)
]
Grace = Annotated[
    str | None,
    _flag(
        "SECONDS",
        "How long a shutdown waits for running calls. [dim]\\[default: 10][/]",
        _BEHAVIOUR,
    ),
]
RetryAfter = Annotated[
    str | None,
    _flag(
        "SECONDS", "When a refused client should try again. [dim]\\[default: 0.01][/]", _BEHAVIOUR
    ),
]
LeaseTtl = Annotated[
    str | None,
    _flag(
        "SECONDS",
        "How long an engine's lease lasts without renewal. [dim]\\[default: 10][/]",
        _BEHAVIOUR,
    ),
]
LeaseTtlMin = Annotated[
    str | None,
    _flag("SECONDS", "The shortest TTL that a lease may have. [dim]\\[default: 1][/]", _BEHAVIOUR),
]
LeaseTtlMax = Annotated[
    str | None,
    _flag(
        "SECONDS", "The longest TTL that a lease may have. [dim]\\[default: 3600][/]", _BEHAVIOUR
    ),
]
KeepaliveSeconds = Annotated[
    str | None,
    _flag(
        "SECONDS",
        "How long a connection may be silent before a ping, and the ping unanswered."
        " [dim]\\[default: 30][/]",
        _BEHAVIOUR,
    ),
]
SlowReaderSeconds = Annotated[
    str | None,
    _flag(
        "SECONDS",
        "How long a session may leave an answer unread, or not attach. [dim]\\[default: 30][/]",
        _BEHAVIOUR,
    ),
]
RequestSeconds = Annotated[
    str | None,
    _flag(
        "SECONDS",
        "How long the request of a call may take to arrive. [dim]\\[default: 10][/]",
        _BEHAVIOUR,
    ),
]
StateDir = Annotated[
    str | None,
    _flag(
        "DIR",
        "Where the journal is, from which a restart takes up everything. [dim]\\[default:"
        " /var/lib/kvblock for root, for others kvblock in $XDG_STATE_HOME][/]",
        _STATE,
    ),
]
Durability = Annotated[
    str | None,
    _flag(
        "WHAT",
        "What the journal outlives: process, or host, which syncs every commit to the disk."
        " [dim]\\[default: process][/]",
        _STATE,
    ),
]
Ephemeral = Annotated[
    bool | None,
    typer.Option(
        "--ephemeral",
        help="Keep no journal: a restart begins with empty pools.",
        rich_help_panel=_STATE,
        show_default=False,
    ),
]
SnapshotRecords = Annotated[
    str | None,
    _flag("N", "Records after which a snapshot is made. [dim]\\[default: 50000][/]", _STATE),
]
SnapshotBytes = Annotated[
    str | None,
    _flag(
        "N",
        "Bytes in records after which a snapshot is made. [dim]\\[default: 67108864][/]",
        _STATE,
    ),
]
FormerStateSeconds = Annotated[
    str | None,
    _flag(
        "SECONDS",
        "How long a journal that does not count any more stays, under another name."
        " [dim]\\[default: 604800][/]",
        _STATE,
    ),
]
LogFormat = Annotated[
    str | None,
    _flag(
        "FORMAT",
        "text, json, or auto: text on a terminal, json otherwise. [dim]\\[default: auto][/]",
        _BEHAVIOUR,
    ),
]
LogLevel = Annotated[
    str | None,
    _flag("LEVEL", "debug, info, warning or error. [dim]\\[default: info][/]", _BEHAVIOUR),
]
MessageBytesMax = Annotated[str | None, _limit("Bytes in a request.", "4194304")]
BlocksPerRequestMax = Annotated[str | None, _limit("Blocks that one request asks for.", "1000000")]
SequencesPerStepMax = Annotated[
    str | None, _limit("Sequences that one step frees, and that it serves.", "65536")
]
SequencesPerEngineMax = Annotated[str | None, _limit("Sequences of an engine.", "1048576")]
PoolsMax = Annotated[
    str | None, _limit("Pools of the server, for those who create one while it runs.", "64")
]
EnginesMax = Annotated[str | None, _limit("Engines in a pool.", "1024")]
SessionsMax = Annotated[str | None, _limit("Sessions of the server.", "1024")]
WaitQueueMax = Annotated[str | None, _limit("Allocations that wait in a pool.", "1024")]
MaxWaitMax = Annotated[str | None, _limit("Seconds that an allocation may wait.", "60.0")]
RequestIdsMax = Annotated[
    str | None, _limit("Results of a pool that are remembered by request_id.", "65536")
]
PageSizeMax = Annotated[str | None, _limit("Rows in a page of a listing.", "10000")]
HealthWatchesMax = Annotated[str | None, _limit("Health watches at once.", "256")]
ConnectionsMax = Annotated[str | None, _limit("Connections of an address.", "1024")]
CallsPerConnectionMax = Annotated[
    str | None, _limit("Calls that one connection has at once.", "4096")
]
ConcurrentCallsMax = Annotated[str | None, _limit("Calls that are served at once.", "4096")]


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    add_command(
        app,
        serve,
        epilog="Every setting is also a variable (KVBLOCK_LISTEN for --listen, KVBLOCK_POOLS for"
        " --pool; lists separated by blanks) and a key of the TOML file (listen, \\[\\[pools]] with"
        " name, total, block_size, device, quarantine). Flags win over variables, variables over"
        " the file."
        "\n\nExample: [bold]kvblock serve --pool main:total=4096 --listen unix:/tmp/kv.sock[/]",
    )


def serve(
    context: typer.Context,
    pools: Pools = None,
    default_pool: DefaultPool = None,
    listen: Listen = None,
    metrics_listen: MetricsListen = None,
    insecure: Insecure = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_client_ca: TlsClientCa = None,
    access_file: AccessFile = None,
    unix_mode: UnixMode = None,
    unix_owner: UnixOwner = None,
    unix_group: UnixGroup = None,
    config_file: ConfigFile = None,
    check: Check = False,
    as_json: AsJson = False,
    grace: Grace = None,
    retry_after: RetryAfter = None,
    lease_ttl: LeaseTtl = None,
    lease_ttl_min: LeaseTtlMin = None,
    lease_ttl_max: LeaseTtlMax = None,
    keepalive_seconds: KeepaliveSeconds = None,
    slow_reader_seconds: SlowReaderSeconds = None,
    request_seconds: RequestSeconds = None,
    state_dir: StateDir = None,
    durability: Durability = None,
    ephemeral: Ephemeral = None,
    snapshot_records: SnapshotRecords = None,
    snapshot_bytes: SnapshotBytes = None,
    former_state_seconds: FormerStateSeconds = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    message_bytes_max: MessageBytesMax = None,
    blocks_per_request_max: BlocksPerRequestMax = None,
    sequences_per_step_max: SequencesPerStepMax = None,
    sequences_per_engine_max: SequencesPerEngineMax = None,
    pools_max: PoolsMax = None,
    engines_max: EnginesMax = None,
    sessions_max: SessionsMax = None,
    wait_queue_max: WaitQueueMax = None,
    max_wait_max: MaxWaitMax = None,
    page_size_max: PageSizeMax = None,
    request_ids_max: RequestIdsMax = None,
    concurrent_calls_max: ConcurrentCallsMax = None,
    health_watches_max: HealthWatchesMax = None,
    connections_max: ConnectionsMax = None,
    calls_per_connection_max: CallsPerConnectionMax = None,
) -> None:
    """Serve block pools until SIGTERM or Ctrl-C.

    Prints "kvblock ready listen=ADDRESS ..." when it is ready; logs to stderr. Exits with 0 when it
    was shut down in order, 1 when it cannot listen or serve its state.
    """
    if as_json and not check:
        raise typer.BadParameter("--json goes with --check")
    _serve(_load(context.params, config_file), check=check, as_json=as_json)


def _serve(loaded: LoadedConfig, *, check: bool, as_json: bool) -> None:
    if check:
        _show(loaded, as_json=as_json)
        return
    from kvblock_service.main import run

    raise typer.Exit(run(loaded.config))


def _load(parameters: dict[str, object], config_file: Path | None) -> LoadedConfig:
    flags = {name: value for name, value in parameters.items() if name not in _NOT_SETTINGS}
    try:
        from kvblock_service.config import ConfigError, load_with_sources

        importlib.import_module("kvblock_service.main")
    except ModuleNotFoundError as error:
        raise not_installed(error, "the server", install_hint("server")) from error
    try:
        return load_with_sources(flags, config_file)
    except ConfigError as error:
        raise CommandError(USAGE, _all_problems(error.problems)) from None


def _read_files(loaded: LoadedConfig) -> None:
    """Find out whether the server could use its certificates and identities."""
    from kvblock_service.access import AccessError
    from kvblock_service.main import build_edge

    try:
        build_edge(loaded.config)
    except AccessError as error:
        raise CommandError(USAGE, str(error)) from None


def _all_problems(problems: tuple[str, ...]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"the configuration has {len(problems)} problems:", *problems])


def _show(loaded: LoadedConfig, *, as_json: bool) -> None:
    _read_files(loaded)
    values = loaded.config.flat()
    if as_json:
        print_json({"config": values, "sources": loaded.sources})
        return
    made = table("SETTING", "VALUE", "SOURCE", left=3, wrap=True)
    specs = [pool.spec() for pool in loaded.config.pools]
    for name, value in (values | {"pools": specs}).items():
        entries = value if isinstance(value, (list, tuple)) else [value]
        for row, entry in enumerate(entries):
            shown = (
                ""
                if entry in ("", None)
                else str(entry).lower()
                if isinstance(entry, bool)
                else str(entry)
            )
            made.add_row("" if row else name, shown or Text("none", "dim"), loaded.sources[name])
    console().print(made)
