"""A real server with an event loop and a thread of its own: a test may block, or run another loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

if TYPE_CHECKING:
    from sage_ws.aio.server import Server
    from sage_ws.handler import Handler
    from sage_ws.options import ServerOptions

T = TypeVar("T")

START_SECONDS: Final = 10.0
STOP_SECONDS: Final = 20.0
"""Longer than a server's ``close_timeout``; past it the thread hangs in a handler that blocks."""


@contextmanager
def serve_in_thread(
    handler: Handler,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    path: str | None = "/ws",
    **options: Unpack[ServerOptions],
) -> Iterator[ThreadServer]:
    """Run a real server in a thread, for the length of a ``with`` block.

    Args:
        handler: any shape; it runs in the server's thread.
        host: to listen at.
        port: 0 takes a free one.
        path: the only one served; None serves every path.
        options: as for ``serve``.

    Yields:
        The running server; its ``url`` is what a client needs.

    Raises:
        OSError: the address cannot be listened at; whatever else ``serve`` raises, too.
    """
    running = ThreadServer(handler, host, port, path, options)
    running.start()
    try:
        yield running
    finally:
        running.stop()


class ThreadServer:
    """A server in its thread; made by `serve_in_thread`.

    Attributes:
        url: where clients connect to.
        host, port: the same in parts; the port is the real one.
        handler: as given.
        server: the `Server` itself; only code in its own loop may touch it, see `run`.
    """

    url: str
    port: int
    server: Server

    def __init__(
        self, handler: Handler, host: str, port: int, path: str | None, options: ServerOptions
    ) -> None:
        self.handler = handler
        self.host = host
        self._wanted_port = port
        self._path = path
        self._options = options
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="sage_ws.testing server", daemon=True)

    def start(self) -> None:
        """Start the thread and wait until the server listens.

        Raises:
            Exception: what kept it from listening.
        """
        self._thread.start()
        if not self._started.wait(START_SECONDS):
            raise RuntimeError(f"the server did not listen within {START_SECONDS:g} s")
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Close the server and wait for its thread.

        Raises:
            RuntimeError: the thread does not end, because a handler blocks it.
        """
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError(
                f"the server's thread did not end within {STOP_SECONDS:g} s: a handler blocks it"
            )
        if self._error is not None:
            raise self._error

    def run(self, coroutine: Coroutine[Any, Any, T], *, timeout: float = 10.0) -> T:
        """Run a coroutine in the server's loop, where ``server`` may be touched, and return its result.

        Raises:
            TimeoutError: it did not end in time; it is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def _work(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  # raised again in the test's thread
            self._error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        from sage_ws.aio.server import serve  # its libraries, only where a server runs

        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        async with serve(
            self.handler, self.host, self._wanted_port, path=self._path, **self._options
        ) as server:
            scheme = "ws" if self._options.get("ssl") is None else "wss"
            host = f"[{self.host}]" if ":" in self.host else self.host
            self.server = server
            self.port = server.port
            self.url = f"{scheme}://{host}:{server.port}{self._path or '/ws'}"
            self._started.set()
            await self._stopping.wait()
