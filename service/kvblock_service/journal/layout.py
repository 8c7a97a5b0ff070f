"""Values as numbers, texts and columns, by a description that has one line for each field.

Rules:
- What writes and reads a value is compiled from its description once, at import, as NamedTuple does
  with its names: the hot path looks nothing up.
- A shape is how a value is made, and, without the names of classes, how it is taken apart.
- A field has the version that it came with, and what it is in all that was written before: whoever
  adds one adds one line. What a version has never changes.
- Fixed numbers come first, in the order of the description, then the lengths of texts and columns,
  then these themselves.
"""

import re
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kvblock_service.journal.interface import CodecError

_BIG_ENDIAN = sys.byteorder == "big"
_CLASS = re.compile(r"\b[A-Z]\w*\(")
_OWN = {"at", "body", "check", "columns", "encoded", "end", "numbers", "text", "unpack"}
"""Names of the compiled code, which no field may have."""


class Field(NamedTuple):
    """One line of a description.

    `code` has a letter of `struct` for each fixed number, or is `text` or `column`. `write` is an
    expression of these numbers; `reads` has an expression of them, as {0}, {1} and so on, for each
    of `names`. `default` is an expression, too. `shown`: of the value as JSON has it.
    """

    names: tuple[str, ...]
    code: str
    write: str = ""
    reads: tuple[str, ...] = ("{0}",)
    since: int = 1
    default: str = ""
    shown: str = ""


def numbers(names: str, since: int = 1, default: int = 0) -> list[Field]:
    """Unsigned numbers of 64 bits."""
    return [Field((one,), "Q", one, since=since, default=str(default)) for one in names.split()]


def flag(name: str, since: int = 1) -> Field:
    """True or False."""
    return Field((name,), "B", name, ("bool({0})",), since, "False")


def optional(name: str, since: int = 1) -> Field:
    """A number, or None."""
    write = f"0 if {name} is None else {name} + 1"
    return Field((name,), "Q", write, ("{0} - 1 if {0} else None",), since, "None")


def member(name: str, enum: str) -> Field:
    """A member of an enum, by its value."""
    return Field((name,), "B", f"{name}._value_", (f"{enum}({{0}})",), shown=f"{name}.name")


def unused(count: int = 1) -> Field:
    """Numbers that mean nothing."""
    return Field((), "Q" * count, ", ".join("0" * count), ())


def texts(names: str, since: int = 1) -> list[Field]:
    """Texts of at most 65,535 bytes in UTF-8."""
    return [Field((one,), "text", since=since, default='""') for one in names.split()]


def columns(names: str, since: int = 1) -> list[Field]:
    """Lists of unsigned numbers of 64 bits."""
    return [Field((one,), "column", since=since, default="[]") for one in names.split()]


