"""A server: accept → opening handshake → connection → handler → answer, each arrow with its limit.

::

    accept            open_timeout, max_connections, 503 while draining    aio/accepting.py
    opening handshake head limits, path, origins, authorize                aio/opening.py
    for each caller   max_connections_per_address, …_per_identity          aio/quota.py
    connection        max_message_size, pings, silence, max_queue_bytes    aio/link.py, aio/serving.py
    handler           max_concurrency, one context per message             aio/workers.py
    answer            max_message_size, write_timeout                      aio/serving.py

Over 500 lines, a third of them docstrings: starting and ending a server are one story.
"""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Self, Unpack

from sage_ws.aio.accepting import ServerOpening, keep_blocks
from sage_ws.aio.asking import check_message
from sage_ws.aio.changes import Changes
from sage_ws.aio.forked import let_go
from sage_ws.aio.head import ReceivedRequest, shown_address
from sage_ws.aio.hub import Hub, hub_of
from sage_ws.aio.intercepting import send_intercepted
from sage_ws.aio.lifespan import Lifespan
from sage_ws.aio.link import Loss, wants_direct
from sage_ws.aio.listener import bound, hold, remove_socket, stop_listening
from sage_ws.aio.once import Once
from sage_ws.aio.opening import Agreement
from sage_ws.aio.pushing import push
from sage_ws.aio.quota import Quotas
from sage_ws.aio.serving import InterceptedLink, ServerLink
from sage_ws.aio.workers import Workers
from sage_ws.handler import Connection, Handler, takes_call
from sage_ws.interceptors import Intercepted
from sage_ws.logs import logger_of
from sage_ws.message import Response, SecureMessage
from sage_ws.options import (
    UNSET,
    Seconds,
    ServerOptions,
    ServerSettings,
    Unset,
    check_path,
    check_timeout,
)

logger = logger_of("server")

LEAVE_TIME = 5.0
"""Seconds in which peers that were told to leave do, when nothing of theirs is under way any more."""


