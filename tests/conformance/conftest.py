"""One endpoint, the bytes of its peer, and the three ways in which bytes can arrive.

A case is a peer's bytes and what must come of them. Each is run all at once, in one-byte chunks and in random
chunks: events and output must be what the case says, every time. The writer and the reader of frames here
are naive on purpose: byte by byte, as RFC 6455 §5.2 reads.
"""

from __future__ import annotations

import json
import pathlib
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, Literal

import pytest

from sage_ws._core import Connection
from sage_ws._core.events import Closing

Role = Literal["client", "server"]
Frames = list[tuple[int, bytes]]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RANDOM_WAYS = 3
"""Random chunkings of each case."""


def xor(payload: bytes, key: bytes) -> bytes:
    """Masking as §5.3 writes it: octet i with octet i mod 4 of the key."""
    return bytes(octet ^ other for octet, other in zip(payload, cycle(key), strict=False))


@dataclass(frozen=True)
class Peer:
    """What the peer of an endpoint writes, and how it reads what the endpoint wrote.

    Attributes:
        role: the endpoint's, not the peer's.
        key: masks what a client writes.
    """

    role: Role
    key: bytes = b"\x9a\x00\xff\x41"

    @property
    def masks(self) -> bool:
        """Whether the peer must mask: it is a client."""
        return self.role == "server"

    def frame(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        fin: bool = True,
        rsv: int = 0,
        masked: bool | None = None,
        claims: int | None = None,
        extended: int | None = None,
    ) -> bytes:
        """A frame, sound or not.

        Args:
            opcode: four bits.
            payload: unmasked.
            fin: whether it is the message's last.
            rsv: the three reserved bits, as a number.
            masked: the mask bit; a sound frame's without it.
            claims: a length other than the payload's.
            extended: bytes of extended length; the fewest without it.
        """
        masked = self.masks if masked is None else masked
        length = len(payload) if claims is None else claims
        if extended is None:
            extended = 0 if length < 126 else 2 if length < 1 << 16 else 8
        seven = {0: length, 2: 126, 8: 127}[extended]
        head = (
            bytes([fin << 7 | rsv << 4 | opcode, masked << 7 | seven])
            + length.to_bytes(8, "big")[8 - extended :]
        )
        return head + (self.key + xor(payload, self.key) if masked else payload)

    def text(self, content: str | bytes = b"", **options: Any) -> bytes:
        return self.frame(TEXT, content.encode() if isinstance(content, str) else content, **options)

    def binary(self, content: bytes = b"", **options: Any) -> bytes:
        return self.frame(BINARY, content, **options)

    def more(self, content: bytes = b"", **options: Any) -> bytes:
        """A continuation that is not the last."""
        return self.frame(CONTINUATION, content, fin=False, **options)

    def last(self, content: bytes = b"", **options: Any) -> bytes:
        """The last continuation."""
        return self.frame(CONTINUATION, content, **options)

    def ping(self, content: bytes = b"", **options: Any) -> bytes:
        return self.frame(PING, content, **options)

    def pong(self, content: bytes = b"", **options: Any) -> bytes:
        return self.frame(PONG, content, **options)

    def close(self, code: int | None = None, reason: str | bytes = b"", **options: Any) -> bytes:
        reason = reason.encode() if isinstance(reason, str) else reason
        return self.frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason, **options)

    def read(self, output: bytes) -> Frames:
        """The frames that the endpoint wrote: opcodes and unmasked payloads. Each must be sound."""
        frames = []
        octets = iter(output)
        for first in octets:
            opcode = first & 0x0F
            assert first == 0x80 | opcode, "ours are whole messages, without reserved bits"
            assert opcode in {TEXT, BINARY, CLOSE, PING, PONG}
            second = next(octets)
            length = second & 0x7F
            if length >= 126:
                extended = 2 if length == 126 else 8
                length = int.from_bytes(_take(octets, extended), "big")
                assert length >= (126 if extended == 2 else 1 << 16), "the fewest bytes that hold the length"
            assert opcode < CLOSE or length <= 125
            assert (second >= 0x80) == (self.role == "client"), "a client masks, a server does not"
            key = _take(octets, 4) if second >= 0x80 else bytes(4)
            frames.append((opcode, xor(_take(octets, length), key)))
        return frames


def _take(octets: Iterator[int], count: int) -> bytes:
    taken = bytes(islice(octets, count))
    assert len(taken) == count, "no frame is cut"
    return taken


def chunkings(data: bytes) -> Iterator[list[bytes]]:
    """The same bytes all at once, one by one, and cut at random places."""
    yield [data]
    yield [data[index : index + 1] for index in range(len(data))]
    for seed in range(RANDOM_WAYS):
        source = random.Random(seed)
        most = source.choice([3, 10, 100, 5000])
        chunks = []
        start = 0
        while start < len(data):
            size = source.randint(1, most)
            chunks.append(data[start : start + size])
            start += size
        yield chunks


