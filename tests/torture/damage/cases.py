"""What may happen to the files of a state directory while no server runs, as cases.

Rules:
- Files are discovered: no name of one stands here. Files of one family have the same name but for
  the digits in it.
- Every bit of every byte is flipped, and every length is cut to, of what decides most: each file
  that is alone in its family, and of each other family the last one with anything in it. Of all
  others one bit of each byte is, in turn; of long files, so many places as `places_max`.
- A case is a value: the same tree has the same cases in the same order.
"""

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.torture.damage.tree import Tree

_DIGITS = re.compile(r"\d+")
_ODD_VALUES = ("null", '""', "-5", "1.5", str(2**70), "true", '"other"', "[" * 5000, "{}")


class Case(NamedTuple):
    """One damage: `kind` names the function, `path` is what it is done to, `more` its details."""

    kind: str
    path: str
    more: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.kind, self.path or "(the directory)", *map(_shortened, self.more)])


def cases_of(tree: Tree, places_max: int) -> list[Case]:
    """Every case of a tree, each once."""
    return list(dict.fromkeys(_cases(tree, places_max)))


def _cases(tree: Tree, places_max: int) -> Iterator[Case]:
    for path in tree.files:
        yield from _contents(tree, path, places_max)
    for path in tree.files:
        yield from _places(tree, path)
    for path in (*tree.files, *tree.directories, ""):
        # An empty directory in the place of the whole is a new one.
        kinds = [what for what in _KINDS_OF_FILES if path or what != "directory"]
        yield from (Case("replace", path, (what,)) for what in kinds)
    for path in tree.directories:
        yield Case("delete", path)
        yield Case("empty", path)
        yield from (Case("rename", path, (name,)) for name in _other_numbers(path))
        yield from (Case("copy", path, (name,)) for name in _other_numbers(path))


def held_cases(tree: Tree, gone: Container[str] = ()) -> Iterator[Case]:
    """What may be done to a directory while a server has it, and has to let no second one in.

    `gone`: files that the server has taken up.
    """
    for path in (*(name for name in tree.files if name not in gone), *tree.directories):
        yield Case("delete", path)
        yield Case("rename", path, (f"{path}.moved",))
        yield from (Case("replace", path, (what,)) for what in ("copy", "directory", "nothing"))


def apply(case: Case, root: Path, outside: Path) -> None:
    """Do the damage to a copy of the tree; `outside` is an empty directory for what it needs."""
    _APPLIED[case.kind](root / case.path if case.path else root, root, outside, *case.more)


