"""Text is UTF-8, and is refused at the first byte that is not (RFC 6455 §5.6, §8.1; RFC 3629).

Where a byte breaks the rules does not depend on frames or chunks: each bad sequence is tried in one frame, in
one whose end is far away, behind other text, and cut over fragments at every place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sage_ws._core.events import Pong

INVALID = "invalid UTF-8"

SOUND: dict[str, str] = {
    "ascii": "Hello, world!",
    "null": "\0",
    "every-ascii": "".join(map(chr, range(128))),
    "first-of-2": "\x80",
    "last-of-2": "\u07ff",
    "first-of-3": "\u0800",
    "last-of-3": "\uffff",
    "first-of-4": "\U00010000",
    "last-of-4": "\U0010ffff",
    "before-surrogates": "\ud7ff",
    "after-surrogates": "\ue000",
    "noncharacters": "\ufffe\ufdd0\U0001fffe\U0010fffe",
    "byte-order-mark": "\ufeffx",
    "replacement": "\ufffd",
    "greek": "κόσμε",
    "combining": "e\u0301\u200d",
    "faces": "😀" * 5,
}

# Bytes, and how many of them are read before the text cannot be UTF-8 any more.
BROKEN: dict[str, tuple[bytes, int]] = {
    "lone-continuation-80": (b"\x80", 1),
    "lone-continuation-bf": (b"\xbf", 1),
    "continuation-after-a-character": ("κ".encode() + b"\xba", 3),
    "2-then-ascii": (b"\xc2A", 2),
    "2-then-2": (b"\xc2\xc2\x80", 2),
    "3-then-ascii": (b"\xe2\x82A", 3),
    "3-then-ascii-early": (b"\xe2A", 2),
    "4-then-ascii": (b"\xf0\x9f\x98A", 4),
    "4-then-ascii-early": (b"\xf0A", 2),
    "overlong-2-c0": (b"\xc0\x80", 1),
    "overlong-2-c1": (b"\xc1\xbf", 1),
    "overlong-3": (b"\xe0\x80\x80", 2),
    "overlong-3-last": (b"\xe0\x9f\xbf", 2),
    "overlong-4": (b"\xf0\x80\x80\x80", 2),
    "overlong-4-last": (b"\xf0\x8f\xbf\xbf", 2),
    "surrogate-first": (b"\xed\xa0\x80", 2),
    "surrogate-last": (b"\xed\xbf\xbf", 2),
    "surrogate-pair": (b"\xed\xa1\x8c\xed\xbe\xb4", 2),
    "beyond-10ffff": (b"\xf4\x90\x80\x80", 2),
    "beyond-f5": (b"\xf5\x80\x80\x80", 1),
    "beyond-f7": (b"\xf7\xbf\xbf\xbf", 1),
    "5-bytes": (b"\xf8\x88\x80\x80\x80", 1),
    "6-bytes": (b"\xfc\x84\x80\x80\x80\x80", 1),
    "fe": (b"\xfe", 1),
    "ff": (b"\xff", 1),
    "autobahn": ("κόσμε".encode() + b"\xed\xa0\x80edited", 12),
}

CUT: dict[str, bytes] = {
    "1-of-2": b"\xc2",
    "1-of-3": b"\xe2",
    "2-of-3": b"\xe2\x82",
    "1-of-4": b"\xf0",
    "2-of-4": b"\xf0\x9f",
    "3-of-4": b"\xf0\x9f\x98",
}


def splits(content: bytes) -> Iterator[list[bytes]]:
    """The content over two frames, at each place, and over single bytes."""
    for at in range(len(content) + 1):
        yield [content[:at], content[at:]]
    if content:
        yield [content[at : at + 1] for at in range(len(content))]


def begun(peer: Any, parts: list[bytes]) -> bytes:
    """A text message's first frames, all of them whole; more must follow."""
    first, *rest = parts
    return peer.text(first, fin=False) + b"".join(peer.more(part) for part in rest)


# ── sound text ────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("content", SOUND.values(), ids=[f"8.1-{name}" for name in SOUND])
def test_text_in_one_frame(endpoint: Any, content: str) -> None:
    endpoint.takes(endpoint.peer.text(content), [content])


@pytest.mark.parametrize("content", SOUND.values(), ids=[f"8.1-{name}" for name in SOUND])
def test_text_cut_by_frames(endpoint: Any, content: str) -> None:
    peer = endpoint.peer
    for parts in splits(content.encode()):
        connection = endpoint.connection()
        assert connection.receive_data(begun(peer, parts) + peer.last()) == [content]
        assert connection.data_to_send() == b""


