"""``sage-ws ping URL``: the round trip of WebSocket pings (RFC 6455 §5.5.2)."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys

from sage_ws.aio.client import Client
from sage_ws.cli.usage import Commands, UsageError, count, seconds
from sage_ws.errors import ReadTimeoutError


def add_to(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("ping", help="measure round trips to a server by WebSocket pings")
    parser.add_argument("url", metavar="URL", help="such as ws://127.0.0.1:8080/ws")
    parser.add_argument("--count", type=count, default=4, metavar="N", help="pings to send (4)")
    parser.add_argument("--interval", type=seconds, default=1.0, metavar="SECONDS", help="between pings (1)")
    parser.add_argument(
        "--timeout", type=seconds, default=5.0, metavar="SECONDS", help="for a dial or a pong (5)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ping, a line each, then the summary."""
    if not arguments.url.lower().startswith(("ws://", "wss://")):
        raise UsageError(f"ping needs a ws:// or wss:// URL, not {arguments.url!r}")
    try:
        client = Client(arguments.url, dial_timeout=arguments.timeout, reconnect=False)
    except ValueError as error:
        raise UsageError(str(error)) from error
    trips = asyncio.run(_ping(client, arguments.count, arguments.interval, arguments.timeout))
    sys.stdout.write(
        f"{len(trips)} pings, min/avg/max = "
        f"{min(trips):.3f}/{statistics.fmean(trips):.3f}/{max(trips):.3f} ms\n"
    )
    return 0


async def _ping(client: Client, count: int, interval: float, timeout: float) -> list[float]:
    """Round trips in milliseconds."""
    trips: list[float] = []
    async with client:
        for number in range(1, count + 1):
            try:
                async with asyncio.timeout(timeout):
                    trips.append(await client.ping() * 1000)
            except TimeoutError as error:
                raise ReadTimeoutError(f"no pong within {timeout:g} s") from error
            sys.stdout.write(f"pong {number} from {client.url}: {trips[-1]:.3f} ms\n")
            sys.stdout.flush()
            if number < count:
                await asyncio.sleep(interval)
    return trips
