"""Limits are exact and judged by headers; memory follows the bytes that came (RFC 6455 §10.4)."""

from __future__ import annotations

from typing import Any

import pytest

from sage_ws._core import Connection
from sage_ws.errors import MessageTooBigError

CONTINUATION, TEXT, BINARY, PING, PONG = 0, 1, 2, 9, 10
KIB, MIB = 1024, 1024 * 1024
DEFAULT = 16 * MIB
ROUNDING = 256 * KIB
"""What allocators round, and other pages of the process: half of what a pointer per fragment would take."""

# around each form of the length
LIMITS = (1, 2, 124, 125, 126, 127, 1000, 65535, 65536)


def too_big(limit: int) -> str:
    return f"message over {limit} bytes"


def header(peer: Any, opcode: int, claims: int, *, fin: bool = True) -> bytes:
    """Up to the length: nothing of the masking key, nothing of the payload."""
    extended = 0 if claims < 126 else 2 if claims < 1 << 16 else 8
    whole: bytes = peer.frame(opcode, claims=claims, fin=fin)
    return whole[: 2 + extended]


# ── receiving ─────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"10.4-{limit}")
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_one_frame(endpoint: Any, opcode: int, limit: int) -> None:
    bounded = endpoint.with_options(max_message_size=limit)
    peer = endpoint.peer
    sound, events = b"", []
    for length in (limit - 1, limit):
        sound += peer.frame(opcode, b"x" * length)
        events.append("x" * length if opcode == TEXT else b"x" * length)
    bounded.takes(sound, events)
    bounded.fails(b"", header(peer, opcode, limit + 1), 1009, too_big(limit))
    bounded.fails(b"", header(peer, opcode, limit + 1, fin=False), 1009, too_big(limit))


@pytest.mark.parametrize("limit", [2, 125, 126, 1000, 20_000], ids=lambda limit: f"10.4-{limit}")
def test_fragments(endpoint: Any, limit: int) -> None:
    bounded = endpoint.with_options(max_message_size=limit)
    peer = endpoint.peer
    whole = [b"x" * limit]
    for parts in (
        [limit - 1, 1],
        [1, limit - 1],
        [limit, 0],
        [0, limit],
        [limit - 1, 1, 0, 0],
        [0, 0, limit],
    ):
        first, *middle, last = [b"x" * length for length in parts]
        data = peer.binary(first, fin=False) + b"".join(map(peer.more, middle)) + peer.last(last)
        bounded.takes(data, whole)
    for first, second in ((limit, 1), (limit - 1, 2), (1, limit), (0, limit + 1)):
        sound = peer.binary(b"x" * first, fin=False)
        bounded.fails(sound, header(peer, CONTINUATION, second), 1009, too_big(limit))
        bounded.fails(
            sound + peer.more(), header(peer, CONTINUATION, second, fin=False), 1009, too_big(limit)
        )


def test_10_4_every_message_has_the_whole_limit(endpoint: Any) -> None:
    peer = endpoint.peer
    data = (peer.text("12345") + peer.text("12", fin=False) + peer.last(b"345")) * 20
    endpoint.with_options(max_message_size=5).takes(data, ["12345"] * 40)


def test_10_4_bytes_count_and_not_characters(endpoint: Any) -> None:
    bounded = endpoint.with_options(max_message_size=8)
    peer = endpoint.peer
    bounded.takes(peer.text("😀😀"), ["😀😀"])
    bounded.fails(b"", header(peer, TEXT, len("😀é😀".encode())), 1009, too_big(8))


def test_10_4_control_frames_do_not_count(endpoint: Any) -> None:
    bounded = endpoint.with_options(max_message_size=1)
    peer = endpoint.peer
    data = peer.ping(b"p" * 125) + peer.text("", fin=False) + peer.ping(b"q" * 125) + peer.last(b"x")
    bounded.takes(data, ["x"], [(PONG, b"p" * 125), (PONG, b"q" * 125)])


def test_10_4_the_default_is_16_mib(endpoint: Any) -> None:
    peer = endpoint.peer
    endpoint.takes(header(peer, BINARY, DEFAULT), [])
    endpoint.fails(b"", header(peer, BINARY, DEFAULT + 1), 1009, too_big(DEFAULT))


@pytest.mark.parametrize(
    "claims", [1 << 32, 1 << 62, (1 << 63) - 1], ids=lambda claims: f"5.2-claims-{claims:x}"
)
def test_enormous_claims(endpoint: Any, claims: int) -> None:
    peer = endpoint.peer
    endpoint.fails(b"", header(peer, TEXT, claims), 1009, too_big(DEFAULT))
    endpoint.fails(peer.text("ab", fin=False), header(peer, CONTINUATION, claims), 1009, too_big(DEFAULT))
    # without a limit the claim is believed, and what comes is read
    unbounded = endpoint.with_options(max_message_size=None)
    unbounded.takes(peer.frame(BINARY, b"x" * 100, claims=claims), [])
    unbounded.takes(peer.binary(b"ab", fin=False) + peer.frame(CONTINUATION, b"x" * 100, claims=claims), [])


