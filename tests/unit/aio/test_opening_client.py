"""The client's side of the opening handshake without a socket: what it asks, how it judges (RFC 6455 §4)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from sage_ws import DialError
from sage_ws.aio import opening
from sage_ws.aio.opening import MAX_BODY, check_headers, check_response, content_length, encode_request

VECTORS = Path(__file__).parents[2] / "vectors" / "frames.json"
HANDSHAKES = json.loads(VECTORS.read_text())["handshakes"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class TestHeaders:
    @pytest.mark.parametrize(
        "given",
        [{"Authorization": "Bearer x", "X-A": "1"}, [("Authorization", "Bearer x"), ("X-A", "1")]],
    )
    def test_a_mapping_and_pairs_are_pairs(self, given: Any) -> None:
        assert check_headers(given) == [("Authorization", "Bearer x"), ("X-A", "1")]

    def test_a_repeated_name_and_a_tab_are_fine(self) -> None:
        pairs = [("Cookie", "a=b"), ("Cookie", "c=\td\xe9")]
        assert check_headers(iter(pairs)) == pairs

    @pytest.mark.parametrize(
        ("name", "value", "text"),
        [
            ("X-A", "a\r\nX-Forged: b", "header X-A holds a control character"),
            ("X-A", "a\nb", "control character"),
            ("X-A", "a\x00b", "control character"),
            ("X-A", "a\x7fb", "control character"),
            ("X-A", "\u20ac", "header X-A holds characters beyond latin-1"),
            ("X A", "b", "header name 'X A' is not a token"),
            ("X-A:", "b", "is not a token"),
            ("", "b", "is not a token"),
            ("X-A\r\nX-B", "b", "is not a token"),
            ("X-\xe9", "b", "is not a token"),
            ("Host", "b", "header Host belongs to the opening handshake"),
            ("upgrade", "b", "belongs to the opening handshake"),
            ("CONNECTION", "b", "belongs to the opening handshake"),
            ("Origin", "b", "belongs to the opening handshake"),
            ("Sec-WebSocket-Protocol", "b", "belongs to the opening handshake"),
            ("sec-websocket-key", "b", "belongs to the opening handshake"),
        ],
    )
    def test_none_can_forge_another(self, name: str, value: str, text: str) -> None:
        with pytest.raises(ValueError, match=text):
            check_headers([("X-Fine", "yes"), (name, value)])

    @pytest.mark.parametrize("pair", [(b"X-A", "b"), ("X-A", b"b"), ("X-A", 5), ("X-A",), "ab", 5, None])
    def test_only_texts_are_taken(self, pair: Any) -> None:
        with pytest.raises(TypeError, match=r"^headers must be pairs of str$"):
            check_headers([pair])


def a_client(url: str = "ws://agent.example:8080/ws", key: str = KEY) -> ClientProtocol:
    protocol = ClientProtocol(parse_uri(url), logger=opening.QUIET)
    protocol.key = key
    return protocol


def fields_of(request: bytes) -> list[str]:
    return request.decode("latin-1").split("\r\n")


class TestClientRequest:
    def test_it_asks_for_what_the_rfc_lists_and_no_more(self) -> None:
        lines = fields_of(encode_request(a_client(), []))
        assert lines[0] == "GET /ws HTTP/1.1"
        assert sorted(lines[1:-2]) == [
            "Connection: Upgrade",
            "Host: agent.example:8080",
            f"Sec-WebSocket-Key: {KEY}",
            "Sec-WebSocket-Version: 13",
            "Upgrade: websocket",
            "User-Agent: sage-ws",
        ]

    def test_each_request_has_a_fresh_key(self) -> None:
        keys = {ClientProtocol(parse_uri("ws://a"), logger=opening.QUIET).key for _ in range(20)}
        assert len(keys) == 20

    def test_the_callers_headers_are_added(self) -> None:
        pairs = [("Authorization", "Bearer x"), ("Cookie", "a=b"), ("Cookie", "c=d")]
        lines = fields_of(encode_request(a_client(), pairs))
        assert {"Authorization: Bearer x", "Cookie: a=b", "Cookie: c=d"} <= set(lines)

    def test_a_user_agent_of_the_callers_takes_our_place(self) -> None:
        lines = fields_of(encode_request(a_client(), [("user-agent", "mine/1")]))
        assert [line for line in lines if line.lower().startswith("user-agent")] == ["user-agent: mine/1"]

    def test_a_query_is_part_of_the_target(self) -> None:
        lines = fields_of(encode_request(a_client("ws://agent.example/ws?a=b&c=%20"), []))
        assert lines[0] == "GET /ws?a=b&c=%20 HTTP/1.1"

    def test_no_path_is_the_root(self) -> None:
        assert fields_of(encode_request(a_client("ws://agent.example"), []))[0] == "GET / HTTP/1.1"

    def test_a_default_port_is_not_named(self) -> None:
        assert "Host: agent.example" in fields_of(encode_request(a_client("ws://agent.example:80"), []))


def response_head(
    line: str = "HTTP/1.1 101 Switching Protocols", *extra: str, accepted: str = ACCEPT
) -> bytes:
    lines = [line, "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accepted}", *extra]
    return ("\r\n".join(line for line in lines if line is not None) + "\r\n\r\n").encode("latin-1")


def check(head: bytes, key: str = KEY) -> int:
    protocol = a_client(key=key)
    encode_request(protocol, [])
    return check_response(protocol, head)


class TestClientJudges:
    def test_a_sound_101_opens(self) -> None:
        assert check(response_head()) == 101
        assert check(response_head("HTTP/1.1 101 whatever")) == 101
        assert check(response_head("HTTP/1.1 101 ")) == 101

    @pytest.mark.parametrize(
        "head",
        [
            pytest.param(response_head(accepted="AAAAAAAAAAAAAAAAAAAAAAAAAAA="), id="wrong-accept"),
            pytest.param(response_head().replace(b"Sec-WebSocket-Accept", b"X-Accept"), id="no-accept"),
            pytest.param(response_head().replace(b"Upgrade: websocket\r\n", b""), id="no-upgrade"),
            pytest.param(response_head().replace(b"Connection: Upgrade\r\n", b""), id="no-connection"),
            pytest.param(response_head().replace(b"websocket", b"h2c"), id="other-upgrade"),
            pytest.param(
                response_head("HTTP/1.1 101 S", "Sec-WebSocket-Protocol: sage.1.json"),
                id="unasked-subprotocol",
            ),
            pytest.param(
                response_head("HTTP/1.1 101 S", "Sec-WebSocket-Extensions: permessage-deflate"),
                id="extension",
            ),
            pytest.param(response_head("HTTP/1.1 101 S", "Bad Name: x"), id="malformed"),
        ],
    )
    def test_a_101_that_breaks_the_rules_is_a_dial_error(self, head: bytes) -> None:
        with pytest.raises(DialError, match=r"^the 101 answer is not a WebSocket's: ") as raised:
            check(head)
        assert raised.value.status == 101
        assert raised.value.__cause__ is not None

    def test_http_1_0_is_refused_with_its_status(self) -> None:
        with pytest.raises(DialError, match=r"^the answer is HTTP/1\.0, not HTTP/1\.1$") as raised:
            check(response_head("HTTP/1.0 101 Switching Protocols"))
        assert raised.value.status == 101

    @pytest.mark.parametrize(
        "line",
        ["hello", "HTTP/1.1 10 x", "HTTP/1.1 1010 x", "HTTP/1.1101 x", "SSH-2.0-OpenSSH_9", "\x1b[31mred"],
    )
    def test_what_is_not_http_is_shown_escaped(self, line: str) -> None:
        with pytest.raises(DialError, match=r"^the answer is not HTTP: '") as raised:
            check(f"{line}\r\n\r\n".encode())
        assert raised.value.status is None
        assert str(raised.value).isprintable()

    @pytest.mark.parametrize("status", [100, 200, 204, 302, 400, 401, 403, 404, 407, 426, 500, 503])
    def test_any_other_status_is_handed_back(self, status: int) -> None:
        assert check(f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n".encode()) == status

    @pytest.mark.parametrize(
        "case", [one for one in HANDSHAKES if one["role"] == "client"], ids=lambda case: case["name"]
    )
    def test_as_a_go_client_would(self, case: dict[str, Any]) -> None:
        stricter = {
            "client/unasked-subprotocol",
            "client/unasked-extension",
            "client/unknown-extension",
            "client/case-and-lists",  # an Upgrade beside websocket
            "client/http-1.0",
        }
        key = case["request"].split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
        if case["ok"] and case["name"] not in stricter:
            assert check(case["response"].encode(), key) == 101
        else:
            with contextlib.suppress(DialError):
                assert check(case["response"].encode(), key) != 101


class TestContentLength:
    @pytest.mark.parametrize(
        ("fields", "length"),
        [
            ("Content-Length: 12\r\n", 12),
            ("content-length:12\r\n", 12),
            ("X: y\r\nCONTENT-LENGTH: \t 0 \r\n", 0),
            ("Content-Length: 999999999\r\n", MAX_BODY),
            ("Content-Length: 9999999999999\r\n", MAX_BODY),
            ("Content-Length: twelve\r\n", MAX_BODY),
            ("Content-Length: -1\r\n", MAX_BODY),
            ("", MAX_BODY),
        ],
    )
    def test_it_is_read_and_bounded(self, fields: str, length: int) -> None:
        assert content_length(f"HTTP/1.1 403 Forbidden\r\n{fields}\r\n".encode()) == length
