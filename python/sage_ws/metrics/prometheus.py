"""Servers and clients as prometheus_client shows them.

Their numbers are read when somebody scrapes and cost nothing until then; the time of a call is taken by an
interceptor, around every one. Labels are words of which there are few, the user's ``name`` and how a call
ended: never an id, a DID or an address, each of which would be a series for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Final, Self

from prometheus_client import REGISTRY, CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sage_ws.message import Response, SecureMessage
from sage_ws.observing.numbers import Kind, known_keys, number
from sage_ws.observing.outcomes import DURATIONS, OUTCOMES, outcome_of, outcome_of_error
from sage_ws.observing.sources import Reading, Sources, Watch

if TYPE_CHECKING:
    from sage_ws.aio.client import Client
    from sage_ws.aio.server import Server
    from sage_ws.options import Interceptor, Next

BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds in seconds: from a handler that never waits to the ``read_timeout`` of a client."""


class Metrics:
    """The metrics of any number of servers and clients, in one registry of prometheus_client.

    One of them is enough for a process; a second one in the same registry is refused by it.

    Args:
        registry: where they are shown: by default prometheus_client's own, which `start_http_server` serves.
        buckets: upper bounds of the times, in seconds.

    Raises:
        ValueError: metrics of these names are in the registry already.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, buckets: Sequence[float] = BUCKETS) -> None:
        self.registry = registry
        self._sources = Sources()
        self._seconds = {
            kind: Histogram(
                f"sage_ws_{kind}_request_duration_seconds",
                text,
                ["name", "outcome"],
                registry=None,
                buckets=buckets,
            )
            for kind, text in DURATIONS.items()
        }
        self._collectors: tuple[Collector, ...] = (_Numbers(self._sources), *self._seconds.values())
        registered: list[Collector] = []
        try:
            for collector in self._collectors:
                registry.register(collector)
                registered.append(collector)
        except ValueError:
            for collector in registered:
                registry.unregister(collector)
            raise

    def watch(self, source: Server | Client, name: str = "") -> Watch:
        """Show what ``stats()`` of a server or a client counts.

        It is not kept alive by that. When it has ended what it counted stays in the sum of its name. What it
        counts between the last scrape and its end is in that sum too if the returned `Watch` is closed, which
        a ``with`` does, while it is still there: do so for clients that live shortly.

        Args:
            source: not watched yet.
            name: the label ``name``: several of one kind and name are shown as their sum.

        Raises:
            TypeError: it is neither a Server nor a Client.
            ValueError: it is watched already.
            RuntimeError: called outside of the event loop that it belongs to.
        """
        return self._sources.watch(source, name)

    def server_interceptor(self, name: str = "") -> Interceptor:
        """Time the handler: an entry of ``interceptors``, before those whose own time is to count too."""
        return _timed(self._seconds["server"], "server", name)

    def client_interceptor(self, name: str = "") -> Interceptor:
        """Time every `send`: an entry of ``interceptors``, before those whose own time is to count too."""
        return _timed(self._seconds["client"], "client", name)

    def close(self) -> None:
        """Take them out of the registry; idempotent. Interceptors and watches go on, and nobody sees it."""
        collectors, self._collectors = self._collectors, ()
        for collector in collectors:
            self.registry.unregister(collector)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _timed(seconds: Histogram, kind: Kind, name: str) -> Interceptor:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    # Every outcome is there from the start, at 0: else the first failure of all would be no increase.
    observe = {outcome: seconds.labels(name, outcome).observe for outcome in OUTCOMES[kind]}

    async def timed(message: SecureMessage, next: Next) -> Response:  # noqa: A002
        begun = perf_counter()
        try:
            response = await next(message)
        except BaseException as error:
            observe[outcome_of_error(kind, error)](perf_counter() - begun)
            raise
        observe[outcome_of(response)](perf_counter() - begun)
        return response

    return timed


class _Numbers(Collector):
    """The collector of what ``stats()`` counts."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """The families that there may be: a registry asks, so that none is there twice."""
        sums: dict[tuple[Kind, str], dict[str, float]] = {
            (kind, ""): dict.fromkeys(known_keys(kind), 0.0) for kind in DURATIONS
        }
        return _families(Reading(sums, {(kind, "", ""): 0 for kind in DURATIONS}))

    def collect(self) -> Iterable[Metric]:
        """What all that is watched has counted until now."""
        return _families(self._sources.read())


def _families(reading: Reading) -> Iterable[Metric]:
    families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    for (kind, name), sums in reading.sums.items():
        for key, value in sums.items():
            one = number(kind, key)
            full = f"sage_ws_{kind}_{one.name}"
            if full not in families:
                family = GaugeMetricFamily if one.is_gauge else CounterMetricFamily
                families[full] = family(full, one.help, labels=["name"])
            families[full].add_metric([name], value)
    for (kind, name, state), count in reading.states.items():
        full = f"sage_ws_{kind}s"
        if full not in families:
            text = f"How many {kind}s are in this state."
            families[full] = GaugeMetricFamily(full, text, labels=["name", "state"])
        families[full].add_metric([name, state], count)
    return families.values()
