"""OpenTelemetry: a span at each end of a call, one trace of both, and what ``stats()`` counts as metrics.

::

    telemetry = Telemetry()                  # of the global providers, which your program has set up
    async with serve(handler, interceptors=[telemetry.server_interceptor("agents")]) as server:
        telemetry.watch(server, "agents")
        async with connect(url, interceptors=[telemetry.client_interceptor("bank")]) as client:
            ...

The context of a trace travels in the message's ``metadata``, in the entries ``traceparent`` and
``tracestate`` of W3C Trace Context, over WebSocket and HTTP alike, and to peers in any language. What a span
tells follows OpenTelemetry's semantic conventions for RPC and messaging; payloads, signatures, DIDs and other
metadata stand in none.

Needs opentelemetry-api: ``pip install 'sage-ws[otel]'``. Without an SDK that is set up nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Final, Self

from opentelemetry import metrics, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation
from opentelemetry.propagators.textmap import Setter
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sage_ws.errors import peer_text
from sage_ws.message import Response, SecureMessage
from sage_ws.observing.numbers import Kind, number
from sage_ws.observing.outcomes import DURATIONS, outcome_of, outcome_of_error
from sage_ws.observing.sources import Sources, Watch, kind_of

if TYPE_CHECKING:
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.util.types import Attributes

    from sage_ws.aio.client import Client
    from sage_ws.aio.server import Server
    from sage_ws.options import Interceptor, Next

SYSTEM: Final = "sage"
"""``rpc.system.name``, and with the kind of a span its name: both are the same for every call."""
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds in seconds that the conventions advise for the duration of a call."""


class Telemetry:
    """Traces and metrics of any number of servers and clients.

    Args:
        tracer_provider: makes the spans; the global one by default.
        meter_provider: makes the metrics; the global one by default.
        propagator: what writes the context into metadata and reads it there; W3C Trace Context by default,
            and no baggage, which would tell a peer whatever the program keeps there.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        propagator: TextMapPropagator | None = None,
    ) -> None:
        self._tracer = trace.get_tracer("sage_ws", tracer_provider=tracer_provider)
        self._meter = metrics.get_meter("sage_ws", meter_provider=meter_provider)
        self._propagator = propagator or TraceContextTextMapPropagator()
        self._sources = Sources()
        self._shown: set[tuple[Kind, str]] = set()
        self._seconds = {
            kind: self._meter.create_histogram(
                f"rpc.{kind}.call.duration",
                unit="s",
                description=text,
                explicit_bucket_boundaries_advisory=BUCKETS,
            )
            for kind, text in DURATIONS.items()
        }

    def watch(self, source: Server | Client, name: str = "") -> Watch:
        """Show what ``stats()`` of a server or a client counts, as `sage_ws.metrics.Metrics.watch` does.

        Raises:
            TypeError: it is neither a Server nor a Client.
            ValueError: it is watched already.
            RuntimeError: called outside of the event loop that it belongs to.
        """
        watch = self._sources.watch(source, name)
        kind = kind_of(source)
        for key in source.stats():
            if (kind, key) not in self._shown:
                self._shown.add((kind, key))
                self._show(kind, key)
        return watch

    def client_interceptor(self, name: str = "", *, attributes: Attributes = None) -> Interceptor:
        """A span of kind CLIENT around every `send`, whose context the message takes along.

        Args:
            name: who is asked, for the attribute ``sage_ws.name`` of spans and metrics.
            attributes: further ones of every span, such as ``server.address``.
        """
        told = _told(name)
        of_spans = {**(attributes or {}), **told}

        async def traced(message: SecureMessage, next: Next) -> Response:  # noqa: A002
            span = self._tracer.start_span(
                f"{SYSTEM} send", kind=SpanKind.CLIENT, attributes={**of_spans, **_about(message)}
            )
            with _Call(
                "client", span, trace.set_span_in_context(span), self._seconds["client"], told
            ) as call:
                carrier = dict(message.metadata)
                self._propagator.inject(carrier, setter=_METADATA)
                if carrier != message.metadata:
                    message = message.replace(metadata=carrier)
                return call.answered(await next(message))

        return traced

    def server_interceptor(
        self, name: str = "", *, attributes: Attributes = None, trusted: bool = True
    ) -> Interceptor:
        """A span of kind SERVER around every call of the handler, which goes on with the caller's trace.

        Args:
            name: who answers, for the attribute ``sage_ws.name`` of spans and metrics.
            attributes: further ones of every span.
            trusted: whether a caller's context is taken over. False begins a trace for each call, with a link
                to the caller's: for callers who could otherwise have every call of theirs sampled.
        """
        told = _told(name)
        of_spans = {**(attributes or {}), **told}

        async def traced(message: SecureMessage, next: Next) -> Response:  # noqa: A002
            # Onto an empty one: around a handler there is that of the server's start, and no parent in it.
            context = self._propagator.extract(message.metadata, Context())
            links = []
            if not trusted:
                caller = trace.get_current_span(context).get_span_context()
                links = [Link(caller)] if caller.is_valid else []
                context = Context()
            span = self._tracer.start_span(
                f"{SYSTEM} serve",
                context,
                kind=SpanKind.SERVER,
                attributes={**of_spans, **_about(message)},
                links=links,
            )
            context = trace.set_span_in_context(span, context)
            with _Call("server", span, context, self._seconds["server"], told) as call:
                return call.answered(await next(message))

        return traced

    def _show(self, kind: Kind, key: str) -> None:
        """Make the instrument of one number of ``stats()``."""
        one = number(kind, key)

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for (kind_shown, name), sums in self._sources.read().sums.items():
                if kind_shown == kind and key in sums:
                    yield Observation(sums[key], {"sage_ws.name": name})

        make = (
            self._meter.create_observable_up_down_counter
            if one.is_gauge
            else self._meter.create_observable_counter
        )
        unit = "By" if one.name.endswith("_bytes") else "1"
        make(f"sage_ws.{kind}.{one.name}", [observe], unit=unit, description=one.help)


def _told(name: str) -> dict[str, str]:
    """Attributes that are the same for every call."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    return {"rpc.system.name": SYSTEM, **({"sage_ws.name": name} if name else {})}


