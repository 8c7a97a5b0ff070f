"""The settings of a server, their defaults and their bounds.

Rules:
- Every bound of a setting stands beside it, once.
- Settings that depend on one another are declared in the order in which they are checked.
- A setting's name is its TOML key, its variable (`KVBLOCK_` and upper case) and its flag (`--`
  and hyphens); only `pools` has the flag `--pool`.
"""

from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import NoDecode

from kvblock_service.config.addresses import is_loopback, listen_address, tcp_address
from kvblock_service.config.values import (
    POOL_KEYS,
    OneOf,
    Seconds,
    Whole,
    default_state_dir,
    directory,
    group,
    items,
    mode,
    name,
    path,
    pool_fields,
    text,
    truth,
    user,
)

BLOCKS_MAX = 2**31 - 1
"""Blocks that one pool may have."""
BLOCK_SIZE_MAX = 65_536
"""Token slots that one block may have."""
BLOCK_SIZE = 16
"""Token slots of a block unless a pool is told otherwise."""
QUARANTINE_MAX = 86_400
"""Seconds that blocks may wait in quarantine."""


def _served(value: object, info: ValidationInfo) -> str:
    address = listen_address(text(value))
    # A tls_cert that was found wrong is told of by itself.
    if info.data.get("tls_cert", "wrong") is not None:
        return address
    return _permitted(address, info, ", give tls_cert and tls_key,")


def _scraped(value: object, info: ValidationInfo) -> str | None:
    return None if value is None else _permitted(tcp_address(text(value)), info)


def _ttl_max(value: object, info: ValidationInfo) -> float:
    return Seconds(info.data.get("lease_ttl_min", 0.5), 86_400)(value)


def _ttl(value: object, info: ValidationInfo) -> float:
    low = info.data.get("lease_ttl_min", 0.5)
    return Seconds(low, info.data.get("lease_ttl_max", 86_400))(value)


def _permitted(address: str, info: ValidationInfo, other_way: str = ",") -> str:
    if info.data.get("insecure", True) or is_loopback(address):
        return address
    raise ValueError(
        f"is open to other machines, and nothing protects it; use a loopback address{other_way} or"
        " permit it with --insecure"
    )


def _quarantine(value: object) -> float | None:
    return None if value is None else Seconds(0, QUARANTINE_MAX)(value)


def _if_given(check: Callable[[object], str]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else check(value))


class PoolConfig(BaseModel):
    """One pool: `total_blocks` blocks of `block_size` token slots on device `device_id`.

    `quarantine`: seconds that the blocks of a vanished engine wait; None: as long as its lease's
    TTL.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, BeforeValidator(name)]
    total_blocks: Annotated[int, BeforeValidator(Whole(1, BLOCKS_MAX))]
    block_size: Annotated[int, BeforeValidator(Whole(1, BLOCK_SIZE_MAX))] = BLOCK_SIZE
    device_id: Annotated[int, BeforeValidator(Whole(0, 2**32 - 1))] = 0
    quarantine: Annotated[float | None, BeforeValidator(_quarantine)] = None

    def table(self) -> dict[str, object]:
        """The pool as a TOML file holds it."""
        fields = {key: getattr(self, field) for key, field in POOL_KEYS.items()}
        return {key: value for key, value in fields.items() if value is not None}

    def spec(self) -> str:
        """The pool as `--pool` takes it."""
        sizes = f"total={self.total_blocks},block_size={self.block_size},device={self.device_id}"
        wait = "" if self.quarantine is None else f",quarantine={self.quarantine:g}"
        return f"{self.name}:{sizes}{wait}"


class Limits(BaseModel):
    """How much clients may ask for. What crosses one is refused with an error that names it.

    `message_bytes_max` is in bytes, `max_wait_max` in seconds, the others count things.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # gRPC reads up to four times as much, and counts bytes in 32 bits.
    message_bytes_max: Annotated[int, BeforeValidator(Whole(1024, 2**28))] = 4 * 1024 * 1024
    # A million block numbers fit into the 4 MiB that gRPC clients take unless told otherwise.
    blocks_per_request_max: Annotated[int, BeforeValidator(Whole(1, BLOCKS_MAX))] = 1_000_000
    sequences_per_step_max: Annotated[int, BeforeValidator(Whole(1, 2**24))] = 65_536
    sequences_per_engine_max: Annotated[int, BeforeValidator(Whole(1, BLOCKS_MAX))] = 1_048_576
    pools_max: Annotated[int, BeforeValidator(Whole(1, 2**16))] = 64
    engines_max: Annotated[int, BeforeValidator(Whole(1, 2**20))] = 1024
    sessions_max: Annotated[int, BeforeValidator(Whole(1, 2**20))] = 1024
    wait_queue_max: Annotated[int, BeforeValidator(Whole(0, 2**20))] = 1024
    max_wait_max: Annotated[float, BeforeValidator(Seconds(0, 86_400))] = 60.0
    page_size_max: Annotated[int, BeforeValidator(Whole(1, 1_000_000))] = 10_000
    request_ids_max: Annotated[int, BeforeValidator(Whole(0, 2**24))] = 65_536
    concurrent_calls_max: Annotated[int, BeforeValidator(Whole(1, 2**24))] = 4096
    health_watches_max: Annotated[int, BeforeValidator(Whole(0, 2**20))] = 256
    connections_max: Annotated[int, BeforeValidator(Whole(1, 2**20))] = 1024
    calls_per_connection_max: Annotated[int, BeforeValidator(Whole(1, 2**20))] = 4096


