"""permessage-deflate: where RSV1 may stand, what inflates to what, and within which limits (RFC 7692).

The groups named 12 and 13 are those of the suites that fuzz WebSocket endpoints: texts and bytes of sixteen
bytes to 128 KiB, in frames of many sizes, under each set of parameters. The peer is Python's zlib.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from sage_ws._core import Connection

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RSV1 = 4
KIB, MIB = 1024, 1024 * 1024
TAIL = b"\x00\x00\xff\xff"
BROKEN = "broken deflate stream"
ROUNDING = 512 * KIB
"""What allocators round, and the states of both directions."""

# window bits and context takeover of what it sends and of what it receives, threshold, level, memory level
PLAIN = (15, True, 15, True, 0, 6, 8)
ALONE = (15, False, 15, False, 0, 6, 8)

HELLO = bytes.fromhex("f248cdc9c90700")

# group 13: no_context_takeover and max_window_bits of either direction
PARAMETERS = {
    "13.1-plain": PLAIN,
    "13.2-alone": ALONE,
    "13.3-window-9": (9, True, 9, True, 0, 6, 8),
    "13.4-window-15": (15, True, 15, True, 0, 9, 9),
    "13.5-alone-window-9": (9, False, 9, False, 0, 1, 1),
    "13.6-alone-window-15": (15, False, 15, False, 0, 1, 9),
    "13.7-each-its-own": (9, True, 15, False, 0, 6, 5),
    "7.1.2.1-window-8": (8, True, 8, True, 0, 6, 5),
}


class Zlib:
    """One direction, as the peer has it."""

    def __init__(self, window_bits: int, takeover: bool, level: int = 6) -> None:
        self.takeover = takeover
        self._bits = max(window_bits, 9)
        self._level = level
        self._fresh()

    def _fresh(self) -> None:
        self._deflater = zlib.compressobj(self._level, zlib.DEFLATED, -self._bits, 8)
        self._inflater = zlib.decompressobj(-self._bits)

    def deflate(self, message: bytes) -> bytes:
        if not self.takeover:
            self._fresh()
        deflated = self._deflater.compress(message) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        assert deflated.endswith(TAIL)
        return deflated[: -len(TAIL)]

    def inflate(self, payload: bytes) -> bytes:
        if not self.takeover:
            self._fresh()
        return self._inflater.decompress(payload + TAIL)


def words(length: int, seed: int = 1) -> str:
    """So many characters that read like text."""
    source = random.Random(seed)
    known = [
        "".join(source.choices("abcdefghijklmnopqrstuvwxyzäß€", k=source.randint(1, 9))) for _ in range(60)
    ]
    return " ".join(source.choices(known, k=length))[:length]


def parts(payload: bytes, size: int) -> list[bytes]:
    return [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]


def compressed(peer: Any, opcode: int, payload: bytes, size: int = 1 << 30) -> bytes:
    """A compressed message, in frames of so many bytes."""
    first, *others = parts(payload, size)
    data: bytes = peer.frame(opcode, first, rsv=RSV1, fin=not others)
    for index, other in enumerate(others):
        data += peer.frame(CONTINUATION, other, fin=index == len(others) - 1)
    return data


def frames(peer: Any, output: bytes) -> Iterator[tuple[int, bytes]]:
    """Each frame's first byte and unmasked payload; of messages, not of control frames."""
    while output:
        length = output[1] & 0x7F
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            length = int.from_bytes(output[2 : 2 + extended], "big")
        start = 2 + extended + (0 if peer.masks else 4)
        yield output[0], peer.read(bytes([output[0] & 0xBF]) + output[1 : start + length])[0][1]
        output = output[start + length :]


