"""What metrics and traces cost: the same calls with nothing around them and with each, in turns.

::

    chrt -f 10 .venv/bin/python -m bench.observing

Both ends in one process and one loop, so that a ratio is of all the work there is for a call: the handler
answers at once, and what is around it weighs as much as it ever will. Each round runs each setting once; a
ratio is the median over the rounds of its time by the time of the bare one in the same round.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from prometheus_client import CollectorRegistry, generate_latest

import sage_ws
from sage_ws import Interceptor, Next, Response, SecureMessage, connect, serve
from sage_ws.aio.run import loop_factory
from sage_ws.metrics import Metrics
from sage_ws.otel import Telemetry

CALLS: Final = 4000
IN_FLIGHT: Final = 64
ROUNDS: Final = 15

Around = Callable[[], tuple[list[Interceptor], list[Interceptor]]]
"""Makes the interceptors of the server and those of the client."""


async def answer(message: SecureMessage) -> bytes:
    return message.payload


async def passing(message: SecureMessage, next: Next) -> Response:  # noqa: A002
    return await next(message)


def prometheus() -> Metrics:
    return Metrics(CollectorRegistry())


def traced(share: float) -> Telemetry:
    return Telemetry(TracerProvider(sampler=TraceIdRatioBased(share)))


BARE: Final = "nothing"
SETTINGS: Final[Mapping[str, Around]] = {
    BARE: lambda: ([], []),
    "an interceptor that does nothing, at the server": lambda: ([passing], []),
    "the same, at both ends": lambda: ([passing], [passing]),
    "Prometheus, at the server": lambda: ([prometheus().server_interceptor()], []),
    "Prometheus, at both ends": lambda: (
        [prometheus().server_interceptor()],
        [prometheus().client_interceptor()],
    ),
    "OpenTelemetry without an SDK, at both ends": lambda: (
        [Telemetry().server_interceptor()],
        [Telemetry().client_interceptor()],
    ),
    "OpenTelemetry, no call sampled, at both ends": lambda: (
        [traced(0).server_interceptor()],
        [traced(0).client_interceptor()],
    ),
    "OpenTelemetry, every call sampled, at both ends": lambda: (
        [traced(1).server_interceptor()],
        [traced(1).client_interceptor()],
    ),
}


def url(server: sage_ws.Server) -> str:
    return f"ws://127.0.0.1:{server.port}/ws"


async def took(around: Around, calls: int) -> float:
    """Seconds for so many calls."""
    at_server, at_client = around()
    server = serve(answer, interceptors=at_server)
    async with server as listening, connect(url(listening), interceptors=at_client) as client:

        async def ask() -> None:
            for _ in range(calls // IN_FLIGHT):
                await client.send(SecureMessage(payload=b"x" * 256, did="did:sage:bench"))

        await ask()
        begun = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(IN_FLIGHT)))
        return time.perf_counter() - begun


async def scraped(watched: int) -> float:
    """Seconds for one scrape of so many servers."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    servers = [sage_ws.Server(answer) for _ in range(watched)]
    for number, server in enumerate(servers):
        metrics.watch(server, f"server {number}")
    begun = time.perf_counter()
    for _ in range(100):
        generate_latest(registry)
    return (time.perf_counter() - begun) / 100


def main() -> int:
    times: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        for number in range(ROUNDS + 1):
            for name, around in SETTINGS.items():
                seconds = runner.run(took(around, CALLS))
                if number:  # the first one warms up
                    times[name].append(seconds)
        scrape = runner.run(scraped(1))
    print(f"{sage_ws.core_name} core, Python {sys.version.split()[0]}, {ROUNDS} rounds of {CALLS} calls")
    bare = times[BARE]
    for name, each in times.items():
        ratio = statistics.median(one / zero for one, zero in zip(each, bare, strict=True))
        more = (statistics.median(each) - statistics.median(bare)) / CALLS
        print(f"{ratio:5.2f}  {more * 1e6:+6.1f} µs  {name}")
    print(f"       {scrape * 1e6:6.0f} µs  one scrape of one server")
    return 0


if __name__ == "__main__":
    sys.exit(main())
