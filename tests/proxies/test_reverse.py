"""What nginx, HAProxy, Apache and Caddy do to a connection, with the configurations that the pages give."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sage_ws import Call, Client, ConnectionLostError, DialError, SecureMessage, Server, State, connect, serve

if TYPE_CHECKING:
    from tests.proxies.conftest import Change, Kind, Start

pytestmark = pytest.mark.timeout(120, func_only=True)

PATIENCE = 20.0
ATTEMPTS = 3
BIG = 8 * 1024 * 1024
NO_PINGS = {"ping_interval": None, "keepalive_interval": None}


def message(payload: bytes = b"hello") -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", signature=b"canary")


async def echo(received: SecureMessage) -> bytes:
    return received.payload


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve(echo, **NO_PINGS) as one:
        yield one


async def test_a_call_there_and_back(kind: Kind, start: Start, server: Server) -> None:
    proxy = await start(kind, server.port)
    async with connect(f"ws://127.0.0.1:{proxy.port}/ws") as client:
        assert (await client.send(message())).data == b"hello"


async def test_8_mib_both_ways(kind: Kind, start: Start, server: Server) -> None:
    proxy = await start(kind, server.port)
    payload = bytes(range(256)) * (BIG // 256)
    async with connect(f"ws://127.0.0.1:{proxy.port}/ws") as client:
        answers = await asyncio.gather(*(client.send(message(payload)) for _ in range(3)))
    assert all(answer.data == payload for answer in answers)


OTHER_HOST: dict[str, tuple[Change, ...]] = {
    "nginx": ((r"Host \$http_host", "Host $host"),),  # the name without its port
    "haproxy": ((r"option forwardfor", "http-request set-header Host 127.0.0.1"),),
    "apache2": ((r"ProxyPreserveHost On", "ProxyPreserveHost Off"),),  # the upstream's
    "caddy": ((r"(reverse_proxy .*)", r"\1 {\n header_up Host {upstream_hostport}\n }"),),
}


class TestOrigin:
    """A page that the proxy's own host and port served."""

    async def test_passes_without_a_list(self, kind: Kind, start: Start, server: Server) -> None:
        proxy = await start(kind, server.port)
        own = f"127.0.0.1:{proxy.port}"
        async with connect(f"ws://{own}/ws", origin=f"http://{own}") as client:
            assert (await client.send(message())).data == b"hello"

    async def test_is_refused_where_the_proxy_changes_host(
        self, kind: Kind, start: Start, server: Server
    ) -> None:
        proxy = await start(kind, server.port, *OTHER_HOST[kind.program])
        own = f"127.0.0.1:{proxy.port}"
        client = Client(f"ws://{own}/ws", origin=f"http://{own}")
        with pytest.raises(DialError, match=r"is not this host; list it in origins=") as got:
            await client.connect()
        assert got.value.status == 403
        await client.close()

    async def test_passes_then_by_the_list(self, kind: Kind, start: Start) -> None:
        async with serve(echo, origins=["https://app.example"]) as server:
            proxy = await start(kind, server.port, *OTHER_HOST[kind.program])
            async with connect(f"ws://127.0.0.1:{proxy.port}/ws", origin="https://app.example") as client:
                assert (await client.send(message())).data == b"hello"


NO_UPGRADE: dict[str, tuple[Change, ...]] = {
    "nginx": ((r".*Upgrade \$http_upgrade;\n", ""), (r".*Connection \"upgrade\";\n", "")),
    "haproxy": ((r"option forwardfor", "http-request del-header Upgrade"),),
    "apache2": ((r" upgrade=websocket", ""),),
    "caddy": ((r"(reverse_proxy .*)", r"\1 {\n header_up -Upgrade\n }"),),
}


async def test_without_the_upgrade_headers(kind: Kind, start: Start, server: Server) -> None:
    proxy = await start(kind, server.port, *NO_UPGRADE[kind.program])
    client = Client(f"ws://127.0.0.1:{proxy.port}/ws")
    with pytest.raises(DialError, match=r"if a proxy stands between, it must pass the Upgrade and") as got:
        await client.connect()
    assert got.value.status == 426
    await client.close()


