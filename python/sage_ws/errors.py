"""The one exception tree. Its first branch answers: *may I send it again?*

===========================  =================  ===================  ======================
error                        did bytes leave?   was it answered?     send it again?
===========================  =================  ===================  ======================
SageError
├─ DecodeError                                  yes, unreadably      ask the peer's author
├─ HandlerError              (a handler raises it: its text goes to the peer)
├─ AnsweredError             yes              yes, by an error     if its text says so
├─ RefusedError              (``authorize`` raises it: an HTTP status in place of the 101)
└─ TransportError
   ├─ NotSentError           no                 no                   yes, safely
   │  ├─ DialError
   │  │  └─ DialTimeoutError
   │  ├─ QueueTimeoutError
   │  ├─ ClosedError                                                 on another client
   │  ├─ DuplicateIdError                                            under another id
   │  └─ MessageTooBigError                                          never as it is
   └─ MaybeDeliveredError    yes                no                   only if idempotent
      ├─ ConnectionLostError
      ├─ ReadTimeoutError
      └─ WriteTimeoutError
===========================  =================  ===================  ======================

Every timeout is a ``TimeoutError`` too, so that ``except TimeoutError`` catches what
``asyncio.timeout()`` raises and ours alike; a failed or broken link is a ``ConnectionError``,
as the socket module's own errors are; what the caller can mend by changing the value is a
``ValueError``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage_ws.message import Response

PEER_TEXT_LIMIT = 200
"""Characters of a peer's text that an error's text or a log line may carry."""


def peer_text(text: str, limit: int = PEER_TEXT_LIMIT) -> str:
    """Text from a peer as it may stand in an error or a log line: escaped, quoted and cut.

    Args:
        text: what the peer sent, of any length.
        limit: characters before escaping that are shown.

    Returns:
        One line of printable ASCII.
    """
    cut = text[:limit]
    return ascii(cut) if len(cut) == len(text) else f"{cut!a} … ({len(text)} characters)"


def _rebuild(cls: type[SageError], args: tuple[Any, ...], attributes: dict[str, Any]) -> SageError:
    """Unpickle: an error's attributes are keyword-only, which ``Exception.__reduce__`` cannot say."""
    error = cls.__new__(cls, *args)
    Exception.__init__(error, *args)
    error.__dict__.update(attributes)
    return error


class SageError(Exception):
    """The root: everything that sage_ws raises on purpose, but for misuse of its own API."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class DecodeError(SageError, ValueError):
    """Bytes that are not the message they should be (docs/reference/wire.md, "JSON").

    Attributes:
        field: the key whose value was wrong, ``None`` when the message as a whole was.
    """

    field: str | None

    def __init__(self, text: str = "", *, field: str | None = None) -> None:
        super().__init__(text)
        self.field = field


class HandlerError(SageError):
    """Raised by a handler to answer ``success: false`` with exactly this text."""


class AnsweredError(SageError):
    """The peer's handler said no; raised by ``Response.raise_for_error()`` alone.

    Attributes:
        response: the whole answer.
    """

    response: Response

    def __init__(self, response: Response) -> None:
        super().__init__(response.error or "the peer answered an error without a text")
        self.response = response

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.response,)


class RefusedError(SageError):
    """Raised by ``authorize`` to refuse a connection before it opens.

    Attributes:
        status: the HTTP status that the peer gets in place of the 101, 400 to 599.
    """

    status: int

    def __init__(self, status: int = 403, text: str = "") -> None:
        if not isinstance(status, int):
            raise TypeError(f"status must be an int, not {type(status).__name__}")
        if not 400 <= status <= 599:
            raise ValueError(f"status must be an HTTP error from 400 to 599, not {status}")
        super().__init__(text)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, *self.args)


class TransportError(SageError):
    """The transport could not bring an answer.

    Attributes:
        message_id: of the message that it happened to, ``None`` where it was none in particular.
    """

    message_id: str | None

    def __init__(self, text: str = "", *, message_id: str | None = None) -> None:
        super().__init__(text)
        self.message_id = message_id


class NotSentError(TransportError):
    """Nothing of the message left this process: sending it again is safe."""


class DialError(NotSentError, ConnectionError):
    """No connection came about: refused, TLS failed, or an HTTP answer other than our 101.

    Attributes:
        status: the HTTP status of that answer, ``None`` where there was none.
    """

    status: int | None

    def __init__(self, text: str = "", *, status: int | None = None, message_id: str | None = None) -> None:
        super().__init__(text, message_id=message_id)
        self.status = status


class DialTimeoutError(DialError, TimeoutError):
    """``dial_timeout`` ran out during DNS, proxy, TCP, TLS or the opening handshake."""


class QueueTimeoutError(NotSentError, TimeoutError):
    """The message's time ran out before it could leave."""


class ClosedError(NotSentError):
    """``close()`` or ``drain()`` was called, or the process forked."""


class DuplicateIdError(NotSentError, ValueError):
    """A message with this id is in flight on the connection; that call keeps its answer."""


class MessageTooBigError(NotSentError, ValueError):
    """Over ``max_message_size`` as it would stand on the wire: refused here, at no cost to the link."""


class MaybeDeliveredError(TransportError):
    """Bytes left and no answer came: the handler may have run, or not."""


class ConnectionLostError(MaybeDeliveredError, ConnectionError):
    """The connection ended before the answer.

    Attributes:
        code: the peer's close code (RFC 6455 §7.4), ``None`` where it sent no close frame.
        reason: the peer's close reason, possibly empty.
    """

    code: int | None
    reason: str

    def __init__(
        self,
        text: str = "",
        *,
        code: int | None = None,
        reason: str = "",
        message_id: str | None = None,
    ) -> None:
        super().__init__(text, message_id=message_id)
        self.code = code
        self.reason = reason


class ReadTimeoutError(MaybeDeliveredError, TimeoutError):
    """The message left and its answer did not come in time."""


class WriteTimeoutError(MaybeDeliveredError, TimeoutError):
    """The peer did not take our bytes for ``write_timeout``; the connection was cut."""
