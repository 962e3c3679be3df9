"""The opening handshake's rules without a socket: tables of heads, both sides (RFC 6455 §4, WIRE.md)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from sage_ws import DialError, RefusedError
from sage_ws.aio import opening
from sage_ws.aio.opening import (
    MAX_BODY,
    MAX_HEAD,
    MAX_HEADERS,
    MAX_LINE,
    HeadReader,
    Refusal,
    accept,
    check_headers,
    check_origin,
    check_response,
    content_length,
    encode_request,
    parse_request,
    refusal_of,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "frames.json"
HANDSHAKES = json.loads(VECTORS.read_text())["handshakes"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
FIELDS = {
    "Host": "agent.example:8080",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request_head(line: str = "GET /ws HTTP/1.1", *extra: tuple[str, str], **changed: str | None) -> bytes:
    """An upgrade request; a keyword changes a field (``_`` for ``-``), None leaves it out."""
    replaced = {name.replace("_", "-").lower(): value for name, value in changed.items()}
    pairs = [(name, replaced.get(name.lower(), value)) for name, value in FIELDS.items()]
    lines = [line, *(f"{name}: {value}" for name, value in [*pairs, *extra] if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def judge(head: bytes, origins: Any = None) -> bytes:
    """The server's way from bytes to the 101, as `aio/accepting.py` walks it."""
    reader = HeadReader()
    whole = reader.receive_data(head)
    assert whole is not None, "the head is incomplete"
    request = parse_request(whole, "/healthz")
    check_origin(request, origins)
    return accept(request)


def refused(head: bytes) -> Refusal:
    with pytest.raises(Refusal) as raised:
        judge(head)
    return raised.value


def head_of(size: int) -> bytes:
    """A head of so many bytes, every line far below its limit."""
    head = b"G\r\n" + (b"h:" + b"v" * 996 + b"\r\n") * 60
    return head + b"h:" + b"v" * (size - len(head) - 6) + b"\r\n\r\n"


