"""`sage_ws.otel`: one call is one trace, across processes and transports, and no span tells what was said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from sage_ws import (
    Call,
    Client,
    DialError,
    HandlerError,
    Interceptor,
    ReadTimeoutError,
    Response,
    SecureMessage,
    Server,
    connect,
    serve,
)
from sage_ws.observing.numbers import number
from sage_ws.otel import Telemetry
from sage_ws.transports.http import HTTPTransport, http_app


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", **fields)


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/ws"


async def echo(message: SecureMessage) -> bytes:
    return message.payload


class Recorded:
    """A `Telemetry` and what it has recorded."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self.reader])
        self.telemetry = Telemetry(self.tracers, self.meters)

    def span(self, kind: SpanKind) -> ReadableSpan:
        """The only one of this kind."""
        (span,) = [span for span in self.exporter.get_finished_spans() if span.kind is kind]
        return span

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@asynccontextmanager
async def http_served(handler: Any, *interceptors: Interceptor) -> AsyncIterator[str]:
    app = http_app(handler, interceptors=interceptors)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# ── one trace ──────────────────────────────────────────────────────────────────────────
PROGRAM = """
import os, sys
if os.environ.get("SAGE_WS_TEST_LOOP") != "uvloop":
    sys.modules["uvloop"] = None
import contextlib, json, logging
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sage_ws import run
from sage_ws.otel import Telemetry
from sage_ws.transports.http import HTTPTransport

exporter = InMemorySpanExporter()
tracers = TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(exporter))
telemetry = Telemetry(tracers)
bank = HTTPTransport("BANK", interceptors=[telemetry.client_interceptor("bank")])

async def handler(message):
    if message.payload == b"spans":
        return json.dumps([json.loads(span.to_json()) for span in exporter.get_finished_spans()]).encode()
    return (await bank.send(message.replace(id="of-the-bank"))).data

@contextlib.asynccontextmanager
async def lifespan(server):
    async with bank:
        yield

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
run(handler, port=0, lifespan=lifespan, interceptors=[telemetry.server_interceptor("agent")])
"""


async def test_a_call_over_two_processes_and_http_is_one_trace(
    recorded: Recorded, start_program: Callable[[str], Awaitable[Any]]
) -> None:
    here = recorded.telemetry
    async with http_served(echo, here.server_interceptor("bank")) as base:
        program = await start_program(PROGRAM.replace("BANK", base))
        await program.serving()
        address = f"ws://127.0.0.1:{program.port}/ws"
        async with connect(address, interceptors=[here.client_interceptor("agent")]) as client:
            with recorded.tracers.get_tracer("test").start_as_current_span("whole") as whole:
                asked = message(b"canary", id="of-the-agent", context_id="talk", signature=b"canary")
                assert (await client.send(asked)).data == b"canary"
        async with connect(address) as plain:
            there = json.loads((await plain.send(message(b"spans"))).data)
    sent, served = recorded.span(SpanKind.CLIENT), recorded.span(SpanKind.SERVER)
    (passed_on,) = [span for span in there if span["kind"] == "SpanKind.CLIENT"]
    (answered,) = [span for span in there if span["kind"] == "SpanKind.SERVER"]
    trace_id = whole.get_span_context().trace_id
    assert sent.context.trace_id == served.context.trace_id == trace_id
    assert {span["context"]["trace_id"] for span in there} == {f"0x{trace_id:032x}"}
    assert sent.parent is not None
    assert served.parent is not None
    assert sent.parent.span_id == whole.get_span_context().span_id
    assert answered["parent_id"] == f"0x{sent.context.span_id:016x}"
    assert passed_on["parent_id"] == answered["context"]["span_id"]
    assert f"0x{served.parent.span_id:016x}" == passed_on["context"]["span_id"]
    assert served.parent.is_remote
    assert (sent.name, served.name) == ("sage send", "sage serve")
    assert dict(sent.attributes or {}) == {
        "rpc.system.name": "sage",
        "sage_ws.name": "agent",
        "sage_ws.outcome": "success",
        "messaging.message.id": "of-the-agent",
        "messaging.message.conversation_id": "talk",
        "messaging.message.body.size": 6,
    }
    assert answered["attributes"] == dict(sent.attributes or {})
    assert passed_on["attributes"]["messaging.message.id"] == "of-the-bank"
    assert "canary" not in json.dumps(there) + sent.to_json() + served.to_json()