class Server:
    """Serves one handler on one socket, or several (a host name with several addresses).

    Args:
        handler: called for each valid request, see `sage_ws.handler`.
        **options: see `ServerOptions`; an unknown one is a TypeError.

    Raises:
        TypeError: the handler's arguments fit no shape, or an option is unknown or of a wrong type.
        ValueError: an option makes no sense.
    """

    _listener: asyncio.Server | None = None  # where __init__ raised there is nothing to close

    def __init__(self, handler: Handler, **options: Unpack[ServerOptions]) -> None:
        self.settings = ServerSettings.parse(options, "Server")
        wants_direct(self.settings)  # refuses what cannot be
        dedupe, limit = self.settings.dedupe, self.settings.max_message_size
        self._once = None if dedupe is None else Once(handler, dedupe, limit)
        if self._once is not None:
            handler = self._once
        if self.settings.interceptors:
            handler = Intercepted(handler, self.settings.interceptors, limit)
        self._handler = handler
        self._takes_call = takes_call(handler)
        self.path: str | None = None
        self.draining = False
        self.openings: set[ServerOpening] = set()
        self.quotas = Quotas.of(self.settings)
        self.refused = 0
        self.abandoned = 0
        self.dropped = 0
        self._lost = 0
        self.asked = 0
        self.stopped = 0
        self.expired = 0
        self._by_identity: dict[str, dict[ServerLink, None]] = {}
        self._accepted = 0
        self._totals: dict[str, int] = dict.fromkeys(
            ("received", "answered", "invalid", "unknown", "dropped", "bytes_in", "bytes_out"), 0
        )
        self._links: dict[ServerLink, None] = {}
        self._orphans: set[ServerLink] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hub: Hub | None = None
        self._workers: Workers | None = None
        self._unix: str | None = None
        self._port: int | None = None
        self._shares_port = False  # `run` sets it where several processes listen on one port
        self._lifespan: Lifespan | None = None
        self._has_store = False
        self._changes = Changes()
        self._closing: asyncio.Task[None] | None = None
        self._closed = False

    # ── starting ──────────────────────────────────────────────────────────────────────

    async def start(
        self,
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        path: str | None = None,
        sock: socket.socket | None = None,
        unix: str | None = None,
    ) -> None:
        """Listen.

        Args:
            host: address or name to bind; None for all interfaces.
            port: 0 for any free one; `port` then tells which.
            path: serve this path only, 404 elsewhere; None serves every path.
            sock: a bound socket to listen on, instead of host and port.
            unix: path of a unix socket to listen on, instead of host and port.

        Raises:
            RuntimeError: the server was started or closed before, or is closed while it starts.
            TypeError: the path is no str.
            ValueError: the path does not start with a slash, or both sock= and unix= are given.
            OSError: the address cannot be bound, or the file of ``dedupe`` not opened.
        """
        if self._loop is not None or self._closing is not None:
            raise RuntimeError("a server can be started once")
        check_path(path)
        if sock is not None and unix is not None:
            raise ValueError("give sock= or unix=, not both")
        loop = self._loop = asyncio.get_running_loop()
        self._hub = hub_of(loop)
        keep_blocks()
        self.path = path
        settings = self.settings
        context = copy_context()
        if settings.lifespan is not None:
            lifespan = Lifespan(settings.lifespan(self))
            context = await lifespan.entered()
            self._lifespan = lifespan
        self._workers = Workers(self._handler, self._takes_call, settings.max_message_size, loop, context)
        try:
            await self._open_store()
            address = unix if unix is not None else sock if sock is not None else (host, port)
            listener = await bound(self._make_opening, settings, address, shares_port=self._shares_port)
            try:
                await listener.start_serving()
            except BaseException:  # cancelled, in most cases: by now it may listen, and nobody else has it
                listener.close()
                if unix is not None:
                    remove_socket(unix)
                raise
            self._listener = listener
            for one in self.sockets:
                hold(one)
            if self._closing is not None:
                await stop_listening(self._listener)
                if unix is not None:
                    remove_socket(unix)
                raise RuntimeError("the server was closed while it started")
        except BaseException:
            await self._close_store()
            await self._leave_lifespan()
            raise
        self._unix = unix
        names = [one.getsockname() for one in self.sockets]
        self._port = next((name[1] for name in names if isinstance(name, tuple)), None)
        logger.info("serving on %s", self._where())

    def _make_opening(self) -> ServerOpening:
        assert self._hub is not None
        return ServerOpening(self, self._hub)

    def _where(self) -> str:
        if self._unix is not None:
            return f"unix:{self._unix}"
        names = [one.getsockname() for one in self.sockets]
        return ", ".join(shown_address(name) for name in names)

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets; empty before the start and after the end."""
        return tuple(self._listener.sockets) if self._listener is not None else ()

    @property
    def port(self) -> int:
        """The TCP port that the server listens on, or did until its end.

        Raises:
            RuntimeError: it was not started, or listens on a unix socket.
        """
        if self._port is None:
            raise RuntimeError("the server listens on no TCP port")
        return self._port

    async def __aenter__(self) -> Self:
        if self._loop is None or self._closing is not None:
            await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # ── what it is ────────────────────────────────────────────────────────────────────

    @property
    def connections(self) -> Collection[Connection]:
        """The open connections, oldest first."""
        return tuple(self._links)

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def stats(self) -> Mapping[str, int | float]:
        """A snapshot of the server's counters.

        Returns:
            ``connections`` (open now), ``accepted``, ``refused`` and ``abandoned`` (opening handshakes),
            ``lost`` (connections that ended without the peer's close frame), ``pending`` (requests accepted
            and not answered yet), ``received`` (requests), ``answered``, ``invalid`` (messages answered by a
            validation or decoding error), ``dropped`` (requests and answers whose connection was gone or
            closing, or that came during a drain), ``duplicates`` (requests that ``dedupe`` did not run
            again), ``stopped`` (handlers whose caller gave up), ``expired`` (past the deadline that it told),
            ``unknown`` (messages of a later version, of which something was ignored), ``asked`` (requests to
            clients), ``bytes_in``, ``bytes_out``.
        """
        totals = dict(self._totals)
        for link in self._links:
            for name, count in _counters(link).items():
                totals[name] += count
        return {
            "connections": len(self._links),
            "accepted": self._accepted,
            "refused": self.refused,
            "abandoned": self.abandoned,
            "lost": self._lost,
            "pending": self._unfinished(),
            "duplicates": 0 if self._once is None else self._once.duplicates,
            "stopped": self.stopped,
            "expired": self.expired,
            "asked": self.asked,
            **totals,
            "dropped": self.dropped + totals["dropped"],
        }

    def _unfinished(self) -> int:
        return sum(link.unfinished for link in (*self._links, *self._orphans))

    def __repr__(self) -> str:
        return f"<sage_ws.Server {self._where() or 'not listening'} connections={len(self._links)}>"

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        """Collected with its loop, before it was closed; its connections say so too, and are closed then."""
        if self._listener is None or self._closed or self._hub is None:
            return
        if self._hub.is_of_this_process:
            _warn(f"unclosed {self!r}", ResourceWarning, source=self)

    async def send(
        self, identity: str, message: SecureMessage, *, timeout: Seconds | Unset = UNSET
    ) -> Response:
        """Ask the newest connection of a proven identity: push.

        Args:
            identity: what ``authorize`` returned for it.
            message: what to ask.
            timeout: seconds for everything; None for no limit. Not given: ``read_timeout``.

        Raises:
            NotSentError: no connection has this identity, or none of a peer that takes requests.
            MaybeDeliveredError, DecodeError: see `Client.send`.
        """
        check_timeout(timeout)
        check_message(message)
        interceptors = self.settings.push_interceptors
        if not interceptors:
            return await push(self._by_identity.get(identity, ()), message, timeout)
        return await send_intercepted(
            lambda message, timeout: push(self._by_identity.get(identity, ()), message, timeout),
            interceptors,
            message,
            timeout,
        )

    # ── links ─────────────────────────────────────────────────────────────────────────

    def _opened(self, request: ReceivedRequest, identity: str | None, agreement: Agreement) -> ServerLink:
        assert self._loop is not None
        assert self._workers is not None
        self._accepted += 1
        kind = InterceptedLink if self.settings.push_interceptors else ServerLink
        link = kind(self, self._workers, self.settings, self._loop, request, identity, agreement)
        if identity is not None:
            self._by_identity.setdefault(identity, {})[link] = None
        self._links[link] = None
        if self.quotas is not None:
            self.quotas.take(link, request.remote_address, identity)
        return link

    def _opening_gone(self, opening: ServerOpening) -> None:
        """The socket of an opening handshake that came to nothing is gone."""
        self.openings.discard(opening)
        self._changes.tell()

    def _link_lost(self, link: ServerLink) -> None:
        """A link's socket is gone."""
        if self._links.pop(link, link) is None:
            if self.quotas is not None:
                self.quotas.give_back(link)
            if link.identity is not None:
                self._forget_identity(link, link.identity)
            for name, count in _counters(link).items():
                self._totals[name] += count
            if not link.was_closed:
                self._lost += 1
            if link.unfinished:
                self._orphans.add(link)
        self._changes.tell()

    def _forget_identity(self, link: ServerLink, identity: str) -> None:
        links = self._by_identity.get(identity, {})
        links.pop(link, None)
        if not links:
            self._by_identity.pop(identity, None)

    def _link_finished(self, link: ServerLink) -> None:
        """The last running request of a link was answered, during a drain or after the link's end."""
        self._orphans.discard(link)
        self._changes.tell()

    # ── ending ────────────────────────────────────────────────────────────────────────

    async def drain(self, *, timeout: Seconds = 30) -> None:
        """End gracefully.

        1. New connections are refused with 503, ``health_path`` answers 503. Peers that understand it are
           told to open their next connection elsewhere, and what they have sent until they hear of that is
           served; further requests of others are not dispatched.
        2. Requests that were read are finished and answered, for ``timeout`` at most, and peers that were
           told leave.
        3. Every connection is closed with 1001.
        4. The socket is closed, and whatever handler still runs is cancelled.

        Args:
            timeout: seconds for step 2; None for no limit.

        Raises:
            RuntimeError: called in another event loop than `start`.
        """
        check_timeout(timeout)
        if self._is_parents():
            return
        self._check_loop()
        self._begin_draining()
        for link in self._links:
            link.leave()
        try:
            async with asyncio.timeout(timeout):
                while not self._closed and (self._unfinished() or self._has_unsent()):
                    await self._changes.next()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LEAVE_TIME):
                        while not self._closed and (self._unfinished() or self._has_leaving()):
                            await self._changes.next()
        except TimeoutError:
            logger.warning("drain: %d requests were not answered within %s s", self._unfinished(), timeout)
        finally:
            await self.close()

    async def close(self) -> None:
        """End now: idempotent, within ``close_timeout``; running handlers are cancelled.

        In a forked child only the child's shares in its sockets are closed.

        Raises:
            RuntimeError: called in another event loop than `start`.
        """
        if self._is_parents():
            return
        self._check_loop()
        if self._closing is None:
            self._begin_draining()
            self._closing = asyncio.get_running_loop().create_task(self._finish(), name="sage_ws close")
        await asyncio.shield(self._closing)

    def _has_unsent(self) -> bool:
        return any(link.unsent for link in self._links)

    def _has_leaving(self) -> bool:
        return any(link.is_leaving for link in self._links)

    def _begin_draining(self) -> None:
        self.draining = True
        for link in self._links:
            link.watch_answers()

    def _is_parents(self) -> bool:
        """Whether this is a forked child, which then lets go of what it has of the server."""
        if self._hub is None or self._hub.is_of_this_process:
            return False
        if not self._closed:
            self._closed = self.draining = True
            for held in (*self.sockets, *(opening.socket for opening in self.openings)):
                let_go(held)
            for link in self._links:
                link.abandon()
        return True

    def _check_loop(self) -> None:
        """Refuse another loop than that of the start: what ends here would wake nobody there."""
        if not self._closed and self._loop not in {None, asyncio.get_running_loop()}:
            raise RuntimeError("this server belongs to another event loop")

    async def _finish(self) -> None:
        if self._listener is not None:
            await stop_listening(self._listener)
        for opening in tuple(self.openings):
            opening.abort()
        for link in self._links:
            link.begin_close(1001, "going away")
        if not await self._all_gone(self.settings.close_timeout):
            for link in tuple(self._links):
                link.cut(Loss("the server was closed"))
            await self._all_gone(1.0)  # what was cut is gone in the loop's next round
        if self._workers is not None:
            await self._workers.stop()
        if self._unix is not None:
            remove_socket(self._unix)
        try:
            await self._close_store()
            await self._leave_lifespan()
        finally:
            self._closed = True
            self._changes.tell()

    async def _open_store(self) -> None:
        if self.settings.dedupe is not None:
            await self.settings.dedupe.open()
            self._has_store = True

    async def _close_store(self) -> None:
        """Close the store of ``dedupe``; that it cannot be, or not in time, is logged: the rest ends."""
        store, has_store, self._has_store = self.settings.dedupe, self._has_store, False
        if store is not None and has_store:
            try:
                async with asyncio.timeout(self.settings.close_timeout):
                    await store.close()
            except Exception:
                logger.exception("the dedupe store could not be closed")

    async def _leave_lifespan(self) -> None:
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.leave()

    async def _all_gone(self, timeout: Seconds) -> bool:
        """Wait until no peer's socket is left; False where ``timeout`` ran out first."""
        try:
            async with asyncio.timeout(timeout):
                while self._links or self.openings:
                    await self._changes.next()
        except TimeoutError:
            return False
        return True

    async def wait_closed(self) -> None:
        """Wait until the server has ended, by `close` or `drain`."""
        while not self._closed:
            await self._changes.next()