class Layout:
    """How values of one shape are written in their newest version, and read in every version.

    `arguments` are what `write` takes and the shape is taken from. `kinds` are the numbers of a
    record's kind, of version 1 and so on; the last one goes on, with a version of its own. `names`
    has what the shape and the fields name. `later`: the fields of later versions; a record in which
    all of them are empty is written in version 1, which costs no more than it did.
    """

    def __init__(
        self,
        kinds: Sequence[int],
        arguments: str,
        shape: str,
        fields: Sequence[Field],
        names: dict[str, Any],
        later: Sequence[str] = (),
    ) -> None:
        assert not _OWN.intersection(name for field in fields for name in field.names)
        self.version = max(field.since for field in fields)
        self._kinds = kinds
        self._shape = shape
        self._take = f"{_CLASS.sub('(', shape)} = {arguments}"
        self._fields = fields
        self._names = names
        self._later = later
        self.arguments = arguments

    def code(self, version: int) -> tuple[int, int]:
        """The version and the kind that a record of a version is written with."""
        place = min(version, len(self._kinds))
        return version - place + 1, self._kinds[place - 1]

    def shower(self) -> Callable[..., dict[str, Any]]:
        """Gives a value as JSON has it."""
        shown = {name: field.shown or name for field in self._fields for name in field.names}
        names = re.findall(r"\w+(?=[,)])", self._shape)
        pairs = ", ".join(f"{name!r}: {shown[name]}" for name in names)
        return self._compiled(self.arguments, [self._take, f"return {{{pairs}}}"])

    def record_writer(self) -> Callable[..., bytes]:
        """Gives the body of a record, which has no checksum yet."""
        lines, names = self._written(self.version)
        if self._later:
            first, own = self._written(1)
            indented = [f" {line}" for line in first]
            lines = [f"if not ({' or '.join(self._later)}):", *indented, *lines]
            names.update(own)
        return self._compiled(self.arguments, [self._take, *lines], **names)

    def _written(self, version: int) -> tuple[list[str], dict[str, Any]]:
        """Lines that give the body in a version, and what they name."""
        fixed, texts, columns = self._split(version)
        lines = ['text = f"' + "".join(f"{{{name}}}" for name in texts) + '"']
        lines += ["encoded = text.encode()", "if len(encoded) == len(text):"]
        lines += [f" {_each('n_{0}', texts)} = {_each('len({0})', texts)}", "else:"]
        lines += [f" {_each('n_{0}', texts)} = {_each('len({0}.encode())', texts)}"]
        own_version, kind = self.code(version)
        numbers = [str(own_version), str(kind), *(field.write for field in fixed)]
        numbers += [_each("n_{0}", texts)[:-1], *(f"len({name})" for name in columns)]
        head = f"pack_{version}({', '.join(numbers)})"
        if columns:
            lines += ["columns = array('Q')"]
            lines += [f"if {name}: columns.fromlist({name})" for name in columns]
            lines += ["columns.byteswap()"] * _BIG_ENDIAN
            lines += [f'return b"".join(({head}, encoded, columns))']
        else:
            lines += [f"return {head} + encoded"]
        return lines, {f"pack_{version}": self._struct(version).pack}

    def record_reader(self, version: int) -> Callable[["memoryview[int]"], Any]:
        """Takes a value of a version from the body of a record."""
        fixed, texts, columns = self._split(version)
        packed = self._struct(version)
        places = [f"x{at}" for at in range(sum(len(field.code) for field in fixed))]
        sizes = [f"n_{name}" for name in (*texts, *columns)]
        lines = [f"_, _, {_each('{0}', [*places, *sizes])} = unpack(body)"]
        lines += [f"end = {packed.size} + {' + '.join(sizes[: len(texts)])}"]
        counts = " + ".join(sizes[len(texts) :])
        lines += [f"check(body, end + 8 * ({counts}))" if columns else "check(body, end)"]
        lines += [f'text = str(body[{packed.size}:end], "utf-8")']
        lines += [f"if len(text) == end - {packed.size}:", " at = 0"]
        for name in texts:
            lines += [f" {name} = text[at : at + n_{name}]", f" at += n_{name}"]
        lines += ["else:", f" at = {packed.size}"]
        for name in texts:
            lines += [f' {name} = str(body[at : at + n_{name}], "utf-8")', f" at += n_{name}"]
        if columns:
            lines += ["columns = array('Q')", "columns.frombytes(body[end:])"]
            lines += ["columns.byteswap()"] * _BIG_ENDIAN
            lines += ["numbers = columns.tolist()", *_cut("numbers", "0", columns)]
        lines += self._made(fixed, places, version)
        return self._compiled("body", lines, unpack=packed.unpack_from, check=_check)

    def list_writer(self) -> Callable[[Any], list[int]]:
        """Gives a list of numbers, the first of which is the kind."""
        fixed, _, columns = self._split(self.version)
        counts = [f"len({name})" for name in columns[:-1]]
        parts = [str(self._kinds[-1]), *(field.write for field in fixed), *counts]
        parts += [f"*{name}" for name in columns]
        return self._compiled(self.arguments, [self._take, f"return [{', '.join(parts)}]"])

    def list_reader(self, version: int = 1) -> Callable[[list[int]], Any]:
        """Takes a value of a version from a list of numbers; the last column is its rest."""
        fixed, _, columns = self._split(version)
        places = [f"x{at}" for at in range(sum(len(field.code) for field in fixed))]
        sizes = [f"n_{name}" for name in columns[:-1]]
        size = 1 + len(places) + len(sizes)
        whole = f"numbers[:{size}]" if columns else "numbers"
        lines = [f"_, {_each('{0}', [*places, *sizes])} = {whole}", *_cut("numbers", size, columns)]
        return self._compiled("numbers", lines + self._made(fixed, places, version))

    def _split(self, version: int) -> tuple[list[Field], list[str], list[str]]:
        """The fields of a version: the fixed ones, and the names of texts and columns."""
        fields = [field for field in self._fields if field.since <= version]
        texts = [field.names[0] for field in fields if field.code == "text"]
        columns = [field.names[0] for field in fields if field.code == "column"]
        return [one for one in fields if one.code not in ("text", "column")], texts, columns

    def _struct(self, version: int) -> struct.Struct:
        fixed, texts, columns = self._split(version)
        codes = "".join(field.code for field in fixed)
        return struct.Struct(f"<BB{codes}{'H' * len(texts)}{'I' * len(columns)}")

    def _made(self, fixed: list[Field], places: list[str], version: int) -> list[str]:
        """Lines that make a value from numbers in these places."""
        lines = []
        at = 0
        for field in fixed:
            own = places[at : at + len(field.code)]
            at += len(own)
            reads = zip(field.names, field.reads, strict=True)
            lines += [f"{name} = {read.format(*own)}" for name, read in reads]
        later = [field for field in self._fields if field.since > version]
        lines += [f"{name} = {field.default}" for field in later for name in field.names]
        return [*lines, f"return {self._shape}"]

    def _compiled(self, arguments: str, lines: list[str], **names: Any) -> Callable[..., Any]:
        body = "\n ".join(lines)
        found: dict[str, Any] = {"array": array, **self._names, **names}
        exec(f"def compiled({arguments}):\n {body}", found)
        compiled: Callable[..., Any] = found["compiled"]
        return compiled


def _each(form: str, names: Sequence[str]) -> str:
    """The names in some form, as a tuple has them."""
    return "".join(f"{form.format(name)}, " for name in names).rstrip(" ")


def _cut(whole: str, start: object, columns: Sequence[str]) -> list[str]:
    """Lines that take columns from a list, one behind the other; the last one is the rest."""
    lines = [f"end = {start}"] * bool(columns)
    for name in columns[:-1]:
        lines += [f"at, end = end, end + n_{name}", f"{name} = {whole}[at:end]"]
    return lines + [f"{name} = {whole}[end:]" for name in columns[-1:]]


def _check(body: "memoryview[int]", size: int) -> None:
    if len(body) != size:
        raise CodecError(f"has {len(body)} bytes where its header says {size}")
