"""The direct link: a plain connection's descriptor, taken over from the loop's transport.

`take_over` is where a link becomes direct. From then on the loop knows its socket only as part of one epoll
(`aio/hub.py`), and bytes go between the kernel and the core without an object of Python in between. To its
link a `DirectTransport` is what the loop's transport was, but that nothing is ever written to it: the link
flushes.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_ws._core import Connection, Socket
    from sage_ws.aio.hub import Hub
    from sage_ws.aio.link import Link


class _Released(asyncio.Protocol):
    """The protocol of a transport that has no say any more."""


class DirectTransport:
    """What `asyncio.Transport` is, for a link whose socket is read and written by the native core.

    Args:
        socket: the socket, registered with the loop's epoll.
        link: the connection on it.
        hub: what the loop's links share.
    """

    __slots__ = ("_closing", "_hub", "_link", "socket")

    def __init__(self, socket: Socket, link: Link, hub: Hub) -> None:
        self.socket = socket
        self._link = link
        self._hub = hub
        self._closing = False

    def __repr__(self) -> str:
        return f"<DirectTransport fd={self.socket.fileno()}>"

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        """Collected while it is open: with its loop, which is all that holds it then."""
        if not self.socket.closed:
            if self._hub.is_of_this_process:
                _warn(f"unclosed {self!r}", ResourceWarning, source=self)
            self.socket.close()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be when what is unsent is gone."""
        return self._closing

    def close(self) -> None:
        """Close when the peer has taken what is unsent."""
        if not self._closing:
            self._closing = True
            self.socket.set_reading(False)
            if not self._link.blocked:
                self._finish(None)

    def abort(self) -> None:
        """Close now."""
        self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        if not self.socket.closed:
            self._closing = True
            self.socket.close()
            self._hub.socket_closed()
            self._hub.loop.call_soon(self._link.connection_lost, error)

    def pause_reading(self) -> None:
        """Leave what comes in the kernel."""
        self.socket.set_reading(False)

    def resume_reading(self) -> None:
        """Read again."""
        self.socket.set_reading(True)

    def can_write_eof(self) -> bool:
        """Whether one direction can be shut by itself."""
        return True

    def write_eof(self) -> None:
        """Tell the peer that nothing more will come."""
        self.socket.shut_writing()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait here: none, they wait in the core."""
        return 0

    # ── called by the native core ─────────────────────────────────────────────────────

    def drained(self) -> None:
        """The kernel has taken everything."""
        self._link.resume_writing()
        if self._closing and not self._link.blocked:
            self._finish(None)

    def ended(self, error: Exception | None) -> None:
        """The peer sends no more, or the connection failed."""
        if error is not None:
            self._finish(error)
        elif not self._closing:
            self._link.eof_received()
            self.close()


def take_over(
    link: Link, connection: Connection, transport: asyncio.Transport, greeting: bytes, hub: Hub
) -> DirectTransport | None:
    """Take a connection's socket from the loop's transport, if that can be done.

    Args:
        link: the connection, which gets what is read.
        connection: its core.
        transport: the loop's, which is let go of.
        greeting: bytes that go out first.
        hub: what the loop's links share.

    Returns:
        What the link has in the transport's place; None where it has to stay on that one: TLS, no socket of a
        descriptor, a loop or a system without such an epoll, bytes that wait in the transport.
    """
    told = transport.get_extra_info
    held = told("socket")
    if held is None or told("sslcontext") is not None or transport.get_write_buffer_size():
        return None
    try:
        poller = hub.poller()
        if poller is None:
            return None
        socket = poller.add(held.fileno(), connection, link)
    except OSError:  # no descriptor is left for an epoll, or for a second one of the socket
        hub.socket_closed()
        return None
    try:
        # A fresh connection's buffer is empty: it takes all of this, or nothing where the peer is gone.
        sent = os.write(socket.fileno(), greeting) if greeting else 0
    except OSError:
        sent = -1
    if sent != len(greeting):
        socket.close()
        hub.socket_closed()
        return None
    direct = DirectTransport(socket, link, hub)
    transport.set_protocol(_Released())
    transport.abort()
    socket.start(direct)
    return direct