class TestHeadReader:
    def test_a_head_comes_out_whole_and_keeps_what_follows(self) -> None:
        reader = HeadReader()
        assert reader.receive_data(request_head() + b"\x81\x00after") == request_head()
        assert reader.rest == b"\x81\x00after"

    def test_the_first_empty_line_ends_it(self) -> None:
        reader = HeadReader()
        assert reader.receive_data(b"a\r\n\r\nb\r\n\r\n") == b"a\r\n\r\n"
        assert reader.rest == b"b\r\n\r\n"

    @pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 64])
    def test_any_chunking_gives_the_same(self, size: int) -> None:
        reader = HeadReader()
        data = request_head() + b"tail"
        end = len(request_head())
        heads = []
        for start in range(0, end, size):
            heads.append(reader.receive_data(data[start : start + size]))
        assert heads[:-1] == [None] * (len(heads) - 1)
        assert heads[-1] == request_head()
        assert request_head() + reader.rest == data[: len(heads) * size]

    @pytest.mark.parametrize("size", [1, 1 << 20])
    @pytest.mark.parametrize(
        ("head", "status"),
        [
            pytest.param(b"G" * MAX_LINE + b"\r\n\r\n", None, id="line-at-its-limit"),
            pytest.param(b"G" * (MAX_LINE + 1) + b"\r\n\r\n", 414, id="line-over-its-limit"),
            pytest.param(b"G" * (MAX_LINE + 2), 414, id="line-without-end"),
            pytest.param(b"G\r\nh:" + b"v" * (MAX_LINE - 2) + b"\r\n\r\n", None, id="header-at-its-limit"),
            pytest.param(b"G\r\nh:" + b"v" * (MAX_LINE - 1) + b"\r\n\r\n", 431, id="header-over-its-limit"),
            pytest.param(b"G\r\n" + b"h:v\r\n" * MAX_HEADERS + b"\r\n", None, id="headers-at-their-limit"),
            pytest.param(
                b"G\r\n" + b"h:v\r\n" * (MAX_HEADERS + 1) + b"\r\n", 431, id="headers-over-their-limit"
            ),
            pytest.param(head_of(MAX_HEAD), None, id="head-at-its-limit"),
            pytest.param(head_of(MAX_HEAD + 1), 431, id="head-over-its-limit"),
            pytest.param(b"G\r\n" + b"h:v\r\n" * MAX_HEAD, 431, id="headers-without-end"),
        ],
    )
    def test_limits_are_exact_however_it_arrives(self, head: bytes, status: int | None, size: int) -> None:
        reader = HeadReader()

        def feed() -> bytes | None:
            whole = None
            for start in range(0, len(head), size):
                whole = reader.receive_data(head[start : start + size])
            return whole

        if status is None:
            assert feed() == head
        else:
            with pytest.raises(Refusal) as raised:
                feed()
            assert raised.value.status == status

    def test_an_endless_head_is_refused_before_it_is_collected(self) -> None:
        reader = HeadReader()
        taken = 0
        with pytest.raises(Refusal):
            for _ in range(20 * 1024):
                reader.receive_data(b"G\r\nname: " + b"v" * 1015 if not taken else b"v" * 1024)
                taken += 1024
        assert taken <= MAX_HEAD

    def test_the_search_starts_where_it_stopped(self) -> None:
        # Were it to start anew with each byte, 64 KiB one by one would be 2 GiB of searching.
        searched: list[int] = []

        class Spied(bytearray):
            def find(self, needle: bytes, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
                searched.append((len(self) if end is None else min(end, len(self))) - start)
                return super().find(needle, start, len(self) if end is None else end)

        reader = HeadReader()
        reader._buffer = Spied()
        for position in range(MAX_HEAD):
            reader.receive_data(b"G\r\n"[position : position + 1] or b"v")
        empty_lines = searched[::2]
        assert max(empty_lines) <= 4


class TestRequests:
    def test_a_sound_one_is_answered_as_the_rfc_shows(self) -> None:
        answer = judge(request_head())
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert answer.endswith(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in answer.decode().split("\r\n")[1:-2])
        assert fields["Upgrade"] == "websocket"
        assert fields["Connection"] == "Upgrade"
        assert fields["Sec-WebSocket-Accept"] == ACCEPT

    @pytest.mark.parametrize(
        "extra",
        [
            ("Sec-WebSocket-Protocol", "sage.1.cbor, sage.1.json"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ],
    )
    def test_what_is_offered_is_not_chosen(self, extra: tuple[str, str]) -> None:
        answer = judge(request_head("GET /ws HTTP/1.1", extra)).lower()
        assert b"protocol:" not in answer
        assert b"extensions" not in answer

    @pytest.mark.parametrize(
        "head",
        [
            pytest.param(request_head(upgrade="WebSocket"), id="case-of-upgrade"),
            pytest.param(request_head(upgrade="foo, websocket"), id="upgrade-among-others"),
            pytest.param(request_head(connection="keep-alive, Upgrade"), id="connection-list"),
            pytest.param(request_head(connection="UPGRADE"), id="case-of-connection"),
            pytest.param(request_head("GET / HTTP/1.1"), id="root"),
            pytest.param(request_head("GET /any/path?q=1&r=%20 HTTP/1.1"), id="query"),
            pytest.param(request_head("GET /ws HTTP/1.1", ("Content-Length", "0")), id="empty-body"),
            pytest.param(request_head("GET /ws HTTP/1.1", ("X-Latin", "caf\xe9")), id="latin-1-value"),
        ],
    )
    def test_accepted(self, head: bytes) -> None:
        assert judge(head).startswith(b"HTTP/1.1 101 ")

    @pytest.mark.parametrize(
        ("head", "status", "text"),
        [
            # what it is not
            pytest.param(request_head("POST /ws HTTP/1.1"), 405, "method POST is not GET", id="post"),
            pytest.param(request_head("get /ws HTTP/1.1"), 405, "method get is not GET", id="lower-case-method"),
            pytest.param(request_head("POST /ws HTTP/1.0"), 405, "not GET", id="405-before-400"),
            pytest.param(request_head("GET /ws HTTP/1.0"), 400, "HTTP/1.0 is not HTTP/1.1", id="http-1.0"),
            pytest.param(request_head("GET /ws HTTP/2.0"), 400, "HTTP/2.0 is not", id="http-2"),
            pytest.param(request_head("GET /ws"), 400, "malformed request line", id="http-0.9"),
            pytest.param(request_head("GET  /ws HTTP/1.1"), 400, "malformed request line", id="two-spaces"),
            pytest.param(request_head("GET /w s HTTP/1.1"), 400, "malformed request line", id="space-in-path"),
            pytest.param(request_head("GET /w\xe9 HTTP/1.1"), 400, "malformed request line", id="raw-byte-in-path"),
            pytest.param(request_head(" GET /ws HTTP/1.1"), 400, "malformed request line", id="leading-space"),
            pytest.param(b"\r\n\r\n", 400, "malformed request line ''", id="empty"),
            pytest.param(b"\x16\x03\x01\x02\x00\r\n\r\n", 400, r"'\x16\x03\x01", id="tls-to-plain-port"),
            # how its headers are written
            pytest.param(request_head("GET /ws HTTP/1.1", ("Content-Length", "5")), 400, "malformed", id="body"),
            pytest.param(request_head("GET / HTTP/1.1", ("Transfer-Encoding", "chunked")), 400, "malformed", id="te"),
            pytest.param(request_head().replace(b"\r\nHost", b"\nHost"), 400, "malformed", id="bare-lf"),
            pytest.param(request_head().replace(b"Host: ", b"Host: a\rb"), 400, "CRLF", id="bare-cr"),
            pytest.param(request_head("GET / HTTP/1.1", ("Bad Name", "x")), 400, "malformed head", id="bad-name"),
            pytest.param(request_head("GET / HTTP/1.1", ("X", "a\x00b")), 400, "malformed head", id="nul"),
            pytest.param(request_head().replace(b"Host:", b" Host:"), 400, "malformed head", id="folded"),
            pytest.param(request_head().replace(b"Host: ", b"Host "), 400, "malformed head", id="no-colon"),
            pytest.param(request_head(host=None), 400, "exactly one Host", id="no-host"),
            pytest.param(request_head("GET / HTTP/1.1", ("Host", "b")), 400, "exactly one Host", id="two-hosts"),
            # what it does not ask
            pytest.param(request_head(upgrade=None), 426, "a proxy", id="no-upgrade"),
            pytest.param(request_head(upgrade="h2c"), 426, "a proxy", id="other-upgrade"),
            pytest.param(request_head(connection=None), 426, "a proxy", id="no-connection"),
            pytest.param(request_head(connection="close"), 426, "a proxy", id="other-connection"),
            pytest.param(request_head(sec_websocket_version="8"), 426, "13 is needed, not '8'", id="version-8"),
            pytest.param(request_head(sec_websocket_version=None), 426, "needed, not none", id="no-version"),
            pytest.param(
                request_head("GET / HTTP/1.1", ("Sec-WebSocket-Version", "13")), 426, "'13, 13'", id="two-versions"
            ),
            pytest.param(request_head(sec_websocket_key=None), 400, "Sec-WebSocket-Key", id="no-key"),
            pytest.param(request_head(sec_websocket_key="c2hvcnQ="), 400, "Sec-WebSocket-Key", id="short-key"),
            pytest.param(request_head(sec_websocket_key="!" * 24), 400, "Sec-WebSocket-Key", id="key-no-base64"),
            pytest.param(
                request_head("GET / HTTP/1.1", ("Sec-WebSocket-Key", KEY)), 400, "Sec-WebSocket-Key", id="two-keys"
            ),
        ],
    )  # fmt: skip
    def test_refused(self, head: bytes, status: int, text: str) -> None:
        refusal = refused(head)
        assert refusal.status == status
        assert text in str(refusal)

    def test_a_refused_version_says_which_is_spoken(self) -> None:
        assert refused(request_head(sec_websocket_version="8")).headers == {"Sec-WebSocket-Version": "13"}

    def test_a_missing_upgrade_says_what_is_spoken(self) -> None:
        assert refused(request_head(upgrade=None)).headers == {"Upgrade": "websocket"}

    def test_a_wrong_method_says_which_is_right(self) -> None:
        assert refused(request_head("PUT / HTTP/1.1")).headers == {"Allow": "GET"}

    def test_a_health_check_needs_no_upgrade(self) -> None:
        plain = b"GET /healthz?full=1 HTTP/1.1\r\nHost: a\r\n\r\n"
        assert "Upgrade" not in parse_request(plain, "/healthz").headers
        with pytest.raises(Refusal, match="WebSocket endpoint"):
            parse_request(plain, None)
        with pytest.raises(Refusal, match="WebSocket endpoint"):
            parse_request(plain, "/alive")

    def test_an_upgrade_at_the_health_path_is_an_upgrade(self) -> None:
        assert judge(request_head("GET /healthz HTTP/1.1")).startswith(b"HTTP/1.1 101 ")

    def test_nothing_of_a_head_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        judge(request_head("GET /ws HTTP/1.1", ("Authorization", "Bearer canary")))
        assert "canary" not in caplog.text

    @pytest.mark.parametrize(
        "case", [one for one in HANDSHAKES if one["role"] == "server"], ids=lambda case: case["name"]
    )
    def test_as_a_go_server_would(self, case: dict[str, Any]) -> None:
        origins = ["https://any.example", None]
        stricter = {"server/http-1.0"}
        if case["ok"] and case["name"] not in stricter:
            answer = judge(case["request"].encode(), origins)
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert ACCEPT.encode() in answer
        else:
            with pytest.raises(Refusal):
                judge(case["request"].encode(), origins)


def with_origin(*origins: str, host: str = "agent.example:8080") -> Any:
    head = request_head("GET / HTTP/1.1", *(("Origin", origin) for origin in origins), host=host)
    return parse_request(head, None)


class TestOrigin:
    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("http://agent.example:8080", "agent.example:8080"),
            ("https://agent.example:8080", "agent.example:8080"),
            ("https://agent.example", "agent.example"),
            ("https://agent.example:443", "agent.example"),
            ("https://agent.example", "agent.example:443"),
            ("http://agent.example", "agent.example:80"),
            ("http://AGENT.example", "agent.EXAMPLE"),
            ("http://[::1]:9000", "[::1]:9000"),
        ],
    )
    def test_without_a_list_the_own_host_passes(self, origin: str, host: str) -> None:
        assert check_origin(with_origin(origin, host=host), None) == origin

    def test_without_a_list_none_passes(self) -> None:
        assert check_origin(with_origin(), None) is None

    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("https://evil.example", "agent.example"),
            ("https://agent.example.evil.example", "agent.example"),
            ("https://evil.example/agent.example", "agent.example"),
            ("https://agent.example@evil.example", "agent.example"),
            ("https://agent.example:8081", "agent.example:8080"),
            ("https://agent.example:443", "agent.example:80"),
            ("http://agent.example", "agent.example:443"),
            ("null", "agent.example"),
            ("", "agent.example"),
            ("agent.example", "agent.example"),
            ("https://agent.example:port", "agent.example"),
            ("https://[bad", "agent.example"),
            ("https://agent.example/", "agent.example"),
            ("https://", ""),
        ],
    )
    def test_without_a_list_another_host_does_not(self, origin: str, host: str) -> None:
        with pytest.raises(Refusal, match="is not this host") as raised:
            check_origin(with_origin(origin, host=host), None)
        assert raised.value.status == 403

    LIST = ("https://good.example", "http://localhost:3000")

    @pytest.mark.parametrize(
        "origin",
        ["https://good.example", "https://GOOD.example", "https://good.example:443", "http://localhost:3000"],
    )
    def test_a_listed_one_passes(self, origin: str) -> None:
        assert check_origin(with_origin(origin), self.LIST) == origin

    @pytest.mark.parametrize(
        "origin",
        [
            "http://good.example",  # scheme
            "https://good.example:8443",  # port
            "https://sub.good.example",  # host
            "https://good.example.evil.example",
            "http://localhost",
            "null",
            "",
            "http://agent.example:8080",  # the own host is not in the list
        ],
    )
    def test_an_unlisted_one_does_not(self, origin: str) -> None:
        with pytest.raises(Refusal, match="is not allowed") as raised:
            check_origin(with_origin(origin), self.LIST)
        assert raised.value.status == 403

    def test_without_origin_none_must_be_listed(self) -> None:
        with pytest.raises(Refusal, match="an Origin header is needed") as raised:
            check_origin(with_origin(), self.LIST)
        assert raised.value.status == 403
        assert check_origin(with_origin(), (*self.LIST, None)) is None

    def test_an_empty_list_lets_nobody_in(self) -> None:
        for request in (with_origin(), with_origin("https://good.example")):
            with pytest.raises(Refusal):
                check_origin(request, ())

    def test_null_is_refused_though_listed(self) -> None:
        with pytest.raises(Refusal):
            check_origin(with_origin("null"), ("null",))

    def test_two_origins_are_refused(self) -> None:
        for origins in (None, self.LIST):
            with pytest.raises(Refusal, match="more than one Origin") as raised:
                check_origin(with_origin("https://good.example", "https://good.example"), origins)
            assert raised.value.status == 403