async def test_what_a_server_asks_meanwhile_is_of_the_same_trace(recorded: Recorded) -> None:
    telemetry = recorded.telemetry

    async def asking_back(message: SecureMessage, call: Call) -> bytes:
        assert call.connection is not None
        return (await call.connection.send(message.replace(id="back", payload=b"sure?"))).data

    async with serve(
        asking_back,
        interceptors=[telemetry.server_interceptor("agent")],
        push_interceptors=[telemetry.client_interceptor("caller")],
    ) as server:
        async with connect(
            url(server),
            handler=echo,
            interceptors=[telemetry.client_interceptor("agent")],
            push_interceptors=[telemetry.server_interceptor("caller")],
        ) as client:
            assert (await client.send(message(id="there"))).data == b"sure?"
    spans = {
        (attributes["messaging.message.id"], span.kind): span
        for span in recorded.exporter.get_finished_spans()
        if (attributes := span.attributes) is not None
    }
    way = [(one, kind) for one in ("there", "back") for kind in (SpanKind.CLIENT, SpanKind.SERVER)]
    assert set(spans) == set(way)
    assert spans[way[0]].parent is None
    for before, after in pairwise(way):
        parent = spans[after].parent
        assert parent is not None
        assert parent.span_id == spans[before].context.span_id
        assert parent.is_remote == (after[1] is SpanKind.SERVER)


@pytest.mark.parametrize("ends", ["whole", "left early", "broken"])
async def test_an_answer_in_parts_is_one_span_at_each_end(recorded: Recorded, ends: str) -> None:
    telemetry = recorded.telemetry
    stopped = asyncio.Event()

    async def counting(message: SecureMessage) -> AsyncIterator[bytes]:
        try:
            for number in range(40):
                yield b"%d" % number
            if ends == "broken":
                raise HandlerError("no more")
            if ends == "left early":
                await asyncio.Event().wait()
        finally:
            stopped.set()

    async with serve(counting, interceptors=[telemetry.server_interceptor()]) as server:
        async with connect(url(server), interceptors=[telemetry.client_interceptor()]) as client:
            with recorded.tracers.get_tracer("test").start_as_current_span("whole") as whole:
                async with client.stream(message()) as parts:
                    if ends == "left early":
                        await anext(parts)
                    else:
                        assert len([part async for part in parts]) == 40 + (ends == "broken")
            await stopped.wait()
    sent, served = recorded.span(SpanKind.CLIENT), recorded.span(SpanKind.SERVER)
    assert sent.parent is not None
    assert served.parent is not None
    assert sent.parent.span_id == whole.get_span_context().span_id
    assert served.parent.span_id == sent.context.span_id
    outcomes = [(span.attributes or {})["sage_ws.outcome"] for span in (sent, served)]
    assert (
        outcomes
        == {
            "whole": ["success"] * 2,
            "left early": ["cancelled"] * 2,
            "broken": ["failure"] * 2,
        }[ends]
    )


