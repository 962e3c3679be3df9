"""The opening handshake, both sides, rule by rule (RFC 6455 §4.1, §4.2, §4.4), however its bytes arrive.

A head is a list of lines; a case changes one of them and says what must come of it.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from sage_ws.aio import opening
from sage_ws.aio.opening import HeadReader, Refusal
from sage_ws.errors import DialError

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""Key and its answer, as §1.3 shows them."""
BEHIND = b"\x81\x05Hello"
"""A frame right behind a head."""

REQUEST = {
    "line": "GET /chat?room=1 HTTP/1.1",
    "Host": "Host: server.example.com",
    "Upgrade": "Upgrade: websocket",
    "Connection": "Connection: Upgrade",
    "Key": f"Sec-WebSocket-Key: {KEY}",
    "Version": "Sec-WebSocket-Version: 13",
}
RESPONSE = {
    "line": "HTTP/1.1 101 Switching Protocols",
    "Upgrade": "Upgrade: websocket",
    "Connection": "Connection: Upgrade",
    "Accept": f"Sec-WebSocket-Accept: {ACCEPT}",
}


def head(lines: dict[str, str], **changes: str | None) -> bytes:
    """The lines, one changed or left out (None); a new name adds one, and a line may hold several."""
    changed = {**lines, **changes}
    return "".join(f"{line}\r\n" for line in changed.values() if line is not None).encode("latin-1") + b"\r\n"


