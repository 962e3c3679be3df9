"""Compressed messages on both bodies, for any chunking; the third opinion is Python's zlib.

What they compress to need not be equal, octet for octet: what it inflates to must. A message that breaks two
rules within one read, UTF-8 and then deflate's, may be told either by the fallback; both are 1007.
"""

from __future__ import annotations

import itertools
import zlib
from typing import Any, Literal

import pytest
from hypothesis import given, settings, strategies as st

from sage_ws._core import _pure, _rust

Role = Literal["client", "server"]

ROLES = pytest.mark.parametrize("role", ["client", "server"])
EXAMPLES = settings(max_examples=150, deadline=None)
TAIL = b"\x00\x00\xff\xff"
LIMIT = 3000
STATE = ("pending", "earliest", "closing", "spoken")

DIRECTIONS = st.tuples(st.integers(8, 15), st.booleans())
PARAMETERS = st.tuples(
    DIRECTIONS, DIRECTIONS, st.sampled_from([0, 1, 30, 400]), st.integers(0, 9), st.integers(1, 9)
).map(lambda drawn: (*drawn[0], *drawn[1], *drawn[2:]))
WORDS = st.lists(st.sampled_from(["agent", "message", "é😀", "{", "0123456789" * 9]), max_size=25)
MESSAGES = st.lists(
    st.one_of(WORDS.map(" ".join), WORDS.map(lambda words: "".join(words).encode()), st.binary(max_size=700)),
    max_size=7,
)
CUTS = st.lists(st.integers(0, 2000), max_size=9)


class Direction:
    """A stream of compressed messages, as zlib has it."""

    def __init__(self, window_bits: int, takeover: bool) -> None:
        self._bits = max(9, window_bits)
        self._takeover = takeover
        self._fresh()

    def _fresh(self) -> None:
        self._deflater = zlib.compressobj(6, zlib.DEFLATED, -self._bits)
        self._inflater = zlib.decompressobj(-self._bits)

    def deflate(self, message: bytes) -> bytes:
        if not message:  # a second flush of nothing gives nothing
            return b"\0"
        if not self._takeover:
            self._fresh()
        return (self._deflater.compress(message) + self._deflater.flush(zlib.Z_SYNC_FLUSH))[: -len(TAIL)]

    def inflate(self, payload: bytes) -> bytes:
        if not self._takeover:
            self._fresh()
        return self._inflater.decompress(payload + TAIL)


def octets(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


def write(writer: Any, role: Role, messages: list[Any], direction: Direction, plan: list[int]) -> bytes:
    """The messages as the peer of `role` writes them; `plan`: bytes of a frame, 0 for no end."""
    data = b""
    for message, size in zip(messages, itertools.cycle(plan)):
        payload = direction.deflate(octets(message))
        opcode = 1 if isinstance(message, str) else 2
        parts = [payload[at : at + size] for at in range(0, len(payload), size)] if size else [payload]
        for index, part in enumerate(parts):
            first = index == 0
            data += writer(
                role, opcode if first else 0, part, rsv=4 if first else 0, fin=index == len(parts) - 1
            )
            data += b"" if index == len(parts) - 1 else writer(role, 9, b"between")
    return data


def on_both(role: Role, chunks: list[bytes], **options: Any) -> tuple[list[Any], bytes]:
    """What both make of these, which is the same: events, and output that is not of messages."""
    events: list[Any] = []
    sides = [body.Connection(role, **options) for body in (_pure, _rust)]
    for chunk in chunks:
        pure, rust = (side.receive_data(chunk) for side in sides)
        assert rust == pure, chunk.hex()
        assert [getattr(sides[0], name) for name in STATE] == [getattr(sides[1], name) for name in STATE]
        events += pure
    return events, sides[0].data_to_send()


@ROLES
@EXAMPLES
@given(
    messages=MESSAGES,
    parameters=PARAMETERS,
    cuts=CUTS,
    plan=st.lists(st.sampled_from([0, 1, 7, 100]), min_size=1, max_size=3),
)
def test_messages_in_any_chunks(
    writer: Any,
    cutter: Any,
    role: Role,
    messages: list[Any],
    parameters: Any,
    cuts: list[int],
    plan: list[int],
) -> None:
    data = write(writer, role, messages, Direction(*parameters[2:4]), plan)
    for chunks in ([data], cutter(data, cuts), [data[at : at + 1] for at in range(len(data))]):
        events, _ = on_both(role, chunks, raw=True, deflate=parameters)
        assert [event for event in events if isinstance(event, str | bytes)] == messages
        assert len(events) == len(messages)


@ROLES
@EXAMPLES
@given(
    messages=MESSAGES,
    takeover=st.booleans(),
    cuts=CUTS,
    flips=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 255)), max_size=3),
    limit=st.sampled_from([None, 0, 60, LIMIT]),
)
def test_what_is_broken_on_the_way(
    writer: Any,
    cutter: Any,
    role: Role,
    messages: list[Any],
    takeover: bool,
    cuts: list[int],
    flips: list[tuple[int, int]],
    limit: int | None,
) -> None:
    # Bytes alone, and a window that all of them fit in: text is judged beside, and what is beyond a window
    # may still be at hand.
    direction = Direction(15, takeover)
    payloads = [bytearray(direction.deflate(octets(message))) for message in messages]
    for place, change in flips:
        if payloads:
            payload = payloads[place % len(payloads)]
            payload[place % len(payload)] ^= change
    data = b"".join(writer(role, 2, bytes(payload), rsv=4) for payload in payloads)
    options = {"raw": True, "max_message_size": limit, "deflate": (15, True, 15, takeover, 0, 6, 8)}
    whole = on_both(role, [data], **options)
    for chunks in (cutter(data, cuts), [data[at : at + 1] for at in range(len(data))]):
        assert on_both(role, chunks, **options)[0] == whole[0]