async def test_http_1_0_is_named(kinds: Mapping[str, Kind], start: Start, server: Server) -> None:
    proxy = await start(kinds["nginx"], server.port, (r".*proxy_http_version 1.1;\n", ""))
    client = Client(f"ws://127.0.0.1:{proxy.port}/ws")
    with pytest.raises(DialError, match=r"HTTP/1\.0 is not HTTP/1\.1; a proxy may speak an older one") as got:
        await client.connect()
    assert got.value.status == 400
    await client.close()


NOBODY_THERE = {"nginx": 502, "haproxy": 503, "apache2": 503, "caddy": 502}
SAYS = {
    "nginx": "502 Bad Gateway",
    "haproxy": "503 Service Unavailable",
    "apache2": "503 Service Unavailable",
}


async def test_a_server_that_is_down(kind: Kind, start: Start, server: Server) -> None:
    upstream = server.port
    await server.close()
    proxy = await start(kind, upstream)
    client = Client(f"ws://127.0.0.1:{proxy.port}/ws")
    with pytest.raises(DialError, match=SAYS.get(kind.program, "HTTP 502")) as got:
        await client.connect()
    assert got.value.status == NOBODY_THERE[kind.program]
    await client.close()


SHORT: dict[str, tuple[Change, ...]] = {
    "nginx": ((r"read_timeout 60s", "read_timeout 2s"),),
    "haproxy": ((r"timeout tunnel 60s", "timeout tunnel 2s"),),
    "apache2": ((r"Timeout 60", "Timeout 2"),),
}


async def test_idle_it_is_cut_but_not_with_pings(kind: Kind, start: Start, server: Server) -> None:
    if kind.program not in SHORT:
        pytest.skip(f"{kind.program} never cuts an idle connection")
    proxy = await start(kind, server.port, *SHORT[kind.program])
    url = f"ws://127.0.0.1:{proxy.port}/ws"
    for _ in range(ATTEMPTS):  # on a machine that stands still for a moment pings come late too
        async with connect(url, **NO_PINGS) as silent, connect(url, ping_interval=0.2) as pinging:
            async with asyncio.timeout(PATIENCE):
                while silent.state is State.OPEN:  # noqa: ASYNC110  # a state has no event of its own
                    await asyncio.sleep(0.01)
            lived = pinging.stats()["dials"] == 1 and pinging.state is State.OPEN
            assert (await silent.send(message())).data == b"hello"
            assert silent.stats()["dials"] == 2
        if lived:
            return
    pytest.fail("pings did not keep the connection up")


class TestReload:
    """With a call in flight."""

    async def answer(self, kind: Kind, start: Start, *changes: Change, waits: bool = True) -> bytes:
        """What a call got that was there before the reload; the next one must go well in any case.

        Args:
            kind: which proxy.
            start: starts it.
            changes: of its configuration.
            waits: the proxy waits for the call to end; else the handler waits for the proxy to end it.
        """
        entered, release = asyncio.Event(), asyncio.Event()

        async def slow(received: SecureMessage) -> bytes:
            entered.set()
            await release.wait()
            return received.payload

        async with serve(slow) as server:
            proxy = await start(kind, server.port, *changes)
            async with connect(f"ws://127.0.0.1:{proxy.port}/ws") as client:
                call = asyncio.ensure_future(client.send(message()))
                async with asyncio.timeout(PATIENCE):
                    await entered.wait()
                    await proxy.reload()
                    if not waits:
                        await asyncio.wait([call])
                    release.set()
                    try:
                        return (await call).data
                    finally:
                        assert (await client.send(message())).data == b"hello"

    @pytest.mark.parametrize("name", ["nginx", "haproxy", "apache"])
    async def test_it_is_answered(self, name: str, kinds: Mapping[str, Kind], start: Start) -> None:
        assert await self.answer(kinds[name], start) == b"hello"

    async def test_caddy_ends_it(self, kinds: Mapping[str, Kind], start: Start) -> None:
        with pytest.raises(ConnectionLostError) as got:
            await self.answer(kinds["caddy"], start, waits=False)
        assert got.value.code in {1001, None}

    async def test_nginx_ends_it_where_told(self, kinds: Mapping[str, Kind], start: Start) -> None:
        kind = kinds["nginx"]
        impatient = kind._replace(file=f"worker_shutdown_timeout 1s;\n{kind.file}")
        with pytest.raises(ConnectionLostError):
            await self.answer(impatient, start, waits=False)

    async def test_haproxy_ends_it_where_told(self, kinds: Mapping[str, Kind], start: Start) -> None:
        with pytest.raises(ConnectionLostError):
            await self.answer(
                kinds["haproxy"], start, (r"\A", "global\n    hard-stop-after 1s\n\n"), waits=False
            )


