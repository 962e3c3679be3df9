"""Dialling by TLS with real certificates: who is let in, and what a dial that fails says."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from sage_ws import Client, DialError, SecureMessage, connect, serve
from sage_ws.aio.dialing import Address

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
OLD, V1_2, V1_3 = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


async def echo(one: SecureMessage) -> bytes:
    return one.payload


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def allow_old(context: ssl.SSLContext, version: ssl.TLSVersion = OLD) -> ssl.SSLContext:
    """Let a context speak TLS 1.1, which OpenSSL has to be talked into; at most ``version``."""
    if not ssl.HAS_TLSv1_1:
        pytest.skip("this OpenSSL has no TLS 1.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = OLD
        context.maximum_version = version
    return context


# ── opening ───────────────────────────────────────────────────────────────────────────
class TestVersions:
    @pytest.mark.parametrize("version", [V1_2, V1_3])
    async def test_from_1_2_on_it_works(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, version: ssl.TLSVersion
    ) -> None:
        theirs.maximum_version = version
        async with serve(echo, ssl=theirs) as server:
            async with connect(f"wss://localhost:{server.port}", ssl=ours) as client:
                assert (await client.send(message(b"hello"))).data == b"hello"
                (link,) = server.connections
                spoken = link._transport.get_extra_info("ssl_object").version()
                assert spoken == version.name.replace("_", ".")

    @pytest.mark.parametrize(("platforms", "used"), [(OLD, V1_2), (V1_2, V1_2), (V1_3, V1_3)])
    def test_a_platforms_policy_may_be_stricter_than_1_2_but_not_laxer(
        self, platforms: ssl.TLSVersion, used: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = platforms
        monkeypatch.setattr(ssl, "create_default_context", lambda: context)
        assert Address("wss://agent.example").tls(None) is context
        assert context.minimum_version == used

    async def test_a_servers_context_is_taken_as_it_is(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, raw_client: Any, by_hand: Any
    ) -> None:
        # Somebody who must serve what cannot be replaced may: it is their context.
        async with serve(echo, ssl=allow_old(theirs, V1_3)) as server:
            async with raw_client(server.port, handshake=False) as peer:
                await by_hand.speak(peer, allow_old(ours), "localhost")
                await peer.open_as_client("/ws", {})
                peer.ask("m-1")
                assert (await peer.read_json())["success"] is True
                (link,) = server.connections
                assert link._transport.get_extra_info("ssl_object").version() == "TLSv1.1"


class TestNames:
    @pytest.mark.parametrize(("host", "told"), [("localhost", "localhost"), ("127.0.0.1", None)])
    async def test_the_server_is_told_the_name_that_was_dialled(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, host: str, told: str | None
    ) -> None:
        names: list[str | None] = []
        theirs.sni_callback = lambda tls, name, context: names.append(name)
        async with serve(echo, ssl=theirs) as server:
            async with connect(f"wss://{host}:{server.port}", ssl=ours) as client:
                assert client.is_connected
        assert names == [told]  # an address is no name (RFC 6066 §3)

    async def test_each_name_may_have_its_own_certificate(
        self, authority: trustme.CA, ours: ssl.SSLContext
    ) -> None:
        theirs = server_context(authority.issue_cert("other.example"))
        own = server_context(authority.issue_cert("localhost"))

        def choose(tls: Any, name: str | None, context: ssl.SSLContext) -> None:
            if name == "localhost":
                tls.context = own

        theirs.sni_callback = choose
        async with serve(echo, ssl=theirs) as server:
            async with connect(f"wss://localhost:{server.port}", ssl=ours) as client:
                assert client.is_connected
            with pytest.raises(DialError, match="does not pass"):
                await connect(f"wss://127.0.0.1:{server.port}", ssl=ours)


BAD_CERTIFICATES: dict[str, tuple[Callable[[trustme.CA], trustme.LeafCert], str]] = {
    "expired": (lambda ca: ca.issue_cert("localhost", not_after=LONG_AGO), "certificate has expired"),
    "not-yet-valid": (
        lambda ca: ca.issue_cert("localhost", not_before=dt.datetime.now(dt.UTC) + dt.timedelta(days=1)),
        "certificate is not yet valid",
    ),
    "wrong-host": (
        lambda ca: ca.issue_cert("other.example"),
        "certificate is not valid for 'localhost'",
    ),
    "wildcard-of-another": (
        lambda ca: ca.issue_cert("*.localhost"),
        "certificate is not valid for 'localhost'",
    ),
    "unknown-authority": (
        lambda ca: trustme.CA().issue_cert("localhost"),
        "unable to get local issuer certificate",
    ),
}


class TestCertificates:
    @pytest.mark.parametrize(("make", "text"), BAD_CERTIFICATES.values(), ids=BAD_CERTIFICATES)
    async def test_a_bad_one_is_a_dial_error_at_once(
        self,
        authority: trustme.CA,
        ours: ssl.SSLContext,
        make: Callable[[trustme.CA], trustme.LeafCert],
        text: str,
    ) -> None:
        async with serve(echo, ssl=server_context(make(authority))) as server:
            # wait_for_ready would dial again and again: a certificate does not heal
            client = Client(f"wss://localhost:{server.port}", ssl=ours, wait_for_ready=True)
            with pytest.raises(DialError) as raised:
                await asyncio.wait_for(client.connect(), 10)
            assert str(raised.value).startswith(f"the certificate of localhost:{server.port} does not pass: ")
            assert text in str(raised.value)
            assert isinstance(raised.value.__cause__, ssl.SSLCertVerificationError)
            assert raised.value.status is None
            assert client.stats()["dials"] == 1
            assert server.stats()["accepted"] == 0
            await client.close()

    async def test_without_a_context_of_ones_own_the_platforms_authorities_count(
        self, theirs: ssl.SSLContext
    ) -> None:
        async with serve(echo, ssl=theirs) as server:
            with pytest.raises(DialError, match="unable to get local issuer certificate"):
                await connect(f"wss://localhost:{server.port}")

    async def test_a_new_one_needs_no_restart(
        self, authority: trustme.CA, theirs: ssl.SSLContext, ours: ssl.SSLContext
    ) -> None:
        async with serve(echo, ssl=theirs) as server:
            url = f"wss://localhost:{server.port}"
            async with connect(url, ssl=ours) as client:
                authority.issue_cert("other.example").configure_cert(theirs)
                assert (await client.send(message())).success
                with pytest.raises(DialError, match="not valid for 'localhost'"):
                    await connect(url, ssl=ours)
                authority.issue_cert("localhost").configure_cert(theirs)
                async with connect(url, ssl=ours) as another:
                    assert (await another.send(message())).success

    async def test_an_address_must_stand_in_it_too(self, authority: trustme.CA, ours: ssl.SSLContext) -> None:
        async with serve(echo, ssl=server_context(authority.issue_cert("localhost"))) as server:
            with pytest.raises(DialError, match=r"not valid for '127\.0\.0\.1'"):
                await connect(f"wss://127.0.0.1:{server.port}", ssl=ours)


async def failed_dial(url: str, **options: Any) -> DialError:
    """The error of a dial; no timeout of ours is in play before the test's own."""
    client = Client(url, **options)
    with pytest.raises(DialError) as raised:
        await asyncio.wait_for(client.connect(), 10)
    assert not isinstance(raised.value, TimeoutError)
    assert raised.value.__cause__ is not None
    assert str(raised.value).isprintable()
    await client.close()
    return raised.value