def chunkings(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    yield [data[index : index + 1] for index in range(len(data))]
    for seed in range(4):
        cuts = sorted(random.Random(seed).sample(range(1, len(data)), 5))
        yield [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def heads(data: bytes) -> Iterator[bytes]:
    """The head that is cut out of these bytes, for each way in which they come; what follows is kept."""
    for chunks in chunkings(data):
        reader = HeadReader()
        left = iter(chunks)
        cut = next((found for chunk in left if (found := reader.receive_data(chunk)) is not None), None)
        assert cut is not None
        assert cut + reader.rest + b"".join(left) == data
        yield cut


# ── the server's side ─────────────────────────────────────────────────────────────────
def answered(data: bytes) -> tuple[int, dict[str, str]]:
    """Status and header fields of a server's answer, the same for every chunking."""
    answers = []
    for cut in heads(data):
        try:
            answer = opening.accept(opening.parse_request(cut, None))
        except Refusal as refusal:
            answer = refusal.encode()
        line, *lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        fields = {name.lower(): value for name, value in (field.split(": ", 1) for field in lines)}
        fields.pop("date", None)
        answers.append((int(line.split()[1]), fields))
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


ACCEPTED: dict[str, dict[str, str | None]] = {
    "4.2.1-as-the-rfc-shows": {},
    "4.2.1-(1)-the-root": {"line": "GET / HTTP/1.1"},
    "4.2.1-(1)-any-path": {"line": "GET /a/b%20c?d=e&f HTTP/1.1"},
    "4.2.1-(2)-host-with-port": {"Host": "Host: [::1]:8080"},
    "4.2.1-(3)-upgrade-in-any-case": {"Upgrade": "UPGRADE: WebSocket"},
    "4.2.1-(3)-upgrade-among-others": {"Upgrade": "Upgrade: h2c, websocket"},
    "4.2.1-(4)-connection-in-any-case": {"Connection": "connection: UPGRADE"},
    "4.2.1-(4)-connection-among-others": {"Connection": "Connection: keep-alive, Upgrade"},
    "4.2.1-(4)-connection-in-two-lines": {"Connection": "Connection: keep-alive\r\nConnection: Upgrade"},
    "4.2.1-(5)-key-in-white-space": {"Key": f"Sec-WebSocket-Key: \t {KEY} \t"},
    "4.2.1-(8)-subprotocols-offered": {"more": "Sec-WebSocket-Protocol: sage.1.cbor, sage.1.json"},
    "4.2.1-(9)-extensions-offered": {"more": "Sec-WebSocket-Extensions: permessage-deflate; x=10"},
    "4.2.1-(10)-other-fields": {"more": "Cookie: a=b\r\nUser-Agent: x\r\nX-Unknown: \xe9"},
    "9.1-unknown-extension-offered": {"more": "Sec-WebSocket-Extensions: x-unknown; a=1, y"},
}


@pytest.mark.parametrize("changes", ACCEPTED.values(), ids=ACCEPTED)
def test_a_request_that_is_accepted(changes: dict[str, str | None]) -> None:
    # §4.2.2: nothing that was offered is chosen
    assert answered(head(REQUEST, **changes)) == (
        101,
        {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": ACCEPT},
    )


def test_4_2_2_accept_is_made_of_the_key() -> None:
    source = random.Random(1)
    for _ in range(50):
        key = base64.b64encode(source.randbytes(16)).decode()
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode(), usedforsecurity=False)
        _, fields = answered(head(REQUEST, Key=f"Sec-WebSocket-Key: {key}"))
        assert fields["sec-websocket-accept"] == base64.b64encode(digest.digest()).decode()


def test_4_2_what_is_behind_the_head_is_kept() -> None:
    assert answered(head(REQUEST) + BEHIND)[0] == 101


REFUSED: dict[str, tuple[int, dict[str, str | None]]] = {
    "4.2.1-(1)-post": (405, {"line": "POST /chat HTTP/1.1"}),
    "4.2.1-(1)-head": (405, {"line": "HEAD /chat HTTP/1.1"}),
    "4.2.1-(1)-connect": (405, {"line": "CONNECT /chat HTTP/1.1"}),
    "4.2.1-(1)-http-1.0": (400, {"line": "GET /chat HTTP/1.0"}),
    "4.2.1-(1)-http-0.9": (400, {"line": "GET /chat"}),
    "4.2.1-(1)-http-2": (400, {"line": "GET /chat HTTP/2.0"}),
    "4.2.1-(1)-garbage": (400, {"line": "\x16\x03\x01\x02"}),
    "4.2.1-(1)-a-body": (400, {"more": "Content-Length: 1"}),
    "4.2.1-(1)-a-chunked-body": (400, {"more": "Transfer-Encoding: chunked"}),
    "4.2.1-(2)-no-host": (400, {"Host": None}),
    "4.2.1-(2)-two-hosts": (400, {"more": "Host: other.example"}),
    "4.2.1-(3)-no-upgrade": (426, {"Upgrade": None}),
    "4.2.1-(3)-other-upgrade": (426, {"Upgrade": "Upgrade: h2c"}),
    "4.2.1-(3)-almost-websocket": (426, {"Upgrade": "Upgrade: websockets"}),
    "4.2.1-(4)-no-connection": (426, {"Connection": None}),
    "4.2.1-(4)-other-connection": (426, {"Connection": "Connection: close"}),
    "4.2.1-(4)-almost-upgrade": (426, {"Connection": "Connection: Upgrades"}),
    "4.2.1-(5)-no-key": (400, {"Key": None}),
    "4.2.1-(5)-empty-key": (400, {"Key": "Sec-WebSocket-Key: "}),
    "4.2.1-(5)-15-bytes": (400, {"Key": f"Sec-WebSocket-Key: {base64.b64encode(bytes(15)).decode()}"}),
    "4.2.1-(5)-17-bytes": (400, {"Key": f"Sec-WebSocket-Key: {base64.b64encode(bytes(17)).decode()}"}),
    "4.2.1-(5)-not-base64": (400, {"Key": "Sec-WebSocket-Key: " + "!" * 24}),
    "4.2.1-(5)-without-padding": (400, {"Key": f"Sec-WebSocket-Key: {KEY[:-2]}"}),
    "11.3.1-two-keys": (400, {"more": f"Sec-WebSocket-Key: {KEY}"}),
    "4.2.1-(6)-no-version": (426, {"Version": None}),
    "4.4-version-8": (426, {"Version": "Sec-WebSocket-Version: 8"}),
    "4.4-version-14": (426, {"Version": "Sec-WebSocket-Version: 14"}),
    "4.4-version-13-and-another": (426, {"Version": "Sec-WebSocket-Version: 13, 8"}),
    "11.3.5-two-versions": (426, {"more": "Sec-WebSocket-Version: 13"}),
    "9110-5.1-no-colon": (400, {"more": "Nonsense"}),
    "9110-5.1-space-before-colon": (400, {"more": "X-Field : a"}),
    "9110-5.5-null": (400, {"more": "X-Field: a\0b"}),
    "9112-5.2-folded": (400, {"more": "X-Field: a\r\n b"}),
    "9112-2.2-bare-lf": (400, {"more": "X-Field: a\nX-Other: b"}),
    "9112-2.2-bare-cr": (400, {"more": "X-Field: a\rb"}),
}


@pytest.mark.parametrize(("status", "changes"), REFUSED.values(), ids=REFUSED)
def test_a_request_that_is_refused(status: int, changes: dict[str, str | None]) -> None:
    got, fields = answered(head(REQUEST, **changes))
    assert got == status
    assert fields["connection"] == "close"
    if status == 405:
        assert fields["allow"] == "GET"
    if status == 426:
        # §4.2.2, §4.4: what would have been right
        assert fields.get("sec-websocket-version") == "13" or fields.get("upgrade") == "websocket"


def test_4_4_a_wrong_version_is_told_ours() -> None:
    for version in ("0", "8", "12", "14", "255", "x"):
        status, fields = answered(head(REQUEST, Version=f"Sec-WebSocket-Version: {version}"))
        assert (status, fields["sec-websocket-version"]) == (426, "13")


# ── the client's side ─────────────────────────────────────────────────────────────────
def client(url: str = "ws://server.example.com/chat", **options: Any) -> ClientProtocol:
    return ClientProtocol(parse_uri(url), logger=opening.QUIET, **options)


def requested(url: str) -> tuple[str, dict[str, str]]:
    line, *lines = opening.encode_request(client(url), []).decode().removesuffix("\r\n\r\n").split("\r\n")
    fields = dict(field.split(": ", 1) for field in lines)
    assert len(fields) == len(lines), "no field twice"
    return line, {name.lower(): value for name, value in fields.items()}


@pytest.mark.parametrize(
    ("url", "target", "host"),
    [
        pytest.param("ws://a.example/chat", "/chat", "a.example", id="4.1-(4)-default-port"),
        pytest.param("ws://a.example:80/chat", "/chat", "a.example", id="4.1-(4)-default-port-named"),
        pytest.param("wss://a.example:443/chat", "/chat", "a.example", id="4.1-(4)-default-port-of-tls"),
        pytest.param("ws://a.example:8080/", "/", "a.example:8080", id="4.1-(4)-other-port"),
        pytest.param("ws://a.example:443/", "/", "a.example:443", id="4.1-(4)-port-of-tls-without-it"),
        pytest.param("ws://[::1]:9/x", "/x", "[::1]:9", id="4.1-(4)-ipv6"),
        pytest.param("ws://a.example", "/", "a.example", id="3-no-path"),
        pytest.param("ws://a.example?q=1", "/?q=1", "a.example", id="3-no-path-but-a-query"),
        pytest.param("ws://a.example/x?a=b&c=%20", "/x?a=b&c=%20", "a.example", id="3-query"),
    ],
)
def test_the_request(url: str, target: str, host: str) -> None:
    line, fields = requested(url)
    assert line == f"GET {target} HTTP/1.1"
    key = fields.pop("sec-websocket-key")
    assert len(base64.b64decode(key, validate=True)) == 16
    del fields["user-agent"]
    # §4.1 (10), (11): no subprotocol and no extension is offered; (8): no origin, we are no browser
    assert fields == {
        "host": host,
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
    }


def test_4_1_7_every_request_has_a_fresh_key() -> None:
    keys = {requested("ws://a.example/")[1]["sec-websocket-key"] for _ in range(200)}
    assert len(keys) == 200


def test_4_1_our_own_server_takes_our_request() -> None:
    protocol = client()
    request = opening.encode_request(protocol, [("X-Token", "a")])
    for cut in heads(request):
        response = opening.accept(opening.parse_request(cut, None))
        fresh = client()
        fresh.key = protocol.key
        assert opening.check_response(fresh, response) == 101


def opened(data: bytes) -> bool:
    """Whether a client takes this answer to its request; the same for every chunking."""
    verdicts = set()
    for cut in heads(data):
        protocol = client()
        protocol.key = KEY
        try:
            verdicts.add(opening.check_response(protocol, cut) == 101)
        except DialError:
            verdicts.add(False)
    (verdict,) = verdicts
    return verdict


OPENS: dict[str, dict[str, str | None]] = {
    "4.2.2-as-the-rfc-shows": {},
    "4.1-any-reason-phrase": {"line": "HTTP/1.1 101 WebSocket Protocol Handshake"},
    "4.1-no-reason-phrase": {"line": "HTTP/1.1 101 "},
    "4.1-(2)-upgrade-in-any-case": {"Upgrade": "upgrade: WEBSOCKET"},
    "4.1-(3)-connection-in-any-case": {"Connection": "CONNECTION: upgrade"},
    "4.1-(3)-connection-among-others": {"Connection": "Connection: keep-alive, Upgrade"},
    "4.1-(4)-accept-in-white-space": {"Accept": f"Sec-WebSocket-Accept:\t {ACCEPT} \t"},
    "4.1-other-fields": {"more": "Date: now\r\nServer: x\r\nX-Unknown: \xe9"},
}
STAYS_SHUT: dict[str, dict[str, str | None]] = {
    "4.1-(1)-200": {"line": "HTTP/1.1 200 OK"},
    "4.1-(1)-100": {"line": "HTTP/1.1 100 Continue"},
    "4.1-(1)-redirect": {"line": "HTTP/1.1 302 Found", "more": "Location: ws://other.example/"},
    "4.1-(1)-401": {"line": "HTTP/1.1 401 Unauthorized"},
    "4.1-(1)-http-1.0": {"line": "HTTP/1.0 101 Switching Protocols"},
    "4.1-(1)-no-http": {"line": "SSH-2.0-OpenSSH_9.9"},
    "4.1-(1)-long-status": {"line": "HTTP/1.1 1010 Switching Protocols"},
    "4.1-(2)-no-upgrade": {"Upgrade": None},
    "4.1-(2)-other-upgrade": {"Upgrade": "Upgrade: h2c"},
    "4.1-(2)-more-than-websocket": {"Upgrade": "Upgrade: h2c, websocket"},
    "4.1-(3)-no-connection": {"Connection": None},
    "4.1-(3)-other-connection": {"Connection": "Connection: close"},
    "4.1-(4)-no-accept": {"Accept": None},
    "4.1-(4)-empty-accept": {"Accept": "Sec-WebSocket-Accept: "},
    "4.1-(4)-the-key-itself": {"Accept": f"Sec-WebSocket-Accept: {KEY}"},
    "4.1-(4)-another-keys-accept": {"Accept": "Sec-WebSocket-Accept: C/0nmHhBztSRGR1CwL6Tf4ZjwpY="},
    "4.1-(4)-accept-in-another-case": {"Accept": f"Sec-WebSocket-Accept: {ACCEPT.swapcase()}"},
    "11.3.3-two-accepts": {"more": f"Sec-WebSocket-Accept: {ACCEPT}"},
    "4.1-(5)-deflate-unasked": {"more": "Sec-WebSocket-Extensions: permessage-deflate"},
    "4.1-(5)-unknown-extension": {"more": "Sec-WebSocket-Extensions: x-unknown"},
    "4.1-(6)-subprotocol-unasked": {"more": "Sec-WebSocket-Protocol: sage.1.json"},
    "9110-5.1-no-colon": {"more": "Nonsense"},
    "9110-5.5-null": {"more": "X-Field: a\0b"},
}


@pytest.mark.parametrize("changes", OPENS.values(), ids=OPENS)
def test_an_answer_that_opens(changes: dict[str, str | None]) -> None:
    assert opened(head(RESPONSE, **changes) + BEHIND)


@pytest.mark.parametrize("changes", STAYS_SHUT.values(), ids=STAYS_SHUT)
def test_an_answer_that_does_not_open(changes: dict[str, str | None]) -> None:
    assert not opened(head(RESPONSE, **changes) + BEHIND)
