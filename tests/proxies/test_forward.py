"""A client behind tinyproxy (HTTP CONNECT) and microsocks (SOCKS5)."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from sage_ws import Client, DialError, SecureMessage, connect, serve

if TYPE_CHECKING:
    from tests.proxies.conftest import Kind, Start

pytestmark = pytest.mark.timeout(120, func_only=True)

BIG = 8 * 1024 * 1024
USER = "me:word"


def message(payload: bytes = b"hello") -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", signature=b"canary")


async def echo(received: SecureMessage) -> bytes:
    return received.payload


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(params=["http", "socks5", "socks5h"])
def scheme(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def kind(scheme: str, tinyproxy: Kind, microsocks: Kind) -> Kind:
    """Takes everybody."""
    return tinyproxy if scheme == "http" else microsocks


@pytest.fixture
def choosy(scheme: str, tinyproxy: Kind, microsocks: Kind) -> Kind:
    """Takes `USER` alone."""
    if scheme == "http":
        return tinyproxy._replace(file=f"{tinyproxy.file}BasicAuth me word\n")
    return microsocks._replace(arguments=(*microsocks.arguments, "-u", "me", "-P", "word"))


async def test_big_messages_there_and_back(scheme: str, kind: Kind, start: Start) -> None:
    payload = bytes(range(256)) * (BIG // 256)
    proxy = await start(kind)
    async with (
        serve(echo) as server,
        connect(f"ws://localhost:{server.port}/ws", proxy=f"{scheme}://127.0.0.1:{proxy.port}") as client,
    ):
        assert (await client.send(message(payload))).data == payload


async def test_tls_with_the_server(
    scheme: str, kind: Kind, start: Start, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    proxy = await start(kind)
    async with (
        serve(echo, ssl=server_context) as server,
        connect(
            f"wss://localhost:{server.port}/ws",
            proxy=f"{scheme}://127.0.0.1:{proxy.port}",
            ssl=client_context,
        ) as client,
    ):
        assert (await client.send(message())).data == b"hello"


async def test_what_the_environment_names(
    scheme: str, kind: Kind, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await start(kind)
    monkeypatch.setenv("all_proxy", f"{scheme}://127.0.0.1:{proxy.port}")
    async with serve(echo) as server:
        url = f"ws://localhost:{server.port}/ws"
        async with connect(url) as client:
            assert (await client.send(message())).data == b"hello"
        await proxy.end()
        late = Client(url)
        with pytest.raises(DialError, match=rf"^could not reach the proxy {scheme}://127\.0\.0\.1:"):
            await late.connect()
        await late.close()


async def test_user_and_password(scheme: str, choosy: Kind, start: Start) -> None:
    proxy = await start(choosy)
    host = f"127.0.0.1:{proxy.port}"
    async with serve(echo) as server:
        url = f"ws://localhost:{server.port}/ws"
        async with connect(url, proxy=f"{scheme}://{USER}@{host}") as client:
            assert (await client.send(message())).data == b"hello"
        for wrong in ("", "me:canary@"):
            client = Client(url, proxy=f"{scheme}://{wrong}{host}")
            with pytest.raises(DialError, match=rf"^the proxy {scheme}://{host} ") as got:
                await client.connect()
            assert "canary" not in str(got.value)
            if scheme == "http":
                assert got.value.status in {401, 407}
            await client.close()


async def test_nobody_behind_it(scheme: str, kind: Kind, start: Start) -> None:
    proxy = await start(kind)
    async with serve(echo) as server:
        url = f"ws://localhost:{server.port}/ws"
    client = Client(url, proxy=f"{scheme}://127.0.0.1:{proxy.port}")
    with pytest.raises(DialError, match=rf"^the proxy {scheme}://127\.0\.0\.1:{proxy.port} ") as got:
        await client.connect()
    assert got.value.status == (500 if scheme == "http" else None)
    await client.close()


@pytest.mark.parametrize("ci", ["", "true"])
def test_what_is_missing_is_skipped_but_in_ci(ci: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            f"{__file__}::test_nobody_behind_it[socks5]",
        ],
        env={**os.environ, "PATH": str(tmp_path), "CI": ci},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ("1 failed" if ci else "1 skipped") in done.stdout, done.stdout + done.stderr
    assert (done.returncode == 0) == (not ci)
    assert "microsocks is not installed" in done.stdout