class TestPeersWithoutACommonTLS:
    async def test_a_tls_client_at_our_plain_server(self, ours: ssl.SSLContext) -> None:
        async with serve(echo, open_timeout=None) as server:
            error = await failed_dial(f"wss://127.0.0.1:{server.port}", ssl=ours)
            assert str(error) == (
                f"TLS with 127.0.0.1:{server.port} failed: WRONG_VERSION_NUMBER: "
                "what answers there speaks no TLS; a plain ws:// server?"
            )
            assert isinstance(error.__cause__, ssl.SSLError)
            assert server.stats()["refused"] == 1

    async def test_a_tls_client_at_a_plain_server_of_others(
        self, ours: ssl.SSLContext, lying_server: Any
    ) -> None:
        read: list[bytes] = []

        async def accepting_anything(peer: Any) -> None:
            read.append(await peer.reader.read(65536))
            peer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
            read.append(await peer.read_end())

        async with lying_server(accepting_anything, handshake=False) as server:
            url = server.url.replace("ws://", "wss://")
            error = await failed_dial(url, ssl=ours, headers={"Authorization": "Bearer canary"})
            assert "speaks no TLS" in str(error)
        sent = b"".join(read)
        assert sent.startswith(b"\x16\x03")
        assert b"canary" not in sent  # nothing of the request leaves in clear

    async def test_a_plain_client_at_our_tls_server(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, loop_exceptions: list[Any]
    ) -> None:
        async with serve(echo, ssl=theirs, open_timeout=None) as server:
            error = await failed_dial(f"ws://localhost:{server.port}")
            assert "perhaps it speaks TLS: dial wss://" in str(error)
            assert isinstance(error.__cause__, (ConnectionError, EOFError))

    async def test_a_plain_client_at_a_tls_server_that_says_so(
        self, theirs: ssl.SSLContext, lying_server: Any, by_hand: Any
    ) -> None:
        async def an_alert(peer: Any) -> None:
            await peer.reader.read(65536)
            peer.write(b"\x15\x03\x03\x00\x02\x02\x0a")  # fatal, unexpected_message
            await peer.read_end()

        async def a_page(peer: Any) -> None:  # as Go's net/http does
            await peer.reader.read(65536)
            peer.write(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")

        async with lying_server(an_alert, handshake=False) as server:
            with pytest.raises(
                DialError, match="^the answer is TLS, not HTTP: dial wss:// instead of ws://$"
            ):
                await asyncio.wait_for(connect(server.url).connect(), 10)
        async with lying_server(a_page, handshake=False) as server:
            with pytest.raises(DialError, match=r"^the answer is HTTP/1\.0, not HTTP/1\.1") as raised:
                await asyncio.wait_for(connect(server.url).connect(), 10)
            assert raised.value.status == 400

    async def test_a_server_of_tls_1_1_alone(self, theirs: ssl.SSLContext, ours: ssl.SSLContext) -> None:
        async with serve(echo, ssl=allow_old(theirs), open_timeout=None) as server:
            error = await failed_dial(f"wss://localhost:{server.port}", ssl=ours)
            assert "perhaps it allows no TLS version of ours" in str(error)
            assert isinstance(error.__cause__, ConnectionError)

    async def test_a_server_of_tls_1_1_alone_that_says_so(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, lying_server: Any, by_hand: Any
    ) -> None:
        async def old(peer: Any) -> None:
            with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
                await by_hand.speak(peer, allow_old(theirs))

        async with lying_server(old, handshake=False) as server:
            error = await failed_dial(server.url.replace("ws://", "wss://"), ssl=ours)
            assert "TLSV1_ALERT_PROTOCOL_VERSION: no TLS version that both allow" in str(error)
            assert isinstance(error.__cause__, ssl.SSLError)

    @pytest.mark.parametrize(
        ("version", "text"),
        [
            (
                V1_2,
                "SSLV3_ALERT_HANDSHAKE_FAILURE: no cipher that both allow, or the server asks for a client",
            ),
            (V1_3, "TLSV13_ALERT_CERTIFICATE_REQUIRED: the server asks for a client certificate"),
        ],
    )
    async def test_a_server_that_wants_a_client_certificate_and_says_so(
        self,
        theirs: ssl.SSLContext,
        ours: ssl.SSLContext,
        lying_server: Any,
        by_hand: Any,
        version: ssl.TLSVersion,
        text: str,
    ) -> None:
        theirs.verify_mode = ssl.CERT_REQUIRED
        theirs.maximum_version = version

        async def strict(peer: Any) -> None:
            with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
                await by_hand.speak(peer, theirs)

        async with lying_server(strict, handshake=False) as server:
            error = await failed_dial(server.url.replace("ws://", "wss://"), ssl=ours)
            assert text in str(error)
            assert isinstance(error.__cause__, ssl.SSLError)

    @pytest.mark.parametrize("own", [None, "of-an-unknown-authority", "expired"])
    async def test_a_server_that_says_no_to_our_certificate_is_not_dialled_again(
        self,
        authority: trustme.CA,
        theirs: ssl.SSLContext,
        ours: ssl.SSLContext,
        lying_server: Any,
        by_hand: Any,
        own: str | None,
    ) -> None:
        authority.configure_trust(theirs)
        theirs.verify_mode = ssl.CERT_REQUIRED
        if own == "expired":
            authority.issue_cert("a.example", not_after=LONG_AGO).configure_cert(ours)
        elif own is not None:
            trustme.CA().issue_cert("a.example").configure_cert(ours)

        async def strict(peer: Any) -> None:
            with pytest.raises(ssl.SSLError):
                await by_hand.speak(peer, theirs)

        async with lying_server(strict, handshake=False) as server:
            error = await failed_dial(
                server.url.replace("ws://", "wss://"), ssl=ours, wait_for_ready=True, dial_timeout=None
            )
            assert "ALERT" in str(error)
            assert server.accepted == 1

    async def test_a_server_that_hangs_up_in_the_middle(
        self, ours: ssl.SSLContext, lying_server: Any
    ) -> None:
        async def leaving(peer: Any) -> None:
            await peer.reader.read(65536)

        async with lying_server(leaving, handshake=False) as server:
            error = await failed_dial(server.url.replace("ws://", "wss://"), ssl=ours)
            assert str(error).startswith(f"TLS with 127.0.0.1:{server.port} failed: the server ended the")

    async def test_a_server_that_says_nothing_costs_dial_timeout(
        self, ours: ssl.SSLContext, lying_server: Any
    ) -> None:
        async def silent(peer: Any) -> None:
            await peer.read_end()

        async with lying_server(silent, handshake=False) as server:
            with pytest.raises(DialError, match=r"within 0\.05 s") as raised:
                await connect(server.url.replace("ws://", "wss://"), ssl=ours, dial_timeout=0.05)
            assert isinstance(raised.value, TimeoutError)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_leads_nowhere_least_of_all_to_ws(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, lying_server: Any, status: int
    ) -> None:
        async def elsewhere(peer: Any) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.write(f"HTTP/1.1 {status} X\r\nLocation: {plain.url}\r\nContent-Length: 0\r\n\r\n".encode())

        async def never(peer: Any) -> None:
            """Nobody comes."""

        async with (
            lying_server(never) as plain,
            lying_server(elsewhere, handshake=False, tls=theirs) as server,
        ):
            with pytest.raises(DialError, match=f"answered HTTP {status}") as raised:
                await connect(f"wss://localhost:{server.port}", ssl=ours)
            assert raised.value.status == status
            assert plain.accepted == 0
