"""The states of a session and of an engine's lease, and what leads from one to another.

Rules:
- A state changes by an event, as TRANSITIONS says. An event that has no place in a state is a bug
  of this package and raises AssertionError, and the state stays.
- Whether the lease itself is still valid is not a state here: time ends it, see `kvblock.lease`.
- ENDED and CLOSED take what a call may still bring that another thread has ended meanwhile.
- A transition is one expression without a call in it, so neither another thread nor a signal
  handler comes between reading the state and writing it.
"""

from __future__ import annotations

from enum import IntEnum, auto


class State(IntEnum):
    """Where a session or an engine's lease is. An engine's lease begins with ATTACHED."""

    NEW = auto()
    """Nothing was sent."""
    ATTACHING = auto()
    """An attach was sent and not answered: it may have been carried out."""
    ATTACHED = auto()
    """Every step was answered."""
    UNANSWERED = auto()
    """A step was sent and not answered; it alone may be sent again."""
    ENDED = auto()
    """No step can be made any more; the lease is kept, and renewed."""
    DETACHING = auto()
    """A detach was sent and not answered; the lease is not renewed any more."""
    CLOSED = auto()
    """Detached or closed: for good."""


class Event(IntEnum):
    """What moves it on."""

    ATTACH_SENT = auto()
    ATTACH_ANSWERED = auto()
    STEP_SENT = auto()
    STEP_ANSWERED = auto()
    STEP_FAILED = auto()
    """The server has answered an error."""
    LEFT = auto()
    """The session was left while a call was running."""
    DETACH_SENT = auto()
    DETACH_ANSWERED = auto()
    """Also by an error which says that the lease has ended."""
    CLOSED = auto()
    """The user has closed it."""


# What each step uses: in Python 3.11 to look up a member costs more than a transition.
ATTACHED, STEP_SENT, STEP_ANSWERED = State.ATTACHED, Event.STEP_SENT, Event.STEP_ANSWERED

TRANSITIONS: dict[State, dict[Event, State]] = {
    State.NEW: {Event.ATTACH_SENT: State.ATTACHING, Event.CLOSED: State.CLOSED},
    State.ATTACHING: {
        Event.ATTACH_SENT: State.ATTACHING,
        Event.ATTACH_ANSWERED: State.ATTACHED,
        Event.CLOSED: State.CLOSED,
    },
    State.ATTACHED: {
        Event.STEP_SENT: State.UNANSWERED,
        Event.LEFT: State.ENDED,
        Event.DETACH_SENT: State.DETACHING,
        Event.CLOSED: State.CLOSED,
    },
    State.UNANSWERED: {
        Event.STEP_ANSWERED: State.ATTACHED,
        Event.STEP_FAILED: State.ENDED,
        Event.LEFT: State.ENDED,
        Event.DETACH_SENT: State.DETACHING,
        Event.CLOSED: State.CLOSED,
    },
    State.ENDED: {
        Event.STEP_SENT: State.ENDED,
        Event.STEP_ANSWERED: State.ENDED,
        Event.STEP_FAILED: State.ENDED,
        Event.LEFT: State.ENDED,
        Event.DETACH_SENT: State.DETACHING,
        Event.CLOSED: State.CLOSED,
    },
    State.DETACHING: {
        Event.LEFT: State.DETACHING,
        Event.DETACH_SENT: State.DETACHING,
        Event.DETACH_ANSWERED: State.CLOSED,
        Event.CLOSED: State.CLOSED,
    },
    State.CLOSED: dict.fromkeys(Event, State.CLOSED),
}

UNATTACHED = (State.NEW, State.ATTACHING)
OPEN = (State.ATTACHED, State.UNANSWERED)
OVER = (State.ENDED, State.DETACHING, State.CLOSED)


class Lifecycle:
    """Something that has a state; `ended_by` says in words what has brought it to one of OVER."""

    _state = State.NEW
    _ended_by = ""

    def _move(self, event: Event) -> None:
        try:
            self._state = TRANSITIONS[self._state][event]
        except KeyError:
            raise AssertionError(
                f"internal error of kvblock: {event.name} in state {self._state.name}"
            ) from None

    def _end(self, event: Event, why: str) -> None:
        """Move to one of OVER, or stay there."""
        if TRANSITIONS[self._state].get(event, self._state) is not self._state:
            self._ended_by = why
        self._move(event)
