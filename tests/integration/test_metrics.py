"""`sage_ws.metrics`: what Prometheus would scrape of real servers and clients.

Over 500 lines: one process, several, and loops that hang or end, each with its cases.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families

from sage_ws import (
    Client,
    DialError,
    HandlerError,
    ReadTimeoutError,
    Response,
    SecureMessage,
    Server,
    connect,
    serve,
)
from sage_ws.metrics import Metrics, MetricsPort
from sage_ws.observing import sources
from sage_ws.observing.numbers import number

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:canary", **fields)


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/ws"


async def echo(message: SecureMessage) -> bytes:
    return message.payload


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is slow is waited for."""
    monkeypatch.setattr(sources, "PATIENCE", 20.0)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Iterator[Metrics]:
    with Metrics(registry) as metrics:
        yield metrics


def series(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(shown: Series | CollectorRegistry, metric: str, /, **labels: str) -> float | None:
    if isinstance(shown, CollectorRegistry):
        shown = series(generate_latest(shown).decode())
    return shown.get((metric, frozenset(labels.items())))


def fetch(port: int, accept: str = "text/plain", query: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics{query}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        text: str = answer.read().decode()
        return text


async def scrape(port: int) -> Series:
    return series(await asyncio.to_thread(fetch, port))


# ── what stats() counts ────────────────────────────────────────────────────────────────
class TestNumbers:
    async def test_every_number_of_stats_is_shown_as_it_is(
        self, metrics: Metrics, registry: CollectorRegistry
    ) -> None:
        async with serve(echo) as server, connect(url(server)) as client:
            metrics.watch(server, "agent")
            metrics.watch(client, "bank")
            await asyncio.gather(*(client.send(message()) for _ in range(3)))
            shown = series(generate_latest(registry).decode())
            for kind, name, source in (("server", "agent", server), ("client", "bank", client)):
                for key, count in source.stats().items():
                    one = number(kind, key)  # type: ignore[arg-type]
                    full = f"sage_ws_{kind}_{one.name}" + ("" if one.is_gauge else "_total")
                    assert value(shown, full, name=name) == count, key
            assert value(shown, "sage_ws_server_requests_total", name="agent") == 3
            assert value(shown, "sage_ws_client_requests_total", name="bank") == 3

    async def test_a_number_that_is_new_is_shown_without_a_change_here(
        self, metrics: Metrics, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = Client("ws://agent.example")
        stats = client.stats()
        monkeypatch.setattr(client, "stats", lambda: {**stats, "somersaults": 3}, raising=False)
        metrics.watch(client)
        assert value(registry, "sage_ws_client_somersaults_total", name="") == 3

    async def test_several_of_one_name_are_their_sum(
        self, metrics: Metrics, registry: CollectorRegistry
    ) -> None:
        async with serve(echo) as one, serve(echo) as other:
            for server, name in ((one, "both"), (other, "both")):
                metrics.watch(server, name)
            async with connect(url(one)) as first, connect(url(other)) as second, connect(url(one)) as third:
                metrics.watch(third, "third")
                for client, count in ((first, 1), (second, 2), (third, 3)):
                    for _ in range(count):
                        await client.send(message())
                shown = series(generate_latest(registry).decode())
        assert value(shown, "sage_ws_server_requests_total", name="both") == 6
        assert value(shown, "sage_ws_server_connections", name="both") == 3
        assert value(shown, "sage_ws_client_requests_total", name="third") == 3
        assert value(shown, "sage_ws_servers", name="both", state="serving") == 2

    async def test_states(self, metrics: Metrics, registry: CollectorRegistry) -> None:
        handling, go = asyncio.Event(), asyncio.Event()

        async def slow(message: SecureMessage) -> None:
            handling.set()
            await go.wait()

        async with serve(slow) as server, connect(url(server)) as client:
            idle = Client("ws://agent.example")
            for source in (server, client, idle):
                metrics.watch(source)
            shown = series(generate_latest(registry).decode())
            assert value(shown, "sage_ws_servers", name="", state="serving") == 1
            assert value(shown, "sage_ws_clients", name="", state="open") == 1
            assert value(shown, "sage_ws_clients", name="", state="idle") == 1
            call = asyncio.ensure_future(client.send(message()))
            await handling.wait()
            drain = asyncio.ensure_future(server.drain())
            await asyncio.sleep(0)
            assert value(registry, "sage_ws_servers", name="", state="draining") == 1
            assert value(registry, "sage_ws_server_pending_requests", name="") == 1
            go.set()
            await asyncio.gather(call, drain)
        shown = series(generate_latest(registry).decode())
        assert value(shown, "sage_ws_clients", name="", state="idle") == 1
        assert value(shown, "sage_ws_servers", name="", state="serving") is None
        assert value(shown, "sage_ws_clients", name="", state="open") is None

    async def test_no_label_tells_who_calls_or_what(
        self, metrics: Metrics, registry: CollectorRegistry
    ) -> None:
        interceptors = [metrics.server_interceptor("agent")]
        async with serve(echo, interceptors=interceptors) as server, connect(url(server)) as client:
            metrics.watch(server, "agent")
            metrics.watch(client, "bank")
            await client.send(
                message(b"canary", id="canary", context_id="canary", metadata={"canary": "canary"})
            )
            shown = series(generate_latest(registry).decode())
        labels = {label for _, labels in shown for label in labels}
        assert {name for name, _ in labels} == {"name", "state", "outcome", "le"}
        assert {text for name, text in labels if name == "name"} == {"agent", "bank"}
        assert "canary" not in generate_latest(registry).decode()


class TestEnds:
    async def test_what_an_ended_one_counted_stays(
        self, metrics: Metrics, registry: CollectorRegistry
    ) -> None:
        async with serve(echo) as server:
            for count in (1, 2, 3):
                async with connect(url(server)) as client:
                    with metrics.watch(client):
                        await client.send(message())
                del client
                gc.collect()
                assert value(registry, "sage_ws_client_requests_total", name="") == count
                assert value(registry, "sage_ws_client_pending_requests", name="") == 0
        assert len(metrics._sources._watched) == 0

    async def test_none_is_kept_alive_and_its_last_look_stays(
        self, metrics: Metrics, registry: CollectorRegistry
    ) -> None:
        async with serve(echo) as server:
            client = connect(url(server))
            metrics.watch(client)
            await client.send(message())
            assert value(registry, "sage_ws_client_requests_total", name="") == 1
            await client.close()
            gone = weakref.ref(client)
            del client
            gc.collect()
            assert gone() is None
        assert value(registry, "sage_ws_client_requests_total", name="") == 1
        assert value(registry, "sage_ws_clients", name="", state="open") is None

    async def test_a_thousand_that_nobody_scraped_leave_nothing(self, metrics: Metrics) -> None:
        for _ in range(1000):
            metrics.watch(Client("ws://agent.example"), "many")
        gc.collect()
        for _ in range(200):
            metrics.watch(Client("ws://agent.example"), "many")
        assert len(metrics._sources._watched) <= 2 * sources.Sources()._sweep_at + 64

    async def test_a_watch_may_be_closed_twice(self, metrics: Metrics, registry: CollectorRegistry) -> None:
        client = Client("ws://127.0.0.1:1/ws")
        with pytest.raises(DialError):
            await client.send(message())
        watch = metrics.watch(client)
        watch.close()
        watch.close()
        assert value(registry, "sage_ws_client_dials_total", name="") == 1
        metrics.watch(client, "again")
        assert value(registry, "sage_ws_client_dials_total", name="again") == 1

    async def test_one_whose_loop_has_ended_is_shown_as_it_was(
        self, metrics: Metrics, registry: CollectorRegistry
    ) -> None:
        async def elsewhere() -> Client:
            client = Client("ws://127.0.0.1:1/ws")
            metrics.watch(client, "elsewhere")
            with pytest.raises(DialError):
                await client.send(message())
            return client

        client = await asyncio.to_thread(asyncio.run, elsewhere())
        assert value(registry, "sage_ws_client_dials_total", name="elsewhere") == 1
        assert client.stats()["dials"] == 1

    async def test_what_stats_raises_reaches_who_asks(
        self, metrics: Metrics, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = Client("ws://agent.example")
        metrics.watch(client)
        monkeypatch.setattr(client, "stats", lambda: 1 / 0, raising=False)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(generate_latest, registry)

    async def test_what_cannot_be_watched(self, metrics: Metrics) -> None:
        client: Any = Client("ws://agent.example")
        with pytest.raises(TypeError, match="a Server or a Client can be watched, not str"):
            metrics.watch("ws://agent.example")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="name must be a str, not int"):
            metrics.watch(client, 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="name must be a str, not int"):
            metrics.server_interceptor(1)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="no running event loop"):
            await asyncio.to_thread(metrics.watch, client)
        metrics.watch(client)
        with pytest.raises(ValueError, match="this client is watched already"):
            metrics.watch(client, "again")

    async def test_a_registry_has_them_once_and_gives_them_back(self, registry: CollectorRegistry) -> None:
        first = Metrics(registry)
        with pytest.raises(ValueError, match="sage_ws_"):
            Metrics(registry)
        with Metrics(CollectorRegistry()):
            pass
        first.close()
        first.close()
        assert generate_latest(registry) == b""
        with Metrics(registry):
            pass
        clashing = prometheus_client.Counter("sage_ws_client_request_duration_seconds", "", registry=registry)
        with pytest.raises(ValueError, match="sage_ws_client_request_duration_seconds"):
            Metrics(registry)
        registry.unregister(clashing)
        assert generate_latest(registry) == b""


# ── how long calls take ────────────────────────────────────────────────────────────────
class TestTimes:
    async def test_outcomes(
        self, metrics: Metrics, registry: CollectorRegistry, caplog: Any, growing: Any
    ) -> None:
        begun = asyncio.Event()

        async def handler(message: SecureMessage) -> bytes | Response:
            match message.payload:
                case b"failure":
                    return Response.failure("no")
                case b"refused":
                    raise HandlerError("no")
                case b"error":
                    raise ZeroDivisionError
                case b"slow":
                    begun.set()
                    await asyncio.Event().wait()
            return b""

        def count(kind: str, outcome: str) -> float | None:
            name = f"sage_ws_{kind}_request_duration_seconds_count"
            return value(registry, name, name="a", outcome=outcome)

        async with serve(handler, interceptors=[metrics.server_interceptor("a")]) as server:
            async with connect(url(server), interceptors=[metrics.client_interceptor("a")]) as client:
                for payload in (b"", b"", b"failure", b"refused", b"error"):
                    await client.send(message(payload or b"x"))
                tries = 0
                for seconds in growing(0.01):
                    tries += 1
                    with pytest.raises(ReadTimeoutError):
                        await client.send(message(b"slow"), timeout=seconds)
                    await client.ping()  # what was sent before has been read
                    if begun.is_set():
                        break
                call = asyncio.ensure_future(client.send(message(b"slow")))
                await asyncio.sleep(0)
                call.cancel()
                await asyncio.wait([call])
            with pytest.raises(DialError):
                await connect("ws://127.0.0.1:1/ws", interceptors=[metrics.client_interceptor("a")]).send(
                    message()
                )
        assert count("server", "success") == 2
        assert count("server", "failure") == 2
        assert count("server", "error") == 1
        assert count("server", "cancelled") in {1, 2}  # whether the second slow one was ever dispatched
        assert count("client", "success") == 2
        assert count("client", "failure") == 3
        assert count("client", "maybe_delivered") == tries
        assert count("client", "not_sent") == 1
        assert count("client", "cancelled") == 1
        assert count("client", "error") == 0

    async def test_buckets_may_be_given(self, registry: CollectorRegistry) -> None:
        with Metrics(registry, buckets=(1.0, 2.0)) as metrics:
            metrics.server_interceptor()
            text = generate_latest(registry).decode()
        bounds = {dict(labels).get("le") for name, labels in series(text) if name.endswith("_bucket")}
        assert bounds == {"1.0", "2.0", "+Inf"}


# ── the port ───────────────────────────────────────────────────────────────────────────
class TestPort:
    async def test_it_is_scraped_over_http(self, metrics: Metrics, registry: CollectorRegistry) -> None:
        async with serve(echo) as server, connect(url(server)) as client:
            metrics.watch(server)
            with MetricsPort(0, registry=registry) as port, port.serving():
                assert port._socket.getsockname()[0] == "127.0.0.1"
                for count in (1, 2):
                    await client.send(message())
                    assert value(await scrape(port.port), "sage_ws_server_requests_total", name="") == count
                strict = await asyncio.to_thread(
                    fetch, port.port, "application/openmetrics-text; version=1.0.0"
                )
                assert "sage_ws_server_requests" in {family.name for family in read_open_metrics(strict)}
                only = await asyncio.to_thread(fetch, port.port, query="?name[]=sage_ws_server_connections")
                assert set(series(only)) == {("sage_ws_server_connections", frozenset({("name", "")}))}
        with pytest.raises(urllib.error.URLError):
            await scrape(port.port)
        assert not port._places._folder.exists()
        assert not [one for one in threading.enumerate() if one.name == "sage_ws metrics"]

    async def test_prometheus_clients_own_server_serves_them_too(
        self, metrics: Metrics, registry: CollectorRegistry
    ) -> None:
        async with serve(echo) as server:
            metrics.watch(server)
            http, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
            try:
                assert value(await scrape(http.server_port), "sage_ws_server_connections", name="") == 0
            finally:
                http.shutdown()
                http.server_close()
                thread.join()

    async def test_a_loop_that_hangs_has_its_last_numbers_shown(
        self, metrics: Metrics, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = threading.Event()
        shown: list[Series] = []

        def ask() -> None:
            with monkeypatch.context() as impatient:
                impatient.setattr(sources, "PATIENCE", 0.05)
                shown.append(series(fetch(port.port)))
            asked.set()

        async def hanging(message: SecureMessage) -> bytes:
            threading.Thread(target=ask).start()
            assert asked.wait(20)  # and with it the loop
            return b""

        async with serve(hanging) as server, connect(url(server)) as client:
            metrics.watch(server)
            with MetricsPort(0, registry=registry) as port, port.serving():
                await client.send(message())
                assert value(shown[0], "sage_ws_server_requests_total", name="") == 0
                assert value(await scrape(port.port), "sage_ws_server_requests_total", name="") == 1

    async def test_many_scrapes_at_once_while_connections_come_and_go(
        self, metrics: Metrics, registry: CollectorRegistry
    ) -> None:
        async with serve(echo) as server:
            metrics.watch(server)
            with MetricsPort(0, registry=registry) as port, port.serving():

                async def call() -> None:
                    for _ in range(10):
                        async with connect(url(server)) as client:
                            with metrics.watch(client):
                                await client.send(message())

                scrapes = asyncio.gather(*(scrape(port.port) for _ in range(20)))
                await asyncio.gather(*(call() for _ in range(5)))
                found = await scrapes
                assert len(found) == 20
                shown = await scrape(port.port)
        assert value(shown, "sage_ws_server_requests_total", name="") == 50
        assert value(shown, "sage_ws_client_requests_total", name="") == 50

    def test_what_is_taken_is_told(self, registry: CollectorRegistry) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            with pytest.raises(OSError, match=rf"cannot serve metrics on 127.0.0.1:{port}: .*in use"):
                MetricsPort(port, registry=registry)
        with pytest.raises(OSError, match=r"cannot serve metrics on no\.such\.host\.invalid:0: "):
            MetricsPort(0, "no.such.host.invalid")
        with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
            MetricsPort(0, workers=0)

    def test_it_may_be_served_again(self, registry: CollectorRegistry) -> None:
        with MetricsPort(0, registry=registry) as port:
            for _ in range(2):
                with port.serving():
                    assert series(fetch(port.port)) == {}

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no further processes")
    async def test_it_is_served_once_in_a_process_and_by_so_many(self, outcome_of: Any) -> None:
        code, out, err = await outcome_of(
            """
            from sage_ws.metrics import MetricsPort
            def refused():
                try:
                    with port.serving():
                        return "served"
                except RuntimeError as error:
                    return str(error)
            told, tell = os.pipe()
            with MetricsPort(0) as port:
                pid = os.fork()
                if pid == 0:
                    os.read(told, 1)
                    print(refused(), flush=True)
                    os._exit(0)
                with port.serving():
                    os.write(tell, b"!")
                    os.waitpid(pid, 0)
                    print(refused())
            """
        )
        assert (code, err) == (0, "")
        assert out.splitlines() == [
            "the metrics port was made for 1 processes, and as many serve it: see workers=",
            "this process serves the metrics port already",
        ]


# ── several processes ──────────────────────────────────────────────────────────────────
PROGRAM = """
import os, sys
if os.environ.get("SAGE_WS_TEST_LOOP") != "uvloop":
    sys.modules["uvloop"] = None
import contextlib, logging
import prometheus_client
from sage_ws import run
from sage_ws.metrics import Metrics, MetricsPort, places
from sage_ws.observing import sources

sources.PATIENCE = places.PATIENCE = 20.0
metrics = Metrics()
own = prometheus_client.Gauge("own_pid", "A metric of the program's.")

async def handler(message):
    return str(os.getpid()).encode()

@contextlib.asynccontextmanager
async def lifespan(server):
    own.set(os.getpid())
    with metrics.watch(server, "agent"), port.serving():
        yield

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
with MetricsPort(0, workers=2) as port:
    run(handler, port=0, workers=2, lifespan=lifespan, interceptors=[metrics.server_interceptor("agent")])
print("returned", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")
async def test_one_port_shows_all_workers(start_program: Callable[[str], Awaitable[Any]]) -> None:
    program = await start_program(PROGRAM)
    port = int((await program.line("metrics on")).rpartition(":")[2].partition("/")[0])
    served = int((await program.line("2 workers are serving on")).rpartition(":")[2])
    asked: dict[int, int] = {}

    async def ask(times: int) -> None:
        for _ in range(times):
            async with connect(f"ws://127.0.0.1:{served}/ws") as client:
                pid = int((await client.send(message())).data)
                asked[pid] = asked.get(pid, 0) + 1

    async def scraped(condition: Callable[[Series], bool]) -> Series:
        """A scrape of which this holds."""
        async with asyncio.timeout(20):
            while not condition(found := await scrape(port)):  # noqa: ASYNC110 # what it asks has no event
                await asyncio.sleep(0.01)
        return found

    def of(found: Series, worker: str) -> tuple[int, float | None]:
        requests = value(found, "sage_ws_server_requests_total", name="agent", worker=worker)
        timed = value(
            found,
            "sage_ws_server_request_duration_seconds_count",
            name="agent",
            outcome="success",
            worker=worker,
        )
        assert timed == requests
        return int(value(found, "own_pid", worker=worker) or 0), requests

    await ask(20)
    for _ in range(5):  # whoever answers
        found = await scrape(port)
        assert value(found, "sage_ws_workers") == 2
        counted = dict(of(found, worker) for worker in ("1", "2"))
        assert counted == {**dict.fromkeys(counted, 0), **asked}
        assert (
            sum(
                value(found, "sage_ws_servers", name="agent", state="serving", worker=one) or 0
                for one in "12"
            )
            == 2
        )
    killed, _ = of(found, "2")
    first = of(found, "1")
    os.kill(killed, signal.SIGKILL)
    await program.line(f"(pid {killed}) was killed by signal 9")
    await program.line("worker 2 (pid ")  # started again
    found = await scraped(lambda found: of(found, "2")[0] not in {killed, 0})
    assert value(found, "sage_ws_workers") == 2
    assert of(found, "1") == first
    assert of(found, "2")[1] == 0  # as a process that has started anew
    program.signal(signal.SIGTERM)
    assert await program.ended() == 0
    assert "returned" in await program.rest()
    with pytest.raises(urllib.error.URLError):
        await scrape(port)
