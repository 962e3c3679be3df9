"""The six states of a client: every move of the drawing is in the table, and no other."""

from __future__ import annotations

import itertools

import pytest

from sage_ws import State
from sage_ws.aio.state import TRANSITIONS, moved

MOVES = {
    ("IDLE", "DIALING"),
    ("IDLE", "DRAINING"),
    ("IDLE", "CLOSED"),
    ("DIALING", "OPEN"),
    ("DIALING", "IDLE"),
    ("DIALING", "WAITING"),
    ("DIALING", "DRAINING"),
    ("DIALING", "CLOSED"),
    ("OPEN", "WAITING"),
    ("OPEN", "DRAINING"),
    ("OPEN", "CLOSED"),
    ("WAITING", "DIALING"),
    ("WAITING", "IDLE"),
    ("WAITING", "DRAINING"),
    ("WAITING", "CLOSED"),
    ("DRAINING", "CLOSED"),
}


@pytest.mark.parametrize(("start", "to"), [*itertools.permutations(State, 2)], ids=lambda state: state.name)
def test_a_client_moves_as_drawn(start: State, to: State) -> None:
    if (start.name, to.name) in MOVES:
        assert moved(start, to) is to
    else:
        with pytest.raises(RuntimeError, match=f"^a client cannot move from {start.name} to {to.name}$"):
            moved(start, to)


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_staying_is_always_allowed(state: State) -> None:
    assert moved(state, state) is state


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_state_leads_to_closed_in_the_end(state: State) -> None:
    reached = {state}
    while True:
        further = reached.union(*(TRANSITIONS[one] for one in reached))
        if further == reached:
            break
        reached = further
    assert State.CLOSED in reached


def test_closed_is_the_end() -> None:
    assert TRANSITIONS[State.CLOSED] == frozenset()
    assert TRANSITIONS.keys() == set(State)
