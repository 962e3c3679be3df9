"""Our reading of opening requests beside that of `websockets`' sans-I/O server, on all kinds of wrong heads.

What ours takes, theirs takes, with the same fields and the same 101. What theirs takes and ours does not is
named here, reason by reason (`stricter_line`, `stricter_request`); beyond that both refuse the same. How a
head is cut into reads makes no difference. `make fuzz` runs all of this for as long as it is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from sage_ws.aio import opening
from sage_ws.aio.head import parse_head
from sage_ws.aio.opening import HeadReader, Refusal

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
NEEDED = (
    ("Host", "agent.example:8080"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)
EXAMPLES = 6 * settings().max_examples
pytestmark = pytest.mark.timeout(60 if EXAMPLES <= 600 else 900)
READ = {name.lower() for name, _ in NEEDED} | {"origin", "sec-websocket-protocol", "content-length"}

# ── heads ─────────────────────────────────────────────────────────────────────────────
LINE = "GET /ws HTTP/1.1"
OTHER_LINES = (
    "GET /a?b=%20 HTTP/1.1",
    "GET http://a/b HTTP/1.1",
    "GET * HTTP/1.1",
    "GET  HTTP/1.1",
    "GET /a b HTTP/1.1",
    "GET /ws HTTP/1.0",
    "POST /ws HTTP/1.1",
    "GET /ws",
    "",
)
SUSPECT = (
    *NEEDED,
    ("Host", ""),
    ("Upgrade", "h2c"),
    ("Upgrade", "h2c, WebSocket"),
    ("Upgrade", "websockets"),
    ("Upgrade", "\xa0websocket"),
    ("Connection", "keep-alive,, UPGRADE ,"),
    ("Connection", "close"),
    ("Connection", ""),
    ("Connection", ","),
    ("Connection", "a b"),
    ("Connection", "Upgrades"),
    ("Connection", "Upgrade\xa0"),
    ("Sec-WebSocket-Key", KEY[1:]),
    ("Sec-WebSocket-Key", KEY + "="),
    ("Sec-WebSocket-Key", "x" + KEY),
    ("Sec-WebSocket-Key", KEY[:-2]),
    ("Sec-WebSocket-Key", KEY[:-3] + "R=="),
    ("Sec-WebSocket-Version", "8"),
    ("Sec-WebSocket-Version", "13, 8"),
    ("Sec-WebSocket-Version", "13\xa0"),
    ("Sec-WebSocket-Protocol", "a, b"),
    ("Sec-WebSocket-Protocol", "a b"),
    ("Sec-WebSocket-Protocol", ""),
    ("Sec-WebSocket-Extensions", 'x; y="'),
    ("Origin", "https://a"),
    ("Content-Length", "0"),
    ("Content-Length", "00"),
    ("Content-Length", "5"),
    ("Content-Length", ""),
    ("Transfer-Encoding", "chunked"),
    ("Transfer-Encoding", ""),
)
LATIN = st.text(st.characters(max_codepoint=255), max_size=8)
FIELDS = st.one_of(st.sampled_from(SUSPECT), st.tuples(LATIN, LATIN))
BYTES = st.sampled_from(
    [
        b"",
        b"\0",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n ",
        b"\t",
        b" ",
        b":",
        b",",
        b"\x1b",
        b"\x7f",
        b"\x85",
        b"\xa0",
        b"\xff",
    ]
)


@st.composite
def requests(draw: st.DrawFn, damage: int) -> bytes:
    """An upgrade request with a field replaced or added, and this many places damaged at most."""
    fields = draw(st.permutations(NEEDED)) if draw(st.booleans()) else list(NEEDED)
    for field in draw(st.lists(FIELDS, max_size=3)):
        place = draw(st.integers(0, len(fields)))
        same = [number for number, (name, _) in enumerate(fields) if name == field[0]]
        if same and draw(st.booleans()):
            fields[same[0]] = field
        else:
            fields.insert(place, field)
    separators = st.sampled_from([": ", ":", ":\t ", " :", ""] if damage else [": ", ":", ":\t "])
    usual = draw(st.integers(0, 9)) < 7
    lines = [LINE if usual else draw(st.sampled_from(OTHER_LINES))]
    lines += [f"{name}{': ' if usual else draw(separators)}{value}" for name, value in fields]
    data = bytearray("\r\n".join([*lines, "", ""]).encode("latin-1"))
    for _ in range(draw(st.integers(0, damage))):
        place = draw(st.integers(0, len(data) - 1))
        data[place : place + draw(st.integers(0, 2))] = draw(BYTES)
    return bytes(data)


@st.composite
def long_requests(draw: st.DrawFn) -> bytes:
    """A request at one of the limits or next to it, or an ordinary one; and what may follow it."""
    head = draw(requests(damage=1))
    line, end, fields = head.partition(b"\r\n")
    beside = draw(st.integers(-2, 2))
    match draw(st.sampled_from(["as it is", "line", "field", "fields", "head"])):
        case "line":
            line = line.replace(b"/ws", b"/" + b"w" * (opening.MAX_LINE - len(line) + 2 + beside))
        case "field":
            fields = b"X:" + b"y" * (opening.MAX_LINE - 2 + beside) + end + fields
        case "fields":
            fields = b"X:y\r\n" * (opening.MAX_HEADERS - len(NEEDED) + beside) + fields
        case "head":
            fields = b"".join([*[b"X:" + b"y" * 4092 + end] * 15, fields])
            filled = len(line) + len(end) + len(fields)
            fields = b"Y:" + b"z" * (opening.MAX_HEAD - filled - 4 + beside) + end + fields
    return line + end + fields + draw(st.sampled_from([b"", b"\x81\x80", b"\r\n\r\n", b"y" * 70_000]))


def cut(data: bytes) -> bytes | None:
    """The head at the front of these bytes, as the server cuts it out."""
    try:
        return HeadReader().receive_data(data)
    except Refusal:
        return None


# ── the two readings ──────────────────────────────────────────────────────────────────
def theirs(head: bytes) -> Request | None:
    protocol = ServerProtocol(logger=opening.QUIET)
    protocol.receive_data(head)
    events = protocol.events_received()
    if not events:
        return None
    assert isinstance(events[0], Request)
    return events[0]


def stricter_line(head: bytes) -> Iterator[str]:
    """Why ours refuses a first line that theirs takes."""
    method, rest = head.partition(b"\r\n")[0].split(b" ", 1)
    target, _, version = rest.partition(b" ")
    if method != b"GET":
        yield "a method that is not GET; theirs refuses it later"
    if version != b"HTTP/1.1":
        yield "HTTP/1.0; theirs refuses it later"
    if not re.fullmatch(rb"[\x21-\x7e]+", target):
        yield "a target that is empty, or holds what no URL holds"


def stricter_request(request: Request) -> Iterator[str]:
    """Why ours refuses an upgrade that theirs accepts."""
    if len(request.headers.get_all("Host")) != 1:
        yield "not one Host (RFC 9112 §3.2)"
    if not re.match(r"/|https?://[^/?]", request.path, re.IGNORECASE):
        yield "a target that is no path of ours (RFC 6455 §4.2.1)"
    if "Origin" in request.headers:
        yield "an Origin that nobody listed"


def accepted(request: Request) -> str | None:
    """The Sec-WebSocket-Accept of their answer; None where they refuse."""
    tokens = ",".join(request.headers.get_all("Upgrade")).lower().split(",")
    if "websocket" in map(str.strip, tokens):
        # Theirs wants no other protocol beside; the RFC does not.
        del request.headers["Upgrade"]
        request.headers["Upgrade"] = "websocket"
    response = ServerProtocol(logger=opening.QUIET).accept(request)
    return response.headers["Sec-WebSocket-Accept"] if response.status_code == 101 else None


@settings(max_examples=EXAMPLES)
@given(data=requests(damage=2))
@example(b"GET /ws HTTP/1.1\r\nX: y\r\n\r\n")
@example(b"GET /ws HTTP/1.1\r\nX: y\n\r\n\r\n")
@example(b"GET /ws HTTP/1.1\r\n X: y\r\n\r\n")
@example(b"GET /ws HTTP/1.1\r\nX: y\r\n z\r\n\r\n")
@example(b"GET /ws HTTP/1.1\r\nX: \xff\r\n\r\n")
def test_a_head_is_read_as_theirs_or_its_first_line_is_refused(data: bytes) -> None:
    head = cut(data)
    if head is None:
        return
    our, their = parse_head(head), theirs(head)
    if our is None:
        assert their is None or list(stricter_line(head))
        return
    if "transfer-encoding" in our.fields or set(our.fields.get("content-length", "0")) != {"0"}:
        assert their is None  # a body: ours refuses it behind the grammar
        return
    assert their is not None
    assert our.path == their.path
    assert list(our.headers.raw_items()) == list(their.headers.raw_items())
    assert our.fields == {name: their.headers.get_all(name) for name in READ if name in their.headers}


@settings(max_examples=EXAMPLES)
@given(data=requests(damage=0))
@example(b"\r\n".join([LINE.encode(), *(f"{name}: {value}".encode() for name, value in NEEDED), b"", b""]))
def test_an_upgrade_is_accepted_as_theirs_is_or_for_a_reason_not(data: bytes) -> None:
    head = cut(data)
    if head is None:
        return
    request = theirs(head)
    try:
        made = opening.parse_request(head, None)
        opening.check_origin(made, [None])
        our = opening.accept(made)
    except Refusal:
        if request is not None:
            reasons = [*stricter_line(head), *stricter_request(request)]
            assert accepted(request) is None or reasons
        return
    assert request is not None
    their = accepted(request)
    assert their is not None
    assert our.endswith(f"\r\nSec-WebSocket-Accept: {their}\r\n\r\n".encode())


# ── in pieces ─────────────────────────────────────────────────────────────────────────
def read(chunks: list[bytes]) -> tuple[Any, ...]:
    """The head and what follows it, or its refusal, or that it is not whole yet."""
    reader = HeadReader()
    for number, chunk in enumerate(chunks):
        try:
            head = reader.receive_data(chunk)
        except Refusal as refusal:
            return refusal.status, str(refusal)
        if head is not None:
            return head, reader.rest + b"".join(chunks[number + 1 :])
    return ()


@settings(max_examples=EXAMPLES // 2)
@given(data=long_requests(), cuts=st.lists(st.integers(0, 1 << 17), max_size=6))
def test_a_head_is_the_same_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    ends = sorted({one % (len(data) + 1) for one in cuts} | {len(data)})
    pieces = [data[start:end] for start, end in pairwise([0, *ends])]
    assert read(pieces) == read([data])
    # Byte by byte where the first line ends, and where the head does.
    for end in (b"\r\n", b"\r\n\r\n"):
        near = data.find(end)
        fine = range(max(0, near - 2), near + 6) if near >= 0 else ()
        pieces = [data[start:stop] for start, stop in pairwise([0, *fine, len(data)])]
        assert read(pieces) == read([data])
