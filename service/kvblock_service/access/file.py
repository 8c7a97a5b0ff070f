"""The access file: a TOML file that lists identities.

    unix = "token"                 # or "trusted", or the name of an identity

    [[identity]]
    name = "trainer"
    token_sha256 = "…"             # or token = "…"; one, or a list of them
    certificate = "trainer-*"      # a pattern, or a list of patterns
    engines = ["trainer-*"]
    pools = ["gpu0"]
    admin = false
    calls_per_second = 500

    [end]

Rules:
- Its last line is `[end]`, which opens a table with nothing in it: whatever part of the file's end
  is missing, that line is not there or no TOML, and the file is refused. A file that is being
  written, or was cut short, never means less than its author wrote.
- Nothing is granted because it was left out: `unix` is always given, and so is an identity.
- Only its owner, and a group that may read it, have access to it.
- A problem names the entry, the key and what is legal; the value only where it cannot be a secret.
- What is wrong anywhere makes the whole file unusable.
"""

import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from kvblock.trusted_file import FileRead
from kvblock_service.access.identities import LOCAL_OPERATOR, Identities, Identity, digest_of
from kvblock_service.access.reloaded import AccessError, Reloaded
from kvblock_service.config.toml_text import toml_table
from kvblock_service.config.values import name, truth

TOKEN_CHARACTERS_MIN = 16
"""Characters that a token has at least: a shorter one can be guessed."""

TRUSTED, TOKEN = "trusted", "token"
_RESERVED = (TRUSTED, TOKEN)
_UNIX = f"must be {TRUSTED}, {TOKEN} or the name of an identity"
_END = "[end]"
_SETTING = "access_file"
_RATE_MIN, _RATE_MAX = 0.01, 1_000_000.0
_SHOWN = ("name", "unix", "engines", "pools", "certificate", "admin", "calls_per_second")
_TOO_OPEN = stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH


def access_file(path: Path) -> Reloaded[Identities]:
    """The identities of the file, which follow it once they are watched.

    It raises AccessError, whose text says all that is wrong with the file, and shows no secret.
    """

    def parse(found: Mapping[str, FileRead]) -> Identities:
        try:
            return _identities(*found[_SETTING], path)
        except _Unusable as error:
            raise AccessError(f"{_SETTING} {path}: {error}") from None

    return Reloaded({_SETTING: path}, parse)


class _Unusable(Exception):
    """The text completes a sentence that begins with the file's path."""


def _texts(value: object) -> list[str]:
    entries = [value] if isinstance(value, str) else value
    if isinstance(entries, list) and all(isinstance(entry, str) for entry in entries):
        return entries
    raise ValueError("must be a text or a list of texts")


def _each(legal: Callable[[str], object], problem: str, made: Callable[[str], object]) -> Any:
    """Reads texts, one or a list, and makes something of each; `problem` says what is legal."""

    def read(value: object) -> tuple[object, ...]:
        texts = _texts(value)
        if not all(map(legal, texts)):
            raise ValueError(problem)
        return tuple(map(made, texts))

    return BeforeValidator(read)


_TOKENS = _each(
    re.compile(rf"[!-~]{{{TOKEN_CHARACTERS_MIN},}}").fullmatch,
    f"must have at least {TOKEN_CHARACTERS_MIN} characters, printable ASCII without blanks",
    digest_of,
)
_DIGESTS = _each(
    re.compile(r"[0-9a-fA-F]{64}").fullmatch,
    "must have 64 hexadecimal digits: the SHA-256 of the token alone",
    bytes.fromhex,
)
_PATTERNS = _each(
    re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,128}").fullmatch,
    "must be patterns of 1 to 128 characters from A-Z a-z 0-9 . _ - * ? [ ] !",
    str,
)
_CERTIFICATES = _each(bool, "must not be empty", str)


