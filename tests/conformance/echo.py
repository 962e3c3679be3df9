"""Plain WebSocket through our connection layer, for a suite that tests any WebSocket endpoint.

    echo.py server --port P [--host H]        echoes text and binary messages, at any path, until SIGTERM
    echo.py client --url ws://H:P --agent A   asks a fuzzing server for its cases and echoes through each

Everything between the socket and a message is the package's own: the opening handshake, `Link` and the core
that SAGE_WS_CORE names. What is here takes the place of SAGE alone: messages go back as they came.
"""

# ruff: noqa: T201 -- run as a program, it says what it does

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from typing import Any, ClassVar, Literal, cast
from urllib.parse import quote

from sage_ws._core import Connection
from sage_ws.aio.accepting import ServerOpening
from sage_ws.aio.dialing import Address, dial
from sage_ws.aio.head import ReceivedRequest
from sage_ws.aio.hub import hub_of
from sage_ws.aio.link import FLUSH_AT, Link, Loss
from sage_ws.aio.opening import Agreement, parse_request
from sage_ws.aio.run import loop_factory
from sage_ws.aio.server import Server
from sage_ws.aio.serving import ServerLink
from sage_ws.compression import Deflate
from sage_ws.errors import DialError
from sage_ws.message import SecureMessage
from sage_ws.options import ClientSettings, CommonSettings

MAX_MESSAGE_SIZE = 64 * 1024 * 1024
UNSENT_LIMIT = 1024 * 1024
"""Bytes of echoes that may wait for a peer before no more is read from it."""
CLOSE_TIMEOUT = 5.0
SMALL_READ = 1024
"""Bytes of a read that is taken byte by byte."""
LAST_FRAME = 131
"""Bytes of a client's longest close frame: as many are taken byte by byte at the end of a longer read."""

# A fuzzing peer counts frames: none that it did not ask for.
OPTIONS: dict[str, Any] = {
    "max_message_size": MAX_MESSAGE_SIZE,
    "close_timeout": CLOSE_TIMEOUT,
    "ping_interval": None,
    "keepalive_interval": None,
    "read_timeout": None,
    # Whoever offers or chooses it gets it, windows and takeover as it likes, and every message compressed.
    "compression": Deflate(server_no_context_takeover=False, client_no_context_takeover=False, threshold=0),
    # `data_received` feeds the core byte by byte, which only the loop's transport lets it do.
    "link": "loop",
}


class EchoLink(Link):
    """A connection that sends every message back, text as text and binary as binary."""

    role: ClassVar[Literal["client", "server"]] = "client"

    def __init__(
        self, settings: CommonSettings, loop: asyncio.AbstractEventLoop, agreement: Agreement
    ) -> None:
        connection = Connection(
            self.role, max_message_size=settings.max_message_size, raw=True, deflate=agreement.deflate
        )
        super().__init__(connection, settings, loop)

    def data_received(self, data: bytes) -> None:
        # The core judges all of a read before its messages are answered here: a read that ends in a close
        # frame, or in a broken one, would be answered by the close frame alone. A strict peer wants its
        # echoes first, and any chunking of the same bytes means the same to the core.
        whole = 0 if len(data) <= SMALL_READ else len(data) - LAST_FRAME
        if whole:
            super().data_received(data[:whole])
        for byte in range(whole, len(data)):
            super().data_received(data[byte : byte + 1])

    def _take(self, values: list[Any] | None) -> None:
        for value in values or ():
            if isinstance(value, (str, bytes)):
                self._message(value)
            else:
                self._event(value)

    def _message(self, message: str | bytes) -> None:
        if self.connection.send_raw(message) >= FLUSH_AT:
            self.flush()
        if self.blocked and self.unsent > UNSENT_LIMIT:
            self.pause_reading()

    def _read_unheard(self) -> None:
        """An echo pauses by itself."""

    def _unblocked(self) -> None:
        self.resume_reading()

    def _closes_first(self) -> bool:
        return self.role == "server"

    def _ended(self, loss: Loss) -> None:
        # a connection that ends reads on, for the peer's close frame
        if not self._gone:
            self.resume_reading()