class TestRefusal:
    def test_it_is_a_whole_http_answer(self) -> None:
        head, body = Refusal(403, "no", {"X-A": "b"}).encode().split(b"\r\n\r\n", 1)
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 403 Forbidden"
        assert set(lines[1:]) == {
            b"Content-Type: text/plain; charset=utf-8",
            b"Content-Length: 3",
            b"Connection: close",
            b"X-A: b",
        }
        assert body == b"no\n"

    def test_its_length_is_in_bytes(self) -> None:
        answer = Refusal(400, "é…").encode()
        assert b"Content-Length: 6\r\n" in answer
        assert answer.endswith("\r\n\r\né…\n".encode())

    def test_a_status_without_a_name_has_one_all_the_same(self) -> None:
        assert Refusal(499, "no").encode().startswith(b"HTTP/1.1 499 Refused\r\n")

    def test_what_authorize_raised_is_answered(self) -> None:
        refusal = refusal_of(RefusedError(403, "not you"))
        assert (refusal.status, str(refusal), refusal.headers) == (403, "not you", {})

    def test_a_401_asks_for_a_token(self) -> None:
        refusal = refusal_of(RefusedError(401))
        assert (refusal.status, str(refusal)) == (401, "Unauthorized")
        assert refusal.headers == {"WWW-Authenticate": "Bearer"}

    def test_a_status_without_a_name_and_a_text_is_answered_too(self) -> None:
        refusal = refusal_of(RefusedError(499))
        assert refusal.status == 499
        assert refusal.encode().startswith(b"HTTP/1.1 499 ")


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

    @pytest.mark.parametrize("pair", [(b"X-A", "b"), ("X-A", b"b"), ("X-A", 5)])
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
            try:
                assert check(case["response"].encode(), key) != 101
            except DialError:
                pass


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
