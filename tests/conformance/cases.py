"""The vectors: one call each, with what has to come of it, as data in vectors/*.yaml.

    name, method     method is the RPC's name; it is unique over both services
    before           calls that set the scene: [{Allocate: {...}}, ...]; of a Session, its messages
    attached         engines that have a live session meanwhile
    waiting          the request of an Allocate that waits for blocks meanwhile
    signal           sent to the server when the messages are answered; it has its own server then
    replaced         an engine whose lease another stream resumes when the messages are answered
    access           an access file; the vector has a server of its own then, with no scene but
                     `before`
    request          the request of a unary method, in protobuf's JSON form
    messages         those of a Session, each sent when the one before it was answered
    answer, answers  what has to be answered; what changes from run to run is left out
    changes          by how much a Session lets the revision of `main` grow
    error            code, reason, metadata, violations (the fields), retry (seconds; with `access`
                     or `attached`: at most), then (what `kvblock-then` says, if it is not what
                     then.yaml has for the reason)

`$e` stands for the epoch that the last attach of engine `e`, in `before` or `attached`, was given.
A call with an error has to leave the server's state as it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Json: TypeAlias = dict[str, Any]

THEN: dict[str | None, str] = yaml.safe_load(
    Path(__file__).with_name("then.yaml").read_text(encoding="utf-8")
)
"""What a caller does next, by the reason of its error."""


@dataclass(frozen=True)
class Expected:
    """The status of a call and its details."""

    code: str
    reason: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    retry: float | None = None
    then: str | None = None

    def __post_init__(self) -> None:
        if self.then is None:
            object.__setattr__(self, "then", THEN.get(self.reason))


@dataclass(frozen=True)
class Case:
    """One vector."""

    name: str
    method: str
    before: list[Json] = field(default_factory=list)
    attached: list[str] = field(default_factory=list)
    waiting: Json | None = None
    signal: str | None = None
    replaced: str | None = None
    access: str | None = None
    request: Json | None = None
    messages: list[Json] | None = None
    answer: Json | None = None
    answers: list[Json] | None = None
    changes: int = 0
    error: Expected = Expected("OK")

    def sent(self) -> list[Json]:
        """The messages of the call."""
        if self.messages is None:
            assert self.request is not None, f"{self.name} has no request"
            return [self.request]
        return self.messages

    def awaited(self) -> list[Json]:
        """The answers that have to come."""
        if self.answers is None:
            return [] if self.answer is None else [self.answer]
        return self.answers


def load() -> Iterator[Case]:
    """Every vector."""
    for path in sorted(Path(__file__).with_name("vectors").glob("*.yaml")):
        for row in yaml.safe_load(path.read_text(encoding="utf-8")):
            error = row.pop("error", None)
            yield Case(**row, error=Expected(**error) if error else Expected("OK"))


CASES = list(load())