async def test_the_state_of_a_trace_travels_and_baggage_does_not(recorded: Recorded) -> None:
    seen: list[Any] = []

    async def handler(message: SecureMessage) -> None:
        span = trace.get_current_span().get_span_context()
        seen.append((dict(message.metadata), span.trace_state.get("vendor"), baggage.get_baggage("secret")))

    telemetry = recorded.telemetry
    state = trace.TraceState([("vendor", "7")])
    parent = trace.SpanContext(5, 6, is_remote=False, trace_flags=trace.TraceFlags(1), trace_state=state)
    async with serve(handler, interceptors=[telemetry.server_interceptor()]) as server:
        async with connect(url(server), interceptors=[telemetry.client_interceptor()]) as client:
            around = trace.set_span_in_context(trace.NonRecordingSpan(parent))
            token = context.attach(baggage.set_baggage("secret", "canary", around))
            await client.send(message(metadata={"action": "x", "traceparent": "stale"}))
            context.detach(token)
    ((metadata, vendor, secret),) = seen
    sent = recorded.span(SpanKind.CLIENT).context
    assert metadata == {
        "action": "x",
        "traceparent": f"00-{5:032x}-{sent.span_id:016x}-01",
        "tracestate": "vendor=7",
    }
    assert (vendor, secret) == ("7", None)


async def test_a_server_that_was_started_within_a_span_is_not_its_child(recorded: Recorded) -> None:
    with recorded.tracers.get_tracer("test").start_as_current_span("start"):
        async with serve(echo, interceptors=[recorded.telemetry.server_interceptor()]) as server:
            async with connect(url(server)) as client:
                await client.send(message())
    assert recorded.span(SpanKind.SERVER).parent is None


async def test_who_is_not_trusted_is_linked(recorded: Recorded) -> None:
    telemetry = recorded.telemetry
    around = [telemetry.server_interceptor("door", attributes={"zone": "outer"}, trusted=False)]
    async with serve(echo, interceptors=around) as server:
        async with connect(url(server), interceptors=[telemetry.client_interceptor()]) as client:
            await client.send(message())
        sent, served = recorded.span(SpanKind.CLIENT), recorded.span(SpanKind.SERVER)
        assert served.parent is None
        assert served.context.trace_id != sent.context.trace_id
        assert [link.context.span_id for link in served.links] == [sent.context.span_id]
        assert (served.attributes or {})["zone"] == "outer"
        recorded.exporter.clear()
        async with connect(url(server)) as client:
            await client.send(message(metadata={"traceparent": "00-nonsense"}))
        assert recorded.span(SpanKind.SERVER).links == ()


async def test_without_an_sdk_a_message_is_what_it_was() -> None:
    seen: list[SecureMessage] = []

    async def handler(message: SecureMessage) -> None:
        seen.append(message)

    telemetry = Telemetry()
    async with serve(handler, interceptors=[telemetry.server_interceptor()]) as server:
        telemetry.watch(server)
        async with connect(url(server), interceptors=[telemetry.client_interceptor()]) as client:
            telemetry.watch(client)
            asked = message(metadata={"action": "x"})
            await client.send(asked)
    assert seen == [asked]


# ── how it ended ───────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("payload", "outcome", "error_type", "text", "exception"),
    [
        (b"failure", "failure", "failure", "'no'", None),
        (b"refused", "failure", "sage_ws.errors.HandlerError", "not you", "sage_ws.errors.HandlerError"),
        (b"error", "error", "ZeroDivisionError", "by zero", "ZeroDivisionError"),
    ],
)
async def test_a_failure_is_told_at_both_ends(
    payload: bytes,
    outcome: str,
    error_type: str,
    text: str,
    exception: str | None,
    recorded: Recorded,
) -> None:
    async def handler(message: SecureMessage) -> Response:
        if message.payload == b"refused":
            raise HandlerError("not you")
        if message.payload == b"error":
            raise ZeroDivisionError("by zero")
        return Response.failure("no")

    telemetry = recorded.telemetry
    async with serve(handler, interceptors=[telemetry.server_interceptor()]) as server:
        async with connect(url(server), interceptors=[telemetry.client_interceptor()]) as client:
            answer = await client.send(message(payload))
    served, sent = recorded.span(SpanKind.SERVER), recorded.span(SpanKind.CLIENT)
    assert (served.status.status_code, served.status.description) == (StatusCode.ERROR, text)
    told = served.attributes or {}
    assert (told["sage_ws.outcome"], str(told["error.type"]).removeprefix("builtins.")) == (
        outcome,
        error_type,
    )
    events = [(event.attributes or {})["exception.type"] for event in served.events]
    assert events == ([exception] if exception else [])
    assert (sent.status.status_code, sent.status.description) == (StatusCode.ERROR, repr(answer.error))
    assert (sent.attributes or {})["sage_ws.outcome"] == "failure"


