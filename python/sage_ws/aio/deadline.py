"""The deadline of the call that is being served, for the calls that its handler makes meanwhile.

A peer tells how long it will wait. The handler runs with that in its context, and so does every task that it
starts; whatever they send in turn is given no more time than that.
"""

from __future__ import annotations

from contextvars import ContextVar

from sage_ws.options import UNSET, Seconds, Unset

DEADLINE: ContextVar[float | None] = ContextVar("sage_ws_deadline", default=None)
"""Loop time past which nobody waits for what is being done."""


class Seen:
    """Whether a deadline has ever come: while none has, no call need look for one.

    Attributes:
        any: it has.
    """

    any = False


def within(timeout: Seconds | Unset, now: float, usual: Seconds) -> Seconds | Unset:
    """A call's ``timeout`` within the deadline of the call that is being served, if there is one.

    Args:
        timeout: as the caller gave it.
        now: loop time.
        usual: seconds that a call without a ``timeout`` has; None for no limit.

    Returns:
        ``timeout``, or what is left until that deadline where that is less; 0 or less when it is over.
    """
    deadline = DEADLINE.get()
    if deadline is None:
        return timeout
    left = deadline - now
    if timeout is UNSET:
        return left if usual is None or left < usual else UNSET
    return left if timeout is None else min(timeout, left)
