"""The head of an opening request: what is sound, what is read of it, what is kept (RFC 9112)."""

from __future__ import annotations

import dataclasses
import pickle
import tracemalloc
from typing import Any

import pytest

from sage_ws.aio.head import ReceivedRequest, parse_fields, parse_head

LINES = (
    "Host: agent.example:8080",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


def head(*lines: str, first: str = "GET /ws HTTP/1.1") -> bytes:
    return "".join(f"{line}\r\n" for line in (first, *lines, "")).encode("latin-1")


class TestGrammar:
    @pytest.mark.parametrize(
        "line",
        [
            "X: y",
            "X:y",
            "X:",
            "X: ",
            "X:\t y \t",
            "!#$%&'*+.^_`|~0-9A-Za-z-: y",
            "X: a:b: c",
            "X: caf\xe9 \x80\xff",
            "X: \t\x20\x7e",
        ],
    )
    def test_a_sound_line(self, line: str) -> None:
        assert parse_head(head(*LINES, line)) is not None
        assert parse_head(head(line, *LINES)) is not None

    @pytest.mark.parametrize(
        "line",
        [
            "X",
            "X y",
            ": y",
            " X: y",
            "\tX: y",
            "X : y",
            "X\t: y",
            "X Y: z",
            "(X): y",
            "X\xe9: y",
            "X\x00: y",
            "X: y\x00",
            "X: \x01",
            "X: \x08",
            "X: \x0b",
            "X: \x0c",
            "X: \x1b[31m",
            "X: \x1f",
            "X: \x7f",
            "X: a\rb",
            "X: a\nb",
            "X: a\n",
            "X: a\r",
            "X: a\n\r",
            "X: a\r\n b",
            "X: a\r\n\tb",
            "X: a\nHost: b",
            "X: a\rHost: b",
        ],
    )
    def test_one_that_is_not(self, line: str) -> None:
        assert parse_head(head(*LINES, line)) is None
        assert parse_head(head(line, *LINES)) is None

    @pytest.mark.parametrize(
        "first",
        [
            "",
            "GET",
            "GET /ws",
            "GET /ws HTTP/1.0",
            "GET /ws HTTP/1.2",
            "GET /ws HTTP/2.0",
            "GET /ws HTTP/1.1 ",
            "GET /ws http/1.1",
            "GET  /ws HTTP/1.1",
            "GET  HTTP/1.1",
            "GET /w s HTTP/1.1",
            "GET /ws\t HTTP/1.1",
            "GET /w\xe9 HTTP/1.1",
            "GET /w\x00s HTTP/1.1",
            "GET /w\x7fs HTTP/1.1",
            " GET /ws HTTP/1.1",
            "get /ws HTTP/1.1",
            "POST /ws HTTP/1.1",
            "GET\t/ws HTTP/1.1",
            "GET /ws HTTP/1.1\r",
            "GET /ws HTTP/1.1\n",
            "GET /ws HTTP/1.1\nX: y",
            "\r\nGET /ws HTTP/1.1",
        ],
    )
    def test_a_first_line_that_is_not(self, first: str) -> None:
        assert parse_head(head(*LINES, first=first)) is None

    @pytest.mark.parametrize("cut", [b"", b"GET /ws HTTP/1.1\r\n", head(*LINES)[:-1], head(*LINES)[:-2]])
    def test_an_incomplete_one(self, cut: bytes) -> None:
        assert parse_head(cut) is None

    def test_bytes_behind_it(self) -> None:
        assert parse_head(head(*LINES) + b"x") is None
        assert parse_head(head(*LINES) + head(*LINES)) is None

    def test_a_head_without_a_field_is_sound(self) -> None:
        request = parse_head(head())
        assert request is not None
        assert (request.path, request.fields, request.lines) == ("/ws", {}, b"")
        assert dict(request.headers) == {}

    @pytest.mark.parametrize("filler", ["a", "a:", ":", "a\r", "\r", " ", "a: b\r\nX"])
    def test_an_unsound_one_is_given_up_in_linear_time(self, filler: str) -> None:
        # Quadratic backtracking over 64 KiB would take longer than a test may.
        assert parse_head(head(*[filler * (60_000 // len(filler))], "\x00: x")) is None


class TestFields:
    def test_what_the_opening_handshake_reads_is_found_in_any_case(self) -> None:
        request = parse_head(head(*(line.swapcase() for line in LINES), "origin:\thttp://a \t", "X-Host: b"))
        assert request is not None
        assert request.fields == {
            "host": ["AGENT.EXAMPLE:8080"],
            "upgrade": ["WEBSOCKET"],
            "connection": ["uPGRADE"],
            "sec-websocket-key": ["DgHLihnHBxbSzsbUB25Jzq=="],
            "sec-websocket-version": ["13"],
            "origin": ["http://a"],
        }

    def test_repeated_ones_keep_their_order(self) -> None:
        request = parse_head(head("Upgrade: a", "Host: b", "upgrade: c", "UPGRADE:", "Host:\t"))
        assert request is not None
        assert request.fields == {"upgrade": ["a", "c", ""], "host": ["b", ""]}

    def test_only_blanks_and_tabs_around_a_value_are_none_of_it(self) -> None:
        request = parse_head(head("Upgrade: \t\xa0a\x85 \t", "X: \xa0b\x85 "))
        assert request is not None
        assert request.fields == {"upgrade": ["\xa0a\x85"]}
        assert dict(request.headers) == {"upgrade": "\xa0a\x85", "x": "\xa0b\x85"}

    def test_a_name_within_a_value_or_another_name_is_none(self) -> None:
        request = parse_head(head("X: Host: a", "X-Host: b", "Hostx: c", "Host-: d", "X:Upgrade:e"))
        assert request is not None
        assert request.fields == {}

    def test_all_of_them_are_there_for_who_asks(self) -> None:
        request = parse_head(head(*LINES, "X-A: b", "x-a:c\t", "X-Latin: caf\xe9"))
        assert request is not None
        assert request.headers["HOST"] == "agent.example:8080"
        assert request.headers["x-latin"] == "caf\xe9"
        assert request.headers.get_all("X-a") == ["b", "c"]
        assert [name for name, _ in request.headers.raw_items()][-3:] == ["X-A", "x-a", "X-Latin"]
        assert parse_fields(request.lines) == request.headers


def received(*lines: str, **changed: Any) -> ReceivedRequest:
    request = parse_head(head(*LINES, *lines))
    assert request is not None
    made = ReceivedRequest("/ws?x=1", request.lines, ("127.0.0.1", 5), "https://a", {"subject": ()})
    return dataclasses.replace(made, **changed)


class TestReceivedRequest:
    def test_its_headers_match_in_any_case(self) -> None:
        request = received("Authorization: Bearer canary")
        assert request.headers["authorization"] == "Bearer canary"
        assert "AUTHORIZATION" in request.headers
        assert "X" not in request.headers
        assert len(request.headers) == len(list(request.headers)) == 6

    def test_they_are_parsed_once_until_let_go(self) -> None:
        request = received()
        first = request.headers
        assert request.headers is first
        request.forget_headers()
        assert request.headers is not first
        assert request.headers == first

    def test_it_shows_no_token(self) -> None:
        request = received("Authorization: Bearer canary")
        shown = (
            "ReceivedRequest(path='/ws', remote_address=('127.0.0.1', 5), origin='https://a',"
            " peer_certificate={'subject': ()})"
        )
        assert repr(request) == shown
        assert request.headers
        assert repr(request) == shown

    def test_equal_is_who_says_the_same(self) -> None:
        assert received() == received()
        assert received("X: y") == received("x:\ty ")
        assert received("A: b", "C: d") == received("C: d", "A: b")
        assert received("X: y") != received("X: z")
        for changed in (
            {"path": "/"},
            {"remote_address": None},
            {"origin": None},
            {"peer_certificate": None},
        ):
            assert received() != received(**changed)
        assert received() != "/ws?x=1"

    def test_it_does_not_change_and_has_no_hash(self) -> None:
        request = received()
        with pytest.raises(AttributeError):
            request.path = "/"  # type: ignore[misc]
        with pytest.raises((AttributeError, TypeError)):
            request.headers = {}  # type: ignore[misc]
        with pytest.raises(TypeError):
            hash(request)

    def test_it_travels_between_processes(self) -> None:
        request = received("X: y")
        assert pickle.loads(pickle.dumps(request)) == request

    def test_unread_it_is_little_more_than_its_bytes(self) -> None:
        request = parse_head(head(*LINES))
        assert request is not None
        assert request.headers  # imports now what is imported at the first read
        count, kept, size = 200, list[ReceivedRequest](), len(request.lines)
        lines = [bytes(bytearray(request.lines)) for _ in range(count)]
        tracemalloc.start()
        try:
            kept += [ReceivedRequest("/ws", one, None, None) for one in lines]
            unread, _ = tracemalloc.get_traced_memory()
            assert all("Host" in one.headers for one in kept)
            read, _ = tracemalloc.get_traced_memory()
            for one in kept:
                one.forget_headers()
            let_go, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert unread / count < 128
        assert read / count > 5 * size
        assert let_go < read / 3, "of what remains, most are tuples that the interpreter keeps for reuse"