@ROLES
@EXAMPLES
@given(messages=MESSAGES, parameters=PARAMETERS)
def test_what_is_sent(pair: Any, role: Role, messages: list[Any], parameters: Any) -> None:
    directions = [Direction(*parameters[:2]), Direction(*parameters[:2])]
    seen = []
    for side, direction in zip(pair(role, raw=True, deflate=parameters).sides, directions, strict=True):
        for message in messages:
            side.connection.send_raw(message)
            side.connection.send_ping(b"between")
        frames = side.sent(side.connection.data_to_send())
        seen.append(
            [(first, direction.inflate(payload) if first & 0x40 else payload) for first, _, payload in frames]
        )
    if parameters[1]:
        assert seen[0] == seen[1]
    assert [payload for _, payload in seen[0]] == [payload for _, payload in seen[1]]
    assert [payload for first, payload in seen[0] if first != 0x89] == [octets(one) for one in messages]
    for first, payload in itertools.chain(*seen):
        wanted = first != 0x89 and len(payload) >= parameters[4]
        # without takeover, what would not be shorter goes as it is
        assert bool(first & 0x40) == wanted or (wanted and not parameters[1])


@pytest.mark.parametrize(("ours", "theirs"), [(_rust, _pure), (_pure, _rust)], ids=["rust-pure", "pure-rust"])
@pytest.mark.parametrize("subprotocol", [None, "sage.1.json", "sage.1.cbor"])
@settings(max_examples=60, deadline=None)
@given(payloads=st.lists(st.binary(min_size=1, max_size=900), max_size=5), parameters=PARAMETERS, cuts=CUTS)
def test_each_reads_what_the_other_wrote(
    cutter: Any,
    ours: Any,
    theirs: Any,
    payloads: list[bytes],
    parameters: Any,
    cuts: list[int],
    subprotocol: Any,
) -> None:
    mirrored = (*parameters[2:4], *parameters[:2], *parameters[4:])
    client = ours.Connection("client", deflate=parameters, subprotocol=subprotocol)
    server = theirs.Connection("server", deflate=mirrored, subprotocol=subprotocol)
    for number, payload in enumerate(payloads):
        message = ours.SecureMessage(payload=payload, did="did:sage:a", id=f"m-{number}")
        client.send_message(message, number, float("inf"))
    client.send_keepalive()
    arrived = [one for chunk in cutter(client.data_to_send(), cuts) for one in server.receive_data(chunk)]
    assert [one.payload for one in arrived] == payloads
    for one in arrived:
        server.send_response(one, one.payload)
    server.send_keepalive()
    answers = [one for chunk in cutter(server.data_to_send(), cuts) for one in client.receive_data(chunk)]
    assert [(waiter, response.data) for waiter, response in answers] == list(enumerate(payloads))
    assert client.counters()["late"] == 0


@ROLES
def test_wrong_parameters(role: Role) -> None:
    for wrong in [
        (7, True, 15, True, 0, 6, 8),
        (15, True, 16, True, 0, 6, 8),
        (15, True, 15, True, 0, 6, 10),
    ]:
        texts = []
        for body in (_pure, _rust):
            with pytest.raises(ValueError, match="deflate") as caught:
                body.Connection(role, deflate=wrong)
            texts.append(str(caught.value))
        assert texts[0] == texts[1]