# ── §6: where RSV1 may stand ──────────────────────────────────────────────────────────
@pytest.mark.parametrize("deflate", [None, PLAIN], ids=["off", "on"])
@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, BINARY, 3, 7, CLOSE, PING, PONG, 11])
def test_6_reserved_bits(endpoint: Any, deflate: Any, rsv: int, opcode: int) -> None:
    negotiated = endpoint.with_options(deflate=deflate)
    peer = endpoint.peer
    if deflate is not None and rsv == RSV1 and opcode in {TEXT, BINARY}:
        negotiated.takes(compressed(peer, opcode, HELLO), ["Hello" if opcode == TEXT else b"Hello"])
        return
    header = bytes([0x80 | rsv << 4 | opcode, peer.masks << 7])
    negotiated.fails(b"", header, 1002, "reserved bits set")
    negotiated.fails(peer.text("a", fin=False), header, 1002, "reserved bits set")


def test_6_1_a_message_may_be_sent_as_it_is(endpoint: Any) -> None:
    peer = endpoint.peer
    data = peer.text("plain") + compressed(peer, TEXT, HELLO) + peer.text("", fin=False) + peer.last(b"more")
    data += compressed(peer, TEXT, bytes.fromhex("f200110000"))  # refers to the first, past the plain ones
    endpoint.with_options(deflate=PLAIN).takes(data, ["plain", "Hello", "more", "Hello"])


def test_6_2_rsv1_is_of_the_first_frame_alone(endpoint: Any) -> None:
    negotiated = endpoint.with_options(deflate=PLAIN)
    peer = endpoint.peer
    first = peer.text(HELLO[:3], rsv=RSV1, fin=False)
    negotiated.takes(first + peer.ping(b"between") + peer.last(HELLO[3:]), ["Hello"], [(PONG, b"between")])
    negotiated.fails(first, bytes([0x80 | RSV1 << 4, peer.masks << 7]), 1002, "reserved bits set")


# ── §7.2: what inflates to what ───────────────────────────────────────────────────────
EXAMPLES = {
    "7.2.3.1-one-block": ["f248cdc9c90700"],
    "7.2.3.2-sharing-the-window": ["f248cdc9c90700", "f200110000"],
    "7.2.3.3-no-compression": ["000500faff48656c6c6f00"],
    "7.2.3.4-the-last-block": ["f348cdc9c9070000", "f348cdc9c9070000", "f248cdc9c90700"],
    "7.2.3.5-two-blocks": ["f248050000 00ffffcac9c90700"],
}


@pytest.mark.parametrize("payloads", EXAMPLES.values(), ids=EXAMPLES)
def test_what_the_rfc_shows(endpoint: Any, payloads: list[str]) -> None:
    peer = endpoint.peer
    for size in (1, 3, 100):
        data = b"".join(compressed(peer, TEXT, bytes.fromhex(one), size) for one in payloads)
        endpoint.with_options(deflate=PLAIN, max_message_size=5).takes(data, ["Hello"] * len(payloads))


def test_7_2_3_6_empty_messages(endpoint: Any) -> None:
    peer = endpoint.peer
    data = compressed(peer, TEXT, b"\0") + compressed(peer, BINARY, b"\0") * 3 + compressed(peer, TEXT, HELLO)
    endpoint.with_options(deflate=PLAIN).takes(data, ["", b"", b"", b"", "Hello"])
    connection = endpoint.with_options(deflate=PLAIN).connection()
    for _ in range(3):
        connection.send_raw("")
    assert [payload for _, payload in frames(peer, connection.data_to_send())] == [b"\0"] * 3


BROKEN_PAYLOADS = {
    "no-such-block": ("", "07"),
    "before-the-window": ("f200", "11"),
    "stored-length-and-its-complement": ("000500fa", "fe"),
    "no-such-symbol": ("721c", "03"),
}


@pytest.mark.parametrize(("sound", "broken"), BROKEN_PAYLOADS.values(), ids=BROKEN_PAYLOADS)
def test_7_2_2_what_does_not_inflate(endpoint: Any, sound: str, broken: str) -> None:
    negotiated = endpoint.with_options(deflate=PLAIN)
    peer = endpoint.peer
    before = compressed(peer, TEXT, HELLO) * (sound != "f200")
    sound_part = before + peer.binary(bytes.fromhex(sound), fin=False, rsv=RSV1)
    broken_part = peer.more(bytes.fromhex(broken))
    negotiated.fails(sound_part, broken_part, 1007, BROKEN, events=["Hello"] if before else [])


