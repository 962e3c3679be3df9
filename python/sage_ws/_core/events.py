"""What a core's `Connection.receive_data` returns beside messages and answers.

Both cores make these same classes, so that the layer above needs one look at a value's type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sage_ws.errors import DecodeError

if TYPE_CHECKING:
    from sage_ws._core import Response


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
    """A message that broke docs/reference/wire.md's rules and belongs to no call; the connection goes on.

    On the server it was answered already, with the error's text and an empty message id.

    Attributes:
        error: what was wrong with it.
    """

    error: DecodeError


class Part(NamedTuple):
    """A part of an answer, which further ones will follow; the call goes on. On extended connections.

    Attributes:
        waiter: what `send_message` was given, as it will come with the last part too.
        response: the part.
    """

    waiter: Any
    response: Response


class Cancel(NamedTuple):
    """The peer does not wait for this answer any more. On extended connections.

    Attributes:
        message_id: its request's; no request with this id may be running.
    """

    message_id: str


class Credit(NamedTuple):
    """The peer takes further parts of an answer. On extended connections.

    Attributes:
        message_id: its request's; no request with this id may be running.
        count: how many parts more.
    """

    message_id: str
    count: int  # type: ignore[assignment]  # the field, not the method of tuples


class GoAway(NamedTuple):
    """The peer will take no more requests on this connection for long. On extended connections.

    Attributes:
        reason: why, in the peer's words.
    """

    reason: str
