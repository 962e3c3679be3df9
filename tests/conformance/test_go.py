"""What the reference writes, and what it makes of what it gets: `frames.json`, as wire.md binds it.

Messages: ours reads Go's very bytes, in every chunking, and writes the same JSON in one frame. Controls:
ours are the same but for the masking key. Replies and opening handshakes: ours in Go's place. Where Go is
laxer than the RFC, or has no limit, a table here says so by name; nothing else may differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from sage_ws._core import Connection, Response, SecureMessage, encode_message, encode_response
from sage_ws._core.events import Closing, Pong
from sage_ws.aio import opening
from sage_ws.aio.opening import HeadReader, Refusal
from sage_ws.errors import DialError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "frames.json").read_text())
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def other(role: str) -> str:
    return "client" if role == "server" else "server"


def named(group: str, **wanted: object) -> list[Any]:
    """A group of vectors, by name."""
    return [
        pytest.param(case, id=case["name"])
        for case in VECTORS[group]
        if all(case.get(name) == value for name, value in wanted.items())
    ]


def octets(value: dict[str, Any], name: str) -> bytes:
    """A field of bytes, spelled out or by its length (the vectors' README)."""
    if f"{name}_gen" in value:
        return bytes((31 * index + 7) % 256 for index in range(value[f"{name}_gen"]))
    return bytes.fromhex(value.get(name) or "")


# ── messages ──────────────────────────────────────────────────────────────────────────
def as_json(case: dict[str, Any]) -> bytes:
    """Go's JSON, made by ours: its hash says that it is the same."""
    value = case["value"]
    if case["kind"] == "message":
        data = encode_message(
            value["id"],
            value["context_id"],
            value["task_id"],
            octets(value, "payload"),
            value["did"],
            octets(value, "signature"),
            value["metadata"] or {},
            value["role"],
        )
    else:
        data = encode_response(
            value["success"], value["message_id"], value["task_id"], octets(value, "data"), value["error"]
        )
    assert len(data) == case["json_len"]
    assert hashlib.sha256(data).hexdigest() == case["json_sha256"]
    return data


def as_frames(case: dict[str, Any]) -> bytes:
    """The bytes that Go put on the socket, made of its headers and our JSON; their hash says so."""
    data, written, at = as_json(case), bytearray(), 0
    for frame in case["frames"]:
        part = data[at : at + frame["len"]]
        at += frame["len"]
        key = bytes.fromhex(frame.get("mask_key") or "00000000")
        written += bytes.fromhex(frame["header"])
        written += bytes(octet ^ key[index % 4] for index, octet in enumerate(part))
    assert len(written) == case["raw_len"]
    assert hashlib.sha256(written).hexdigest() == case["raw_sha256"]
    assert case.get("raw") in {None, written.hex()}
    return bytes(written)


@pytest.mark.parametrize("case", named("messages"))
def test_messages_in(case: dict[str, Any], endpoint_for: Callable[[str], Any]) -> None:
    reader = endpoint_for(other(case["role"]))
    data = as_frames(case)
    if len(data) <= 10_000:
        reader.takes(data, [as_json(case).decode()])
    else:
        for size in (len(data), 65_536, 4_099, 1_000):
            connection = reader.connection()
            chunks = [data[at : at + size] for at in range(0, len(data), size)]
            assert [event for chunk in chunks for event in connection.receive_data(chunk)] == [
                as_json(case).decode()
            ]


@pytest.mark.parametrize("case", named("messages", kind="message"))
def test_requests_in_and_out(case: dict[str, Any], endpoint_for: Callable[[str], Any]) -> None:
    value = case["value"]
    (message,) = Connection("server").receive_data(as_frames(case))
    assert message == SecureMessage(
        octets(value, "payload"),
        value["did"],
        value["id"],
        octets(value, "signature"),
        value["context_id"],
        value["task_id"],
        value["metadata"] or {},
        value["role"],
    )
    connection = Connection("client")
    connection.send_message(message, None, float("inf"))
    (frame,) = endpoint_for("client").peer.read(connection.data_to_send())
    assert frame == (TEXT, as_json(case)), "Go's JSON, though in one frame"


@pytest.mark.parametrize("case", named("messages", kind="response"))
def test_responses_in_and_out(case: dict[str, Any], endpoint_for: Callable[[str], Any]) -> None:
    value = case["value"]
    connection = Connection("client")
    connection.send_message(SecureMessage(b"?", "did:x", value["message_id"]), "waiter", float("inf"))
    response = Response(
        value["success"], value["message_id"], value["task_id"], octets(value, "data"), value["error"]
    )
    assert connection.receive_data(as_frames(case)) == [("waiter", response)]
    server = Connection("server")
    server.send_response(SecureMessage(b"?", "did:x", value["message_id"]), response)
    (frame,) = endpoint_for("server").peer.read(server.data_to_send())
    assert frame == (TEXT, as_json(case)), "Go's JSON, though in one frame"


# ── control frames ────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("case", named("controls"))
def test_controls_in(case: dict[str, Any], endpoint_for: Callable[[str], Any]) -> None:
    payload = bytes.fromhex(case["payload"])
    opcode = case["frames"][0]["opcode"]
    reader = endpoint_for(other(case["role"]))
    data = bytes.fromhex(case["raw"])
    if opcode == PING:
        reader.takes(data, [], [(PONG, payload)])
    elif opcode == PONG:
        reader.takes(data, [Pong(payload)])
    elif opcode == CLOSE:
        code = int.from_bytes(payload[:2], "big") if payload else None
        reader.takes(data, [Closing(code, payload[2:].decode(), True)], [(CLOSE, payload[:2])])
    else:
        reader.takes(data, [payload.decode()])


@pytest.mark.parametrize("case", [one for one in named("controls") if "pong" not in one.id])
def test_controls_out(case: dict[str, Any], endpoint_for: Callable[[str], Any]) -> None:
    payload = bytes.fromhex(case["payload"])
    (frame,) = case["frames"]
    connection = endpoint_for(case["role"]).connection()
    if frame["opcode"] == PING:
        connection.send_ping(payload)
    elif frame["opcode"] == CLOSE:
        code = int.from_bytes(payload[:2], "big") if payload else None
        connection.send_close(code, payload[2:].decode())
    else:
        connection.send_raw(payload.decode())
    output = connection.data_to_send()
    assert output[:2].hex() == frame["header"][:4]
    assert endpoint_for(case["role"]).peer.read(output) == [(frame["opcode"], payload)]


# ── replies ───────────────────────────────────────────────────────────────────────────
STRICTER_REPLIES = {
    "text-invalid-utf8": (1007, "invalid UTF-8"),
    "close-1-byte": (1002, "close frame with one byte"),
    "close-reason-invalid-utf8": (1007, "invalid UTF-8 in a close reason"),
    "length-not-minimal-16": (1002, "length not minimal"),
    "length-not-minimal-64": (1002, "length not minimal"),
    "length-msb-set": (1002, "length with its top bit set"),
}
"""Where Go is laxer than the RFC (docs/reference/wire.md, "Frames"): our close code and reason."""

LIMITED_REPLIES = {"length-2-62", "length-sum-overflow"}
"""Go has no limit, waits for the rest or fails by its sum: ours refuses them by its limit, or waits too."""


@pytest.mark.parametrize("case", named("replies"))
def test_replies(case: dict[str, Any], endpoint_for: Callable[[str], Any]) -> None:
    name = case["name"].partition("/")[2]
    data = bytes.fromhex(case["received"])
    ours = endpoint_for(case["role"])
    if name in LIMITED_REPLIES:
        limit = 16 * 1024 * 1024
        reason = f"message over {limit} bytes"
        ours.takes(
            data, [Closing(1009, reason, False)], [(CLOSE, (1009).to_bytes(2, "big") + reason.encode())]
        )
        ours = ours.with_options(max_message_size=None)
    if name in STRICTER_REPLIES:
        code, reason = STRICTER_REPLIES[name]
        ours.takes(data, [Closing(code, reason, False)], [(CLOSE, code.to_bytes(2, "big") + reason.encode())])
        return
    connection = ours.connection()
    events = connection.receive_data(data)
    output = ours.peer.read(connection.data_to_send())
    # what is accepted
    content = [event for event in events if isinstance(event, (str, bytes))]
    assert content == [
        bytes.fromhex(octets).decode() if opcode == TEXT else bytes.fromhex(octets)
        for opcode, octets in case["messages"]
    ]
    # what is echoed and what is refused: opcodes and payloads; of a close frame its code, reasons bind nobody
    payload = bytes.fromhex(case.get("payload") or "")
    theirs = [
        (frame["opcode"], payload[:2] if frame["opcode"] == CLOSE else payload)
        for frame in case["frames"] or []
    ]
    assert [(opcode, told[:2] if opcode == CLOSE else told) for opcode, told in output] == theirs
    if "close_code" in case:
        (closing,) = [event for event in events if isinstance(event, Closing)]
        assert closing.code == case["close_code"]
    # and the same however it arrives
    ours.takes(data, events, output)


# ── opening handshakes ────────────────────────────────────────────────────────────────
STRICTER_CLIENT = {
    "client/unasked-subprotocol",  # RFC 6455 §4.1
    "client/unasked-extension",  # §4.1
    "client/unknown-extension",  # §4.1
    "client/case-and-lists",  # §4.1: Upgrade is "websocket" and nothing else
    "client/http-1.0",
}
STRICTER_SERVER = {
    "server/http-1.0",  # §4.2.1
    "server/origin",  # docs/how-to/origins.md: another host's origin needs a list
}


def head_of(text: str) -> bytes:
    head = HeadReader().receive_data(text.encode())
    assert head is not None
    return head


def served(case: dict[str, Any], origins: list[str | None] | None = None) -> bytes | None:
    """Our server's 101 to this request; None, it is refused."""
    try:
        request = opening.parse_request(head_of(case["request"]), None)
        opening.check_origin(request, origins)
        return opening.accept(request)
    except Refusal:
        return None


@pytest.mark.parametrize("case", named("handshakes", role="client"))
def test_our_server_takes_gos_requests(case: dict[str, Any]) -> None:
    answer = served(case)
    assert answer is not None
    if case["ok"] and case["name"] not in STRICTER_CLIENT:
        accept = case["response"].lower().split("sec-websocket-accept: ")[1].split("\r\n")[0]
        assert accept in answer.decode().lower()


@pytest.mark.parametrize("case", named("handshakes", role="client"))
def test_our_client_judges_as_gos(case: dict[str, Any]) -> None:
    protocol = ClientProtocol(parse_uri("ws://agent.example:8080/ws"), logger=opening.QUIET)
    protocol.key = case["request"].split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
    try:
        opened = opening.check_response(protocol, head_of(case["response"])) == 101
    except DialError:
        opened = False
    assert opened == (case["ok"] and case["name"] not in STRICTER_CLIENT)


@pytest.mark.parametrize("case", named("handshakes", role="server"))
def test_our_server_judges_as_gos(case: dict[str, Any]) -> None:
    answer = served(case)
    assert (answer is not None) == (case["ok"] and case["name"] not in STRICTER_SERVER)
    if answer is not None:
        for line in case["response"].split("\r\n"):
            assert line.encode() in answer


def test_a_listed_origin_is_let_in_as_by_go() -> None:
    (case,) = (case for case in VECTORS["handshakes"] if case["name"] == "server/origin")
    assert served(case, ["https://any.example"]) is not None


def test_every_departure_is_a_vector() -> None:
    replies = {case["name"].partition("/")[2] for case in VECTORS["replies"]}
    assert replies >= STRICTER_REPLIES.keys() | LIMITED_REPLIES
    assert {case["name"] for case in VECTORS["handshakes"]} >= STRICTER_CLIENT | STRICTER_SERVER
