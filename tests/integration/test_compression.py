"""``compression="deflate"`` from a client's call to a handler and back, and in a hostile peer's hands."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from sage_ws import Deflate, SecureMessage, connect, serve

TAKING_OVER = Deflate(server_no_context_takeover=False, client_no_context_takeover=False)
NARROW = Deflate(
    server_no_context_takeover=False,
    client_no_context_takeover=False,
    server_max_window_bits=9,
    client_max_window_bits=9,
    threshold=0,
    level=1,
    memory_level=1,
)
WIDE = Deflate(
    server_no_context_takeover=False,
    client_no_context_takeover=False,
    threshold=0,
    level=9,
    memory_level=9,
)
PAIRS: list[Any] = [("deflate", "deflate"), (TAKING_OVER, TAKING_OVER), (NARROW, WIDE), (WIDE, NARROW)]

TEXT = b"what an agent says to another comes again " * 600
NOISE = random.Random(3).randbytes(20_000)
OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate"}


async def echo(message: SecureMessage) -> bytes:
    return message.payload


def message(payload: bytes) -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test")


@pytest.mark.parametrize("encoding", ["plain", "cbor"])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["default", "takeover", "narrow-wide", "wide-narrow"])
async def test_calls_come_through_and_fewer_bytes_travel(ours: Any, theirs: Any, encoding: Any) -> None:
    async with (
        serve(echo, compression=theirs, encoding=encoding) as server,
        connect(f"ws://127.0.0.1:{server.port}", compression=ours, encoding=encoding) as client,
    ):
        payloads = [b"x", TEXT, NOISE, TEXT, b"y" * 1024, NOISE[:900]] * 4
        answers = await asyncio.gather(*(client.send(message(payload)) for payload in payloads))
        assert [answer.data for answer in answers] == payloads
        for stats in (client.stats(), server.stats()):
            for direction in ("bytes_in", "bytes_out"):
                assert 4 * len(NOISE) < stats[direction] < 4 * len(TEXT + NOISE)


@pytest.mark.parametrize(("ours", "theirs"), [(None, "deflate"), ("deflate", None)], ids=["server", "client"])
async def test_where_one_end_alone_wants_it_there_is_none(ours: Any, theirs: Any) -> None:
    async with (
        serve(echo, compression=theirs) as server,
        connect(f"ws://127.0.0.1:{server.port}", compression=ours) as client,
    ):
        assert (await client.send(message(TEXT))).data == TEXT
        assert min(server.stats()["bytes_in"], server.stats()["bytes_out"]) > len(TEXT)


async def test_the_default_offers_and_chooses_nothing(
    raw_client: Callable[..., AbstractAsyncContextManager[Any]], opening_request: Callable[..., bytes]
) -> None:
    cases: list[tuple[Any, bool]] = [(None, False), ("deflate", True)]
    for compression, header in cases:
        async with (
            serve(echo, compression=compression) as server,
            raw_client(server.port, handshake=False) as raw,
        ):
            raw.write(opening_request("/", OFFER))
            head = await asyncio.wait_for(raw.reader.readuntil(b"\r\n\r\n"), 10)
            assert (
                b"permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n" in head
            ) is header
            assert (b"permessage" in head) is header


async def test_a_malformed_offer_is_answered_by_400(
    http_status: Callable[..., Any], opening_request: Callable[..., bytes]
) -> None:
    malformed = opening_request("/", {"Sec-WebSocket-Extensions": "permessage-deflate; =5"})
    async with serve(echo, compression="deflate") as server:
        status, answer = await http_status(server.port, malformed)
        assert status == 400
        assert answer.endswith(b"malformed Sec-WebSocket-Extensions header\n")


@pytest.mark.parametrize("limit", [100_000, None], ids=["bomb", "sound"])
async def test_a_bomb_costs_its_connection_and_no_other(
    raw_client: Callable[..., AbstractAsyncContextManager[Any]], limit: int | None
) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = b'{"id": "m-1", "did": "did:sage:bomb", "payload": "' + b"AAAA" * 50_000 + b'"}'
    bomb = (deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(text) > 200 * len(bomb)
    async with (
        serve(echo, compression="deflate", max_message_size=limit) as server,
        raw_client(server.port, "/", headers=OFFER) as raw,
        connect(f"ws://127.0.0.1:{server.port}", compression="deflate") as client,
    ):
        raw.write(bytes([0xC1, 0xFE, *len(bomb).to_bytes(2, "big"), 0, 0, 0, 0]) + bomb)
        if limit is None:
            first, _ = await raw.read_exactly(2)
            assert first == 0xC1
        else:
            assert await raw.read_close() == (1009, f"message over {limit} bytes")
        assert (await client.send(message(TEXT))).data == TEXT


async def test_after_a_loss_both_begin_anew() -> None:
    async with (
        serve(echo, compression="deflate") as server,
        connect(f"ws://127.0.0.1:{server.port}", compression="deflate", backoff=lambda _: 0) as client,
    ):
        for _ in range(3):
            assert (await client.send(message(TEXT))).data == TEXT
            for connection in list(server.connections):
                await connection.close()
        assert (await client.send(message(TEXT))).data == TEXT
