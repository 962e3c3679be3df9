"""`run`: a server that owns its process: the loop, the signals, the drain at the end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Unpack

from sage_ws.aio.server import Server
from sage_ws.handler import Handler
from sage_ws.options import ServerOptions

logger = logging.getLogger("sage_ws.server")

DRAIN_TIMEOUT = 30.0
"""Seconds that a signalled server gives the requests it has read."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Look for uvloop: its loop where it is installed, else None for asyncio's own."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


async def _serve_until_signalled(server: Server, host: str | None, port: int, path: str | None) -> None:
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        try:
            loop.add_signal_handler(number, signalled.set)
        except NotImplementedError:  # Windows: Ctrl-C arrives by the signal module alone
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(signalled.set))
    await server.start(host, port, path=path)
    try:
        waits = {
            asyncio.ensure_future(signalled.wait()),
            asyncio.ensure_future(server.wait_closed()),
        }
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if signalled.is_set():
            logger.info("signalled: draining; a second signal ends it at once")
            signalled.clear()
            again = asyncio.ensure_future(signalled.wait())
            drain = asyncio.ensure_future(server.drain(timeout=DRAIN_TIMEOUT))
            await asyncio.wait({again, drain}, return_when=asyncio.FIRST_COMPLETED)
            again.cancel()
            drain.cancel()  # it closes on its way out
    finally:
        await server.close()


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run(
    handler: Handler,
    host: str | None = "127.0.0.1",
    port: int = 8080,
    *,
    path: str | None = None,
    workers: int = 1,
    **options: Unpack[ServerOptions],
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return; a second signal cuts the drain short.

    Args:
        handler: called for each valid request.
        host: address or name to bind; None for all interfaces.
        port: port to bind; 0 for any free one.
        path: serve this path only; None serves every path.
        workers: processes; not built yet beyond 1.
        **options: see `ServerOptions`.

    Raises:
        OSError: the address cannot be bound.
        RuntimeError: called where an event loop runs already.
    """
    if type(workers) is not int or workers != 1:
        raise TypeError(f"workers is not built yet: it takes 1, not {workers!r}")
    server = Server(handler, **options)
    if _is_loop_running():
        raise RuntimeError("run() makes its own event loop; where one is running, use serve()")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve_until_signalled(server, host, port, path))
