"""`run`: a server that owns its process, or several: its loop, its signals, its certificate, its drain."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Unpack

from sage_ws.aio.server import Server
from sage_ws.aio.stopping import HELD_BACK, Stop, hear_hangup, hear_signals
from sage_ws.handler import Handler
from sage_ws.logs import logger_of
from sage_ws.options import ServerOptions, check_run

if TYPE_CHECKING:
    from sage_ws.aio.certificate import Certificate
    from sage_ws.aio.lifeline import WorkerEnd

logger = logger_of("server")

DRAIN_TIMEOUT = 30.0
"""Seconds that a signalled server gives the requests it has read."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Look for uvloop: its loop where it is installed, else None for asyncio's own."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


async def _serve_until_signalled(
    server: Server, host: str | None, port: int, path: str | None, certificate: Certificate | None
) -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    hear_signals(loop, stop.side())
    if certificate is not None:
        hear_hangup(loop, certificate.reload)
    await server.start(host, port, path=path)
    await _serve_until(stop, server, "signalled; a second signal ends it at once")


async def _serve_until(stop: Stop, server: Server, why: str) -> None:
    try:
        waits = {
            asyncio.ensure_future(stop.drain.wait()),
            asyncio.ensure_future(server.wait_closed()),
        }
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if stop.drain.is_set():
            logger.info("draining: %s", why)
            cut = asyncio.ensure_future(stop.cut.wait())
            drain = asyncio.ensure_future(server.drain(timeout=DRAIN_TIMEOUT))
            await asyncio.wait({cut, drain}, return_when=asyncio.FIRST_COMPLETED)
            cut.cancel()
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
    certfile: str | None = None,
    keyfile: str | None = None,
    **options: Unpack[ServerOptions],
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return; a second signal cuts the drain short.

    With ``certfile`` SIGHUP loads the certificate again, for further connections; one that cannot be loaded
    is logged, and the old one stays.

    With several workers this process serves nothing: it starts them, replaces one that ends, and hands
    signals on. Each has a server of its own, with connections, limits, `lifespan` and counters of its own.

    Args:
        handler: called for each valid request.
        host: address or name to bind; None for all interfaces.
        port: port to bind; 0 for any free one.
        path: serve this path only; None serves every path.
        workers: processes that share the port; more than 1 where there is `os.fork`.
        certfile: path of a certificate with its chain, in PEM: serve TLS. It is loaded into the context that
            ``ssl`` gives, or into one of its own.
        keyfile: path of its private key; None where that stands in ``certfile`` too.
        **options: see `ServerOptions`.

    Raises:
        TypeError: the handler, an option, path, workers or a file's path is of a wrong type.
        ValueError: one of them makes no sense.
        OSError: the address cannot be bound, the certificate cannot be loaded, its key is encrypted, or this
            platform cannot fork several workers.
        RuntimeError: called where an event loop runs already, or, with several workers, in another thread
            than the main one.
        ChildProcessError: a worker ended before it had served, or not well after a signal.
    """
    check_run(path, workers, certfile, keyfile)
    certificate = None
    if certfile is not None:
        from sage_ws.aio.certificate import Certificate

        certificate = Certificate(certfile, keyfile, options.get("ssl"))
        options["ssl"] = certificate.context
    server = Server(handler, **options)
    if _is_loop_running():
        raise RuntimeError("run() makes its own event loop; where one is running, use serve()")
    factory = loop_factory()
    if workers == 1:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_serve_until_signalled(server, host, port, path, certificate))
        return
    if not (hasattr(os, "fork") and hasattr(socket, "SO_REUSEPORT")):
        raise OSError("this platform cannot fork workers that share a port: run one, or several by hand")
    from sage_ws.aio.shared_port import SharedPort
    from sage_ws.aio.supervisor import Supervisor

    shared = SharedPort(host, port)

    def work(parent: WorkerEnd) -> int:
        shared.close()
        try:
            own = Server(handler, **options)
            own._shares_port = True
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(_serve_as_worker(own, host, shared.number, path, parent, certificate))
        except BaseException as error:  # whatever a lifespan or a handler ends it by
            logger.exception("this worker failed")
            parent.say_failed(error)
            return 1
        return 0

    close_timeout = server.settings.close_timeout
    try:
        Supervisor(
            work,
            workers,
            where=shared.where,
            drain_time=None if close_timeout is None else DRAIN_TIMEOUT + close_timeout,
            close_time=close_timeout,
            reload=None if certificate is None else certificate.reload,
        ).run()
    finally:
        shared.close()


async def _serve_as_worker(
    server: Server,
    host: str | None,
    port: int,
    path: str | None,
    parent: WorkerEnd,
    certificate: Certificate | None,
) -> None:
    loop = asyncio.get_running_loop()
    stop = Stop()
    hear_signals(loop, stop.side())
    if certificate is None:
        parent.attend(loop, stop, lambda: None)
    else:
        hear_hangup(loop, certificate.reload)  # said to the whole group, it comes from both
        parent.attend(loop, stop, certificate.reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
    try:
        await server.start(host, port, path=path)
        parent.say_serving()
        await _serve_until(stop, server, "told by the parent, or signalled")
    finally:  # what is said to the whole group now is done already, and must not end it in the middle
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