def _counters(link: ServerLink) -> dict[str, int]:
    counts = link.connection.counters()
    return {
        "received": counts["received"],
        "answered": counts["sent"],
        "invalid": counts["invalid"],
        "unknown": counts["unknown"],
        "dropped": counts["dropped"],
        "bytes_in": link.connection.bytes_in,
        "bytes_out": link.connection.bytes_out,
    }


class serve:  # noqa: N801 - read as the function that it is to its caller
    """Serve a handler: ``async with serve(handler, host, port) as server``, or ``await serve(…)``.

    Args:
        handler: called for each valid request.
        host: see `Server.start`, as are port, path, sock and unix.
        **options: see `ServerOptions`.
    """

    def __init__(
        self,
        handler: Handler,
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        path: str | None = None,
        sock: Any = None,
        unix: str | None = None,
        **options: Unpack[ServerOptions],
    ) -> None:
        self._server = Server(handler, **options)
        self._host, self._port = host, port
        self._path, self._sock, self._unix = path, sock, unix

    async def __aenter__(self) -> Server:
        await self._server.start(self._host, self._port, path=self._path, sock=self._sock, unix=self._unix)
        return self._server

    async def __aexit__(self, *exc: object) -> None:
        await self._server.close()

    def __await__(self) -> Generator[Any, None, Server]:
        return self.__aenter__().__await__()
