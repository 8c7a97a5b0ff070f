"""Opening SQLite segments for reading, beside a server that may be writing to them.

Rules:
- A live database cannot be opened by another process. Its WAL is copied, then the database, which
  does not change meanwhile; a WAL that was cut meanwhile lacks records, and all is copied anew.
- A database without a WAL does not change any more, and is read where it is.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.journal.regular import refuse_irregular


@contextmanager
def opened(path: Path) -> "Iterator[tuple[sqlite3.Connection, Path | None]]":
    """A connection that reads a segment, and the copy it reads when there is a WAL.

    Raises:
        JournalError: it cannot be copied now.
        JournalDamaged: it is no regular file.
        FileNotFoundError: it was removed meanwhile.

    """
    wal = Path(f"{path}-wal")
    while True:
        if _size(path) is None:
            raise FileNotFoundError(path)
        size = _size(wal)
        if not size:
            with closing(_connected(path, "immutable=1")) as connection:
                yield connection, None
            return
        with tempfile.TemporaryDirectory(prefix="kvblock-") as place:
            copy = Path(place) / path.name
            if not _copied(wal, Path(f"{copy}-wal")) or (_size(wal) or 0) < size:
                # It was closed meanwhile, so all of it is in the database.
                continue
            if not _copied(path, copy):
                raise FileNotFoundError(path)
            with closing(_connected(copy, "mode=ro")) as connection:
                yield connection, copy
        return


def _size(path: Path) -> int | None:
    """The length of a file in bytes; None when there is none.

    Raises:
        JournalDamaged: it is no regular file.

    """
    try:
        found = path.lstat()
        refuse_irregular(path, found.st_mode)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalDamaged(f"{path} cannot be read: {error.strerror}") from error
    return found.st_size


def _copied(source: Path, target: Path) -> bool:
    """Whether there was a file to copy."""
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise JournalError(f"{source} cannot be copied to {target.parent}: {error}") from error
    return True


def _connected(path: Path, how: str) -> sqlite3.Connection:
    # Quoting as a URI: a question mark or a hash in a directory's name would end the path.
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)