def _about(message: SecureMessage) -> dict[str, str | int]:
    """Attributes of one message: which it is, and never what it says."""
    about: dict[str, str | int] = {
        "messaging.message.id": message.id,
        "messaging.message.body.size": len(message.payload),
    }
    if message.context_id:
        about["messaging.message.conversation_id"] = message.context_id
    return about


class _Metadata(Setter[dict[str, str]]):
    """Writes a context into metadata."""

    def set(self, carrier: dict[str, str], key: str, value: str) -> None:
        carrier[key] = value


_METADATA: Final = _Metadata()


class _Call:
    """A span that is the current one, until the call has ended, and what is told of its end."""

    def __init__(
        self, kind: Kind, span: Span, context: Context, seconds: Histogram, told: Mapping[str, str]
    ) -> None:
        self._kind: Kind = kind
        self._span = span
        self._context = context
        self._seconds = seconds
        self._attributes = dict(told)

    def __enter__(self) -> Self:
        self._token = attach(self._context)
        self._begun = perf_counter()
        return self

    def answered(self, response: Response) -> Response:
        """There is an answer; it may be one that says no."""
        self._end(outcome_of(response), peer_text(response.error))
        return response

    def __exit__(self, cls: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            name = f"{type(error).__module__}.{type(error).__qualname__}"
            self._end(outcome_of_error(self._kind, error), str(error), name)
            if isinstance(error, Exception):
                self._span.record_exception(error)
        self._seconds.record(perf_counter() - self._begun, self._attributes)
        detach(self._token)
        self._span.end()

    def _end(self, outcome: str, text: str, error_type: str | None = None) -> None:
        self._attributes["sage_ws.outcome"] = outcome
        if outcome != "success":
            self._attributes["error.type"] = error_type or outcome
        self._span.set_attributes(self._attributes)
        if outcome not in {"success", "cancelled"}:
            self._span.set_status(StatusCode.ERROR, text)
