"""Journals that do not count any more: set aside under another name, and removed after a while.

Rules:
- What is set aside is called NAME.former-MILLISECONDS, after the time when that was done, counted
  from 1970. Nothing of another name is removed.
- Who renames it back has it back: what is in it says which epoch it is.
"""

import re
import shutil
import stat
import time
from pathlib import Path

from kvblock_service.journal import files, identity
from kvblock_service.journal.interface import JournalError

_NAME = re.compile(r"(?:(\d{1,19})|" + re.escape(identity.NAME) + r")\.former-(\d{1,15})")
_JOURNAL = re.compile(r"\d{1,19}")


def set_aside(path: Path) -> Path | None:
    """Give a path its other name, or raise OSError, and answer that; None: nothing is there."""
    target = path.with_name(f"{path.name}.former-{time.time_ns() // 1_000_000}")
    try:
        return path.rename(target)
    except FileNotFoundError:
        return None


def remove_former(directory: Path, older_than_seconds: float) -> list[Path]:
    """Remove what was set aside longer ago, and answer what that was.

    Raises:
        JournalError: it could not be removed; what is left of it is removed another time.

    """
    limit = time.time() - older_than_seconds
    removed = []
    for path in files.listed(directory):
        found = _NAME.fullmatch(path.name)
        if found is None or int(found[2]) / 1000 > limit:
            continue
        try:
            if stat.S_ISDIR(path.lstat().st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise JournalError(f"{path} cannot be removed: {error.strerror}") from error
        removed.append(path)
    return removed


def greatest_epoch(directory: Path) -> int:
    """The greatest server epoch that a name in a directory tells, 0 when none does."""
    greatest = 0
    for path in files.listed(directory):
        found = _NAME.fullmatch(path.name)
        name = (found[1] or "") if found else path.name
        if _JOURNAL.fullmatch(name) and int(name) < identity.EPOCH_MAX:
            greatest = max(greatest, int(name))
    return greatest
