"""The small steps of a message, timed by pytest-benchmark, on the core that ``SAGE_WS_CORE`` chooses.

Their names stay, so that ``--benchmark-compare`` puts two commits side by side. What a step made is checked
outside of what is timed.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

import sage_ws
from bench.message import CONTEXT_ID, DID, METADATA, ROLE, SIGNATURE, TASK_ID, payloads
from sage_ws import SecureMessage, _core

SIZES = {"256 B": 256, "64 KiB": 64 << 10}
ENCODED_SIZES = {"64 B": 64, **SIZES, "1 MiB": 1 << 20}
SUBPROTOCOLS = ("sage.1.json", "sage.1.cbor")
BATCH = 64
"""Messages that a read of the socket brings, where a batch of them is timed."""


@pytest.fixture(autouse=True)
def core(benchmark: Any) -> None:
    """Which core it was, in the tables and the files."""
    benchmark.extra_info["core"] = sage_ws.core_name
    benchmark.group = f"{sage_ws.core_name} core"


def message(size: int = 256) -> SecureMessage:
    return SecureMessage(payloads(size)[0], DID, "", SIGNATURE, CONTEXT_ID, TASK_ID, METADATA, ROLE)


def test_construct(benchmark: Any) -> None:
    assert benchmark(message).id


def test_construct_with_an_id(benchmark: Any) -> None:
    payload = payloads(256)[0]
    made = benchmark(SecureMessage, payload, DID, "m-1", SIGNATURE, CONTEXT_ID, TASK_ID, METADATA, ROLE)
    assert made.id == "m-1"


# ── the wire: what is large is base64 ──────────────────────────────────────────────────
def request(size: str) -> tuple[Any, ...]:
    """A message's fields, as the functions of the wire take them."""
    return "m-1", CONTEXT_ID, TASK_ID, payloads(SIZES[size])[0], DID, SIGNATURE, METADATA, ROLE


def response(size: str) -> tuple[Any, ...]:
    return True, "m-1", TASK_ID, payloads(SIZES[size])[0], ""


@pytest.mark.parametrize("size", SIZES)
def test_encode_message(benchmark: Any, size: str) -> None:
    assert _core.decode_message(benchmark(_core.encode_message, *request(size))) == request(size)


@pytest.mark.parametrize("size", SIZES)
def test_decode_message(benchmark: Any, size: str) -> None:
    assert benchmark(_core.decode_message, _core.encode_message(*request(size))) == request(size)


@pytest.mark.parametrize("size", SIZES)
def test_encode_response(benchmark: Any, size: str) -> None:
    assert _core.decode_response(benchmark(_core.encode_response, *response(size))) == response(size)


@pytest.mark.parametrize("size", SIZES)
def test_decode_response(benchmark: Any, size: str) -> None:
    assert benchmark(_core.decode_response, _core.encode_response(*response(size))) == response(size)


# ── both ends in memory: all of a message but its sockets, its loop and its handler ────
class Ends:
    """A client's and a server's connection, mouth to ear."""

    def __init__(self, **negotiated: Any) -> None:
        self.client = _core.Connection("client", **negotiated)
        self.server = _core.Connection("server", **negotiated)

    def carry(self, count: int, size: int) -> int:
        """Bring so many messages there, and their echoes back; returns how many came."""
        for number in range(count):
            self.client.send_message(message(size), number, math.inf)
        for asked in self.server.receive_data(self.client.data_to_send()):
            self.server.send_response(asked, asked.payload)
        return len(self.client.receive_data(self.server.data_to_send()))


@pytest.mark.parametrize("size", SIZES)
def test_there_and_back(benchmark: Any, size: str) -> None:
    assert benchmark(Ends().carry, 1, SIZES[size]) == 1


@pytest.mark.parametrize("size", SIZES)
def test_there_and_back_compressed(benchmark: Any, size: str) -> None:
    ends = Ends(deflate=(15, False, 15, False, 0, 6, 8))  # what Deflate() is, but for the threshold
    assert benchmark(ends.carry, 1, SIZES[size]) == 1


def test_a_batch_there_and_back(benchmark: Any) -> None:
    assert benchmark(Ends().carry, BATCH, 256) == BATCH


# ── the encodings, beside each other; bench/encodings.py measures what one saves ────────
@pytest.mark.parametrize("subprotocol", [None, *SUBPROTOCOLS], ids=["plain", *SUBPROTOCOLS])
@pytest.mark.parametrize("size", ENCODED_SIZES)
def test_there_and_back_encoded(benchmark: Any, size: str, subprotocol: str | None) -> None:
    assert benchmark(Ends(subprotocol=subprotocol).carry, 1, ENCODED_SIZES[size]) == 1
