"""A directory in memory, so that a fresh copy of it is made in a moment.

Rules:
- Only directories and regular files are kept; a path is relative to the root, "" is the root.
- Zeros at the end of a file are kept as its length alone, and written as a hole.
"""

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
                data = path.read_bytes()
                files[name] = Content(data.rstrip(b"\0"), len(data))
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
