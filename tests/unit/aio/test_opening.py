"""The server's side of the opening handshake without a socket: tables of heads (RFC 6455 §4.2, wire.md)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from sage_ws import RefusedError
from sage_ws.aio.opening import (
    MAX_HEAD,
    MAX_HEADERS,
    MAX_LINE,
    HeadReader,
    Refusal,
    accept,
    check_origin,
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
        heads = [reader.receive_data(data[start : start + size]) for start in range(0, end, size)]
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
        assert reader.receive_data(b"G\r\nname: ") is None
        for _ in range(63):
            assert reader.receive_data(b"v" * 1024) is None
        with pytest.raises(Refusal) as raised:
            reader.receive_data(b"v" * 1024)
        assert raised.value.status == 431

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


REFUSED = {
    "post": (request_head("POST /ws HTTP/1.1"), 405, "method POST is not GET"),
    "lower-case-method": (request_head("get /ws HTTP/1.1"), 405, "method get is not GET"),
    "405-before-400": (request_head("POST /ws HTTP/1.0"), 405, "not GET"),
    "http-1.0": (request_head("GET /ws HTTP/1.0"), 400, "HTTP/1.0 is not HTTP/1.1"),
    "http-2": (request_head("GET /ws HTTP/2.0"), 400, "HTTP/2.0 is not"),
    "http-0.9": (request_head("GET /ws"), 400, "malformed request line"),
    "two-spaces": (request_head("GET  /ws HTTP/1.1"), 400, "malformed request line"),
    "space-in-path": (request_head("GET /w s HTTP/1.1"), 400, "malformed request line"),
    "raw-byte-in-path": (request_head("GET /w\xe9 HTTP/1.1"), 400, "malformed request line"),
    "leading-space": (request_head(" GET /ws HTTP/1.1"), 400, "malformed request line"),
    "empty": (b"\r\n\r\n", 400, "malformed request line ''"),
    "tls-to-plain-port": (b"\x16\x03\x01\x02\x00\r\n\r\n", 400, r"'\x16\x03\x01"),
    "body": (request_head("GET /ws HTTP/1.1", ("Content-Length", "5")), 400, "malformed"),
    "te": (request_head("GET / HTTP/1.1", ("Transfer-Encoding", "chunked")), 400, "malformed"),
    "empty-te": (request_head("GET / HTTP/1.1", ("Transfer-Encoding", "")), 400, "malformed head: transfer"),
    "no-number": (request_head("GET / HTTP/1.1", ("Content-Length", "")), 400, "malformed head: unsupported"),
    "zeros": (request_head("GET / HTTP/1.1", ("Content-Length", "00")), 400, "malformed head: unsupported"),
    "signed": (request_head("GET / HTTP/1.1", ("Content-Length", "+0")), 400, "malformed head: unsupported"),
    "two-lengths-in-one": (request_head("GET / HTTP/1.1", ("Content-Length", "0, 0")), 400, "malformed"),
    "two-lengths": (
        request_head("GET / HTTP/1.1", ("Content-Length", "0"), ("content-length", "5")),
        400,
        "malformed head: unsupported request body",
    ),
    "both-lengths": (
        request_head("GET / HTTP/1.1", ("Content-Length", "0"), ("Transfer-Encoding", "identity")),
        400,
        "malformed head: transfer codings",
    ),
    "bare-lf": (request_head().replace(b"\r\nHost", b"\nHost"), 400, "malformed"),
    "bare-cr": (request_head().replace(b"Host: ", b"Host: a\rb"), 400, "CRLF"),
    "bad-name": (request_head("GET / HTTP/1.1", ("Bad Name", "x")), 400, "malformed head"),
    "nul": (request_head("GET / HTTP/1.1", ("X", "a\x00b")), 400, "malformed head"),
    "folded": (request_head().replace(b"Host:", b" Host:"), 400, "malformed head"),
    "no-colon": (request_head().replace(b"Host: ", b"Host "), 400, "malformed head"),
    "no-host": (request_head(host=None), 400, "exactly one Host"),
    "two-hosts": (request_head("GET / HTTP/1.1", ("Host", "b")), 400, "exactly one Host"),
    "no-upgrade": (request_head(upgrade=None), 426, "a proxy"),
    "other-upgrade": (request_head(upgrade="h2c"), 426, "a proxy"),
    "no-connection": (request_head(connection=None), 426, "a proxy"),
    "other-connection": (request_head(connection="close"), 426, "a proxy"),
    "version-8": (request_head(sec_websocket_version="8"), 426, "13 is needed, not '8'"),
    "no-version": (request_head(sec_websocket_version=None), 426, "needed, not none"),
    "two-versions": (request_head("GET / HTTP/1.1", ("Sec-WebSocket-Version", "13")), 426, "'13, 13'"),
    "no-key": (request_head(sec_websocket_key=None), 400, "Sec-WebSocket-Key"),
    "short-key": (request_head(sec_websocket_key="c2hvcnQ="), 400, "Sec-WebSocket-Key"),
    "key-no-base64": (request_head(sec_websocket_key="!" * 24), 400, "Sec-WebSocket-Key"),
    "two-keys": (request_head("GET / HTTP/1.1", ("Sec-WebSocket-Key", KEY)), 400, "Sec-WebSocket-Key"),
    "long-key": (request_head(sec_websocket_key="x" + KEY), 400, "Sec-WebSocket-Key"),
    "key-and-more": (request_head(sec_websocket_key=KEY + "="), 400, "Sec-WebSocket-Key"),
    "two-protocols-in-one": (
        request_head("GET / HTTP/1.1", ("Sec-WebSocket-Protocol", "a b")),
        400,
        "invalid Sec-WebSocket-Protocol header",
    ),
    "no-protocol": (
        request_head("GET / HTTP/1.1", ("Sec-WebSocket-Protocol", ",")),
        400,
        "invalid Sec-WebSocket-Protocol header",
    ),
    "no-option": (request_head("GET / HTTP/1.1", ("Connection", "")), 400, "invalid Connection header"),
    "two-options-in-one": (request_head(connection="Upgrade, a b"), 400, "invalid Connection header"),
    "version-and-more": (request_head(sec_websocket_version="13\xa0"), 426, "13 is needed"),
    "almost-upgrade": (request_head(upgrade="websockets"), 426, "a proxy"),
}


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
            pytest.param(request_head(connection=", keep-alive,,\tUpgrade ,"), id="empty-options"),
            pytest.param(request_head(sec_websocket_key=KEY[:-3] + "R=="), id="trailing-bits-of-the-key"),
            pytest.param(request_head("GET / HTTP/1.1"), id="root"),
            pytest.param(request_head("GET /any/path?q=1&r=%20 HTTP/1.1"), id="query"),
            pytest.param(request_head("GET /ws HTTP/1.1", ("Content-Length", "0")), id="empty-body"),
            pytest.param(
                request_head("GET /ws HTTP/1.1", ("Content-Length", "0"), ("content-length", "0")), id="twice"
            ),
            pytest.param(request_head("GET /ws HTTP/1.1", ("X-Latin", "caf\xe9")), id="latin-1-value"),
        ],
    )
    def test_accepted(self, head: bytes) -> None:
        assert judge(head).startswith(b"HTTP/1.1 101 ")

    @pytest.mark.parametrize(("head", "status", "text"), REFUSED.values(), ids=REFUSED)
    def test_refused(self, head: bytes, status: int, text: str) -> None:
        refusal = refused(head)
        assert refusal.status == status
        assert text in str(refusal)

    @pytest.mark.parametrize(
        "head",
        [
            request_head("GET / HTTP/1.1", ("X", "\x1b[31mred\x07")),
            request_head("GET / HTTP/1.1", ("X\x1b[2J", "y")),
            request_head("GET / HTTP/1.1", ("X", "y" * 8000 + "\x01")),
            request_head(sec_websocket_key="k" * 8000),
            request_head(connection="Upgrade, \xe9" + "x" * 8000),
        ],
    )
    def test_what_a_peer_wrote_is_shown_escaped_and_cut(self, head: bytes) -> None:
        text = str(refused(head))
        assert text.isprintable()
        assert len(text) < 400

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
