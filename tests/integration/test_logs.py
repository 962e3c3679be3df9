"""What is logged where, and what never is: every event, brought about by a peer that means no good.

`LogWatch` of tests/conftest.py reads along in every test; here each event is brought about with a secret and
with line breaks wherever a peer, or a caller, can put one.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import accepting

from sage_ws import (
    Client,
    ConnectionLostError,
    DialError,
    HandlerError,
    RefusedError,
    Response,
    SecureMessage,
    connect,
    serve,
)

ROOT = Path(__file__).parents[2]
TEXT, BINARY, CLOSE = 0x1, 0x2, 0x8
SWITCHING = b"HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\n"
SECRET = "canary"
EVIL = "\r\n2026-01-01 ERROR sage_ws.server: faked\x1b[2J\u2028faked"
FORGED = "2026-01-01 ERROR sage_ws.server: faked"


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """All loggers at DEBUG, those of the libraries too; none holds the secret, as it is or as Base64."""
    caplog.set_level(logging.DEBUG)
    yield
    for shown in (SECRET, base64.b64encode(SECRET.encode()).decode()):
        assert shown not in caplog.text
    assert not any(line.startswith(FORGED) for line in caplog.text.splitlines())


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    """Logger, level and line of each event so far."""
    return [
        (one.name.removeprefix("sage_ws."), one.levelname, one.getMessage())
        for one in caplog.records
        if one.name.startswith("sage_ws.")
    ]


def message(payload: bytes = b"canary", **fields: Any) -> SecureMessage:
    return SecureMessage(
        payload=payload, did="did:sage:canary", signature=b"canary", metadata={"token": "canary"}, **fields
    )


def literals() -> set[tuple[str, str, str]]:
    """Every call of a logger in the sources, as the page lists it."""
    found = set()
    for path in (ROOT / "python/sage_ws").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        made = [one.args[0] for one in ast.walk(tree) if _calls(one, "logger_of")]
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and _is_logger(call.func):
                (name,), text = made, call.args[0]
                assert isinstance(name, ast.Constant)
                assert isinstance(text, ast.Constant), f"{path}:{call.lineno}: no literal"
                level = {"exception": "ERROR"}.get(call.func.attr, call.func.attr.upper())
                found.add((f"sage_ws.{name.value}", level, re.sub(r"%[sdg]", "…", text.value)))
    return found


def _calls(node: ast.AST, name: str) -> Any:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _is_logger(function: ast.Attribute) -> bool:
    levels = {"debug", "info", "warning", "error", "exception", "critical", "log"}
    return isinstance(function.value, ast.Name) and function.value.id == "logger" and function.attr in levels


class TestThePage:
    def test_it_lists_every_event(self) -> None:
        page = (ROOT / "docs/how-to/logging.md").read_text("utf-8")
        rows = re.findall(r"^\| `(sage_ws\.\w+)` \| (\w+) \| `([^`]+)` \| [^|]+ \|$", page, re.MULTILINE)
        assert len(rows) > 20
        assert set(rows) == literals()
        assert len(set(rows)) == len(rows)

    def test_every_logger_is_made_in_one_place(self) -> None:
        """But for the one that swallows what a library says of heads."""
        makers = {
            path.relative_to(ROOT / "python/sage_ws").as_posix()
            for path in (ROOT / "python/sage_ws").rglob("*.py")
            if "getLogger" in path.read_text("utf-8")
        }
        assert makers == {"logs.py", "aio/opening.py"}


class TestNormalOperation:
    async def test_no_line_for_a_message_or_a_connection(self, caplog: pytest.LogCaptureFixture) -> None:
        async def handler(one: SecureMessage) -> bytes:
            if one.payload == b"refuse":
                raise HandlerError("canary")
            return one.payload

        async with serve(handler, authorize=allow) as server:
            url = f"ws://127.0.0.1:{server.port}/ws?token=canary"
            async with connect(url, headers={"Authorization": "Bearer canary"}) as client:
                for payload in (b"canary", b"refuse", b"canary" * 100_000):
                    await client.send(message(payload))
                await client.ping()
                assert SECRET not in repr(client) + repr(server)
        assert [one[:2] for one in events(caplog)] == [("server", "INFO")]

    def test_values_show_no_content(self) -> None:
        assert "payload=<6 bytes>" in repr(message())
        assert "data=<6 bytes>" in repr(Response(True, "m-1", data=b"canary"))
        for shown in (repr(message(id="m-1")), repr(Response(True, "m-1", data=b"canary"))):
            assert "b'canary'" not in shown

    async def test_nor_does_what_a_debugger_finds_in_a_frame(self) -> None:
        shown = []

        async def authorize(request: Any) -> None:
            shown.append(repr(request))

        fields = {"Authorization": "Bearer canary"}
        async with serve(lambda _: None, authorize=authorize) as server:
            url = f"ws://127.0.0.1:{server.port}/ws?token=canary"
            async with connect(url, headers=fields) as client:
                shown += [repr(client._settings), repr(client._link)]
        client = Client(url, proxy="http://me:canary@127.0.0.1")
        shown.append(repr(client._settings))
        assert shown[0].startswith("ReceivedRequest(path='/ws', remote_address=('127.0.0.1', ")
        assert not any(SECRET in one for one in shown)


async def allow(request: Any) -> str:
    return "canary"


class TestWhatAClientSays:
    @pytest.fixture
    def refusing(self, lying_server: Any) -> Callable[[bytes], Any]:
        """A server that answers every opening handshake with these bytes; ``%s`` is the whole request."""

        def start(answer: bytes) -> Any:
            async def script(peer: Any) -> None:
                head = await peer.reader.readuntil(b"\r\n\r\n")
                peer.write(answer.replace(b"%s", head))

            return lying_server(script, handshake=False)

        return start

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(b"HTTP/1.1 401 No\r\n\r\nyou sent %s", id="body"),
            pytest.param(b"HTTP/1.1 503 No\r\n\r\n%s", id="healing"),
            pytest.param(b"%s", id="echo"),
            pytest.param(b"HTTP/1.1 101 Yes\r\nX: %s", id="header"),
            pytest.param(SWITCHING + b"Upgrade: canary\r\n\r\n", id="upgrade"),
            pytest.param(
                SWITCHING + b"Upgrade: websocket\r\nSec-WebSocket-Accept: canary\r\n\r\n", id="accept"
            ),
            pytest.param(SWITCHING + b"canary canary\r\n\r\n", id="no field"),
            pytest.param(b"HTTP/1.0 200 Yes\r\nX: %s", id="old"),
            pytest.param(b"\x16\x03%s", id="tls"),
        ],
    )
    async def test_a_dial_that_failed(
        self, refusing: Any, caplog: pytest.LogCaptureFixture, answer: bytes
    ) -> None:
        async with refusing(answer + b"\n" + FORGED.encode() + b"\x1b[2J") as server:
            client = Client(
                f"{server.url}?token=canary&a=1",
                headers={"Authorization": "Bearer canary", "Cookie": "session=canary; b=canary"},
            )
            with pytest.raises(DialError) as raised:
                await client.send(message())
            await client.close()
        assert SECRET not in "".join(traceback.format_exception(raised.value))
        assert str(raised.value).isprintable()
        (event,) = events(caplog)
        assert event[:2] == ("client", "INFO")
        assert event[2] == f"dial to 127.0.0.1:{server.port} failed: {raised.value}"

    async def test_a_body_is_quoted_but_for_what_we_sent(self, refusing: Any) -> None:
        async with refusing(b"HTTP/1.1 403 No\r\n\r\nBearer canary-1 may not; ask root") as server:
            client = Client(server.url, headers={"Authorization": "Bearer canary-1"})
            with pytest.raises(DialError, match=r"'\*\*\* \*\*\* may not; ask root'$"):
                await client.connect()

    @pytest.mark.parametrize(
        "url", ["ws://me:canary@h\u2100st/", "me:canary@host/ws", "http://me:canary@host"]
    )
    def test_a_url_that_is_none(self, url: str) -> None:
        with pytest.raises(ValueError, match="^url ") as raised:
            Client(url)
        assert SECRET not in str(raised.value)

    async def test_headers_that_raise(self, caplog: pytest.LogCaptureFixture) -> None:
        def headers() -> dict[str, str]:
            raise ValueError(f"no token{EVIL}")

        client = Client("ws://127.0.0.1:9/ws?canary", headers=headers)
        with pytest.raises(DialError):
            await client.connect()
        (event,) = events(caplog)
        assert event[2].startswith(
            "dial to 127.0.0.1:9 failed: headers= failed: ValueError: no token\\r\\n2026"
        )

    async def test_a_proxy_that_refuses(self, lying_server: Any, caplog: pytest.LogCaptureFixture) -> None:
        async def script(peer: Any) -> None:
            head = await peer.reader.readuntil(b"\r\n\r\n")
            peer.write(b"HTTP/1.1 407 No\r\n\r\nme:canary is unknown " + head + EVIL.encode())

        async with lying_server(script, handshake=False) as proxy:
            client = Client("ws://agent.example/ws", proxy=f"http://me:canary@127.0.0.1:{proxy.port}")
            with pytest.raises(DialError, match="answered HTTP 407: 'me:") as raised:
                await client.connect()
            assert SECRET not in str(raised.value)
        assert [one[:2] for one in events(caplog)] == [("client", "INFO")]

    async def test_a_loss_and_what_follows(self, lying_server: Any, caplog: pytest.LogCaptureFixture) -> None:
        async def script(peer: Any) -> None:
            await peer.read_frame()
            if server.accepted == 1:
                peer.close_frame(1008, "go\n" + FORGED + "\x1b[2J\u2028")
            else:
                peer.answer("m-2")
                await peer.until_closed()

        async with lying_server(script) as server:
            client = Client(server.url, backoff=lambda _: 0.0)
            with pytest.raises(ConnectionLostError):
                await client.send(message())
            await client.send(message(id="m-2"))
            await client.close()
        told = [one for one in events(caplog) if one[0] == "client"]
        assert {one[1] for one in told} == {"INFO"}
        assert told[0][2].startswith(f"connection with 127.0.0.1:{server.port} ended: the peer closed the")
        assert told[0][2].endswith("; dialling again")
        assert told[-1][2] == f"connected to 127.0.0.1:{server.port} again"

    async def test_a_reason_that_repeats_what_we_sent(
        self, lying_server: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def script(peer: Any) -> None:
            head = await peer.reader.readuntil(b"\r\n\r\n")
            peer.write(accepting(head)[:-2] + b"Sec-WebSocket-Protocol: sage.1.json\r\n\r\n")
            await peer.read_frame()
            if server.accepted == 1:
                peer.send_json({"kind": "goaway", "reason": "Bearer canary-1 leaves"})
                peer.send_json({"kind": "response", "success": True, "message_id": "m-1"})
            else:
                peer.close_frame(1008, "Bearer canary-1 may not")
            await peer.until_closed()

        headers = {"Authorization": "Bearer canary-1"}
        async with lying_server(script, handshake=False) as server:
            client = Client(server.url, headers=headers, backoff=lambda _: 0.0, encoding="json")
            await client.send(message(id="m-1"))
            with pytest.raises(ConnectionLostError, match=r"\(1008\) '\*\*\* \*\*\* may not'$"):
                await client.send(message())
            await client.close()
        assert any("is going away: '*** *** leaves'" in one[2] for one in events(caplog))

    async def test_a_peer_that_breaks_the_rules(
        self, lying_server: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def script(peer: Any) -> None:
            await peer.read_frame()
            peer.send(TEXT, EVIL.encode() + b'{"canary')
            peer.send(TEXT, b"x", masked=True)
            await peer.read_end()

        async with lying_server(script) as server:
            client = Client(server.url, reconnect=False)
            with pytest.raises(ConnectionLostError):
                await client.send(message())
            await client.close()
        where = f"127.0.0.1:{server.port}"
        assert events(caplog)[0][:2] == ("link", "WARNING")
        assert events(caplog)[0][2].startswith(f"undecodable message from {where}: ")
        assert events(caplog)[1][2].startswith(f"connection with {where} failed with 1002: ")

    async def test_a_peer_that_is_gone(self, lying_server: Any, caplog: pytest.LogCaptureFixture) -> None:
        async def script(peer: Any) -> None:
            await peer.read_end()

        async with lying_server(script) as server:
            client = Client(server.url, reconnect=False, ping_interval=0.02, ping_timeout=0.02)
            with pytest.raises(ConnectionLostError):
                await client.send(message())
            await client.close()
        assert events(caplog) == [
            ("link", "INFO", f"connection with 127.0.0.1:{server.port} given up: ping timeout")
        ]


class TestWhatAServerSays:
    @pytest.mark.parametrize(
        ("request_line", "fields", "status"),
        [
            pytest.param("GET /ws?token=canary HTTP/1.1 ", {}, 400, id="line"),
            pytest.param('{"payload": "Y2FuYXJ5", "id": "m-1"}', {}, 400, id="a-message"),
            pytest.param("GET ftp://me:canary@host/?canary HTTP/1.1", {}, 400, id="target"),
            pytest.param("GET /a?token=canary HTTP/1.1", {}, 404, id="path"),
            pytest.param(
                "GET /ws?token=canary HTTP/1.1", {"Origin": "http://me:canary@evil"}, 403, id="origin"
            ),
            pytest.param("GET /ws HTTP/1.1", {"Authorization ": "Bearer canary"}, 400, id="name"),
            pytest.param("GET /ws HTTP/1.1", {"Authorization": "Bearer canary\x01"}, 400, id="value"),
            pytest.param("GET /ws HTTP/1.1", {"X": "\x1b[2J\x07"}, 400, id="escape"),
            pytest.param("GET /ws HTTP/1.1", {"Sec-WebSocket-Protocol": "token, canary;;"}, 400, id="list"),
            pytest.param("GET /ws HTTP/1.1", {"Sec-WebSocket-Key": "canary"}, 400, id="key"),
            pytest.param("GET /ws HTTP/1.1", {"Sec-WebSocket-Version": "7\x85" + FORGED}, 426, id="version"),
            pytest.param("GET /ws HTTP/1.1", {"Authorization": "Bearer canary"}, 403, id="authorize"),
        ],
    )
    async def test_a_refusal(
        self,
        raw_client: Any,
        opening_request: Any,
        caplog: pytest.LogCaptureFixture,
        request_line: str,
        fields: dict[str, str],
        status: int,
    ) -> None:
        async def authorize(request: Any) -> str:
            if "authorization" in request.headers:
                raise RefusedError(403, f"not you{EVIL}")

        async with serve(lambda _: None, path="/ws", authorize=authorize) as server:
            async with raw_client(server.port, handshake=False) as peer:
                head = opening_request("/ws", fields).split(b"\r\n", 1)[1]
                peer.write(request_line.encode() + b"\r\n" + head)
                assert (await peer.read_end()).startswith(b"HTTP/1.1 %d " % status)
                local = "{}:{}".format(*peer.writer.get_extra_info("sockname"))
            event = events(caplog)[1]
            assert event[:2] == ("server", "INFO")
            assert event[2].startswith(f"refused a connection from {local} with {status}: ")

    async def test_an_address_that_a_proxy_told(
        self, raw_client: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        told = {"X-Forwarded-For": "fe80::1%\x85" + "faked" * 1000}
        async with serve(lambda _: None, trusted_proxies=["127.0.0.1"]) as server:
            async with raw_client(server.port, headers=told) as peer:
                peer.send(TEXT, b"{canary")
                await peer.read_frame()
        (event,) = (one for one in events(caplog) if one[1] == "WARNING")
        assert event[2].startswith("undecodable message from [fe80::1%")
        assert len(event[2]) < 1100

    async def test_a_peer_that_breaks_the_rules(
        self, raw_client: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(lambda _: None) as server, raw_client(server.port) as peer:
            local = "{}:{}".format(*peer.writer.get_extra_info("sockname"))
            peer.send(TEXT, EVIL.encode() + b"canary")
            peer.send(BINARY, b"\xff canary")
            peer.send(TEXT, b"canary\xff")
            await peer.read_end()
        lines = [one[2] for one in events(caplog) if one[:2] == ("link", "WARNING")]
        assert [line.partition(local)[0] for line in lines] == [
            "undecodable message from ",
            "undecodable message from ",
            "connection with ",
        ]

    async def test_a_handler_that_fails(self, raw_client: Any, caplog: pytest.LogCaptureFixture) -> None:
        async def handler(one: SecureMessage) -> bytes:
            if one.id == "big":
                return b"x" * 2000
            raise LookupError(f"unknown agent {one.did}")

        async with serve(handler, max_message_size=1000) as server, raw_client(server.port) as peer:
            peer.ask(f"m-1{EVIL}", b"canary", did=f"did:sage:evil{EVIL}", metadata={"token": "canary"})
            assert (await peer.read_json())["error"] == "internal error"
            peer.ask("big", b"canary")
            assert "is over max_message_size" in (await peer.read_json())["error"]
        failed, refused = events(caplog)[1:]
        assert failed[:2] == ("handler", "ERROR")
        assert failed[2].startswith("handler failed for message 'm-1\\r\\n2026")
        assert refused[:2] == ("server", "WARNING")
        assert refused[2].startswith("answer to message 'big' refused: response of ")

    async def test_authorize_that_fails(self, caplog: pytest.LogCaptureFixture) -> None:
        async def authorize(request: Any) -> str:
            raise LookupError(f"no such issuer{EVIL}")

        async with serve(lambda _: None, authorize=authorize) as server:
            client = Client(
                f"ws://127.0.0.1:{server.port}/?canary", headers={"Authorization": "Bearer canary"}
            )
            with pytest.raises(DialError, match="HTTP 500: 'internal error'"):
                await client.connect()
        assert [one[:2] for one in events(caplog)] == [
            ("server", "INFO"),
            ("server", "ERROR"),
            ("server", "INFO"),
            ("client", "INFO"),
        ]

    async def test_a_drain_that_is_cut(self, raw_client: Any, caplog: pytest.LogCaptureFixture) -> None:
        begun = asyncio.Event()

        async def handler(one: SecureMessage) -> None:
            begun.set()
            await asyncio.Event().wait()

        async with serve(handler, close_timeout=0.01) as server, raw_client(server.port) as peer:
            peer.ask("m-1", b"canary")
            await begun.wait()
            await server.drain(timeout=0.01)
        assert events(caplog)[1] == (
            "server",
            "WARNING",
            "drain: 1 requests were not answered within 0.01 s",
        )
