"""The settings of a server: what each is for, its default and its bounds.

Rules:
- A setting stands here and nowhere else: the options of `kvblock serve`, their help and the table
  in docs/configuration.md are made of its type, its default and the text below it. Backticks stand
  around what is typed.
- Settings that depend on one another are declared in the order in which they are checked.
- A setting's name is its TOML key, its variable (`KVBLOCK_` and upper case) and its flag (`--`
  and hyphens); only `pools` has the flag `--pool`.
- What crosses one of the LIMITS is refused with an error that names it.
"""

from typing import Annotated, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from kvblock_service.config.addresses import is_loopback, listen_address, tcp_address
from kvblock_service.config.pool_config import BLOCKS_MAX, PoolConfig
from kvblock_service.config.values import (
    default_state_dir,
    directory,
    group,
    items,
    mode,
    one_of,
    path,
    pool_fields,
    seconds,
    text,
    truth,
    user,
    whole,
)

MEMORY_DIR = "/dev/shm"
"""Where the memory of pools is unless a setting says otherwise."""
_TTL_MIN, _TTL_MAX = 0.5, 86_400


class Panel(NamedTuple):
    """The heading under which a setting is listed."""

    title: str


POOLS, ACCESS = Panel("Pools and addresses"), Panel("Access")
BEHAVIOUR, STATE, LIMITS = Panel("Behaviour"), Panel("State"), Panel("Limits")


class Shown(NamedTuple):
    """What stands for a setting's value, and for its default, where its type does not tell."""

    metavar: str = ""
    default: str = ""


def _served(value: object, info: ValidationInfo) -> str:
    address = listen_address(text(value))
    # A tls_cert that is wrong is a problem of its own.
    if info.data.get("tls_cert", "wrong") is not None:
        return address
    return _permitted(address, info, ", give tls_cert and tls_key,")


def _scraped(value: object, info: ValidationInfo) -> str | None:
    return None if value is None else _permitted(tcp_address(text(value)), info)


def _permitted(address: str, info: ValidationInfo, other_way: str = ",") -> str:
    if info.data.get("insecure", True) or is_loopback(address):
        return address
    raise ValueError(
        f"is open to other machines, and nothing protects it; use a loopback address{other_way} or"
        " permit it with --insecure"
    )


_Pool = Annotated[PoolConfig, BeforeValidator(pool_fields)]
_Address = Annotated[str, BeforeValidator(_served)]
_List = BeforeValidator(items)
_HIGHEST = 2**20