def test_8_1_text_cut_by_frames_and_chunks(endpoint: Any) -> None:
    peer = endpoint.peer
    content = "".join(SOUND.values())
    octets = content.encode()
    parts = [octets[at : at + 3] for at in range(0, len(octets), 3)]
    endpoint.takes(begun(peer, parts) + peer.last(), [content])


def test_5_6_binary_is_any_bytes(endpoint: Any) -> None:
    peer = endpoint.peer
    content = bytes(range(256)) + b"\xed\xa0\x80\xff"
    endpoint.takes(
        peer.binary(content) + peer.binary(content[:200], fin=False) + peer.pong() + peer.last(content[200:]),
        [content, Pong(b""), content],
    )


def test_8_1_each_text_is_checked_by_itself(endpoint: Any) -> None:
    # Half a character at the end of one message is not made whole by the next.
    peer = endpoint.peer
    endpoint.fails(peer.text("a"), peer.text(b"\xc2"), 1007, INVALID, events=["a"])
    endpoint.fails(peer.binary(b"\xc2"), masked_start(peer, b"\x80", 1), 1007, INVALID, events=[b"\xc2"])


# ── text that is not UTF-8 ────────────────────────────────────────────────────────────
def masked_start(peer: Any, content: bytes, seen: int, **options: Any) -> bytes:
    """A text frame's bytes up to the first `seen` of its content."""
    frame: bytes = peer.text(content, **options)
    return frame[: len(frame) - (len(content) - seen)]


@pytest.mark.parametrize(("content", "seen"), BROKEN.values(), ids=[f"8.1-{name}" for name in BROKEN])
def test_a_bad_byte_fails_where_it_stands(endpoint: Any, content: bytes, seen: int) -> None:
    peer = endpoint.peer
    for before in (b"", b"ascii ", "ßþ😀".encode()):
        whole = before + content
        at = len(before) + seen
        # in a frame that is whole, and in one that claims much more
        endpoint.fails(b"", masked_start(peer, whole, at), 1007, INVALID)
        endpoint.fails(b"", masked_start(peer, whole, at, claims=60_000), 1007, INVALID)
        endpoint.fails(b"", masked_start(peer, whole, at, fin=False), 1007, INVALID)


@pytest.mark.parametrize(("content", "seen"), BROKEN.values(), ids=[f"8.1-{name}" for name in BROKEN])
def test_a_bad_byte_fails_across_frames(endpoint: Any, content: bytes, seen: int) -> None:
    peer = endpoint.peer
    bad = content[:seen]
    for at in range(1, seen):
        sound = peer.text("fine"[: at % 5].encode() + bad[:at], fin=False) + peer.pong(b"between")
        continuation = peer.more(bad[at:] + b"behind")
        broken = continuation[: len(continuation) - len(b"behind")]
        endpoint.fails(sound, broken, 1007, INVALID, events=[Pong(b"between")])


@pytest.mark.parametrize("cut", CUT.values(), ids=[f"8.1-ends-after-{name}" for name in CUT])
def test_text_does_not_end_inside_a_character(endpoint: Any, cut: bytes) -> None:
    peer = endpoint.peer
    endpoint.fails(b"", peer.text(cut), 1007, INVALID)
    endpoint.fails(b"", peer.text(b"abc" + cut), 1007, INVALID)
    endpoint.fails(peer.text(b"abc" + cut, fin=False), peer.last(), 1007, INVALID)
    endpoint.fails(peer.text(b"abc", fin=False), peer.last(cut), 1007, INVALID)
    endpoint.fails(peer.text(cut[:1], fin=False), peer.last(cut[1:]), 1007, INVALID)


def test_8_1_a_bad_byte_far_behind(endpoint: Any) -> None:
    peer = endpoint.peer
    content = "sixteen bytes … ".encode() * 500 + b"\xff" + b"x" * 9000
    endpoint.fails(b"", masked_start(peer, content, content.index(b"\xff") + 1), 1007, INVALID)


def test_8_1_messages_before_the_bad_one_arrive(endpoint: Any) -> None:
    peer = endpoint.peer
    sound = peer.text("one") + peer.binary(b"two")
    endpoint.fails(sound, peer.text(b"\xff"), 1007, INVALID, events=["one", b"two"])


def test_5_6_what_a_bad_text_said_is_not_delivered(endpoint: Any) -> None:
    peer = endpoint.peer
    sound = peer.text("never", fin=False) + peer.more(b" delivered")
    endpoint.fails(sound, peer.last(b"\xfe"), 1007, INVALID)


# ── as SAGE messages ──────────────────────────────────────────────────────────────────
def test_8_1_sage_text_is_no_exception(endpoint: Any) -> None:
    sage = endpoint.with_options(raw=False)
    content = b'{"id":"\xff"}'
    sage.fails(b"", masked_start(sage.peer, content, 8), 1007, INVALID)
