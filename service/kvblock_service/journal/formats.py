"""The formats of segments, by name and by the suffix of their files."""

from pathlib import Path

from kvblock_service.journal.append_format import AppendFormat
from kvblock_service.journal.interface import JournalDamaged
from kvblock_service.journal.segment import Format
from kvblock_service.journal.sqlite_format import SqliteFormat

FORMATS: dict[str, Format] = {"append": AppendFormat(), "sqlite": SqliteFormat()}
DEFAULT = "append"
_BY_SUFFIX = {kind.suffix: kind for kind in FORMATS.values()}


def format_of(path: Path) -> Format:
    """The format of a segment that is there.

    Raises:
        JournalDamaged: its suffix is that of no format.

    """
    kind = _BY_SUFFIX.get(path.suffix.removeprefix("."))
    if kind is None:
        raise JournalDamaged(f"{path} is a segment of a format that this program does not know")
    return kind
