"""The server's side of the opening handshake on a socket: accept → head → doors → 101 → `ServerLink`.

Each arrow has its limit: ``open_timeout`` runs from the accept (TLS included) to the 101, the head is
bounded by `opening`, ``max_connections`` and a drain refuse with 503, ``authorize`` says who it is, and who
has as many connections as one may have is refused with 429 (`aio/quota.py`).
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from sage_ws.aio import opening
from sage_ws.aio.head import ReceivedRequest, RequestHead, shown_address
from sage_ws.aio.opening import Agreement, Refusal
from sage_ws.errors import RefusedError, peer_text
from sage_ws.logs import logger_of

if TYPE_CHECKING:
    from sage_ws.aio.hub import Hub
    from sage_ws.aio.server import Server

logger = logger_of("server")

LINGER = 1.0
"""Seconds that a refused peer has to read its refusal: a close at once could cost it the answer."""
BLOCK: Final = 512 * 1024
"""Bytes, more than asyncio's transports read at once."""


def keep_blocks() -> None:
    """Have the C library keep the blocks that asyncio reads into: a quarter of an opening handshake there.

    asyncio takes 256 KiB for each read, and shrinks them to what came. glibc maps a block of that size from
    the system, page faults included, and unmaps it, each time until one was freed whole: from then on they
    come out of its heap. A read at the end of a stream frees one; but the direct link does those itself.
    """
    bytes(BLOCK)


