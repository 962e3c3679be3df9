"""The six states of a client, and who may move to which.

::

                 dial fails          every dial fails but one
               ┌───────────┐        ┌───────────┐
               ▼           │        ▼           │
    IDLE ──► DIALING ──► OPEN ──► WAITING ──► DIALING ──► OPEN …
     │          │          │         │
     │          │          ▼         │
     └──────────┴──► DRAINING ◄──────┘   (drain)
                           │
                           ▼
                        CLOSED           (close, from anywhere)

IDLE has never been connected, or gave up on what cannot heal: its next send dials and fails fast. WAITING
was connected and lost it: it dials again by itself after a backoff, and a send waits for that.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class State(enum.Enum):
    """Where a client stands."""

    IDLE = 0
    DIALING = 1
    OPEN = 2
    WAITING = 3
    DRAINING = 4
    CLOSED = 5


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        State.IDLE: frozenset({State.DIALING, State.DRAINING, State.CLOSED}),
        State.DIALING: frozenset({State.OPEN, State.IDLE, State.WAITING, State.DRAINING, State.CLOSED}),
        State.OPEN: frozenset({State.WAITING, State.DRAINING, State.CLOSED}),
        State.WAITING: frozenset({State.DIALING, State.IDLE, State.DRAINING, State.CLOSED}),
        State.DRAINING: frozenset({State.CLOSED}),
        State.CLOSED: frozenset(),
    }
)


def moved(state: State, to: State) -> State:
    """The state after a move.

    Raises:
        RuntimeError: the table has no such move: a bug of ours.
    """
    if to is state:
        return state
    if to not in TRANSITIONS[state]:
        raise RuntimeError(f"a client cannot move from {state.name} to {to.name}")
    return to
