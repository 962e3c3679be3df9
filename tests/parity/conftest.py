"""A script of operations on both bodies at once: after each, everything that can be seen is the same.

*Equal* means: events in value, type, attributes and order; errors in type, attributes and text; frames in the
output once unmasked; and the state (`buffered`, `pending`, `earliest`, `closing`, `spoken`, the counters).
Only masking keys and the ids of keepalives are random, and are taken out before the comparison. Both bodies
get the same chunks, so an event that one of them sees later than the other is a difference too.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

import pytest

from sage_ws._core import _pure, _rust

Role = Literal["client", "server"]
Outcome = tuple[Any, ...]

KEEPALIVE = b"a keepalive's id"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
STATE = ("buffered", "pending", "earliest", "closing", "spoken", "extended")


def frame(
    role: Role,
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool | None = None,
    claims: int | None = None,
    extended: int = 0,
    key: bytes = b"\x00\x9c\x01\xff",
) -> bytes:
    """A frame as the peer of `role` writes it, sound unless an argument says otherwise.

    Args:
        role: the reader's.
        opcode: four bits.
        payload: unmasked.
        fin: whether it is its message's last frame.
        rsv: the reserved bits.
        masked: the mask bit, where it should be wrong.
        claims: a length other than the payload's.
        extended: at least so many bytes of extended length.
        key: the masking key of a client's frame.
    """
    masked = role == "server" if masked is None else masked
    length = len(payload) if claims is None else claims
    first = fin << 7 | rsv << 4 | opcode
    mask = masked << 7
    if length > 0xFFFF or extended == 8:
        head = bytes([first, mask | 127]) + length.to_bytes(8, "big")
    elif length > 125 or extended == 2:
        head = bytes([first, mask | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([first, mask | length])
    if masked:
        head += key
        payload = bytes(byte ^ other for byte, other in zip(payload, itertools.cycle(key), strict=False))
    return head + payload


def read_frames(output: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Each frame's first byte, mask bit and unmasked payload."""
    position = 0
    while position < len(output):
        first, second = output[position : position + 2]
        position += 2
        length = second & 127
        if length > 125:
            size = 2 if length == 126 else 8
            length = int.from_bytes(output[position : position + size], "big")
            position += size
        key = b"\0"
        if second & 128:
            key = output[position : position + 4]
            position += 4
        payload = output[position : position + length]
        position += length
        yield first, second & 128, bytes(a ^ b for a, b in zip(payload, itertools.cycle(key), strict=False))


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The chunks between these offsets; `cuts` may be in any order and beyond the end."""
    ends = sorted({min(end, len(data)) for end in cuts} | {len(data)})
    return [data[start:end] for start, end in itertools.pairwise([0, *ends])]


class Side:
    """One body's connection, and what it handed out that it alone can take back."""

    def __init__(self, body: ModuleType, role: Role, options: dict[str, Any]) -> None:
        self.body = body
        self.connection = body.Connection(role, **options)
        self.requests: list[Any] = []
        self.keepalives: list[str] = []

    def do(self, name: str, arguments: tuple[Any, ...]) -> Outcome:
        try:
            returned = self.perform(name, arguments)
        except Exception as error:
            return "raised", self.plain(error)
        return "returned", self.plain(returned)

    def perform(self, name: str, arguments: tuple[Any, ...]) -> Any:
        connection = self.connection
        if name == "send_message":
            fields, *rest = arguments
            return connection.send_message(self.body.SecureMessage(**fields), *rest)
        if name == "send_response":
            index, reply, *rest = arguments
            if not self.requests:
                return None
            if isinstance(reply, dict):
                reply = self.body.Response(**reply)
            return connection.send_response(self.requests[index % len(self.requests)], reply, *rest)
        if name == "answer_keepalive":
            answer = json.dumps(
                {"success": False, "message_id": self.keepalives[-1] if self.keepalives else ""}
            )
            return connection.receive_data(frame("client", 1, answer.encode()))
        received = getattr(connection, name)(*arguments)
        if name == "data_to_send":
            return self.sent(received)
        return received

    def sent(self, output: bytes) -> list[Any]:
        frames: list[Any] = []
        for first, masked, payload in read_frames(output):
            fresh = _UUID.findall(payload.decode(errors="replace"))
            self.keepalives += fresh
            for message_id in fresh:
                payload = payload.replace(message_id.encode(), KEEPALIVE)  # noqa: PLW2901 -- all of it, in turn
            frames.append((first, masked, payload))
        return frames

    def state(self) -> Outcome:
        connection = self.connection
        return (*(getattr(connection, name) for name in STATE), connection.counters())

    def plain(self, value: Any) -> Any:
        """What can be compared across bodies, and read in a failure."""
        if isinstance(value, self.body.SecureMessage):
            self.requests.append(value)
        if isinstance(value, self.body.SecureMessage | self.body.Response):
            fields = [self.plain(getattr(value, name)) for name in value.__match_args__]
            fields.append(getattr(value, "_terms", None))
            return type(value).__name__, repr(value), *fields
        if isinstance(value, Exception):
            return type(value), str(value), value.args, {**vars(value)}
        if isinstance(value, tuple):
            plain = tuple(self.plain(item) for item in value)
            return (type(value).__name__, *plain) if hasattr(value, "_fields") else plain
        if isinstance(value, list):
            return [self.plain(item) for item in value]
        if isinstance(value, Mapping):
            return list(value.items())
        return value


class Pair:
    """Both bodies, for one script.

    Args:
        role: of both.
        options: of both.
    """

    def __init__(self, role: Role, **options: Any) -> None:
        self.role = role
        self.script: list[tuple[Any, ...]] = [(role, options)]
        self.sides = [Side(body, role, options) for body in (_pure, _rust)]

    def do(self, name: str, *arguments: Any) -> Any:
        """The operation on both.

        Returns:
            What both returned or raised, in a form that can be compared.
        """
        self.script.append((name, *arguments))
        pure, rust = (side.do(name, arguments) for side in self.sides)
        assert rust == pure, self.script
        pure_state, rust_state = (side.state() for side in self.sides)
        assert rust_state == pure_state, self.script
        return pure[1]

    def receive(self, chunks: Sequence[bytes]) -> list[Any]:
        """The chunks, one after the other: all events."""
        return [event for chunk in chunks for event in self.do("receive_data", chunk)]

    def output(self) -> list[Any]:
        """The frames that are to be sent."""
        frames: list[Any] = self.do("data_to_send")
        return frames


@pytest.fixture(scope="session")
def pair() -> type[Pair]:
    """Makes a script's two connections."""
    return Pair


@pytest.fixture(scope="session")
def writer() -> Any:
    """Writes a peer's frame."""
    return frame


@pytest.fixture(scope="session")
def cutter() -> Any:
    """Cuts a peer's bytes."""
    return cut
