"""Requests that are refused at once, of a peer that does not read why: bounded like any other answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sage_ws import SecureMessage, connect, serve
from sage_ws.aio.answering import UNSENT_LIMIT

pytestmark = pytest.mark.parametrize("subprotocol", ["", "sage.1.json"], ids=["plain", "extended"])

REQUEST = {"kind": "request", "id": "x" * 10_000, "payload": "eA=="}
"""Its answer, which says what is missing, carries its id."""


async def flood(peer: Any, link: Any, request: dict[str, str]) -> None:
    """Send without reading until the other end does not read either; then read until it does."""
    peer.writer.transport.pause_reading()
    async with asyncio.timeout(30):
        while link._reading:
            for _ in range(5):
                peer.send_json(request)
            await asyncio.sleep(0)
        assert UNSENT_LIMIT < link.unsent < 2 * UNSENT_LIMIT
        peer.writer.transport.resume_reading()
        while not link._reading:
            await peer.reader.read(1 << 20)


async def test_a_client_whose_requests_are_invalid(subprotocol: str, raw_client: Any) -> None:
    async with serve(lambda message: b"fine") as server:
        async with raw_client(server.port, headers={"Sec-WebSocket-Protocol": subprotocol}) as peer:
            (link,) = server.connections
            await flood(peer, link, REQUEST)
            assert server.connection_count == 1
            async with connect(f"ws://127.0.0.1:{server.port}") as client:
                assert (await client.send(SecureMessage(payload=b"x", did="d"))).data == b"fine"


async def test_a_server_that_asks_who_takes_no_requests(
    subprotocol: str, lying_server: Any, opening_answer: Any
) -> None:
    if not subprotocol:
        pytest.skip("the plain wire has no such requests")
    done = asyncio.Event()

    async def script(peer: Any) -> None:
        head = await peer.reader.readuntil(b"\r\n\r\n")
        chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        peer.write(opening_answer(head)[:-2] + chosen.encode())
        await opened.wait()
        await flood(peer, client._link, {**REQUEST, "did": "did:sage:raw"})
        done.set()

    opened = asyncio.Event()
    async with lying_server(script, handshake=False) as server:
        async with connect(server.url, close_timeout=0.1) as client:
            opened.set()
            await asyncio.wait_for(done.wait(), 30)
