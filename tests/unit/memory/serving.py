"""Memory files as a server has them."""

from pathlib import Path

from kvblock_service.memory import (
    FileAccess,
    ServerFiles,
    file_owner,
)

EPOCH = 1_700_000_000_000
SIZE = 8 * 4096


def served(
    directory: Path, state_dir: Path | None, epoch: int = EPOCH, **access: int
) -> ServerFiles:
    return ServerFiles(directory, FileAccess(**access), file_owner(epoch, state_dir))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def make(directory: Path, state_dir: Path) -> Path:
    files = served(directory, state_dir)
    files.take("main", SIZE)
    files.close()
    return files.path("main")