def _contents(tree: Tree, path: str, places_max: int) -> Iterator[Case]:
    data, size = tree.files[path]
    whole = _decides(tree, path) and len(data) <= places_max
    stride = 1 if whole else max(1, -(-len(data) // places_max))
    for offset in range(0, len(data), stride):
        bits = range(8) if whole else (offset // stride % 8,)
        yield from (Case("flip", path, (offset, bit)) for bit in bits)
    yield from (Case("truncate", path, (length,)) for length in range(0, len(data), stride))
    if size > len(data):
        yield Case("truncate", path, (len(data),))
    for name, tail in _TAILS.items():
        yield Case("extend", path, (name,)) if tail(data) else Case("extend", path, ("zeros",))
    yield from _values(path, data)


def _values(path: str, data: bytes) -> Iterator[Case]:
    """Other values in a file that is JSON."""
    try:
        found = json.loads(data)
    except ValueError:
        return
    if isinstance(found, dict):
        yield from (Case("whole", path, (text,)) for text in ("", "{}", "[]", "[" * 100_000))
        for key in found:
            yield from (Case("value", path, (key, value)) for value in _ODD_VALUES)
            yield Case("value", path, (key, None))


def _places(tree: Tree, path: str) -> Iterator[Case]:
    """The file elsewhere, and others in its place."""
    yield Case("delete", path)
    yield from (Case("rename", path, (name,)) for name in _other_numbers(path))
    yield from (Case("copy", path, (name,)) for name in _other_numbers(path))
    for other in tree.files:
        if other != path:
            yield Case("copy", path, (other,))
            if other > path:
                yield Case("swap", path, (other,))
    parent = Path(path).parent
    for directory in ("", *tree.directories):
        if Path(directory) != parent:
            yield Case("rename", path, (str(Path(directory) / Path(path).name),))


def _decides(tree: Tree, path: str) -> bool:
    family = [one for one in tree.files if _family(one) == _family(path)]
    filled = [one for one in family if tree.files[one].data]
    return path in (filled or family)[-1:]


def _family(path: str) -> str:
    return _DIGITS.sub("#", path)


def _other_numbers(path: str) -> list[str]:
    """The same name with another number, if there is any in it."""
    name = Path(path).name
    found = list(_DIGITS.finditer(name))
    if not found:
        return []
    last = found[-1]
    number, width = int(last[0]), len(last[0])
    numbers = {number - 1, number + 1, number + 2, number * 2, 0, 1, 10**width - 1} - {number}
    return [
        str(Path(path).with_name(f"{name[: last.start()]}{one:0{width}}{name[last.end() :]}"))
        for one in sorted(numbers)
        if one >= 0
    ]


def _flip(path: Path, _: Path, __: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def _truncate(path: Path, _: Path, __: Path, length: int) -> None:
    os.truncate(path, length)


_TAILS: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda _: bytes(64),
    "text": lambda _: b"\nnonsense\n",
    "its own end": lambda data: data[-40:],
    "itself": lambda data: data,
}


def _extend(path: Path, _: Path, __: Path, tail: str) -> None:
    data = path.read_bytes()
    path.write_bytes(data + _TAILS[tail](data))


def _whole(path: Path, _: Path, __: Path, text: str) -> None:
    path.write_text(text)


def _value(path: Path, _: Path, __: Path, key: str, value: str | None) -> None:
    found = json.loads(path.read_bytes())
    if value is None:
        del found[key]
        path.write_text(json.dumps(found))
    else:
        text = json.dumps(found | {key: "@@"})
        path.write_text(text.replace('"@@"', value))


def _delete(path: Path, _: Path, __: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _empty(path: Path, _: Path, __: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _rename(path: Path, root: Path, _: Path, name: str) -> None:
    target = root / name
    if target.exists():
        _delete(target, root, root)
    path.rename(target)


def _copy(path: Path, root: Path, _: Path, name: str) -> None:
    if path.is_dir():
        shutil.copytree(path, root / name, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, root / name)


def _swap(path: Path, root: Path, _: Path, name: str) -> None:
    aside = root / "aside"
    path.rename(aside)
    (root / name).rename(path)
    aside.rename(root / name)


_KINDS_OF_FILES = (
    "directory",
    "file",
    "symlink",
    "hard link",
    "dangling symlink",
    "symlink to itself",
    "FIFO",
    "socket",
)


def _replace(path: Path, _: Path, outside: Path, what: str) -> None:
    """Put something else where a file or a directory was, which is then outside."""
    moved = outside / "moved"
    if not (what == "hard link" and path.is_dir()):
        shutil.move(path, moved)
    if what == "directory":
        path.mkdir()
    elif what == "file":
        path.write_bytes(b"")
    elif what == "symlink":
        path.symlink_to(moved)
    elif what == "hard link":
        if moved.exists():
            path.hardlink_to(moved)
    elif what == "dangling symlink":
        path.symlink_to(outside / "nothing")
    elif what == "symlink to itself":
        path.symlink_to(path.name)
    elif what == "FIFO":
        os.mkfifo(path)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif what == "copy":
        _copy(moved, path.parent, outside, path.name)
    else:
        assert what == "nothing"
        path.touch()


_APPLIED: dict[str, Callable[..., None]] = {
    "flip": _flip,
    "truncate": _truncate,
    "extend": _extend,
    "whole": _whole,
    "value": _value,
    "delete": _delete,
    "empty": _empty,
    "rename": _rename,
    "copy": _copy,
    "swap": _swap,
    "replace": _replace,
}


def _shortened(detail: object) -> str:
    text = str(detail)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