async def test_a_call_without_an_answer_is_told(recorded: Recorded) -> None:
    async def never(message: SecureMessage) -> None:
        await asyncio.Event().wait()

    around = [recorded.telemetry.client_interceptor("bank")]
    async with serve(never) as server, connect(url(server), interceptors=around) as client:
        with pytest.raises(ReadTimeoutError):
            await client.send(message(), timeout=0.05)
        call = asyncio.ensure_future(client.send(message()))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
    with pytest.raises(DialError):
        await Client("ws://127.0.0.1:1/ws", interceptors=around).send(message())
    async with HTTPTransport("http://127.0.0.1:1", interceptors=around) as transport:
        with pytest.raises(DialError):
            await transport.send(message())
    late, cancelled, *undialled = recorded.exporter.get_finished_spans()
    assert [(span.attributes or {})["sage_ws.outcome"] for span in (late, cancelled, *undialled)] == [
        "maybe_delivered",
        "cancelled",
        "not_sent",
        "not_sent",
    ]
    assert [span.status.status_code for span in (late, cancelled, *undialled)] == [
        StatusCode.ERROR,
        StatusCode.UNSET,
        StatusCode.ERROR,
        StatusCode.ERROR,
    ]
    assert [len(span.events) for span in (late, cancelled, *undialled)] == [1, 0, 1, 1]
    counted = {
        (point.attributes["sage_ws.outcome"], point.attributes["error.type"]): point.count
        for point in recorded.points("rpc.client.call.duration")
    }
    assert counted == {
        ("maybe_delivered", "sage_ws.errors.ReadTimeoutError"): 1,
        ("cancelled", "asyncio.exceptions.CancelledError"): 1,
        ("not_sent", "sage_ws.errors.DialError"): 2,
    }


# ── metrics ────────────────────────────────────────────────────────────────────────────
async def test_every_number_of_stats_is_a_metric(recorded: Recorded) -> None:
    telemetry = recorded.telemetry
    async with serve(echo, interceptors=[telemetry.server_interceptor("agent")]) as server:
        telemetry.watch(server, "agent")
        async with connect(url(server)) as client, connect(url(server)) as other:
            telemetry.watch(client, "bank")
            with telemetry.watch(other, "bank"):
                for one in (client, other):
                    await one.send(message())
            expected: dict[str, float] = {}
            for kind, source in (("server", server), ("client", client)):
                for key, count in source.stats().items():
                    one_number = number(kind, key)  # type: ignore[arg-type]
                    (point,) = recorded.points(f"sage_ws.{kind}.{one_number.name}")
                    gauge_of_both = kind == "client" and not one_number.is_gauge
                    assert point.value == count * (2 if gauge_of_both else 1), key
                    assert point.attributes == {"sage_ws.name": "agent" if kind == "server" else "bank"}
                    expected[f"{kind}.{key}"] = point.value
    assert expected["server.received"] == expected["client.answered"] == 2
    (point,) = recorded.points("rpc.server.call.duration")
    assert point.count == 2
    assert point.attributes == {
        "rpc.system.name": "sage",
        "sage_ws.name": "agent",
        "sage_ws.outcome": "success",
    }


def test_names_are_texts(recorded: Recorded) -> None:
    for make in (recorded.telemetry.client_interceptor, recorded.telemetry.server_interceptor):
        with pytest.raises(TypeError, match="name must be a str, not int"):
            make(1)  # type: ignore[arg-type]
