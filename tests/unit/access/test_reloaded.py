"""When a file is read anew, and that nothing which is wrong with it ends the reading."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kvblock.trusted_file import FileRead
from kvblock_service.access import AccessError, Reloaded

KEPT = "a file that changed cannot be used; what was read before it stays in force"


class Text:
    """A file whose text is the value, and whose parsings are counted."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.parsed = 0
        path.write_text(text)
        path.chmod(0o600)
        self.reloaded = Reloaded({"file": path}, self.parse)

    def parse(self, found: Mapping[str, FileRead]) -> str:
        self.parsed += 1
        text = found["file"].content.decode()
        if text == "broken":
            raise AccessError("it is broken")
        if text == "bug":
            raise RuntimeError(text)
        return text

    def becomes(self, text: str) -> str:
        """The value when the file has had this text for two looks."""
        self.path.write_text(text)
        return self.looked()

    def looked(self) -> str:
        self.reloaded.look()
        self.reloaded.look()
        return self.reloaded.value


@pytest.fixture
def text(tmp_path: Path) -> Text:
    return Text(tmp_path / "file", "one")


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert all(one.getMessage() == KEPT for one in found)
    return [one.problem for one in found]  # type: ignore[attr-defined]


def test_a_file_is_parsed_when_it_has_changed_and_only_then(
    text: Text, caplog: pytest.LogCaptureFixture
) -> None:
    assert [text.looked() for _ in range(3)] == ["one"] * 3
    assert text.parsed == 1
    assert [text.becomes("three"), text.looked()] == ["three"] * 2
    assert text.parsed == 2
    assert [text.becomes("broken"), text.looked()] == ["three"] * 2
    assert text.parsed == 3
    assert problems(caplog) == ["it is broken"]
    assert text.becomes("mended") == "mended"


def test_a_change_of_the_same_length_at_the_same_time_is_one(text: Text) -> None:
    there = text.path.stat()
    text.path.write_text("two")
    os.utime(text.path, ns=(there.st_atime_ns, there.st_mtime_ns))
    assert text.looked() == "two"


def test_what_is_being_written_is_not_taken_up(text: Text) -> None:
    for part in ("t", "tw", "two", "two and", "two and more"):
        text.path.write_text(part)
        text.reloaded.look()
        assert text.reloaded.value == "one"
    text.reloaded.look()
    assert text.reloaded.value == "two and more"


def test_a_link_that_is_turned_is_a_change(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "..data").symlink_to("a")
    text = Text(tmp_path / "..data/file", "one")
    (tmp_path / "b/file").write_text("two")
    (tmp_path / "new").symlink_to("b")
    (tmp_path / "new").replace(tmp_path / "..data")
    assert text.looked() == "two"


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    os.chown(path, 12_345, -1)


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def grow(path: Path) -> None:
    os.truncate(path, 2**40)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (Path.unlink, "No such file or directory"),
    "a FIFO": (replace_by_fifo, "is a FIFO; must be a regular file"),
    "another's": (give_away, "belongs to user 12345; must belong to root, which reads it"),
    "huge": (grow, "is longer than 1048576 bytes"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_what_cannot_be_read_leaves_the_old_value(
    text: Text, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    damage, told = DAMAGE[how]
    damage(text.path)
    assert [text.looked() for _ in range(3)] == ["one"] * 3
    assert problems(caplog) == [f"file {text.path}: {told}"]
    text.path.unlink(missing_ok=True)
    assert text.becomes("two") == "two"


def test_whatever_goes_wrong_is_told_in_a_sentence(
    text: Text, caplog: pytest.LogCaptureFixture
) -> None:
    assert text.becomes("bug") == "one"
    assert problems(caplog) == [f"file {text.path}: cannot be understood (RuntimeError)"]
    with pytest.raises(AccessError, match="cannot be understood"):
        Text(text.path, "bug")


def test_nothing_ends_the_watching(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what no look is known to raise."""
    monkeypatch.setattr("kvblock_service.access.reloaded.LOOK_SECONDS", 0.001)
    looks = threading.Semaphore(0)
    look = text.reloaded.look

    def failing() -> None:
        looks.release()
        look()
        raise MemoryError

    monkeypatch.setattr(text.reloaded, "look", failing)
    text.reloaded.watch()
    text.path.write_text("two")
    for _ in range(10):
        assert looks.acquire(timeout=60)
    assert text.reloaded.value == "two"
    text.reloaded.stop()