@pytest.mark.parametrize("payload", ["", "f248cdc9c907", "f248", "000500faff48", "f348cdc9c907"], ids=repr)
def test_7_2_2_what_does_not_end_where_the_tail_belongs(endpoint: Any, payload: str) -> None:
    for deflate in (PLAIN, ALONE):
        peer = endpoint.peer
        whole = compressed(peer, BINARY, bytes.fromhex(payload))
        endpoint.with_options(deflate=deflate).fails(b"", whole, 1007, BROKEN)


def test_8_1_text_is_judged_as_it_inflates(endpoint: Any) -> None:
    negotiated = endpoint.with_options(deflate=ALONE)
    peer = endpoint.peer
    sound = "κόσμε".encode()
    negotiated.takes(compressed(peer, TEXT, Zlib(15, False).deflate(sound), 1), ["κόσμε"])
    stored = b"\x00\x04\x00\xfb\xff" + b"ab\xff"
    negotiated.fails(
        peer.text(stored[:-1], fin=False, rsv=RSV1), peer.more(stored[-1:]), 1007, "invalid UTF-8"
    )
    cut = Zlib(15, False).deflate(sound[:-1])
    negotiated.fails(b"", compressed(peer, TEXT, cut), 1007, "invalid UTF-8")
    negotiated.takes(compressed(peer, BINARY, cut), [sound[:-1]])


def test_7_2_1_the_window_is_the_negotiated_one(endpoint: Any) -> None:
    source = random.Random(3)
    for bits in range(8, 16):
        gap = (1 << bits) - 262 if bits > 8 else 240
        message = b"the same words" + source.randbytes(gap) + b"the same words"
        connection = endpoint.with_options(deflate=(bits, True, 15, True, 0, 9, 9)).connection()
        connection.send_raw(message)
        connection.send_raw(message)
        inflater = zlib.decompressobj(-bits)
        for _, payload in frames(endpoint.peer, connection.data_to_send()):
            steps, rest = b"", payload + TAIL
            while rest:
                steps += inflater.decompress(rest, 1)
                rest = inflater.unconsumed_tail
            assert steps + inflater.decompress(b"") == message


# ── groups 12 and 13: sizes, frames, parameters ───────────────────────────────────────
SIZES = [16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072]
CONTENTS = {"12.1-text": TEXT, "12.2-noise": BINARY}


