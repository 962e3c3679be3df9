"""How a call ended, in one of a few words: what may stand in a metric's label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sage_ws.errors import HandlerError, MaybeDeliveredError, NotSentError
from sage_ws.message import Response
from sage_ws.observing.numbers import Kind

OUTCOMES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "server": ("success", "failure", "error", "cancelled"),
    "client": ("success", "failure", "not_sent", "maybe_delivered", "error", "cancelled"),
}
"""``failure`` is an answer that says no, of the handler's own will; ``error`` is an exception of ours or of
the handler's, of which a peer hears nothing but that there was one."""
DURATIONS: Final[Mapping[Kind, str]] = {
    "server": "Time from a request's dispatch until its answer.",
    "client": "Time of a call, waiting for a connection included.",
}
"""What the times of calls are."""


def outcome_of(response: Response) -> str:
    """The word for an answer."""
    return "success" if response.success and not response.error else "failure"


def outcome_of_error(kind: Kind, error: BaseException) -> str:
    """The word for an exception that ended a call."""
    if not isinstance(error, Exception):
        return "cancelled"
    if kind == "client":
        if isinstance(error, NotSentError):
            return "not_sent"
        return "maybe_delivered" if isinstance(error, MaybeDeliveredError) else "error"
    return "failure" if isinstance(error, HandlerError) else "error"
