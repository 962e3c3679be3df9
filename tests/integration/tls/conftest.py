"""Certificates, contexts, and a peer whose TLS is made by hand."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme


# ── certificates and contexts ─────────────────────────────────────────────────────────
@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """The one that clients here trust."""
    return trustme.CA()


@pytest.fixture(scope="session")
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    """A server's, for where the tests listen."""
    return authority.issue_cert("127.0.0.1", "localhost")


@pytest.fixture
def theirs(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """A server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def ours(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


# ── a peer whose TLS is made by hand ──────────────────────────────────────────────────
class HandWriter:
    """Encrypts, and never sends a close_notify."""

    def __init__(self, tls: ssl.SSLObject, outgoing: ssl.MemoryBIO, raw: asyncio.StreamWriter) -> None:
        self._tls, self._outgoing, self._raw = tls, outgoing, raw
        self.transport = raw.transport

    def write(self, data: bytes) -> None:
        self._tls.write(data)
        self._raw.write(self._outgoing.read())

    async def drain(self) -> None:
        await self._raw.drain()

    def close(self) -> None:
        self._raw.close()


class HandMade:
    """TLS over a peer's two streams: with the alerts that asyncio keeps to itself, without a close_notify."""

    def __init__(self) -> None:
        self._pumps: list[asyncio.Task[None]] = []

    async def speak(self, peer: Any, context: ssl.SSLContext, name: str | None = None) -> None:
        """Put TLS between the peer and its socket; as a client where there is a server's name."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=name is None, server_hostname=name)
        reader, writer = peer.reader, peer.writer
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                if data := await reader.read(65536):
                    incoming.write(data)
                else:
                    incoming.write_eof()
            except ssl.SSLError:
                writer.write(outgoing.read())  # the alert
                raise
        writer.write(outgoing.read())
        plain = asyncio.StreamReader()
        peer.reader, peer.writer = plain, HandWriter(tls, outgoing, writer)
        pump = asyncio.create_task(self._pump(reader, incoming, tls, plain))
        self._pumps.append(pump)

    async def _pump(
        self, reader: asyncio.StreamReader, incoming: ssl.MemoryBIO, tls: ssl.SSLObject, plain: Any
    ) -> None:
        with contextlib.suppress(ConnectionError):
            data = b""  # what came with the handshake's last part is in there already
            while True:
                incoming.write(data)
                with contextlib.suppress(ssl.SSLWantReadError):
                    while text := tls.read(65536):  # nothing behind a close_notify
                        plain.feed_data(text)
                if not (data := await reader.read(65536)):
                    break
        plain.feed_eof()

    async def stop(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)


@pytest.fixture
async def by_hand() -> AsyncIterator[HandMade]:
    """``await by_hand.speak(peer, context)`` puts TLS under a peer that was opened without."""
    made = HandMade()
    yield made
    await made.stop()
