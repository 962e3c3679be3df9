"""docs/reference/wire.md: its bytes, texts and codes are what the core writes and reads."""

from __future__ import annotations

import ast
import json
import re
from math import inf
from pathlib import Path
from typing import Any

import cbor2
import pytest

from sage_ws import DecodeError, SecureMessage
from sage_ws._core import Connection, decode_message, encode_message
from sage_ws._core.events import Closing, Undecodable
from sage_ws.aio import opening

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "wire.md").read_text("utf-8")
EXTENDED = PAGE[PAGE.index("## The extended wire") : PAGE.index("## HTTP")]
BLOCKS = dict(re.findall(r"^```text title=\"([^\"]+)\"\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
FIELDS = ("id", "context_id", "task_id", "payload", "did", "signature", "metadata", "role")
KINDS = ["request", "response", "cancel", "credit", "goaway"]
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "extended.json").read_text("utf-8"))
MESSAGE = SecureMessage(payload=b"hello", did="did:sage:me", id="m-1", task_id="t-1")


def rows(heading: str, page: str = PAGE) -> list[list[str]]:
    """The cells of all tables below this heading row, without their marks of code."""
    found: list[list[str]] = []
    for table in re.findall(rf"^\| {re.escape(heading)} \|\n\| ---.*\n((?:\| .*\n)+)", page, re.MULTILINE):
        found += [
            [cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in table.splitlines()
        ]
    assert found
    return found


def given(text: str) -> bytes:
    """A cell that is a Python expression of bytes."""
    made: bytes = eval(text, {"__builtins__": {}})
    return made


def dump(title: str) -> bytes:
    """The bytes of a block: those before two spaces."""
    return b"".join(bytes.fromhex(line.partition("  ")[0]) for line in BLOCKS[title].splitlines())


def masked(payload: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def unmasked(frame: bytes) -> tuple[bytes, bytes]:
    """Header and payload of a client's short frame."""
    return frame[:2], masked(frame[6:], frame[2:6])


def server_with_a_request() -> Connection:
    server = Connection("server")
    assert server.receive_data(dump("a request")) == [MESSAGE]
    return server


# ── frames ──────────────────────────────────────────────────────────────────────────────
def test_a_request_is_what_a_client_sends() -> None:
    client = Connection("client")
    client.send_message(MESSAGE, None, inf)
    assert unmasked(client.data_to_send()) == unmasked(dump("a request"))


def test_its_response_is_what_a_server_answers() -> None:
    server = server_with_a_request()
    server.send_response(MESSAGE, b"HELLO")
    assert server.data_to_send() == dump("its response")


def test_a_servers_keepalive() -> None:
    server = server_with_a_request()
    server.send_keepalive()
    assert server.data_to_send() == dump("a server's keepalive")


def test_closing() -> None:
    client, server = Connection("client"), Connection("server")
    client.send_close()
    assert unmasked(client.data_to_send()) == unmasked(dump("a client closes"))
    assert server.receive_data(dump("a client closes")) == [Closing(1000, "", True)]
    assert server.data_to_send() == dump("the server answers")


@pytest.mark.parametrize("title", ["a request", "its response", "a server's keepalive"])
def test_the_texts_beside_the_bytes(title: str) -> None:
    data = dump(title)
    told = "".join(line.partition("  ")[2].strip() for line in BLOCKS[title].splitlines())
    payload = unmasked(data)[1] if data[1] & 0x80 else data[2:]
    assert payload.decode() in re.sub(" ?and \\\\n", "\n", told)


@pytest.mark.parametrize(("code", "reason", "example"), rows("code | reason | example"))
def test_rules_of_frames(code: str, reason: str, example: str) -> None:
    connection = Connection("client" if reason == "masked frame from a server" else "server")
    (closing,) = connection.receive_data(bytes.fromhex(example))
    assert closing == Closing(int(code), reason, False)


def test_which_close_codes_are_valid() -> None:
    (told,) = re.findall(r"Codes that a close frame may carry: (.*)\.", PAGE)
    valid = set()
    for first, last in re.findall(r"(\d+) to (\d+)", told):
        valid.update(range(int(first), int(last) + 1))
    taken = set()
    for code in range(5001):
        frame = b"\x88\x82" + bytes(4) + code.to_bytes(2, "big")
        (closing,) = Connection("server").receive_data(frame)
        taken.update([code] if closing.by_peer else [])
    assert taken == valid


# ── messages ────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("request_json", "response_json"), rows("request | response"))
def test_validation(request_json: str, response_json: str) -> None:
    server = Connection("server")
    payload = request_json.encode()
    assert server.receive_data(bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload) == []
    assert server.data_to_send()[2:].decode() == response_json + "\n"


@pytest.mark.parametrize(("text", "field", "value"), rows("text | field | value"))
def test_what_is_accepted(text: str, field: str, value: str) -> None:
    fields = dict(zip(FIELDS, decode_message(given(text)), strict=True))
    assert fields[field] == ast.literal_eval(value)


@pytest.mark.parametrize(("text", "error"), rows("text | error", PAGE.replace(EXTENDED, "")))
def test_what_is_refused(text: str, error: str) -> None:
    with pytest.raises(DecodeError) as raised:
        decode_message(given(text))
    assert str(raised.value) == error


def test_keys_stand_in_the_order_of_the_tables() -> None:
    found = re.findall(r"^\| key \| type .*\n\| ---.*\n((?:\| .*\n)+)", PAGE, re.MULTILINE)
    tables = [re.findall(r"^\| `(\w+)`", table, re.MULTILINE) for table in found]
    full: dict[str, Any] = dict.fromkeys(FIELDS, "x") | {
        "payload": b"x",
        "signature": b"x",
        "metadata": {"a": "b"},
    }
    written = encode_message(**full).decode()
    assert [name for name in re.findall(r'"(\w+)":', written) if name != "a"] == tables[0] == list(FIELDS)
    assert tables[1] == ["success", "message_id", "task_id", "data", "error"]


# ── the extended wire ───────────────────────────────────────────────────────────────────
def refused(subprotocol: str, payload: bytes, opcode: int = 2) -> DecodeError:
    """What a client says to a message."""
    client = Connection("client", subprotocol=subprotocol)
    (event,) = client.receive_data(bytes([0x80 | opcode, len(payload)]) + payload)
    assert isinstance(event, Undecodable)
    return event.error


@pytest.mark.parametrize(("text", "error"), rows("text | error", EXTENDED))
def test_what_is_refused_in_extended_json(text: str, error: str) -> None:
    assert str(refused("sage.1.json", given(text))) == error


@pytest.mark.parametrize(("data", "error"), rows("CBOR | error"))
def test_what_is_refused_in_cbor(data: str, error: str) -> None:
    assert str(refused("sage.1.cbor", bytes.fromhex(data))) == error


def test_text_where_cbor_is_wanted() -> None:
    (told,) = re.findall(r"A TEXT message is `(.*)`\.", PAGE)
    assert str(refused("sage.1.cbor", b"{}", opcode=1)) == told


@pytest.mark.parametrize(
    ("name", "number", "in_json", "in_cbor", "kinds"), rows("field | number | in JSON | in CBOR | stands in")
)
def test_a_field_of_the_extended_wire(name: str, number: str, in_json: str, in_cbor: str, kinds: str) -> None:
    value: Any = {"bool": "x", "bytes": 1, "unsigned": "x"}.get(in_cbor, True)
    expected = {"unsigned": "an integer", "text": "a string", "map of text by text": "a map of strings"}
    in_the_text = expected.get(in_cbor, in_cbor.replace("bool", "a bool"))
    error = refused("sage.1.cbor", cbor2.dumps({0: 0, int(number): value}))
    assert error.field == name
    assert str(error).startswith(f"{name}: expected {in_the_text}")
    error = refused("sage.1.json", json.dumps({"kind": "request", name: [1]}).encode())
    assert error.field == name
    base = {"base64": "a base64 string", "number": "an integer", "object of strings": "an object of strings"}
    assert str(error).startswith(f"{name}: expected {base.get(in_json, f'a {in_json}')}")
    found = {case["fields"]["kind"] for case in VECTORS["messages"] if name in case["fields"]}
    assert found == (set(KINDS) if kinds == "every message" else set(kinds.split(", ")))


def test_the_fields_stand_in_the_order_of_their_numbers() -> None:
    numbers = [int(row[1]) for row in rows("field | number | in JSON | in CBOR | stands in")]
    assert numbers == list(range(17))


def test_the_kinds_of_the_extended_wire() -> None:
    assert [(row[0], int(row[1])) for row in rows("kind | number | what it says")] == [
        (kind, number) for number, kind in enumerate(KINDS)
    ]
    for case in VECTORS["messages"]:
        assert cbor2.loads(bytes.fromhex(case["cbor"]))[0] == KINDS.index(case["fields"]["kind"])


def test_a_request_in_cbor_and_a_part() -> None:
    client, server = (Connection(role, subprotocol="sage.1.cbor") for role in ("client", "server"))
    client.send_message(MESSAGE, None, inf, 1.5)
    header, payload = unmasked(client.data_to_send())
    assert (header[0], payload) == (0x82, dump("a request in CBOR"))
    server.send_response(MESSAGE, b"HEL", True)
    assert server.data_to_send()[2:] == dump("a part of its response in CBOR")


# ── opening handshake ───────────────────────────────────────────────────────────────────
def test_opening() -> None:
    head = BLOCKS["opening request"].replace("\n", "\r\n").encode() + b"\r\n"
    answer = opening.accept(opening.parse_request(head, None)).decode()
    without_date = re.sub(r"Date: .*\r\n", "", answer)
    assert without_date == BLOCKS["opening response"].replace("\n", "\r\n") + "\r\n"


def test_a_clients_request() -> None:
    from websockets.client import ClientProtocol
    from websockets.uri import parse_uri

    sent = opening.encode_request(ClientProtocol(parse_uri("ws://agent.example:8080/ws")), []).decode()
    same_key = re.sub(r"(?<=Key: ).*(?=\r)", "dGhlIHNhbXBsZSBub25jZQ==", sent)
    assert same_key == BLOCKS["opening request"].replace("\n", "\r\n") + "\r\n"