@pytest.mark.parametrize("opcode", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("deflate", PARAMETERS.values(), ids=PARAMETERS)
def test_echoes(endpoint: Any, deflate: Any, opcode: int) -> None:
    peer = endpoint.peer
    connection = endpoint.with_options(deflate=deflate).connection()
    send_bits, send_takeover, receive_bits, receive_takeover, _, level, _ = deflate
    there, back = Zlib(receive_bits, receive_takeover, level), Zlib(send_bits, send_takeover)
    for seed, size in enumerate(SIZES):
        for frame_size in (1 << 30, 256 if size < 16384 else 1024):
            sent: Any = words(size, seed) if opcode == TEXT else random.Random(seed).randbytes(size)
            octets = sent.encode() if opcode == TEXT else sent
            data = compressed(peer, opcode, there.deflate(octets), frame_size)
            events = []
            for start, stop in pairwise([0, len(data) // 3, len(data) // 3 + 1, len(data)]):
                events += connection.receive_data(data[start:stop])
            assert events == [sent]
            connection.send_raw(sent)
            [(first, payload)] = frames(peer, connection.data_to_send())
            if send_takeover or (opcode == TEXT and size > 200):
                assert first == 0xC0 | opcode
            # what would not be shorter, and nothing refers to, goes as it is
            assert len(payload) < len(octets) or send_takeover or first == 0x80 | opcode
            assert (back.inflate(payload) if first & 0x40 else payload) == octets


def test_short_messages_are_sent_as_they_are(endpoint: Any) -> None:
    connection = endpoint.with_options(deflate=(15, True, 15, True, 100, 6, 8)).connection()
    connection.send_raw("a" * 99)
    connection.send_raw("a" * 100)
    connection.send_ping(b"a" * 100)
    connection.send_close(1000, "a" * 100)
    firsts = [first for first, _ in frames(endpoint.peer, connection.data_to_send())]
    assert firsts == [0x81, 0xC1, 0x89, 0x88]


# ── limits ────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("limit", [1, 100, 70_000])
def test_10_4_the_limit_is_of_the_message(endpoint: Any, limit: int) -> None:
    bounded = endpoint.with_options(max_message_size=limit, deflate=PLAIN)
    peer = endpoint.peer
    noise = random.Random(1).randbytes(limit)
    # what comes as noise is longer than its message, and is let through
    stored = Zlib(15, False, 0).deflate(noise)
    assert len(stored) > limit
    bounded.takes(compressed(peer, BINARY, stored, 1000) * 2, [noise] * 2)
    # the last byte of the stored block is one too much
    if limit < 65535:
        head = b"\x01" + (limit + 1).to_bytes(2, "little") + (limit + 1 ^ 0xFFFF).to_bytes(2, "little")
        sound = peer.binary(head + noise, fin=False, rsv=RSV1)
        bounded.fails(sound, peer.more(b"x"), 1009, f"message over {limit} bytes")


def test_10_4_a_claim_beyond_any_compressed_form(endpoint: Any) -> None:
    bounded = endpoint.with_options(max_message_size=1000, deflate=PLAIN)
    peer = endpoint.peer
    claimed = peer.frame(BINARY, claims=1315, rsv=RSV1)[:4]
    bounded.fails(b"", claimed, 1009, "message over 1000 bytes")
    bounded.takes(peer.frame(BINARY, claims=1314, rsv=RSV1)[:4], [])


def test_10_4_what_is_sent_is_measured_before(endpoint: Any) -> None:
    from sage_ws.errors import MessageTooBigError

    connection = endpoint.with_options(max_message_size=100, deflate=PLAIN).connection()
    connection.send_raw("a" * 100)
    with pytest.raises(MessageTooBigError, match="message of 101 bytes is over max_message_size 100"):
        connection.send_raw("a" * 101)


@pytest.mark.parametrize("frame_size", [1000, 1 << 30], ids=["fragments", "one-frame"])
def test_8_a_bomb_ends_at_the_limit(endpoint: Any, measure: Any, frame_size: int) -> None:
    limit = 16 * MIB
    script = f"""
        import zlib
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
        bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(64))
        bomb = (bomb + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert len(bomb) < 64 * {MIB} // 1000
        parts = [bomb[at : at + {frame_size}] for at in range(0, len(bomb), {frame_size})]
        data = [frame(BINARY if not at else 0, part, fin=part is parts[-1]) for at, part in enumerate(parts)]
        data[0] = bytes([data[0][0] | 0x40]) + data[0][1:]
        end = connection(max_message_size={limit}, raw=True, deflate={PLAIN})

        def detonate():
            for part in data:
                for event in end.receive_data(part):
                    return event.code, event.reason

        grown(detonate)
    """
    growth, result = measure(script, endpoint.role)
    assert result == [1009, f"message over {limit} bytes"]
    assert growth <= 2 * limit + ROUNDING


def test_8_a_sound_bomb_passes_where_there_is_no_limit(endpoint: Any) -> None:
    message = bytes(MIB)
    data = compressed(endpoint.peer, BINARY, Zlib(15, True).deflate(message))
    assert endpoint.with_options(max_message_size=None, deflate=PLAIN).connection().receive_data(data) == [
        message
    ]


def test_parameters_that_zlib_does_not_have(endpoint: Any) -> None:
    for place, values in {0: (7, 16), 2: (7, 16), 5: (10,), 6: (0, 10)}.items():
        for value in values:
            wrong: Any = (*PLAIN[:place], value, *PLAIN[place + 1 :])
            with pytest.raises(ValueError, match="^deflate parameters that zlib does not have$"):
                Connection(endpoint.role, deflate=wrong)