class ServerOpening(asyncio.Protocol):
    """One accepted socket until it is a connection, or refused.

    Args:
        server: decides who comes in.
        hub: of the running loop; asks when the time is over.
    """

    __slots__ = (
        "_authorizing",
        "_bucket",
        "_due",
        "_hub",
        "_late",
        "_over",
        "_reader",
        "_server",
        "_timer",
        "_transport",
    )

    def __init__(self, server: Server, hub: Hub) -> None:
        timeout = server.settings.open_timeout
        self._due = inf if timeout is None else hub.time() + timeout
        self._bucket = inf
        self._server = server
        self._hub = hub
        self._reader: opening.HeadReader | None = opening.HeadReader()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._authorizing: asyncio.Task[None] | None = None
        self._late = b""
        self._over = False

    @property
    def socket(self) -> Any:
        """What the transport shows of its socket; None where there is none any more."""
        return None if self._transport is None else self._transport.get_extra_info("socket")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP, and TLS where it is used, stand."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.openings.add(self)
        if self._due < inf:
            self._bucket = self._hub.arm(self, self._due)

    def data_received(self, data: bytes) -> None:
        """A piece of the head."""
        if self._reader is None:
            if self._authorizing is not None and not self._over:
                # the client spoke before its 101: kept, within the bound of a head
                self._late += data
                if len(self._late) > opening.MAX_HEAD and self._transport is not None:
                    self._transport.pause_reading()
            return
        try:
            if not self._reader.start:
                opening.check_request_start(data)
            head = self._reader.receive_data(data)
            if head is not None:
                self._late = self._reader.rest
                self._reader = None
                self._judge(head)
        except Refusal as refusal:
            self.refuse(refusal)

    def _judge(self, head: bytes) -> None:
        server = self._server
        request = opening.parse_request(head, server.settings.health_path)
        if "upgrade" not in request.fields:
            self._answer_health()
            return
        path = request.path.partition("?")[0]
        if server.path is not None and path != server.path:
            raise Refusal(404, f"no agent is served at {peer_text(path)}")
        origin = opening.check_origin(request, server.settings.origins)
        assert self._transport is not None
        told = self._transport.get_extra_info
        remote = told("peername")
        if server.settings.trusted_proxies:
            from sage_ws.aio.forwarded import remote_address

            forwarded = request.fields.get("x-forwarded-for", ())
            remote = remote_address(remote, forwarded, server.settings.trusted_proxies)
        self._check_room(remote)
        received = ReceivedRequest(request.path, request.lines, remote, origin, told("peercert") or None)
        if server.settings.authorize is None:
            self._open(request, received, None)
        else:
            self._authorizing = self._hub.loop.create_task(
                self._authorize(request, received), name="sage_ws authorize"
            )

    def _check_room(self, remote: Any, identity: str | None = None) -> None:
        server = self._server
        if server.draining:
            raise Refusal(503, "the server is draining")
        limit = server.settings.max_connections
        if limit is not None and server.connection_count >= limit:
            raise Refusal(503, f"the server has its {limit} connections", {"Retry-After": "1"})
        if server.quotas is not None:
            server.quotas.check(remote, identity)

    async def _authorize(self, request: RequestHead, received: ReceivedRequest) -> None:
        authorize = self._server.settings.authorize
        assert authorize is not None
        try:
            identity = _identity(await authorize(received))
            received.forget_headers()
            self._check_room(received.remote_address, identity)
            self._open(request, received, identity)
        except RefusedError as error:
            self.refuse(opening.refusal_of(error))
        except Refusal as refusal:
            self.refuse(refusal)
        except asyncio.CancelledError:  # ours, and it is over already; or of a task that authorize waited for
            self.refuse(Refusal(500, "internal error"))
            raise
        except Exception:  # whatever the caller's code raises: logged, and the peer learns nothing of it
            logger.exception("authorize failed")
            self.refuse(Refusal(500, "internal error"))

    def _open(self, request: RequestHead, received: ReceivedRequest, identity: str | None) -> None:
        known = opening.SUBPROTOCOLS[self._server.settings.encoding]
        subprotocol = opening.choose_subprotocol(request, known) if known else None
        extensions, deflate = None, None
        compression = self._server.settings.compression
        if compression is not None:
            from sage_ws.aio.extensions import choose

            extensions, deflate = choose(request, compression)
        answer = opening.accept(request, subprotocol, extensions)
        transport = self._leave()
        if transport is None or transport.is_closing():
            self._server.abandoned += transport is not None
            return
        link = self._server._opened(received, identity, Agreement(deflate, subprotocol))
        self._server.openings.discard(self)
        if len(self._late) > opening.MAX_HEAD:
            transport.resume_reading()
        link.start(transport, self._late, answer)

    def _answer_health(self) -> None:
        draining = self._server.draining
        body = b"draining\n" if draining else b"ok\n"
        status = "503 Service Unavailable" if draining else "200 OK"
        fields = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close"
        self._say_goodbye(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body)

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an HTTP error and close; does nothing where it is over already."""
        if self._over:
            return
        self._server.refused += 1
        if logger.isEnabledFor(logging.INFO):
            peer = None if self._transport is None else self._transport.get_extra_info("peername")
            logger.info(
                "refused a connection from %s with %d: %s", shown_address(peer), refusal.status, refusal
            )
        self._say_goodbye(refusal.encode())

    def _say_goodbye(self, answer: bytes) -> None:
        transport = self._leave()
        if transport is None or transport.is_closing():
            return
        transport.write(answer)
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()  # TLS: it waits for the peer's close_notify
        self._timer = self._hub.loop.call_later(LINGER, transport.abort)

    def _leave(self) -> asyncio.Transport | None:
        """End the opening handshake, one way or the other.

        Returns:
            The transport to answer on; None where it is over already, or the peer is gone.
        """
        if self._over:  # an authorize that was cancelled came back all the same
            return None
        self._over = True
        self._reader = None
        if self._bucket < inf:
            self._hub.disarm(self, self._bucket)
        return self._transport

    def _abandon(self) -> None:
        """It ends undecided, unless it was decided before."""
        self._server.abandoned += not self._over
        self._leave()

    def beat(self) -> None:
        """The hub asks whether its time is over."""
        if self._hub.time() < self._due:
            self._bucket = self._hub.arm(self, self._due)
            return
        self._bucket = inf
        if self._authorizing is not None:
            self._authorizing.cancel()
        self.refuse(Refusal(408, "the opening handshake took too long"))

    def abort(self) -> None:
        """The server closes: nobody comes in any more, and who was refused had time to read it."""
        if self._authorizing is not None:
            self._authorizing.cancel()
        self._abandon()
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer went away before it came in."""
        if self._authorizing is not None:
            self._authorizing.cancel()
        self._abandon()
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        self._server._opening_gone(self)


def _identity(made: object) -> str | None:
    """What ``authorize`` returned, checked.

    Raises:
        TypeError: it is neither a str nor None.
    """
    if made is not None and not isinstance(made, str):
        raise TypeError(f"authorize must return a str or None, not {type(made).__name__}")
    return made