class Settings(BaseModel):
    """All settings but the limits.

    `default_pool`: what requests mean that name no pool; empty: the only pool, if there is one.
    `insecure`: whether addresses without TLS may be open to other machines. `tls_cert` and
    `tls_key` (PEM files): TLS for every TCP address of `listen`; `tls_client_ca`: whose
    certificates clients have to show. `access_file`: who may do what; None: whoever can connect may
    do everything. `unix_mode`, `unix_owner`, `unix_group`: of the files of Unix sockets.
    `metrics_listen`: where Prometheus may scrape; None: nowhere. `grace`: seconds that a drain may
    take. `retry_after`: seconds after which a refused client should try again. `lease_ttl`: seconds
    that a lease lasts without renewal unless its engine asks for another time, from `lease_ttl_min`
    to `lease_ttl_max`.
    `keepalive_seconds`: how long a connection may be silent, and then a ping unanswered.
    `slow_reader_seconds`: how long a session's client may leave an answer unread, or not attach.
    `request_seconds`: how long the request of a call may take to arrive.
    `state_dir`: where the journal is; `ephemeral`: keep none. `durability`: what the journal
    outlives, the server's process or the host too. `snapshot_records`, `snapshot_bytes`: what may
    be written before a snapshot is made; a restart replays about as much. `former_state_seconds`:
    how long a journal that does not count any more stays in `state_dir`, under another name; 0: it
    is removed at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pools: Annotated[
        tuple[Annotated[PoolConfig, BeforeValidator(pool_fields)], ...],
        BeforeValidator(items),
        NoDecode,
    ]
    default_pool: str = ""
    insecure: Annotated[bool, BeforeValidator(truth)] = False
    tls_cert: Annotated[str | None, _if_given(path)] = None
    tls_key: Annotated[str | None, _if_given(path)] = Field(None, validate_default=True)
    tls_client_ca: Annotated[str | None, _if_given(path)] = None
    access_file: Annotated[str | None, _if_given(path)] = None
    unix_mode: Annotated[str, BeforeValidator(mode)] = "0600"
    unix_owner: Annotated[str | None, _if_given(user)] = None
    unix_group: Annotated[str | None, _if_given(group)] = None
    listen: Annotated[
        tuple[Annotated[str, BeforeValidator(_served)], ...], BeforeValidator(items), NoDecode
    ]
    metrics_listen: Annotated[str | None, BeforeValidator(_scraped)] = None
    grace: Annotated[float, BeforeValidator(Seconds(0, 3600))] = 10.0
    retry_after: Annotated[float, BeforeValidator(Seconds(0, 60))] = 0.010
    lease_ttl_min: Annotated[float, BeforeValidator(Seconds(0.5, 86_400))] = 1.0
    lease_ttl_max: Annotated[float, BeforeValidator(_ttl_max)] = 3600.0
    lease_ttl: Annotated[float, BeforeValidator(_ttl)] = 10.0
    keepalive_seconds: Annotated[float, BeforeValidator(Seconds(1, 86_400))] = 30.0
    slow_reader_seconds: Annotated[float, BeforeValidator(Seconds(0.1, 86_400))] = 30.0
    request_seconds: Annotated[float, BeforeValidator(Seconds(0.1, 86_400))] = 10.0
    state_dir: Annotated[str, BeforeValidator(directory)] = Field(default_factory=default_state_dir)
    durability: Annotated[str, BeforeValidator(OneOf(("process", "host")))] = "process"
    ephemeral: Annotated[bool, BeforeValidator(truth)] = False
    snapshot_records: Annotated[int, BeforeValidator(Whole(1, 2**40))] = 50_000
    snapshot_bytes: Annotated[int, BeforeValidator(Whole(1, 2**50))] = 64 * 1024 * 1024
    former_state_seconds: Annotated[float, BeforeValidator(Seconds(0, 31_536_000))] = 604_800.0
    log_format: Annotated[str, BeforeValidator(OneOf(("auto", "text", "json")))] = "auto"
    log_level: Annotated[str, BeforeValidator(OneOf(("debug", "info", "warning", "error")))] = (
        "info"
    )

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


class ServerConfig(Settings):
    """Everything that `kvblock serve` can be told."""

    limits: Limits = Limits()

    def flat(self) -> dict[str, object]:
        """Every setting by its name, the limits among the others, as TOML would hold it."""
        values = self.model_dump(exclude={"limits"})
        values["pools"] = [pool.table() for pool in self.pools]
        return values | self.limits.model_dump()

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