async def test_two_agents_behind_nginx_are_restarted_in_turn(kinds: Mapping[str, Kind], start: Start) -> None:
    """With calls in flight, and dials that meet the one that drains: none of them fails."""
    running, go_on = 0, asyncio.Event()

    async def held(received: SecureMessage) -> bytes:
        nonlocal running
        running += 1
        await go_on.wait()
        return received.payload

    async with AsyncExitStack() as stack, asyncio.timeout(4 * PATIENCE):
        agents = [await stack.enter_async_context(serve(held)) for _ in range(2)]
        ports = [agent.port for agent in agents]
        two_agents = kinds["nginx"]._replace(title="two-agents.conf")
        proxy = await start(two_agents, ports[0], (r":8081 ", f":{ports[1]} "))
        url = f"ws://127.0.0.1:{proxy.port}/ws"
        clients = [
            await stack.enter_async_context(connect(url, backoff=lambda attempt: 0.01)) for _ in range(4)
        ]
        for agent, port in zip(agents, ports, strict=True):
            calls = [asyncio.create_task(client.send(message())) for client in clients]
            while running < len(calls):  # noqa: ASYNC110  # as fast as the proxy is
                await asyncio.sleep(0.001)
            draining = asyncio.create_task(agent.drain())
            for _ in range(4):  # nginx takes them in turn: each second one meets the agent that drains
                async with connect(url):
                    pass
            assert agent.stats()["refused"] > 0
            go_on.set()
            assert [(await call).data for call in calls] == [b"hello"] * len(calls)
            await draining
            await stack.enter_async_context(serve(held, port=port))
            running = 0
            go_on.clear()
        stats = [client.stats() for client in clients]
        assert [(one["failed"], one["lost"]) for one in stats] == [(0, 0)] * len(clients)


class TestWhoCalls:
    """By `X-Forwarded-For`; the peer's own port is told from 0, which stands for a header's word."""

    async def address(self, kind: Kind, start: Start, trusted: list[str], *changes: Change) -> Any:
        async def where(_: SecureMessage, call: Call) -> bytes:
            return repr(call.connection.request.remote_address).encode()

        async with serve(where, trusted_proxies=trusted) as server:
            proxy = await start(kind, server.port, *changes)
            forged = {"X-Forwarded-For": "192.0.2.1"}
            async with connect(f"ws://127.0.0.1:{proxy.port}/ws", headers=forged) as client:
                return ast.literal_eval((await client.send(message())).data.decode())

    async def test_of_a_stranger_is_the_peers(self, kind: Kind, start: Start) -> None:
        host, port = await self.address(kind, start, ["127.0.0.9"])
        assert host == "127.0.0.1"
        assert port != 0

    async def test_of_a_trusted_proxy_is_what_it_says(self, kind: Kind, start: Start) -> None:
        address = await self.address(kind, start, ["127.0.0.1"])
        # Client and proxy share an address here: what the client forged counts, where it is passed on.
        assert address == ("127.0.0.1" if kind.program == "caddy" else "192.0.2.1", 0)

    async def test_over_a_unix_socket_nginx_is_trusted_as_such(
        self, kinds: Mapping[str, Kind], start: Start, tmp_path: Path
    ) -> None:
        async def where(_: SecureMessage, call: Call) -> bytes:
            return repr(call.connection.request.remote_address).encode()

        name = str(tmp_path / "agent.sock")
        async with serve(where, unix=name, trusted_proxies=["unix"]):
            proxy = await start(kinds["nginx"], 8080, (r"proxy_pass .*;", f"proxy_pass http://unix:{name};"))
            async with connect(f"ws://127.0.0.1:{proxy.port}/ws") as client:
                assert (await client.send(message())).data == b"('127.0.0.1', 0)"

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("nginx", (r"(proxy_pass .*;)", r"\1 proxy_bind 127.0.0.2;")),
            ("haproxy", (r"(server agent .*)", r"\1 source 127.0.0.2")),
        ],
    )
    async def test_what_a_client_forged_does_not_count(
        self, name: str, change: Change, kinds: Mapping[str, Kind], start: Start
    ) -> None:
        assert await self.address(kinds[name], start, ["127.0.0.2"], change) == ("127.0.0.1", 0)
