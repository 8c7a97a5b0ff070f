"""What a pool may be: its fields, their defaults and their bounds.

Rules:
- A key of `--pool` or of a table in the file is one of POOL_KEYS, which names its field.
- Fields that depend on one another are declared in the order in which they are checked.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from kvblock_service.config.values import (
    POOL_KEYS,
    layout_text,
    memory_text,
    name,
    seconds,
    whole,
)

BLOCKS_MAX = 2**31 - 1
"""Blocks that one pool may have."""
BLOCK_SIZE_MAX = 65_536
"""Token slots that one block may have."""
BLOCK_SIZE = 16
"""Token slots of a block unless a pool sets another number."""
RESERVED_BLOCKS_MAX = 65_536
"""Blocks that a pool may have and never issue; each costs the server a little memory."""
BLOCK_BYTES_MAX = 2**40
"""Bytes that one block may have."""
REGIONS_MAX = 65_536
"""Arrays that a pool's memory may be divided into."""
QUARANTINE_MAX = 86_400
"""Seconds that blocks may wait in quarantine."""


class PoolConfig(BaseModel):
    """One pool: `total_blocks` blocks of `block_size` token slots on device `device_id`.

    The first `reserved_blocks` are never issued; a block has `block_bytes` bytes (0: not told), in
    `regions` arrays, arranged as the text `layout` says, and is where `memory` says: none, shm or a
    URI.
    `quarantine`: seconds that the blocks of a vanished engine wait; None: as long as its lease's
    TTL.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, name]
    total_blocks: Annotated[int, whole(1, BLOCKS_MAX)]
    block_size: Annotated[int, whole(1, BLOCK_SIZE_MAX)] = BLOCK_SIZE
    device_id: Annotated[int, whole(0, 2**32 - 1)] = 0
    reserved_blocks: Annotated[int, whole(0, RESERVED_BLOCKS_MAX)] = 0
    regions: Annotated[int, whole(1, REGIONS_MAX)] = 1
    block_bytes: Annotated[int, whole(0, BLOCK_BYTES_MAX)] = 0
    layout: Annotated[str, layout_text] = ""
    memory: Annotated[str, memory_text] = "none"
    quarantine: Annotated[float | None, seconds(0, QUARANTINE_MAX)] = None

    @field_validator("reserved_blocks")
    @classmethod
    def _leaves_a_block(cls, value: int, info: ValidationInfo) -> int:
        # A total that is wrong itself is not there.
        if value >= info.data.get("total_blocks", value + 1):
            raise ValueError(f"must be below total = {info.data['total_blocks']}")
        return value

    @field_validator("block_bytes")
    @classmethod
    def _divides_evenly(cls, value: int, info: ValidationInfo) -> int:
        if value % info.data.get("regions", 1):
            raise ValueError(f"must be a multiple of regions = {info.data['regions']}")
        return value

    @field_validator("memory")
    @classmethod
    def _memory_has_a_size(cls, value: str, info: ValidationInfo) -> str:
        # Block bytes that are wrong themselves are not there.
        if value == "shm" and info.data.get("block_bytes", 1) == 0:
            raise ValueError("needs block_bytes, the bytes of one block")
        return value

    def table(self) -> dict[str, object]:
        """The pool as a TOML file holds it."""
        fields = {key: getattr(self, field) for key, field in POOL_KEYS.items()}
        return {key: value for key, value in fields.items() if value is not None}

    def spec(self) -> str:
        """The pool as `--pool` takes it, but for a layout with a comma: only a file can have it."""
        sizes = f"total={self.total_blocks},block_size={self.block_size},device={self.device_id}"
        for key in ("reserved", "block_bytes", "regions", "layout", "memory"):
            field = POOL_KEYS[key]
            if (value := getattr(self, field)) != type(self).model_fields[field].default:
                sizes += f",{key}={value}"
        wait = "" if self.quarantine is None else f",quarantine={self.quarantine:g}"
        return f"{self.name}:{sizes}{wait}"
