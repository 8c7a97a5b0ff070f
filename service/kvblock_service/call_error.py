"""What every error of a call has in common.

Rules:
- A class declares its reason, its gRPC code (both by their names, without the proto's prefixes) and
  its text, and nothing else declares them. Its fields are the facts of the text: they go into the
  answer's ErrorInfo, but for those that are `aside`. A field `field` also names the field of a
  BadRequest, and `retry_after` (seconds) goes into a RetryInfo.
- A text says what the caller can do.
- `of_state`: the error follows from what the server holds, so it is sent when that is in the
  journal.
- Whoever raises one has changed nothing.
"""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

SHOWN_MAX = 80
"""Characters of a value that a text has."""
_ErrorT = TypeVar("_ErrorT", bound="CallError")


def aside(default: object = MISSING) -> Any:
    """A field that is for the text alone."""
    return field(default=default, metadata={"aside": True})


@dataclass(eq=False)
class CallError(Exception):
    """A call that cannot be carried out."""

    reason: ClassVar[str]
    code: ClassVar[str]
    text: ClassVar[str]
    of_state = False

    def __post_init__(self) -> None:
        super().__init__(self.text.format(**vars(self)))

    @property
    def metadata(self) -> dict[str, str]:
        """The facts."""
        named = [one.name for one in fields(self) if "aside" not in one.metadata]
        facts = {name: getattr(self, name) for name in named}
        return {name: str(fact) for name, fact in facts.items() if fact is not None}

    def of_journal(self: _ErrorT) -> _ErrorT:
        """The same error, where all that it follows from is in the journal already."""
        self.of_state = False
        return self


def shown(value: object) -> str:
    """A value in a text, in part if it is long."""
    whole = repr(value) if isinstance(value, str) else str(value)
    return f"{whole[: SHOWN_MAX - 3]}..." if len(whole) > SHOWN_MAX else whole
