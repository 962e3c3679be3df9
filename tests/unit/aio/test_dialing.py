"""Where a client dials, what it dials with, and the one door through which a dial's errors leave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from sage_ws import Client, DialError, DialTimeoutError
from sage_ws.aio import dialing
from sage_ws.aio.dialing import Address, can_heal, dial
from sage_ws.options import ClientSettings


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "host", "port", "secure", "shown"),
        [
            ("ws://agent.example", "agent.example", 80, False, "agent.example:80"),
            ("wss://agent.example", "agent.example", 443, True, "agent.example:443"),
            ("ws://agent.example:8080/ws?a=b", "agent.example", 8080, False, "agent.example:8080"),
            ("WSS://Agent.Example/ws", "agent.example", 443, True, "agent.example:443"),
            ("ws://[::1]:9000/", "::1", 9000, False, "[::1]:9000"),
            ("ws://127.0.0.1:1/", "127.0.0.1", 1, False, "127.0.0.1:1"),
        ],
    )
    def test_a_url_says_where(self, url: str, host: str, port: int, secure: bool, shown: str) -> None:
        address = Address(url)
        assert (address.host, address.port, address.secure, str(address)) == (host, port, secure, shown)

    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("http://agent.example", "must start with ws:// or wss://"),
            ("agent.example:8080", "must start with ws:// or wss://"),
            ("", "must start with ws:// or wss://"),
            ("ws://", "names no host"),
            ("ws:///ws", "names no host"),
            ("ws://:8080", "names no host"),
            ("ws://agent.example:0", "port 0"),
            ("ws://agent.example:99999", "malformed"),
            ("ws://agent.example:http", "malformed"),
            ("ws://[::1", "malformed"),
            ("ws://agent.example/#top", "no fragment"),
            ("ws://agent.example/a b", "white space or a control character"),
            ("ws://agent.example/a\r\nX: y", "white space or a control character"),
            ("ws://agent.example/\x7f", "white space or a control character"),
            (" ws://agent.example", "white space or a control character"),
        ],
    )
    def test_a_wrong_one_is_a_value_error_that_says_why(self, url: str, text: str) -> None:
        with pytest.raises(ValueError, match=text):
            Address(url)
        with pytest.raises(ValueError, match=text):
            Client(url)

    def test_user_info_is_refused_and_not_repeated(self) -> None:
        with pytest.raises(ValueError, match="must hold no user info") as raised:
            Address("ws://user:canary@agent.example")
        assert "canary" not in str(raised.value)

    @pytest.mark.parametrize(
        "url", ["http://a/?t=canary", "ws:///?t=canary", "ws://a:0/?t=canary", "ws://a/?t= canary"]
    )
    def test_a_query_is_not_repeated(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"^url ") as raised:
            Address(url)
        assert "canary" not in str(raised.value)

    def test_a_url_is_a_text(self) -> None:
        with pytest.raises(TypeError, match=r"^url must be a str, not bytes$"):
            Address(b"ws://agent.example")  # type: ignore[arg-type]

    def test_tls_is_the_callers_context_or_the_platforms(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        assert Address("ws://a").tls(context) is None
        assert Address("ws://a").tls(None) is None
        secure = Address("wss://a")
        assert secure.tls(context) is context
        default = secure.tls(None)
        assert default is not None
        assert default is secure.tls(None)
        assert (default.verify_mode, default.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert default.minimum_version >= ssl.TLSVersion.TLSv1_2


class TestCanHeal:
    @pytest.mark.parametrize("status", [None, 408, 429, 500, 502, 503, 504, 302, 200])
    def test_another_dial_may_succeed(self, status: int | None) -> None:
        assert can_heal(DialError("text", status=status))

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 407, 410, 426, 451])
    def test_another_dial_would_get_the_same(self, status: int) -> None:
        assert not can_heal(DialError("text", status=status))

    def test_a_certificate_does_not_heal_and_a_refused_connection_may(self) -> None:
        error = DialError("text")
        error.__cause__ = ssl.SSLCertVerificationError("expired")
        assert not can_heal(error)
        error.__cause__ = ConnectionRefusedError()
        assert can_heal(error)


async def dialled(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> DialError:
    async def failing(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(dialing, "_dial", failing)
    with pytest.raises(DialError) as raised:
        await dial(Address("wss://agent.example"), ClientSettings(), lambda: None)  # type: ignore[arg-type, return-value]
    return raised.value


def verification_error() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "certificate has expired"
    return error


def tls_error() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1002)")
    error.reason = "WRONG_VERSION_NUMBER"
    return error


class TestTheOneDoor:
    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (
                lambda: ConnectionRefusedError(111, "Connection refused"),
                "reach agent.example:443: Connection refused",
            ),
            (
                lambda: OSError("Multiple exceptions"),
                "could not reach agent.example:443: Multiple exceptions",
            ),
            (lambda: socket.gaierror(-2, "Name or service not known"), "443: Name or service not known"),
            (lambda: TimeoutError(110, "timed out by the kernel"), "could not reach agent.example:443: "),
            (
                verification_error,
                "the certificate of agent.example:443 does not pass: certificate has expired",
            ),
            (tls_error, "TLS with agent.example:443 failed: WRONG_VERSION_NUMBER"),
        ],
    )
    async def test_every_error_of_the_way_is_a_dial_error_with_its_cause(
        self, make: Callable[[], Exception], text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cause = make()
        error = await dialled(cause, monkeypatch)
        assert text in str(error)
        assert error.__cause__ is cause
        assert (error.status, error.message_id) == (None, None)
        assert not isinstance(error, DialTimeoutError)

    async def test_a_dial_error_passes_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = DialError("no", status=403)
        assert await dialled(given, monkeypatch) is given

    async def test_running_out_of_time_is_a_dial_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def endless(*args: Any) -> Any:
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(dialing, "_dial", endless)
        with pytest.raises(
            DialTimeoutError, match=r"^could not reach agent\.example:80 within 0\.02 s$"
        ) as raised:
            await dial(Address("ws://agent.example"), ClientSettings(dial_timeout=0.02), lambda: None)  # type: ignore[arg-type, return-value]
        assert isinstance(raised.value, TimeoutError)
        assert isinstance(raised.value, ConnectionError)


class TestHeaders:
    async def test_pairs_a_factory_and_an_async_factory(self) -> None:
        async def later() -> dict[str, str]:
            return {"X-A": "async"}

        assert await dialing._headers((("X-A", "b"),)) == [("X-A", "b")]
        assert await dialing._headers(lambda: {"X-A": "sync"}) == [("X-A", "sync")]
        assert await dialing._headers(later) == [("X-A", "async")]

    async def test_a_factory_whose_own_task_was_cancelled_has_failed(self) -> None:
        async def factory() -> dict[str, str]:
            fetching = asyncio.ensure_future(asyncio.sleep(60, {}))
            fetching.cancel()
            return await fetching

        with pytest.raises(DialError, match="headers= failed: CancelledError"):
            await dialing._headers(factory)

    async def test_a_dial_that_is_cancelled_in_its_factory_is_cancelled(self) -> None:
        async def factory() -> dict[str, str]:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        dial = asyncio.ensure_future(dialing._headers(factory))
        await asyncio.sleep(0)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial

    @pytest.mark.parametrize(
        ("factory", "text"),
        [
            (lambda: 1 / 0, "headers= failed: ZeroDivisionError: division by zero"),
            (lambda: {"X": "a\nb"}, "headers= failed: ValueError: header X holds a control character"),
            (lambda: {"X": 5}, "headers= failed: TypeError: headers must be pairs of str"),
            (lambda: None, "headers= failed: TypeError: "),
            (lambda: ["abc"], "headers= failed: TypeError: headers must be pairs of str"),
        ],
    )
    async def test_a_factory_that_fails_is_a_dial_error_with_its_cause(self, factory: Any, text: str) -> None:
        with pytest.raises(DialError) as raised:
            await dialing._headers(factory)
        assert str(raised.value).startswith(text)
        assert raised.value.__cause__ is not None


class TestGivingUp:
    async def test_a_dial_cancelled_between_socket_and_opening_leaves_no_exception(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = dialing.ClientOpening.connection_made
        ended = asyncio.Event()

        def cancelling(opening: dialing.ClientOpening[Any], transport: asyncio.BaseTransport) -> None:
            made(opening, transport)
            dialing_task.cancel()  # `create_connection` has not returned yet

        async def until_ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            writer.close()
            ended.set()

        monkeypatch.setattr(dialing.ClientOpening, "connection_made", cancelling)
        async with await asyncio.start_server(until_ended, "127.0.0.1", 0) as server:
            address = Address(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            dialing_task = asyncio.create_task(dial(address, ClientSettings(), lambda: None))  # type: ignore[arg-type, return-value]
            with pytest.raises(asyncio.CancelledError):
                await dialing_task
            # The socket is closed: an exception that nobody fetched has reached `loop_exceptions` by now.
            await asyncio.wait_for(ended.wait(), 5)
