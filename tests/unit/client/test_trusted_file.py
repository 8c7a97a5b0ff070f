"""Which files are read, and what is said about the others."""

import os
import socket
from pathlib import Path

import pytest

from kvblock.trusted_file import FILE_BYTES_MAX, UnusableFileError, read_file

OTHER = 12_345
"""A user that is neither root nor the one that runs the tests."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def problem(path: Path | str) -> str:
    with pytest.raises(UnusableFileError) as caught:
        read_file(path)
    return str(caught.value)


def test_the_content_and_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\0secret")
    path.chmod(0o640)
    found = read_file(path)
    assert found == (b"\0secret", 0o640)
    assert "secret" not in repr(found)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026/token").write_text("x")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "token").symlink_to("..data/token")
    assert read_file(tmp_path / "token").content == b"x"
    (tmp_path / "fifo").symlink_to("pipe")
    os.mkfifo(tmp_path / "pipe")
    assert problem(tmp_path / "fifo") == "is a FIFO; must be a regular file"


def test_only_a_regular_file_is_read_and_nothing_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    for path, kind in (
        (tmp_path / "fifo", "a FIFO"),
        (tmp_path / "socket", "a socket"),
        (tmp_path, "a directory"),
        (Path("/dev/zero"), "a device"),
    ):
        assert problem(path) == f"is {kind}; must be a regular file"


def test_a_file_that_becomes_another_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is what was opened, and not what was there a moment before."""
    path = tmp_path / "file"
    path.touch()
    regular = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda _: regular)
    assert problem(path) == "is a FIFO; must be a regular file"


def test_the_system_says_why_not(tmp_path: Path) -> None:
    assert problem(tmp_path / "none") == "No such file or directory"
    (tmp_path / "loop").symlink_to("loop")
    assert problem(tmp_path / "loop") == "Too many levels of symbolic links"
    for name in ("a\0b", "\udcff\ud800"):
        assert problem(name) in ("is no path of a file", "No such file or directory")


def test_a_file_is_not_too_long(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(FILE_BYTES_MAX))
    assert len(read_file(path).content) == FILE_BYTES_MAX
    path.write_bytes(bytes(FILE_BYTES_MAX + 1))
    assert problem(path) == "is longer than 1048576 bytes"
    with path.open("wb") as sparse:
        sparse.truncate(2**40)
    assert problem(path) == "is longer than 1048576 bytes"


@needs_root
def test_a_file_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.chown(path, OTHER, -1)
    assert problem(path) == "belongs to user 12345; must belong to root, which reads it"
    assert read_file(path, of_any_owner=True).content == b""
    (tmp_path / "link").symlink_to(path)
    assert problem(tmp_path / "link").startswith("belongs to user 12345;")


@needs_root
def test_roots_files_and_ones_own_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.touch()
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    assert read_file(path).content == b""
    os.chown(path, OTHER, -1)
    assert read_file(path).content == b""
    os.chown(path, OTHER + 1, -1)
    assert problem(path) == (
        "belongs to user 12346; must belong to root or to user 12345, which reads it"
    )
