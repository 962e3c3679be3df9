"""Framing, masking and extensibility: what one frame's header may say (RFC 6455 §5.1-5.3, §5.8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sage_ws._core import Connection
from sage_ws._core.events import Closing, Pong

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RESERVED_OPCODES = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
KNOWN_OPCODES = (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)

# 0, the ends of each form of the length (§5.2), and what is around them
LENGTHS = (0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 128, 255, 256, 65535, 65536)


def octets(length: int) -> bytes:
    return bytes((31 * index + 7) % 256 for index in range(length))


# ── §5.2: a message in one frame ──────────────────────────────────────────────────────
@pytest.mark.parametrize("length", LENGTHS, ids=lambda length: f"5.2-binary-of-{length}")
def test_a_binary_message(endpoint: Any, length: int) -> None:
    content = octets(length)
    endpoint.takes(endpoint.peer.binary(content), [content])


@pytest.mark.parametrize("length", LENGTHS, ids=lambda length: f"5.2-text-of-{length}")
def test_a_text_message(endpoint: Any, length: int) -> None:
    content = ("sage " * (length // 5 + 1))[:length]
    endpoint.takes(endpoint.peer.text(content), [content])


@pytest.mark.parametrize("length", LENGTHS, ids=lambda length: f"5.2-sends-{length}")
def test_messages_out(endpoint: Any, length: int) -> None:
    content = octets(length)
    endpoint.takes(
        b"",
        [],
        [(BINARY, content), (TEXT, b"t" * length)],
        before=lambda connection: (connection.send_raw(content), connection.send_raw("t" * length)),
    )


def test_5_2_messages_follow_each_other(endpoint: Any) -> None:
    peer = endpoint.peer
    data = (
        peer.text("a")
        + peer.binary(b"")
        + peer.pong(b"p")
        + peer.text("")
        + peer.binary(octets(300))
        + peer.text("z")
    )
    endpoint.takes(data, ["a", b"", Pong(b"p"), "", octets(300), "z"])


@pytest.mark.parametrize("opcode", KNOWN_OPCODES[1:], ids=lambda opcode: f"5.2-header-of-{opcode}")
def test_a_cut_header_is_nothing_yet(endpoint: Any, opcode: int) -> None:
    frame = endpoint.peer.frame(opcode)
    for end in range(len(frame)):
        connection = endpoint.connection()
        assert connection.receive_data(frame[:end]) == []
        assert connection.data_to_send() == b""
        assert not connection.closing


# ── §5.2, §5.8: reserved bits and opcodes, none of them negotiated ────────────────────
@pytest.mark.parametrize("opcode", KNOWN_OPCODES, ids=lambda opcode: f"5.2-rsv-on-{opcode}")
@pytest.mark.parametrize("rsv", range(1, 8), ids=lambda rsv: f"5.8-rsv-{rsv:03b}")
def test_reserved_bits(endpoint: Any, opcode: int, rsv: int) -> None:
    endpoint.fails(b"", endpoint.peer.frame(opcode, rsv=rsv)[:2], 1002, "reserved bits set")


@pytest.mark.parametrize("fin", [True, False], ids=["fin", "more"])
@pytest.mark.parametrize("opcode", RESERVED_OPCODES, ids=lambda opcode: f"5.8-opcode-{opcode}")
def test_unknown_opcodes(endpoint: Any, opcode: int, fin: bool) -> None:
    peer = endpoint.peer
    sound = peer.text("ok") + peer.ping(b"!")
    broken = peer.frame(opcode, b"payload", fin=fin)[:2]
    endpoint.fails(sound, broken, 1002, f"unknown opcode {opcode}", events=["ok"], output=[(PONG, b"!")])


def test_5_8_reserved_bits_between_fragments(endpoint: Any) -> None:
    peer = endpoint.peer
    endpoint.fails(peer.text("a", fin=False), peer.last(b"b", rsv=4)[:2], 1002, "reserved bits set")


# ── §5.2: the length, in the fewest bytes that hold it ────────────────────────────────
@pytest.mark.parametrize(
    ("extended", "length"),
    [
        *(pytest.param(2, n, id=f"5.2-{n}-in-16-bits") for n in (0, 1, 124, 125)),
        *(pytest.param(8, n, id=f"5.2-{n}-in-64-bits") for n in (0, 1, 125, 126, 65534, 65535)),
    ],
)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_longer_forms(endpoint: Any, opcode: int, extended: int, length: int) -> None:
    header = endpoint.peer.frame(opcode, claims=length, extended=extended)[: 2 + extended]
    endpoint.fails(b"", header, 1002, "length not minimal")


@pytest.mark.parametrize(
    "length", [1 << 63, (1 << 63) + 5, (1 << 64) - 1], ids=lambda n: f"5.2-top-bit-{n:x}"
)
def test_the_top_bit_of_a_length(endpoint: Any, length: int) -> None:
    header = endpoint.peer.binary(claims=length)[:10]
    endpoint.fails(b"", header, 1002, "length with its top bit set")


# ── §5.1, §5.3: a client masks, a server does not ─────────────────────────────────────
@pytest.mark.parametrize("opcode", KNOWN_OPCODES, ids=lambda opcode: f"5.1-mask-bit-of-{opcode}")
def test_the_mask_bit_belongs_to_the_role(endpoint: Any, opcode: int) -> None:
    reason = "unmasked frame from a client" if endpoint.role == "server" else "masked frame from a server"
    broken = endpoint.peer.frame(opcode, b"abc", masked=not endpoint.peer.masks)[:2]
    endpoint.fails(b"", broken, 1002, reason)


def test_5_1_one_wrong_mask_bit_among_right_ones(endpoint: Any) -> None:
    peer = endpoint.peer
    reason = "unmasked frame from a client" if endpoint.role == "server" else "masked frame from a server"
    endpoint.fails(
        peer.text("right"), peer.text("wrong", masked=not peer.masks)[:2], 1002, reason, events=["right"]
    )


@pytest.mark.parametrize(
    "key", ["00000000", "ffffffff", "00ff00ff", "01020304", "80000001"], ids="5.3-key-{}".format
)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 63, 64, 65, 767, 768, 769, 4099])
def test_a_server_unmasks(server: Any, key: str, length: int) -> None:
    content = octets(length)
    peer = type(server.peer)("server", bytes.fromhex(key))
    server.takes(peer.binary(content) + peer.text("é" * length), [content, "é" * length])


def test_5_3_each_frame_has_its_own_key(server: Any) -> None:
    keys = [bytes([n, 255 - n, n ^ 0x55, 7 * n % 256]) for n in range(50)]
    peers = [type(server.peer)("server", key) for key in keys]
    data = b"".join(
        peers[0].binary(b"start", fin=False) if not n else peer.frame(CONTINUATION, octets(n), fin=n == 49)
        for n, peer in enumerate(peers)
    )
    server.takes(data, [b"start" + b"".join(octets(n) for n in range(1, 50))])


def _keys(output: bytes) -> list[bytes]:
    """The masking keys of empty frames."""
    assert len(output) % 6 == 0
    return [output[at + 2 : at + 6] for at in range(0, len(output), 6)]


SENDERS: dict[str, Callable[[Connection], object]] = {
    "text": lambda connection: connection.send_raw(""),
    "binary": lambda connection: connection.send_raw(b""),
    "ping": lambda connection: connection.send_ping(),
}


@pytest.mark.parametrize("sender", SENDERS, ids="5.3-fresh-keys-for-{}".format)
def test_a_client_masks_with_fresh_keys(client: Any, sender: str) -> None:
    connections = [client.connection() for _ in range(2)]
    for connection in connections:
        for _ in range(1000):
            SENDERS[sender](connection)
    keys = [key for connection in connections for key in _keys(connection.data_to_send())]
    # 2000 of 2^32: a collision is one run in two thousand, and two of them none in anybody's life
    assert len(set(keys)) >= len(keys) - 1
    assert b"\0\0\0\0" not in keys[:100]
    for column in range(4):
        assert len({key[column] for key in keys}) > 200, "every octet of a key varies"


def test_5_3_what_the_core_answers_by_itself_is_masked_too(client: Any) -> None:
    connection = client.connection()
    connection.receive_data(client.peer.ping() + client.peer.ping() + client.peer.close())
    pong, again, close = _keys(connection.data_to_send())
    assert len({pong, again, close}) == 3


def test_5_3_a_server_masks_nothing(server: Any) -> None:
    connection = server.connection()
    connection.send_raw("text")
    connection.send_ping(b"ping")
    connection.receive_data(server.peer.ping(b"pong"))
    connection.send_close(1000, "bye")
    assert connection.data_to_send() == b"\x81\x04text\x89\x04ping\x8a\x04pong\x88\x05\x03\xe8bye"


# ── several rules broken at once: one order, the same on every core ───────────────────
ORDER: list[tuple[str, str, Callable[[Any], bytes]]] = [
    ("rsv-before-opcode", "reserved bits set", lambda peer: peer.frame(3, rsv=2)[:2]),
    ("opcode-before-fin", "unknown opcode 11", lambda peer: peer.frame(11, fin=False)[:2]),
    ("opcode-before-mask", "unknown opcode 3", lambda peer: peer.frame(3, masked=not peer.masks)[:2]),
    ("fin-before-mask", "fragmented control frame", lambda p: p.ping(fin=False, masked=not p.masks)[:2]),
    ("fin-before-length", "fragmented control frame", lambda peer: peer.ping(bytes(126), fin=False)[:2]),
    ("control-length-before-form", "control frame longer than 125 bytes", lambda p: p.ping(extended=8)[:2]),
    ("form-before-order", "length not minimal", lambda peer: peer.last(claims=5, extended=2)[:4]),
    ("top-bit-before-order", "length with its top bit set", lambda peer: peer.last(claims=1 << 63)[:10]),
    ("order-before-size", "continuation without a message", lambda peer: peer.last(claims=1 << 40)[:10]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "broken"), [pytest.param(*case[1:], id=f"5.2-{case[0]}") for case in ORDER]
)
def test_the_order_of_checks(endpoint: Any, reason: str, broken: Callable[[Any], bytes]) -> None:
    endpoint.fails(b"", broken(endpoint.peer), 1002, reason)


def test_5_2_mask_before_control_length(endpoint: Any) -> None:
    reason = "unmasked frame from a client" if endpoint.role == "server" else "masked frame from a server"
    broken = endpoint.peer.ping(bytes(126), masked=not endpoint.peer.masks)[:2]
    endpoint.fails(b"", broken, 1002, reason)


def test_5_2_nothing_is_read_after_a_failure(endpoint: Any) -> None:
    connection = endpoint.connection()
    assert connection.receive_data(endpoint.peer.frame(3)) == [Closing(1002, "unknown opcode 3", False)]
    connection.data_to_send()
    for data in (endpoint.peer.text("x"), endpoint.peer.close(1000), b"\xff" * 1000, b""):
        assert connection.receive_data(data) == []
    assert connection.data_to_send() == b""
