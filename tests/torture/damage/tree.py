"""A directory in memory, so that a fresh copy of it is made in a moment.

Rules:
- Only directories and regular files are kept; a path is relative to the root, "" is the root.
- Zeros at the end of a file are kept as its length alone, and written as a hole.
"""

import errno
import os
from pathlib import Path
from typing import NamedTuple


class Content(NamedTuple):
    """A regular file: what it has up to its last byte that is no zero, and its length."""

    data: bytes
    size: int


class Tree(NamedTuple):
    """The files by path, and the paths of all directories below the root; both in order."""

    files: dict[str, Content]
    directories: list[str]

    @classmethod
    def read(cls, root: Path) -> "Tree":
        """Read what is below a directory."""
        files: dict[str, Content] = {}
        directories = []
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                continue
            if path.is_dir():
                directories.append(name)
            else:
                files[name] = _content(path)
        return cls(files, directories)

    def write(self, root: Path) -> None:
        """Make all of it below a directory that is there and empty."""
        for name in self.directories:
            (root / name).mkdir()
        for name, (data, size) in self.files.items():
            with (root / name).open("wb") as file:
                file.write(data)
                if size > len(data):
                    file.truncate(size)


def _content(path: Path) -> Content:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return Content(file.read(_end_of_data(file.fileno(), size)).rstrip(b"\0"), size)


def _end_of_data(file: int, size: int) -> int:
    """Where a hole begins that reaches to the end: megabytes of zeros need not be read."""
    if not size:
        return 0
    try:
        hole = os.lseek(file, 0, os.SEEK_HOLE)
        try:
            os.lseek(file, hole, os.SEEK_DATA)
        except OSError as error:
            return hole if error.errno == errno.ENXIO else size
        return size
    finally:
        os.lseek(file, 0, os.SEEK_SET)
