"""The settings of a server, their defaults and their bounds.

Rules:
- Every bound of a setting stands beside it, once.
- Settings that depend on one another are declared in the order in which they are checked.
- A setting's name is its TOML key, its variable (`KVBLOCK_` and upper case) and its flag (`--`
  and hyphens); only `pools` has the flag `--pool`.
"""

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
    items,
    name,
    pool_fields,
    text,
    truth,
)

BLOCKS_MAX = 2**31 - 1
"""Blocks that one pool may have."""


def _served(value: object, info: ValidationInfo) -> str:
    return _permitted(listen_address(text(value)), info)


def _scraped(value: object, info: ValidationInfo) -> str | None:
    return None if value is None else _permitted(tcp_address(text(value)), info)


def _permitted(address: str, info: ValidationInfo) -> str:
    if info.data.get("insecure", True) or is_loopback(address):
        return address
    raise ValueError(
        "is open to other machines, and nothing protects it; use a loopback address, or permit it"
        " with --insecure"
    )


class PoolConfig(BaseModel):
    """One pool: `total_blocks` blocks of `block_size` token slots on device `device_id`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, BeforeValidator(name)]
    total_blocks: Annotated[int, BeforeValidator(Whole(1, BLOCKS_MAX))]
    block_size: Annotated[int, BeforeValidator(Whole(1, 65_536))] = 16
    device_id: Annotated[int, BeforeValidator(Whole(0, 2**32 - 1))] = 0

    def table(self) -> dict[str, object]:
        """The pool as a TOML file holds it."""
        return {key: getattr(self, field) for key, field in POOL_KEYS.items()}

    def spec(self) -> str:
        """The pool as `--pool` takes it."""
        sizes = f"total={self.total_blocks},block_size={self.block_size},device={self.device_id}"
        return f"{self.name}:{sizes}"


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
    engines_max: Annotated[int, BeforeValidator(Whole(1, 2**20))] = 1024
    sessions_max: Annotated[int, BeforeValidator(Whole(1, 2**20))] = 1024
    wait_queue_max: Annotated[int, BeforeValidator(Whole(0, 2**20))] = 1024
    max_wait_max: Annotated[float, BeforeValidator(Seconds(0, 86_400))] = 60.0
    page_size_max: Annotated[int, BeforeValidator(Whole(1, 1_000_000))] = 10_000


class Settings(BaseModel):
    """All settings but the limits.

    `default_pool`: what requests mean that name no pool; empty: the only pool, if there is one.
    `insecure`: whether addresses may be open to other machines. `metrics_listen`: where Prometheus
    may scrape; None: nowhere. `grace`: seconds that a drain may take. `retry_after`: seconds after
    which a refused client should try again. `state_dir`: where the journal is; `ephemeral`: keep
    none. `durability`: what the journal outlives, the server's process or the host too.
    `snapshot_records`, `snapshot_bytes`: what may be written before a snapshot is made; a restart
    replays about as much.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pools: Annotated[
        tuple[Annotated[PoolConfig, BeforeValidator(pool_fields)], ...],
        BeforeValidator(items),
        NoDecode,
    ]
    default_pool: str = ""
    insecure: Annotated[bool, BeforeValidator(truth)] = False
    listen: Annotated[
        tuple[Annotated[str, BeforeValidator(_served)], ...], BeforeValidator(items), NoDecode
    ]
    metrics_listen: Annotated[str | None, BeforeValidator(_scraped)] = None
    grace: Annotated[float, BeforeValidator(Seconds(0, 3600))] = 10.0
    retry_after: Annotated[float, BeforeValidator(Seconds(0, 60))] = 0.010
    state_dir: Annotated[str, BeforeValidator(directory)] = Field(default_factory=default_state_dir)
    durability: Annotated[str, BeforeValidator(OneOf(("process", "host")))] = "process"
    ephemeral: Annotated[bool, BeforeValidator(truth)] = False
    snapshot_records: Annotated[int, BeforeValidator(Whole(1, 2**40))] = 50_000
    snapshot_bytes: Annotated[int, BeforeValidator(Whole(1, 2**50))] = 64 * 1024 * 1024
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
        """The addresses that other machines may reach."""
        addresses = (*self.listen, *([self.metrics_listen] if self.metrics_listen else ()))
        return tuple(address for address in addresses if not is_loopback(address))


_Entries = TypeVar("_Entries", bound=tuple[object, ...])


def _without_repeats(entries: _Entries, keys: list[str]) -> _Entries:
    if not entries:
        raise ValueError("must not be empty")
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ValueError(f"must not name {', '.join(repeated)} twice")
    return entries
