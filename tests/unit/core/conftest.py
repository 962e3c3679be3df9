"""One endpoint under test and the bytes of its peer: a second, naive frame writer and reader.

It is written byte by byte on purpose: whatever the core does to be fast, this does not do.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any, Literal

import pytest

from sage_ws._core import Connection

Role = Literal["client", "server"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASKING_KEY = b"\x9a\x00\xff\x41"


def _mask(payload: bytes, key: bytes) -> bytes:
    return bytes(byte ^ other for byte, other in zip(payload, cycle(key), strict=False))


class Endpoint:
    """A connection in one role, and what its peer would write and read."""

    def __init__(self, role: Role, **options: Any) -> None:
        self.role = role
        self.connection = Connection(role, **options)

    def frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, length: int | None = None
    ) -> bytes:
        """A frame from the peer; `length` claims another length than the payload's."""
        masked = self.role == "server"
        length = len(payload) if length is None else length
        header = bytearray([opcode | (0x80 if fin else 0)])
        mask_bit = 0x80 if masked else 0
        if length < 126:
            header.append(mask_bit | length)
        elif length < 65536:
            header.append(mask_bit | 126)
            header += length.to_bytes(2, "big")
        else:
            header.append(mask_bit | 127)
            header += length.to_bytes(8, "big")
        if not masked:
            return bytes(header) + payload
        return bytes(header) + MASKING_KEY + _mask(payload, MASKING_KEY)

    def receive(self, *frames: bytes) -> list[Any]:
        """What the connection makes of these, in one chunk."""
        return self.connection.receive_data(b"".join(frames))

    def sent(self) -> list[tuple[int, bytes]]:
        """What it has written since: opcodes and unmasked payloads, each frame checked for its form."""
        output = self.connection.data_to_send()
        frames = []
        position = 0
        while position < len(output):
            opcode = output[position] & 0x0F
            assert output[position] == 0x80 | opcode, "whole messages only, no reserved bit"
            masked = output[position + 1] >= 0x80
            assert masked == (self.role == "client"), "clients mask, servers do not"
            length = output[position + 1] & 0x7F
            position += 2
            if length >= 126:
                size = 2 if length == 126 else 8
                length = int.from_bytes(output[position : position + size], "big")
                assert length > (125 if size == 2 else 65535), "the shortest form of the length"
                position += size
            key = b"\0\0\0\0"
            if masked:
                key = output[position : position + 4]
                position += 4
            payload = output[position : position + length]
            assert len(payload) == length
            frames.append((opcode, _mask(payload, key)))
            position += length
        return frames


@pytest.fixture(params=["client", "server"])
def endpoint(request: pytest.FixtureRequest) -> Endpoint:
    """Either role: for the rules that hold in both."""
    return Endpoint(request.param)


@pytest.fixture
def client() -> Endpoint:
    return Endpoint("client")


@pytest.fixture
def server() -> Endpoint:
    return Endpoint("server")


@pytest.fixture
def make_endpoint() -> Callable[..., Endpoint]:
    """For other options than the defaults."""
    return Endpoint


@pytest.fixture(params=["client", "server"])
def role(request: pytest.FixtureRequest) -> Role:
    return request.param