def received(connection: Connection, chunks: list[bytes]) -> list[Any]:
    """All events, whatever call brought them."""
    return [event for chunk in chunks for event in connection.receive_data(chunk)]


@dataclass(frozen=True)
class Endpoint:
    """An endpoint in one role, as a case of conformance sees it."""

    role: Role
    options: dict[str, Any] = field(default_factory=lambda: {"raw": True})

    @property
    def peer(self) -> Peer:
        return Peer(self.role)

    def connection(self) -> Connection:
        return Connection(self.role, **self.options)

    def with_options(self, **options: Any) -> Endpoint:
        return Endpoint(self.role, {**self.options, **options})

    def takes(
        self,
        data: bytes,
        events: list[Any],
        output: Frames | None = None,
        *,
        before: Callable[[Connection], object] = lambda connection: None,
    ) -> None:
        """These bytes make these events and this output, however they arrive.

        Args:
            data: what the peer writes.
            events: all of them, in order.
            output: frames, what `before` wrote among them.
            before: what the endpoint does first.
        """
        for chunks in chunkings(data):
            connection = self.connection()
            before(connection)
            assert received(connection, chunks) == events
            assert self.peer.read(connection.data_to_send()) == (output or [])

    def fails(
        self,
        sound: bytes,
        broken: bytes,
        code: int,
        reason: str,
        *,
        events: list[Any] | None = None,
        output: Frames | None = None,
    ) -> None:
        """The connection fails (§7.1.7) at the last byte of `broken`, not before and not later.

        Args:
            sound: what the peer writes before, in order.
            broken: up to the first byte at which a rule is broken.
            code: of the close frame.
            reason: its reason.
            events: of `sound`.
            output: of `sound`.
        """
        closing = Closing(code, reason, by_peer=False)
        frames = [*(output or []), (CLOSE, code.to_bytes(2, "big") + reason.encode())]
        # a peer that goes on as if nothing had happened, in the middle of a frame or behind it
        behind = b"\x00\x80\xff" + self.peer.text("late") + self.peer.ping(b"late") + self.peer.close(1000)
        for data in (sound + broken, sound + broken + behind):
            for chunks in chunkings(data):
                connection = self.connection()
                assert received(connection, chunks) == [*(events or []), closing]
                assert self.peer.read(connection.data_to_send()) == frames
                assert connection.closing
        connection = self.connection()
        one_by_one = [connection.receive_data((sound + broken)[at:][:1]) for at in range(len(sound + broken))]
        early = [at for at, some in enumerate(one_by_one) if closing in some]
        assert early == [len(sound + broken) - 1], "fails at the first byte that breaks the rule"


@pytest.fixture(params=["client", "server"])
def endpoint(request: pytest.FixtureRequest) -> Endpoint:
    """Either role, its messages handed out as they are."""
    return Endpoint(request.param)


@pytest.fixture(scope="session")
def endpoint_for() -> Callable[[Role], Endpoint]:
    """For cases that bring their role along."""
    return Endpoint


@pytest.fixture
def client() -> Endpoint:
    return Endpoint("client")


@pytest.fixture
def server() -> Endpoint:
    return Endpoint("server")


# ── memory ────────────────────────────────────────────────────────────────────────────
# Measured in a process of its own, where nobody else's garbage makes room or noise.
MEASURED = """
import gc, json, sys
from sage_ws._core import Connection, decode_message, decode_response
from sage_ws.errors import DecodeError

TEXT, BINARY, PING = 1, 2, 9
masks = {role!r} == "server"

def frame(opcode, payload=b"", *, fin=True, claims=None):
    length = len(payload) if claims is None else claims
    form, extended = (length, 0) if length < 126 else (126, 2) if length < 1 << 16 else (127, 8)
    head = bytes([fin << 7 | opcode, masks << 7 | form]) + length.to_bytes(8, "big")[8 - extended :]
    return head + (bytes(4) if masks else b"") + payload  # a key of zeros: the payload stays as it is

def connection(**options):
    return Connection({role!r}, **options)

def memory(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

def start():
    gc.collect()
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    return memory("VmRSS")

def grown_since(before):
    return memory("VmHWM") - before

def grown(act):
    before = start()
    result = act()
    print(json.dumps([grown_since(before), result]))

"""

Measure = Callable[[str, str], tuple[int, Any]]


@pytest.fixture(scope="session")
def measure() -> Measure:
    """Run a script that prints by how many bytes it grew at its peak, and a result: `grown` does."""
    if not pathlib.Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process's memory is reset through Linux's /proc")

    def run(script: str, role: str) -> tuple[int, Any]:
        program = MEASURED.replace("{role!r}", repr(role)) + textwrap.dedent(script)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=50)
        assert done.returncode == 0, done.stderr.decode()
        growth, result = json.loads(done.stdout)
        return growth, result

    return run