def _identity_name(value: object) -> str:
    if value in _RESERVED:
        raise ValueError(f"must not be {' or '.join(_RESERVED)}, which mean something in `unix`")
    return name(value)


def _rate(value: object) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and _RATE_MIN <= value <= _RATE_MAX:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise ValueError(f"must be a number from {_RATE_MIN:g} to {_RATE_MAX:.0f}")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Entry(_Table):
    name: Annotated[str, BeforeValidator(_identity_name)]
    token: Annotated[tuple[bytes, ...], _TOKENS] = ()
    token_sha256: Annotated[tuple[bytes, ...], _DIGESTS] = ()
    certificate: Annotated[tuple[str, ...], _CERTIFICATES] = ()
    engines: Annotated[tuple[str, ...], _PATTERNS] = ()
    pools: Annotated[tuple[str, ...], _PATTERNS] = ()
    admin: Annotated[bool, BeforeValidator(truth)] = False
    calls_per_second: Annotated[float | None, BeforeValidator(_rate)] = None

    def identity(self) -> Identity:
        rest = self.model_dump(exclude={"token", "token_sha256", "certificate"})
        digests = self.token + self.token_sha256
        return Identity(token_digests=digests, certificates=self.certificate, **rest)


class _Document(_Table):
    unix: str
    identity: tuple[_Entry, ...] = ()
    end: _Table


def _identities(content: bytes, mode: int, path: Path) -> Identities:
    if mode & _TOO_OPEN:
        raise _Unusable(
            f"has mode {mode:04o}, with which others could read or change it; `chmod 600 {path}`,"
            " or 640 for a group"
        )
    if content.rstrip().rpartition(b"\n")[2].strip() != _END.encode():
        raise _Unusable(
            f"does not end with the line {_END}, so it may have been cut short; if it was not, add"
            " that line below everything else"
        )
    try:
        found = toml_table(content)
    except ValueError as error:
        raise _Unusable(str(error)) from None
    try:
        document = _Document.model_validate(found)
    except ValidationError as error:
        problems = [_sentence(details, found) for details in error.errors(include_url=False)]
    else:
        problems = list(_contradictions(document))
    if problems:
        raise _Unusable("; ".join(problems))
    identities = tuple(entry.identity() for entry in document.identity)
    named = {identity.name: identity for identity in identities}
    unix = {TRUSTED: LOCAL_OPERATOR, TOKEN: None} | named
    return Identities(identities, unix[document.unix])


def _contradictions(document: _Document) -> Iterable[str]:
    names = [entry.name for entry in document.identity]
    if not names:
        yield "there is no [[identity]]; give at least one"
    for repeated in sorted({one for one in names if names.count(one) > 1}):
        yield f"there are two identities {repeated}"
    if document.unix not in (*_RESERVED, *names):
        yield f"unix = {document.unix!r} {_UNIX}"
    owners: dict[bytes, str] = {}
    for entry in document.identity:
        known_by = (*entry.token, *entry.token_sha256)
        if not (known_by or entry.certificate or entry.name == document.unix):
            yield f"identity {entry.name} has neither token, token_sha256 nor certificate"
        for digest in known_by:
            if digest in owners:
                yield f"identities {owners[digest]} and {entry.name} have the same token"
            owners[digest] = entry.name


def _sentence(details: ErrorDetails, document: dict[str, Any]) -> str:
    location = details["loc"]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    place = place.removeprefix(".")
    if details["type"] == "extra_forbidden":
        return f"{place}: no such key"
    if details["type"] == "missing":
        return f"{place}: is not given" + (f"; {_UNIX}" if place == "unix" else "")
    raised = details.get("ctx", {}).get("error")
    key = location[-1]
    shown = f" = {details['input']!r}"[:120] if key in _SHOWN else ""
    return f"{place}{shown}: {raised or _TYPES.get(str(key), 'must be a table')}"


_TYPES = {"unix": "must be a text", "identity": "must be tables, [[identity]]"}
