"""What an error of a call has: its declaration, its facts, and what its caller does next.

Rules:
- A class of `errors` declares its reason, its gRPC code (both by their names, without the proto's
  prefixes), its text and `then`, and nothing else declares them. Its fields are the facts of the
  text: they go into the answer's ErrorInfo, but for those that are `aside`. A field `field` also
  names the field of a BadRequest, and `retry_after` (seconds) goes into a RetryInfo.
- `then` follows from what the error means for the caller, never from its code.
- `of_state`: the error follows from what the server holds, so it is sent when that is in the
  journal.
"""

from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar, TypeVar

SHOWN_MAX = 80
"""Characters of a value that a text has."""
_ErrorT = TypeVar("_ErrorT", bound="CallError")


class Then(Enum):
    """What a caller does after an error; the values are those of the wire."""

    REPEAT = "repeat"
    """Make the same call again, with the same request_id or step_id; not before the retry time."""
    RESUME = "resume"
    """Attach again with the lease's epoch, on a new stream if it was one: the lease goes on."""
    LEASE_LOST = "lease_lost"
    """Use nothing that the engine held; attach anew, without an epoch."""
    GIVE_UP = "give_up"
    """The request or its caller is wrong, or somebody has to decide: a repeat cannot help."""


def aside(default: object = MISSING) -> Any:
    """A field that is for the text alone."""
    return field(default=default, metadata={"aside": True})


@dataclass(eq=False)
class CallError(Exception):
    """A call that cannot be carried out."""

    reason: ClassVar[str]
    code: ClassVar[str]
    text: ClassVar[str]
    then = Then.GIVE_UP
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
