"""What a core's `Connection.receive_data` returns beside messages and answers.

Both cores make these same classes, so that the layer above needs one look at a value's type.
"""

from __future__ import annotations

from typing import NamedTuple

from sage_ws.errors import DecodeError


class Closing(NamedTuple):
    """The closing handshake began, or the connection failed: always the last event of a connection.

    Attributes:
        code: the close code, the peer's if it sent one, ours if we failed the connection;
            `None` for a close frame without a code (RFC 6455 §7.1.5).
        reason: the close reason, as sent or as received.
        by_peer: whether the peer sent a close frame; otherwise the peer broke a rule and our close frame
            with this code is in the output.
    """

    code: int | None
    reason: str
    by_peer: bool


class Pong(NamedTuple):
    """A pong frame came in (RFC 6455 §5.5.3).

    Attributes:
        payload: its application data, up to 125 bytes.
    """

    payload: bytes


class Undecodable(NamedTuple):
    """A message that broke WIRE.md's rules and belongs to no call; the connection goes on.

    On the server it was answered already, with the error's text and an empty message id.

    Attributes:
        error: what was wrong with it.
    """

    error: DecodeError
