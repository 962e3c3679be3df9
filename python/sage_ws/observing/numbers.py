"""The numbers of ``stats()`` as metrics: what each is called, and whether it goes up only.

A key that stands in no table here is a counter named after itself, so that a new number is shown from its
first day; what is a gauge must be named in `GAUGES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["client", "server"]

GAUGES: Final = frozenset({"connections", "pending", "queued"})
"""Keys of ``stats()`` that tell what is now; all others count since the start."""

_NAMES: Final[Mapping[Kind, Mapping[str, tuple[str, str]]]] = {
    "server": {
        "connections": ("connections", "Connections that are open."),
        "accepted": ("connections_accepted", "Opening handshakes that were accepted."),
        "refused": ("connections_refused", "Opening handshakes that were refused."),
        "pending": ("pending_requests", "Requests that were read and are not answered yet."),
        "received": ("requests", "Requests for the handler."),
        "answered": ("responses", "Answers that were sent."),
        "invalid": (
            "invalid_messages",
            "Messages answered by an error without the handler, keepalives among them.",
        ),
        "dropped": (
            "dropped",
            "Requests and answers whose connection was gone, or that came during a drain.",
        ),
        "duplicates": ("duplicates", "Requests that dedupe did not run again."),
        "bytes_in": ("received_bytes", "Bytes received on connections, without TLS and opening handshake."),
        "bytes_out": ("sent_bytes", "Bytes sent on connections, without TLS and opening handshake."),
    },
    "client": {
        "pending": ("pending_requests", "Calls that await an answer."),
        "queued": ("queued_requests", "Calls that wait to leave."),
        "sent": ("requests", "Messages that were sent."),
        "answered": ("responses", "Answers that reached their call."),
        "late": ("late_responses", "Answers that nobody waited for any more."),
        "invalid": ("invalid_responses", "Answers that could not be decoded."),
        "failed": ("failures", "Calls that ended with an error of the transport."),
        "dials": ("dials", "Attempts to connect."),
        "reconnects": ("reconnects", "Connections after the first."),
        "retries": ("retries", "Messages that were sent again after a loss."),
        "bytes_in": ("received_bytes", "Bytes received on connections, without TLS and opening handshake."),
        "bytes_out": ("sent_bytes", "Bytes sent on connections, without TLS and opening handshake."),
    },
}


@dataclass(frozen=True)
class Number:
    """One number of ``stats()``.

    Attributes:
        name: in words that are joined by underscores, without prefix and unit's suffix.
        help: what it tells, in a sentence.
        is_gauge: whether it may fall.
    """

    name: str
    help: str
    is_gauge: bool


def number(kind: Kind, key: str) -> Number:
    """What a key of ``stats()`` is as a metric."""
    name, text = _NAMES[kind].get(key, (key, f"What stats() of a {kind} has under {key}."))
    return Number(name, text, key in GAUGES)


def known_keys(kind: Kind) -> tuple[str, ...]:
    """The keys that have a name of their own."""
    return tuple(_NAMES[kind])