class ServerSettings(BaseModel):
    """Every setting of `kvblock serve`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pools: Annotated[tuple[_Pool, ...], _List, POOLS, Shown("SPEC")]
    """The pools, at least one: `NAME:total=4096`, then, if they differ, `,block_size=16` and
    `,device=0`; `,reserved=N`, if blocks 0 to N - 1 shall never be issued; `,block_bytes=BYTES`,
    `,regions=N` and `,layout=TEXT`, if engines shall be held against what they were built for;
    `,memory=shm` for memory that the server makes, or `,memory=URI`; and `,quarantine=SECONDS`, if
    the blocks of a vanished engine shall not wait for its TTL."""
    default_pool: Annotated[str, POOLS, Shown("NAME", "the only pool")] = ""
    """What requests mean that name no pool."""
    insecure: Annotated[bool, truth, ACCESS] = False
    """Permit addresses that other machines can reach without TLS."""
    tls_cert: Annotated[str | None, path, ACCESS] = None
    """The certificate of the TCP addresses, with its chain, PEM."""
    tls_key: Annotated[str | None, path, ACCESS] = Field(None, validate_default=True)
    """The certificate's key, PEM."""
    tls_client_ca: Annotated[str | None, path, ACCESS] = None
    """Authorities whose certificates clients have to show, PEM."""
    access_file: Annotated[
        str | None, path, ACCESS, Shown(default="everybody may do everything")
    ] = None
    """Who may do what, TOML."""
    unix_mode: Annotated[str, mode, ACCESS] = "0600"
    """The mode of Unix sockets."""
    unix_owner: Annotated[str | None, user, ACCESS, Shown(default="the server's")] = None
    """The owner of Unix sockets, by name or number."""
    unix_group: Annotated[str | None, group, ACCESS, Shown(default="the server's")] = None
    """The group of Unix sockets, by name or number."""
    listen: Annotated[
        tuple[_Address, ...],
        _List,
        POOLS,
        Shown(
            "ADDRESS",
            "`unix:/run/kvblock.sock` for root, for others `kvblock.sock` in `$XDG_RUNTIME_DIR`",
        ),
    ]
    """Where clients connect: `unix:PATH`, `HOST:PORT` or `[IPv6]:PORT`; port 0 is any free one."""
    metrics_listen: Annotated[
        str | None, BeforeValidator(_scraped), POOLS, Shown("HOST:PORT", "nowhere")
    ] = None
    """Where Prometheus may scrape."""
    grace: Annotated[float, seconds(0, 3600), BEHAVIOUR] = 10.0
    """How long a shutdown waits for running calls."""
    retry_after: Annotated[float, seconds(0, 60), BEHAVIOUR] = 0.010
    """When a refused client should try again."""
    lease_ttl_min: Annotated[float, seconds(_TTL_MIN, _TTL_MAX), BEHAVIOUR] = 1.0
    """The shortest TTL that a lease may have."""
    lease_ttl_max: Annotated[float, seconds(_TTL_MIN, _TTL_MAX), BEHAVIOUR] = 3600.0
    """The longest TTL that a lease may have."""
    lease_ttl: Annotated[float, seconds(_TTL_MIN, _TTL_MAX), BEHAVIOUR] = 10.0
    """How long an engine's lease lasts without renewal, unless it asks for another TTL."""
    keepalive_seconds: Annotated[float, seconds(1, 86_400), BEHAVIOUR] = 30.0
    """How long a connection may be silent before a ping, and the ping unanswered."""
    slow_reader_seconds: Annotated[float, seconds(0.1, 86_400), BEHAVIOUR] = 30.0
    """How long a session may leave an answer unread, or not attach."""
    request_seconds: Annotated[float, seconds(0.1, 86_400), BEHAVIOUR] = 10.0
    """How long the request of a call, or a stream's first message, may take to arrive."""
    state_dir: Annotated[
        str,
        directory,
        STATE,
        Shown(default="`/var/lib/kvblock` for root, for others `kvblock` in `$XDG_STATE_HOME`"),
    ] = Field(default_factory=default_state_dir)
    """Where the journal is, from which a restart takes up everything."""
    durability: Annotated[str, one_of("process", "host"), STATE] = "process"
    """What the journal outlives: `process`, or `host`, which syncs every commit to the disk."""
    ephemeral: Annotated[bool, truth, STATE] = False
    """Keep no journal: a restart begins with empty pools."""
    memory_dir: Annotated[str, directory, STATE] = MEMORY_DIR
    """Where the memory of pools with `memory=shm` is: a directory of a file system in memory."""
    snapshot_records: Annotated[int, whole(1, 2**40), STATE] = 50_000
    """Records after which a snapshot is made; a restart replays about as many."""
    snapshot_bytes: Annotated[int, whole(1, 2**50), STATE] = 64 * 1024 * 1024
    """Bytes in records after which a snapshot is made."""
    former_state_seconds: Annotated[float, seconds(0, 31_536_000), STATE] = 604_800.0
    """How long a journal that does not count any more stays, as `EPOCH.former-MILLISECONDS`; 0: it
    is removed at once."""
    log_format: Annotated[str, one_of("auto", "text", "json"), BEHAVIOUR] = "auto"
    """`text`, `json`, or `auto`: text on a terminal, JSON otherwise."""
    log_level: Annotated[str, one_of("debug", "info", "warning", "error"), BEHAVIOUR] = "info"
    """What is logged: `debug`, `info`, `warning` or `error`, each with those after it."""

    # gRPC reads up to four times as much, and counts bytes in 32 bits.
    message_bytes_max: Annotated[int, whole(1024, 2**28), LIMITS] = 4 * 1024 * 1024
    """Bytes in a request."""
    # A million block numbers fit into the 4 MiB that gRPC clients take unless told otherwise.
    blocks_per_request_max: Annotated[int, whole(1, BLOCKS_MAX), LIMITS] = 1_000_000
    """Blocks that one request asks for."""
    sequences_per_step_max: Annotated[int, whole(1, 2**24), LIMITS] = 65_536
    """Sequences that one step frees, and that it serves."""
    sequences_per_engine_max: Annotated[int, whole(1, BLOCKS_MAX), LIMITS] = 1_048_576
    """Sequences of an engine."""
    pools_max: Annotated[int, whole(1, 2**16), LIMITS] = 64
    """Pools of the server, when one is created while it runs."""
    engines_max: Annotated[int, whole(1, _HIGHEST), LIMITS] = 1024
    """Engines in a pool."""
    sessions_max: Annotated[int, whole(1, _HIGHEST), LIMITS] = 1024
    """Sessions of the server."""
    wait_queue_max: Annotated[int, whole(0, _HIGHEST), LIMITS] = 1024
    """Allocations that wait in a pool."""
    max_wait_max: Annotated[float, seconds(0, 86_400), LIMITS] = 60.0
    """How long an allocation may wait."""
    page_size_max: Annotated[int, whole(1, 1_000_000), LIMITS] = 10_000
    """Rows in a page of a listing."""
    request_ids_max: Annotated[int, whole(0, 2**24), LIMITS] = 65_536
    """Results of a pool that are remembered by `request_id`."""
    concurrent_calls_max: Annotated[int, whole(1, 2**24), LIMITS] = 4096
    """Calls that are served at once, sessions among them; 64 more for renewals and health
    checks."""
    health_watches_max: Annotated[int, whole(0, _HIGHEST), LIMITS] = 256
    """Health watches at once, which need no identity."""
    connections_max: Annotated[int, whole(1, _HIGHEST), LIMITS] = 1024
    """Connections of each address; those beyond are closed."""
    calls_per_connection_max: Annotated[int, whole(1, _HIGHEST), LIMITS] = 4096
    """Calls that one connection has at once; a client keeps those beyond until others end."""

    @field_validator("pools")
    @classmethod
    def _pools_differ(cls, pools: tuple[PoolConfig, ...]) -> tuple[PoolConfig, ...]:
        return _without_repeats(pools, [pool.name for pool in pools])

    @field_validator("default_pool", mode="before")
    @classmethod
    def _default_pool_exists(cls, value: object, info: ValidationInfo) -> str:
        names = [pool.name for pool in info.data.get("pools", ())]
        if value == "" or not names or value in names:
            return str(value)
        raise ValueError(f"must be one of the pools: {', '.join(names)}")

    @field_validator("tls_key")
    @classmethod
    def _key_goes_with_certificate(cls, key: str | None, info: ValidationInfo) -> str | None:
        certificate = info.data.get("tls_cert", key)
        if certificate is None and key is not None:
            raise ValueError("goes with a certificate; give tls_cert, too")
        if certificate is not None and key is None:
            raise ValueError("not given; tls_cert needs its key")
        return key

    @field_validator("tls_client_ca")
    @classmethod
    def _clients_show_certificates_over_tls(
        cls, authorities: str | None, info: ValidationInfo
    ) -> str | None:
        if authorities is not None and info.data.get("tls_cert", authorities) is None:
            raise ValueError("goes with TLS; give tls_cert and tls_key, too")
        return authorities

    @field_validator("listen")
    @classmethod
    def _addresses_differ(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        fixed = [a for a in addresses if a.startswith("unix:") or not a.endswith(":0")]
        return _without_repeats(addresses, fixed)

    @field_validator("lease_ttl_max", "lease_ttl", mode="before")
    @classmethod
    def _ttl_is_within_the_others(cls, value: object, info: ValidationInfo) -> float:
        low = info.data.get("lease_ttl_min", _TTL_MIN)
        return seconds(low, info.data.get("lease_ttl_max", _TTL_MAX))(value)

    def as_toml(self) -> dict[str, object]:
        """Every setting by its name, as TOML would hold it."""
        return self.model_dump() | {"pools": [pool.table() for pool in self.pools]}

    def exposed(self) -> tuple[str, ...]:
        """The addresses that other machines may reach without TLS."""
        plain = () if self.tls_cert else self.listen
        addresses = (*plain, *([self.metrics_listen] if self.metrics_listen else ()))
        return tuple(address for address in addresses if not is_loopback(address))

    def unguarded(self) -> tuple[str, ...]:
        """The addresses that other machines may reach over TLS, and then do everything."""
        if not self.tls_cert or self.tls_client_ca or self.access_file:
            return ()
        return tuple(address for address in self.listen if not is_loopback(address))


_Entries = TypeVar("_Entries", bound=tuple[object, ...])


def _without_repeats(entries: _Entries, keys: list[str]) -> _Entries:
    if not entries:
        raise ValueError("must not be empty")
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ValueError(f"must not name {', '.join(repeated)} twice")
    return entries