# ── server ────────────────────────────────────────────────────────────────────────────
class EchoServerLink(EchoLink):
    """A connection of the server."""

    role = "server"
    unfinished = 0
    is_leaving = False
    identity = None

    def __init__(self, server: EchoServer, loop: asyncio.AbstractEventLoop, agreement: Agreement) -> None:
        super().__init__(server.settings, loop, agreement)
        self._server = server

    def watch_answers(self) -> None:
        """Nothing to watch: an echo is no answer of a handler."""

    def leave(self) -> None:
        """An echo is never told to leave."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._server._link_lost(cast("ServerLink", self))


class EchoOpening(ServerOpening):
    """Lets every sound request in: any path, any origin."""

    def _judge(self, head: bytes) -> None:
        request = parse_request(head, None)
        self._open(request, ReceivedRequest(request.path, request.lines, None, None), None)


class EchoServer(Server):
    """A server whose connections echo."""

    def __init__(self) -> None:
        super().__init__(_not_called, **OPTIONS)

    def _make_opening(self) -> EchoOpening:
        return EchoOpening(self, hub_of(asyncio.get_running_loop()))

    def _opened(self, _request: ReceivedRequest, _identity: str | None, agreement: Agreement) -> ServerLink:
        link = cast("ServerLink", EchoServerLink(self, asyncio.get_running_loop(), agreement))
        self._links[link] = None
        return link


async def _not_called(_message: SecureMessage) -> None:
    """The handler that a server must have: no message of an echo link is a request."""


async def serve(host: str, port: int) -> None:
    """Echo until SIGTERM or SIGINT; then close what is open with 1001."""
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()

    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop(*_: object) -> None:
        # One is enough: a second, on the way out, would make it an end by signal.
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        loop.call_soon_threadsafe(signalled.set)

    for number in numbers:
        signal.signal(number, stop)
    server = EchoServer()
    await server.start(host, port)
    try:
        print(f"listening on {host}:{server.port}", flush=True)
        await signalled.wait()
    finally:
        await server.close()


# ── client ────────────────────────────────────────────────────────────────────────────
class ReadingLink(EchoLink):
    """A connection of the client that keeps what it is told."""

    def __init__(
        self, settings: CommonSettings, loop: asyncio.AbstractEventLoop, agreement: Agreement
    ) -> None:
        super().__init__(settings, loop, agreement)
        self.messages: list[str | bytes] = []

    def _message(self, message: str | bytes) -> None:
        self.messages.append(message)


async def visit(url: str, kind: type[EchoLink]) -> EchoLink:
    """Open a connection and let it run until its socket is gone."""
    settings = ClientSettings(**OPTIONS)
    loop = asyncio.get_running_loop()
    link = await dial(Address(url), settings, lambda agreement, _: kind(settings, loop, agreement))
    await link.wait_closed()
    return link


async def run_cases(url: str, agent: str) -> None:
    """Every case of a fuzzing server, then its report."""
    url = url.rstrip("/")
    agent = quote(agent, safe="")
    counting = await visit(f"{url}/getCaseCount", ReadingLink)
    assert isinstance(counting, ReadingLink)
    if len(counting.messages) != 1:
        raise ValueError(f"one message with the number of cases was due, not {len(counting.messages)}")
    count = int(counting.messages[0])
    for case in range(1, count + 1):
        await visit(f"{url}/runCase?case={case}&agent={agent}", EchoLink)
    await visit(f"{url}/updateReports?agent={agent}", EchoLink)
    print(f"ran {count} cases", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="echo.py", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("server", help="echo messages until SIGTERM")
    server.add_argument("--port", type=int, required=True, help="0 for any free one")
    server.add_argument("--host", default="127.0.0.1")
    client = commands.add_parser("client", help="run the cases of a fuzzing server")
    client.add_argument("--url", required=True, help="of the fuzzing server, such as ws://127.0.0.1:9001")
    client.add_argument("--agent", required=True, help="the name for the fuzzing server's report")
    for command in (server, client):
        command.add_argument(
            "--loop", choices=("auto", "asyncio"), default="auto", help="auto: uvloop where it is"
        )
    given = parser.parse_args(arguments)
    # Peers that break rules are what this is for: no word about each.
    logging.getLogger("sage_ws").setLevel(logging.ERROR)
    factory = loop_factory() if given.loop == "auto" else None
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            if given.command == "server":
                runner.run(serve(given.host, given.port))
            else:
                runner.run(run_cases(given.url, given.agent))
    except (DialError, OSError, ValueError) as error:
        print(f"echo.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
