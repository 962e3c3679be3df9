"""Fragmentation: messages in several frames, and what may stand between them (RFC 6455 §5.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sage_ws._core.events import Closing, Pong

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
LONE = "continuation without a message"
INSIDE = "new message inside fragments"

# The parts of one message, as its frames carry them.
PARTS: dict[str, list[bytes]] = {
    "two": [b"ab", b"c"],
    "single-octets": [b"a", b"b", b"c"],
    "empty-first": [b"", b"abc"],
    "empty-last": [b"abc", b""],
    "empty-middle": [b"ab", b"", b"", b"c"],
    "all-empty": [b"", b"", b""],
    "every-form-of-length": [b"x" * 125, b"y" * 126, b"z" * 65535, b"w" * 65536],
    "go-client": [b"x" * 4096, b"y" * 4096, b"z" * 100],
    "go-server": [b"x" * 5000, b""],
    "many": [bytes([65 + n % 26]) * (n % 7) for n in range(500)],
}


def fragments(peer: Any, opcode: int, parts: list[bytes], between: bytes = b"") -> bytes:
    first = peer.frame(opcode, parts[0], fin=False)
    middle = [peer.more(part) for part in parts[1:-1]]
    return between.join([first, *middle, peer.last(parts[-1])])


@pytest.mark.parametrize("parts", PARTS.values(), ids=[f"5.4-{name}" for name in PARTS])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_fragments_become_one_message(endpoint: Any, opcode: int, parts: list[bytes]) -> None:
    whole = b"".join(parts)
    message = whole if opcode == BINARY else whole.decode()
    endpoint.takes(fragments(endpoint.peer, opcode, parts) + endpoint.peer.text("next"), [message, "next"])


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_5_4_the_first_frame_names_the_type(endpoint: Any, opcode: int) -> None:
    peer = endpoint.peer
    data = fragments(peer, opcode, [b"a", b"b"]) + fragments(peer, 3 - opcode, [b"c", b"d"])
    endpoint.takes(data, ["ab", b"cd"] if opcode == TEXT else [b"ab", "cd"])


def test_5_4_a_message_that_is_not_whole_is_no_event(endpoint: Any) -> None:
    peer = endpoint.peer
    endpoint.takes(peer.text("a", fin=False) + peer.more(b"b"), [])


# ── control frames inside ─────────────────────────────────────────────────────────────
def test_5_4_pings_inside_are_answered_at_once(endpoint: Any) -> None:
    peer = endpoint.peer
    connection = endpoint.connection()
    assert connection.receive_data(peer.text("a", fin=False) + peer.ping(b"now")) == []
    assert peer.read(connection.data_to_send()) == [(PONG, b"now")]
    assert connection.receive_data(peer.ping() + peer.last(b"b")) == ["ab"]
    assert peer.read(connection.data_to_send()) == [(PONG, b"")]


@pytest.mark.parametrize("parts", PARTS.values(), ids=[f"5.4-control-between-{name}" for name in PARTS])
def test_control_frames_inside_change_nothing(endpoint: Any, parts: list[bytes]) -> None:
    peer = endpoint.peer
    between = peer.ping(b"p" * 125) + peer.pong(b"q") + peer.ping()
    count = len(parts) - 1
    endpoint.takes(
        fragments(peer, BINARY, parts, between) + peer.ping(b"end"),
        [*[Pong(b"q")] * count, b"".join(parts)],
        [*[(PONG, b"p" * 125), (PONG, b"")] * count, (PONG, b"end")],
    )


@pytest.mark.parametrize("split", range(1, 4), ids=lambda n: f"5.4-control-inside-a-character-{n}")
def test_a_control_frame_inside_a_character(endpoint: Any, split: int) -> None:
    peer = endpoint.peer
    face = "😀".encode()
    data = peer.text(face[:split], fin=False) + peer.ping(b"?") + peer.last(face[split:])
    endpoint.takes(data, ["😀"], [(PONG, b"?")])


def test_5_4_a_close_inside_ends_the_message_too(endpoint: Any) -> None:
    peer = endpoint.peer
    data = peer.text("never ", fin=False) + peer.close(1001, "gone") + peer.last(b"whole") + peer.text("x")
    endpoint.takes(data, [Closing(1001, "gone", True)], [(CLOSE, b"\x03\xe9")])


# ── frames out of order ───────────────────────────────────────────────────────────────
def two(peer: Any, opcode: int, *parts: bytes) -> bytes:
    return fragments(peer, opcode, list(parts))


Build = Callable[[Any], tuple[bytes, bytes, list[Any]]]
DISORDER: list[tuple[str, str, Build]] = [
    ("continuation-first", LONE, lambda p: (b"", p.last(b"x")[:2], [])),
    ("continuation-first-not-last", LONE, lambda p: (b"", p.more(b"x")[:2], [])),
    ("continuation-first-empty", LONE, lambda p: (b"", p.last()[:2], [])),
    ("continuation-after-a-message", LONE, lambda p: (p.text("a"), p.last(b"x")[:2], ["a"])),
    ("continuation-after-fragments", LONE, lambda p: (two(p, TEXT, b"a", b"b"), p.last(b"x")[:2], ["ab"])),
    ("continuation-after-empty-fragments", LONE, lambda p: (two(p, BINARY, b"", b""), p.more()[:2], [b""])),
    ("continuation-after-a-ping", LONE, lambda p: (p.pong(), p.last(b"x")[:2], [Pong(b"")])),
    ("text-in-text", INSIDE, lambda p: (p.text("a", fin=False), p.text("x")[:2], [])),
    ("text-in-text-not-last", INSIDE, lambda p: (p.text("a", fin=False), p.text("x", fin=False)[:2], [])),
    ("binary-in-text", INSIDE, lambda p: (p.text("a", fin=False), p.binary(b"x")[:2], [])),
    ("text-in-binary", INSIDE, lambda p: (p.binary(b"a", fin=False), p.text("x")[:2], [])),
    ("binary-in-binary", INSIDE, lambda p: (p.binary(b"", fin=False), p.binary(b"", fin=False)[:2], [])),
    ("text-in-empty-fragments", INSIDE, lambda p: (p.text("", fin=False) + p.more(), p.text("")[:2], [])),
    ("text-behind-two", INSIDE, lambda p: (p.text("a", fin=False) + p.more(b"b"), p.text("x")[:2], [])),
    ("text-behind-pong", INSIDE, lambda p: (p.text("", fin=False) + p.pong(), p.text()[:2], [Pong(b"")])),
    ("long-continuation-first", LONE, lambda p: (b"", p.last(bytes(126))[:4], [])),
    ("longer-continuation-first", LONE, lambda p: (b"", p.last(bytes(65536))[:10], [])),
    ("long-text-in-text", INSIDE, lambda p: (p.text("a", fin=False), p.text("x" * 126)[:4], [])),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "build"), [pytest.param(*case[1:], id=f"5.4-{case[0]}") for case in DISORDER]
)
def test_frames_out_of_order(endpoint: Any, reason: str, build: Build) -> None:
    sound, broken, events = build(endpoint.peer)
    endpoint.fails(sound, broken, 1002, reason, events=events)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG], ids=lambda opcode: f"5.4-fragmented-{opcode}")
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside-fragments"])
def test_control_frames_are_not_fragmented(endpoint: Any, opcode: int, inside: bool) -> None:
    sound = endpoint.peer.text("a", fin=False) if inside else b""
    endpoint.fails(sound, endpoint.peer.frame(opcode, b"12", fin=False)[:2], 1002, "fragmented control frame")


# ── ours ──────────────────────────────────────────────────────────────────────────────
def test_5_4_ours_are_never_fragmented(endpoint: Any) -> None:
    connection = endpoint.connection()
    connection.send_raw("t" * 200_000)
    connection.send_raw(b"b" * 70_000)
    assert endpoint.peer.read(connection.data_to_send()) == [(TEXT, b"t" * 200_000), (BINARY, b"b" * 70_000)]