def test_10_4_no_limit(endpoint: Any) -> None:
    content = b"x" * (DEFAULT + 1)
    connection = Connection(endpoint.role, max_message_size=None, raw=True)
    peer = type(endpoint.peer)(endpoint.role, bytes(4))
    head = header(peer, BINARY, len(content)) + bytes(4 if peer.masks else 0)
    assert connection.receive_data(head + content) == [content]
    assert connection.receive_data(peer.binary(b"still here")) == [b"still here"]


# ── sending ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("limit", [1, 125, 126, 65536], ids=lambda limit: f"10.4-sends-{limit}")
@pytest.mark.parametrize("kind", [str, bytes], ids=["text", "binary"])
def test_messages_out(endpoint: Any, kind: type, limit: int) -> None:
    connection = endpoint.with_options(max_message_size=limit).connection()
    content = "x" * limit if kind is str else b"x" * limit
    connection.send_raw(content)
    assert [len(payload) for _, payload in endpoint.peer.read(connection.data_to_send())] == [limit]
    with pytest.raises(
        MessageTooBigError, match=f"^message of {limit + 1} bytes is over max_message_size {limit}$"
    ):
        connection.send_raw(content + content[:1])
    assert connection.data_to_send() == b""
    assert not connection.closing


# ── memory ────────────────────────────────────────────────────────────────────────────
def test_5_2_nothing_is_allocated_on_a_claim(endpoint: Any, measure: Any) -> None:
    growth, count = measure(
        """
        opened = [connection(raw=True, max_message_size=None) for _ in range(200)]
        def act():
            for n, one in enumerate(opened):
                opcode = TEXT if n % 2 else BINARY
                assert one.receive_data(frame(opcode, b"some", claims=(16 << 20) << n % 20)) == []
                assert one.receive_data(b"more") == []
            return len(opened)
        connection(raw=True).receive_data(frame(BINARY, b"warm", fin=False))
        grown(act)
        """,
        endpoint.role,
    )
    assert count == 200
    assert growth < MIB


@pytest.mark.parametrize("opcode", ["TEXT", "BINARY"])
@pytest.mark.parametrize("size", [16, 256], ids=lambda size: f"5.4-65536-fragments-of-{size}")
def test_many_fragments(endpoint: Any, measure: Any, opcode: str, size: int) -> None:
    script = f"""
        def act(one, reads):
            one.receive_data(frame({opcode}, b"x" * {size}, fin=False))
            for _ in range(reads):
                one.receive_data(middle)
            (message,) = one.receive_data(frame(0))
            return len(message)
        middle = frame(0, b"x" * {size}, fin=False) * 16
        act(connection(raw=True), 64)
        one = connection(raw=True, max_message_size=None)
        grown(lambda: act(one, 4096))
    """
    growth, length = measure(script, endpoint.role)
    assert length == 65_537 * size
    assert growth <= 2 * length + 64 * KIB + ROUNDING


@pytest.mark.parametrize("opcode", ["TEXT", "BINARY"])
def test_5_4_300_000_empty_fragments(endpoint: Any, measure: Any, opcode: str) -> None:
    growth, length = measure(
        f"""
        def act(one):
            one.receive_data(frame({opcode}, b"", fin=False))
            for _ in range(300):
                assert one.receive_data(middle) == []
            (message,) = one.receive_data(frame(0, b"end"))
            return len(message)
        middle = frame(0, fin=False) * 1000
        grown(lambda: act(connection(raw=True)))
        """,
        endpoint.role,
    )
    assert length == 3
    assert growth <= 16 * MIB


def test_5_4_65_536_fragments_however_they_come(endpoint: Any) -> None:
    peer = endpoint.peer
    data = peer.text("a", fin=False) + peer.more(b"b") * 65_534 + peer.last(b"c")
    whole = "a" + "b" * 65_534 + "c"
    for size in (1, 2, 3, 7, 1000, len(data)):
        connection = endpoint.connection()
        events = [
            event
            for at in range(0, len(data), size)
            for event in connection.receive_data(data[at : at + size])
        ]
        assert events == [whole]


def test_5_5_2_a_ping_flood_to_a_deaf_peer_is_bounded(endpoint: Any, measure: Any) -> None:
    growth, events = measure(
        """
        one = connection(raw=True)
        one.set_blocked(True)
        def act():
            return [event for _ in range(1000) for event in one.receive_data(flood)]
        flood = frame(PING, b"x" * 125) * 100
        grown(act)
        """,
        endpoint.role,
    )
    assert events == [[1008, "too many pings unanswered", False]]
    assert growth < MIB
