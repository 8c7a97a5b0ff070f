"""The table of states of a session and of an engine's lease."""

import itertools

import pytest

from kvblock.lifecycle import OPEN, OVER, TRANSITIONS, UNATTACHED, Event, Lifecycle, State

# Written out once more, state by state: what each event leads to, and "-" where it is a bug.
EXPECTED = """
                NEW        ATTACHING  ATTACHED    UNANSWERED  ENDED      DETACHING  CLOSED
ATTACH_SENT     ATTACHING  ATTACHING  -           -           -          -          CLOSED
ATTACH_ANSWERED -          ATTACHED   -           -           -          -          CLOSED
STEP_SENT       -          -          UNANSWERED  -           ENDED      -          CLOSED
STEP_ANSWERED   -          -          -           ATTACHED    ENDED      -          CLOSED
STEP_FAILED     -          -          -           ENDED       ENDED      -          CLOSED
LEFT            -          -          ENDED       ENDED       ENDED      DETACHING  CLOSED
DETACH_SENT     -          -          DETACHING   DETACHING   DETACHING  DETACHING  CLOSED
DETACH_ANSWERED -          -          -           -           -          CLOSED     CLOSED
CLOSED          CLOSED     CLOSED     CLOSED      CLOSED      CLOSED     CLOSED     CLOSED
"""
HEAD, *ROWS = [line.split() for line in EXPECTED.strip().splitlines()]
CELLS = {
    (state, event): following
    for event, *cells in ROWS
    for state, following in zip(HEAD, cells, strict=True)
}


def in_state(state: State) -> Lifecycle:
    life = Lifecycle()
    life._state = state
    return life


def test_the_table_has_every_state_and_every_event() -> None:
    assert CELLS.keys() == {(s.name, e.name) for s, e in itertools.product(State, Event)}
    assert TRANSITIONS.keys() == set(State)
    assert sorted((*UNATTACHED, *OPEN, *OVER)) == list(State)


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_event_in_every_state(state: State, event: Event) -> None:
    life, following = in_state(state), CELLS[state.name, event.name]
    if following == "-":
        text = f"internal error of kvblock: {event.name} in state {state.name}"
        for move in (life._move, lambda event: life._end(event, "why")):
            with pytest.raises(AssertionError, match=text):
                move(event)
        assert (life._state, life._ended_by) == (state, "")
    else:
        life._move(event)
        assert life._state.name == following


def test_every_state_is_reached_from_the_first_one() -> None:
    reached, seen = {State.NEW}, set[State]()
    while reached - seen:
        state = (reached - seen).pop()
        seen.add(state)
        reached |= set(TRANSITIONS[state].values())
    assert reached == set(State)


def test_what_is_over_stays_over() -> None:
    for state in OVER:
        assert set(TRANSITIONS[state].values()) <= set(OVER)


def test_the_first_reason_for_a_state_stays() -> None:
    life = in_state(State.UNANSWERED)
    life._end(Event.LEFT, "it was left")
    life._end(Event.STEP_FAILED, "the server has failed")
    assert (life._state, life._ended_by) == (State.ENDED, "it was left")
    life._end(Event.CLOSED, "it was closed")
    life._end(Event.CLOSED, "it was closed again")
    assert (life._state, life._ended_by) == (State.CLOSED, "it was closed")
