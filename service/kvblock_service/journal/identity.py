"""`identity.json`: of which boot of the host a journal is, and what it promised to outlive.

Rules:
- It has a checksum over its content, and each field has its range or its spelling: anything else is
  damage. Format 1, which has no checksum, is read as well.
- Format 2 says that its journal has an `end`, see `end_file`.
"""

import json
import re
import reprlib
from pathlib import Path
from typing import Any, NamedTuple

from kvblock_service.journal import files
from kvblock_service.journal.chain import digest
from kvblock_service.journal.interface import JournalDamaged
from kvblock_service.journal.regular import read_regular, reading

NAME = "identity.json"
FORMAT = 2
EPOCH_MAX = 2**62
DURABILITIES = ("process", "host")
_BYTES_MAX = 1024 * 1024
_BOOT_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_FIELDS = {"format", "boot_id", "server_epoch", "durability", "former"}


class StateIdentity(NamedTuple):
    """Which life of the host a journal belongs to, and what it promised to outlive.

    `former`: epochs whose journals do not count any more, and are to be set aside. `format` is that
    of the file it came from.
    """

    boot_id: str
    server_epoch: int
    durability: str
    former: tuple[int, ...] = ()
    format: int = FORMAT


def write_identity(directory: Path, identity: StateIdentity) -> None:
    """Put an identity in force, in the present format; the one before stays after an OSError."""
    content = {**identity._asdict(), "format": FORMAT}
    text = json.dumps({**content, "checksum": _checksum(content)}, sort_keys=True)
    files.write_whole(directory / NAME, text.encode(), synced=True)


def read_identity(directory: Path) -> StateIdentity | None:
    """The identity of a directory, None without one; raises JournalDamaged if it is unreadable."""
    path = directory / NAME
    try:
        with reading(path):
            content = read_regular(path, _BYTES_MAX)
        return _parsed(json.loads(content))
    except FileNotFoundError:
        return None
    except RecursionError as error:
        raise JournalDamaged(f"{path} is damaged: its brackets are nested too deeply") from error
    except ValueError as error:
        raise JournalDamaged(f"{path} is damaged: {error}") from error


def is_epoch(value: object) -> bool:
    """Whether that is the number of a server epoch."""
    return type(value) is int and 1 <= value <= EPOCH_MAX


def _parsed(found: Any) -> StateIdentity:
    """Raises ValueError, whose text says what is wrong."""
    if not isinstance(found, dict) or "format" not in found:
        raise ValueError("it is no identity")
    version = found["format"]
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise ValueError(
            f"it has format {_shown(version)}; this program reads formats 1 to {FORMAT}"
        )
    content = {name: value for name, value in found.items() if name != "checksum"}
    if version > 1 and found.get("checksum") != _checksum(content):
        raise ValueError("its checksum is wrong")
    needed = _FIELDS | ({"checksum"} if version > 1 else set())
    # The first servers that wrote format 1 named no former epochs.
    present = set(found) | ({"former"} if version == 1 else set())
    if present != needed:
        raise ValueError(f"its fields are {_shown(sorted(found))}, not {sorted(needed)}")
    former = content.get("former", [])
    if not is_epoch(content["server_epoch"]):
        epoch = _shown(content["server_epoch"])
        raise ValueError(f"server_epoch is {epoch}; it is a whole number from 1 to {EPOCH_MAX}")
    if not isinstance(former, list) or not all(map(is_epoch, former)):
        raise ValueError(f"former is {_shown(former)}; it is a list of epochs")
    durability, boot = content["durability"], content["boot_id"]
    if durability not in DURABILITIES:
        raise ValueError(f"durability is {_shown(durability)}; it is {' or '.join(DURABILITIES)}")
    if not isinstance(boot, str) or not _BOOT_ID.fullmatch(boot):
        raise ValueError(f"boot_id is {_shown(boot)}; it is 1 to 64 letters, digits and dashes")
    return StateIdentity(boot, content["server_epoch"], durability, tuple(former), version)


def _shown(value: object) -> str:
    """A value in a message, of bounded length."""
    return reprlib.repr(value)


def _checksum(content: dict[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True).encode()).hex()
