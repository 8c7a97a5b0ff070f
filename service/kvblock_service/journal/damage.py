"""What an operator can do about a journal that is damaged, told with the damage."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvblock_service.journal.interface import JournalDamaged


@contextmanager
def naming_the_remedy(path: Path) -> Iterator[None]:
    """Have damage told with what can be done about it."""
    try:
        yield
    except JournalDamaged as error:
        raise JournalDamaged(
            f"{error}. Restore {path} as it was; or, to begin with empty pools, stop the engines"
            f" and run `kvblock journal set-aside {path}`"
        ) from error
