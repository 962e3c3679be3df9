"""What a handler knows of the request that it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage_ws.aio.answering import Answering
    from sage_ws.aio.streams import Outgoing
    from sage_ws.message import SecureMessage


class LinkCall:
    """One request being served over a connection: what a handler knows as its `Call`.

    Args:
        connection: what it came by.
        message: the request.
        deadline: loop time past which nobody waits for the answer.
    """

    __slots__ = ("_message", "_parts", "connection", "deadline")

    def __init__(self, connection: Answering, message: SecureMessage, deadline: float | None) -> None:
        self.connection: Any = connection
        self.deadline = deadline
        self._message = message
        self._parts: Outgoing | None = None

    @property
    def identity(self) -> str | None:
        """The caller's proven identity; None without ``authorize``."""
        identity: str | None = self.connection.identity
        return identity

    @property
    def parts(self) -> Outgoing | None:
        """Where the parts of an answer go; None where the caller takes it whole."""
        if self._parts is None:
            self._parts = self.connection.outgoing(self._message)
        return self._parts
