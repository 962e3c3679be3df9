"""Frames on both bodies side by side, for any chunking, and on a third opinion.

Cases are what gorilla was given and wrote (the vectors) first, generated frames second, noise third. The
third opinion on frames is `websockets`' Protocol; where it is known to judge otherwise, `OTHERWISE` says how.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings, strategies as st
from websockets.protocol import OPEN, Protocol, Side

Role = Literal["client", "server"]

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "frames.json").read_text())
EXAMPLES = settings(max_examples=400, deadline=None)
ROLES = pytest.mark.parametrize("role", ["client", "server"])
LIMIT = 300

OTHERWISE = {
    "length with its top bit set": "it waits for the payload",
    "length not minimal": "it takes any form",
    "control frame longer than 125 bytes": "it takes a short one whose length is not minimal",
    "invalid UTF-8": "it leaves text to its caller",
    "invalid close code 1014": "it echoes it",
    f"message over {LIMIT} bytes": "it counts control frames too, so it is told no limit",
    "too many pings unanswered": "it queues pongs without bound",
}
"""Reasons of ours that the third opinion does not share, and what it does instead."""


# ── the vectors ────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("case", VECTORS["replies"], ids=lambda case: case["name"])
def test_what_gorilla_was_given(pair: Any, case: dict[str, Any]) -> None:
    received = bytes.fromhex(case["received"])
    whole, bytewise = pair(case["role"], raw=True), pair(case["role"], raw=True)
    events = whole.receive([received])
    assert bytewise.receive([received[at : at + 1] for at in range(len(received))]) == events
    assert bytewise.output() == whole.output()


@pytest.mark.parametrize(
    "case", [case for case in VECTORS["messages"] if "raw" in case], ids=lambda case: case["name"]
)
def test_what_gorilla_writes(pair: Any, case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["raw"])
    reader = pair("server" if case["role"] == "client" else "client", raw=True)
    halves = [raw[: len(raw) // 2], raw[len(raw) // 2 :]]
    [text] = reader.receive(halves)
    assert len(text.encode()) == case["json_len"]


# ── generated frames ───────────────────────────────────────────────────────────────────
TEXTS = st.one_of(
    st.text(max_size=40).map(lambda text: text.encode(errors="surrogatepass")),
    st.sampled_from(
        [b"\xf0\x9f\x98\x80", b"\xf0\x9f", b"\x98\x80", b"\xc0\x80", b"\xed\xa0\x80", b"a" * 130, b"b" * 299]
    ),
    st.binary(max_size=130),
)
CLOSES = st.one_of(
    st.just(b""),
    st.binary(max_size=3),
    st.tuples(st.sampled_from([999, 1000, 1003, 1005, 1007, 1013, 1014, 1015, 3000, 4999, 5000]), TEXTS).map(
        lambda close: close[0].to_bytes(2, "big") + close[1][:123]
    ),
)
PLAIN = st.fixed_dictionaries({"opcode": st.sampled_from([1, 2, 0]), "payload": TEXTS, "fin": st.booleans()})
CONTROL = st.one_of(
    st.fixed_dictionaries(
        {"opcode": st.sampled_from([9, 10]), "payload": TEXTS.map(lambda text: text[:125])}
    ),
    st.fixed_dictionaries({"opcode": st.just(8), "payload": CLOSES}),
)
ANY = st.fixed_dictionaries(
    {"opcode": st.integers(0, 15), "payload": TEXTS},
    optional={
        "fin": st.booleans(),
        "rsv": st.sampled_from([0, 0, 0, 1, 4, 7]),
        "masked": st.sampled_from([None, None, True, False]),
        "claims": st.sampled_from([None, 0, 125, 126, 127, LIMIT, LIMIT + 1, 65535, 65536, 1 << 62, 1 << 63]),
        "extended": st.sampled_from([0, 2, 8]),
        "key": st.binary(min_size=4, max_size=4),
    },
)
FRAMES = st.lists(st.one_of(PLAIN, PLAIN, CONTROL, ANY), max_size=8)
CUTS = st.lists(st.integers(0, 1000), max_size=12)


def write(frame: Any, role: Role, frames: list[dict[str, Any]]) -> bytes:
    return b"".join(frame(role, **arguments) for arguments in frames)


def compare_chunkings(pair: Any, role: Role, data: bytes, cuts: list[int], cut: Any, **options: Any) -> Any:
    """All at once, as cut, and byte by byte: the same events and output each time."""
    whole = pair(role, **options)
    events = whole.receive([data])
    output = whole.output()
    for chunks in (cut(data, cuts), [data[at : at + 1] for at in range(len(data))]):
        other = pair(role, **options)
        assert other.receive(chunks) == events, (data, chunks)
        assert other.output() == output, (data, chunks)
    return events, output


@ROLES
@EXAMPLES
@given(frames=FRAMES, cuts=CUTS, limit=st.sampled_from([None, LIMIT]))
@example(
    frames=[{"opcode": 1, "payload": b"\xf0\x9f", "fin": False}, {"opcode": 0, "payload": b"\x98\x80"}],
    cuts=[],
    limit=None,
)
@example(
    frames=[{"opcode": 1, "payload": b"\xf0\x9f", "fin": False}, {"opcode": 0, "payload": b""}],
    cuts=[],
    limit=None,
)
@example(
    frames=[{"opcode": 2, "payload": b"a" * 299, "fin": False}, {"opcode": 0, "payload": b"bb"}],
    cuts=[],
    limit=LIMIT,
)
def test_generated_frames(
    pair: Any,
    writer: Any,
    cutter: Any,
    role: Role,
    frames: list[dict[str, Any]],
    cuts: list[int],
    limit: int | None,
) -> None:
    data = write(writer, role, frames)
    events, output = compare_chunkings(pair, role, data, cuts, cutter, raw=True, max_message_size=limit)
    compare_with_third_opinion(role, data, events, output)


@ROLES
@EXAMPLES
@given(data=st.binary(max_size=60), cuts=CUTS)
@example(data=b"\x88\x01a", cuts=[])
@example(data=b"\x88\x81aaaab", cuts=[])
def test_noise(pair: Any, cutter: Any, role: Role, data: bytes, cuts: list[int]) -> None:
    events, output = compare_chunkings(pair, role, data, cuts, cutter, raw=True, max_message_size=LIMIT)
    compare_with_third_opinion(role, data, events, output)


@ROLES
@pytest.mark.parametrize("payload", [0, 125, 126, 65535, 65536, 200_000])
def test_every_length(pair: Any, writer: Any, cutter: Any, role: Role, payload: int) -> None:
    text = (b"abcdefgh" * (payload // 8 + 1))[:payload]
    data = (
        writer(role, 1, text)
        + writer(role, 1, text, fin=False)
        + writer(role, 9, b"!")
        + writer(role, 0, text)
    )
    both = pair(role, raw=True, max_message_size=None)
    events = both.receive(cutter(data, [1, 2, 9, payload // 2, payload + 3, payload * 2]))
    assert events == [text.decode(), text.decode() * 2]
    assert [payload for _, _, payload in both.output()] == [b"!"]


@ROLES
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
def test_frames_that_are_written(pair: Any, role: Role, size: int) -> None:
    both = pair(role, raw=True)
    both.do("send_raw", "x" * size)
    both.do("send_raw", b"x" * size)
    both.do("send_ping", b"x" * min(size, 125))
    masked = 128 if role == "client" else 0
    assert both.output() == [
        (0x81, masked, b"x" * size),
        (0x82, masked, b"x" * size),
        (0x89, masked, b"x" * min(size, 125)),
    ]


# ── the third opinion ──────────────────────────────────────────────────────────────────
def compare_with_third_opinion(role: Role, data: bytes, events: Any, output: Any) -> None:
    """The same messages and the same close code, but for what `OTHERWISE` lists."""
    ours = [event for event in events if isinstance(event, str | bytes)]
    closing = next((event for event in events if event[:1] == ("Closing",)), None)
    third = Protocol(Side.SERVER if role == "server" else Side.CLIENT, state=OPEN, max_size=None)
    third.receive_data(data)
    messages, fragments = [], b""
    for received in third.events_received():
        if received.opcode in {0, 1, 2}:
            fragments = received.data if received.opcode else fragments + received.data
            if received.fin:
                messages.append(fragments)
    _, code, reason, by_peer = closing or ("Closing", None, "", False)
    if reason in OTHERWISE:
        return
    assert [message.encode() if isinstance(message, str) else message for message in ours] == messages
    if closing is None:
        assert third.parser_exc is None
        assert third.close_sent is None
    elif third.close_sent is None:
        # It judges a frame when all of it is there.
        assert not by_peer
    elif by_peer and third.close_sent.reason != "incomplete fragmented message":
        # A close frame may come between fragments (§5.5); there it sees a rule broken.
        assert third.close_sent.code == (1005 if code is None else code)
    else:
        # Of two rules that one frame breaks it may name the other.
        assert third.close_sent.code in {1002, 1007}
    if closing:
        assert output[-1][0] == 0x88


def test_the_list_of_differences_is_whole(pair: Any, writer: Any) -> None:
    """Each reason that the third opinion is not asked about is one that ours do give."""
    reasons = {
        writer("client", 1, claims=1 << 63): "length with its top bit set",
        writer("client", 1, b"a", extended=2): "length not minimal",
        writer("client", 9, b"a", extended=2): "control frame longer than 125 bytes",
        writer("client", 1, b"\xff"): "invalid UTF-8",
        writer("client", 8, (1014).to_bytes(2, "big")): "invalid close code 1014",
        writer("client", 1, claims=LIMIT + 1): f"message over {LIMIT} bytes",
        writer("client", 9) * 65: "too many pings unanswered",
    }
    assert set(reasons.values()) == set(OTHERWISE)
    for data, reason in reasons.items():
        both = pair("client", raw=True, max_message_size=LIMIT)
        both.do("set_blocked", True)
        assert both.receive([data])[-1][2:] == (reason, False)


def test_every_cut_of_a_long_exchange(pair: Any, writer: Any) -> None:
    """Each cut in two of one stream that has everything in it, its masks at every offset."""
    data = b"".join(
        [
            writer("server", 1, "añb😀".encode(), fin=False),
            writer("server", 9, b"ping"),
            writer("server", 0, "€".encode() * 50),
            writer("server", 2, bytes(range(256))),
            writer("server", 10, b"pong"),
            writer("server", 8, (1000).to_bytes(2, "big") + b"bye"),
        ]
    )
    events = None
    for at in range(len(data)):
        found = pair("server", raw=True).receive([data[:at], data[at:]])
        events = events or found
        assert found == events
    assert len(list(itertools.chain(events or ()))) == 4
