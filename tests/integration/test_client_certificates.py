"""A client's certificate becomes its identity, by the documentation's example; a bad one does not."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.util
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from sage_ws import DialError, SecureMessage, connect, serve

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "client_certificates.py"
DID = "did:sage:test"
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = _load(EXAMPLE)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Has issued the server's certificate and those of the callers that it trusts."""
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA, tmp_path: Path) -> ssl.SSLContext:
    """What the example makes of three files."""
    own = authority.issue_cert("127.0.0.1")
    certificate, key, callers = (str(tmp_path / name) for name in ("server.pem", "server.key", "callers.pem"))
    own.cert_chain_pems[0].write_to_path(certificate)
    own.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(callers)
    context: ssl.SSLContext = example.server_context(certificate, key, callers)
    return context


def client_context(authority: trustme.CA, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


class TestExample:
    async def test_the_certificates_name_is_the_callers_identity(
        self, authority: trustme.CA, server_context: ssl.SSLContext
    ) -> None:
        async with serve(example.handler, ssl=server_context, authorize=example.authorize) as server:
            url = f"wss://127.0.0.1:{server.port}"
            for name in ("alice.example", "bob.example"):
                context = client_context(authority, authority.issue_cert(name))
                async with connect(url, ssl=context) as client:
                    response = await client.send(SecureMessage(payload=b"x", did=DID))
                    assert response.data == f"{name} says it is {DID}".encode()
                    assert [one.identity for one in server.connections] == [name]

    async def test_a_certificate_without_a_dns_name_is_refused(
        self, authority: trustme.CA, server_context: ssl.SSLContext
    ) -> None:
        async with serve(example.handler, ssl=server_context, authorize=example.authorize) as server:
            context = client_context(authority, authority.issue_cert("someone@example.org"))
            with pytest.raises(DialError, match="a certificate with a DNS name is needed") as raised:
                await connect(f"wss://127.0.0.1:{server.port}", ssl=context)
            assert raised.value.status == 403

    @pytest.mark.parametrize("fault", ["none", "unknown authority", "expired"])
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_who_proves_nothing_does_not_get_to_the_opening_handshake(
        self,
        authority: trustme.CA,
        server_context: ssl.SSLContext,
        loop_exceptions: list[dict[str, Any]],
        fault: str,
        version: ssl.TLSVersion,
    ) -> None:
        certificates = {
            "none": lambda: None,
            "unknown authority": lambda: trustme.CA().issue_cert("alice.example"),
            "expired": lambda: authority.issue_cert("alice.example", not_after=LONG_AGO),
        }
        asked: list[Any] = []

        async def authorize(request: Any) -> str | None:
            asked.append(request)
            return None

        context = client_context(authority, certificates[fault]())
        context.maximum_version = version
        async with serve(example.handler, ssl=server_context, authorize=authorize) as server:
            with pytest.raises(DialError) as raised:
                await asyncio.wait_for(connect(f"wss://127.0.0.1:{server.port}", ssl=context).connect(), 10)
            # TLS 1.3 has the client believe that it is in until the server has judged its certificate
            if version is ssl.TLSVersion.TLSv1_3:
                assert "perhaps it wants another client certificate than ours" in str(raised.value)
            else:
                assert str(raised.value).startswith(f"TLS with 127.0.0.1:{server.port} failed: ")
            assert raised.value.__cause__ is not None
            assert asked == []
            assert loop_exceptions == []
            good = client_context(authority, authority.issue_cert("alice.example"))
            async with connect(f"wss://127.0.0.1:{server.port}", ssl=good) as client:
                assert (await client.send(SecureMessage(payload=b"x", did=DID))).success


class TestWhatAuthorizeSees:
    async def seen(self, url_scheme: str, own: ssl.SSLContext | None, theirs: ssl.SSLContext | None) -> Any:
        """What stands in the request for this server's context and this client's."""
        requests: list[Any] = []

        async def authorize(request: Any) -> str | None:
            requests.append(request)
            return None

        async def nothing(_: SecureMessage) -> None:
            """Never called."""

        async with serve(nothing, ssl=own, authorize=authorize) as server:
            async with connect(f"{url_scheme}://127.0.0.1:{server.port}", ssl=theirs):
                (request,) = requests
                (connection,) = server.connections
                assert connection.request is request
        return request.peer_certificate

    async def test_nothing_without_tls(self) -> None:
        assert await self.seen("ws", None, None) is None

    async def test_nothing_where_the_server_asks_for_none(self, authority: trustme.CA) -> None:
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(own)
        theirs = client_context(authority, authority.issue_cert("alice.example"))
        assert await self.seen("wss", own, theirs) is None

    async def test_where_it_is_optional_nothing_or_what_python_shows_of_it(
        self, authority: trustme.CA, server_context: ssl.SSLContext
    ) -> None:
        server_context.verify_mode = ssl.CERT_OPTIONAL
        assert await self.seen("wss", server_context, client_context(authority)) is None
        theirs = client_context(authority, authority.issue_cert("alice.example", common_name="alice"))
        certificate = await self.seen("wss", server_context, theirs)
        assert certificate["subjectAltName"] == (("DNS", "alice.example"),)
        assert (("commonName", "alice"),) in certificate["subject"]

    async def test_over_http_as_well(self, authority: trustme.CA, server_context: ssl.SSLContext) -> None:
        web = pytest.importorskip("aiohttp.web")
        from sage_ws.transports.http import HTTPTransport, http_app

        runner = web.AppRunner(http_app(example.handler, authorize=example.authorize), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context).start()
            theirs = client_context(authority, authority.issue_cert("alice.example"))
            transport = HTTPTransport(f"https://127.0.0.1:{runner.addresses[0][1]}", ssl=theirs)
            response = await transport.send(SecureMessage(payload=b"x", did=DID))
            assert response.data == f"alice.example says it is {DID}".encode()
            await transport.close()
        finally:
            await runner.cleanup()
