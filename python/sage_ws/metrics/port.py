"""A port that Prometheus scrapes, for one process or for all those of `run(workers=…)` together.

::

    port = MetricsPort(9464, workers=4)      # bound here, before the fork

    @asynccontextmanager
    async def lifespan(server):              # in each worker
        with metrics.watch(server), port.serving():
            yield

The workers share the listening socket, and the kernel gives a scrape to any of them. That one asks the
others, at their `Places`, and answers for all: each sample has the label ``worker``.

HTTP is spoken in a thread, as prometheus_client's own server does it, so that a loop that hangs can be seen.
"""

from __future__ import annotations

import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, make_wsgi_app

from sage_ws.aio.head import shown_address
from sage_ws.logs import logger_of
from sage_ws.metrics.places import END, Places
from sage_ws.metrics.together import Together

logger = logger_of("metrics")

POLL: Final = 0.25
"""Seconds until a thread that serves sees that it is to end."""
BACKLOG: Final = 16
SLOWEST: Final = 10.0
"""Seconds for somebody to say what is wanted, and to take it."""


class MetricsPort:
    """A listening socket for scrapes; a context manager, which closes it.

    Args:
        port: 0 for any free one; ``port`` of this then tells which.
        host: an address or a name. Metrics are for those who run the server, so by default it is this machine
        alone. workers: processes that answer on it. registry: what is shown.

    Raises:
        ValueError: workers is less than 1.
        OSError: the address cannot be bound; the text names it.
    """

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        *,
        workers: int = 1,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self._registry = registry
        self._workers = workers
        self._socket = _bound(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._places = Places(workers)
        logger.info("metrics on http://%s/metrics", shown_address(self._socket.getsockname()))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer scrapes in this process, until the block ends.

        Raises:
            RuntimeError: as many processes as it was made for do so already, or this one does.
        """
        with ExitStack() as stack:
            place = stack.enter_context(self._places.taken())
            shown = self._registry
            if self._workers > 1:
                stack.enter_context(_served(_Own(self._places.listen(place), self._text)))
                shown = CollectorRegistry(auto_describe=False, support_collectors_without_names=True)
                shown.register(Together(lambda: {place: self._text(), **self._places.ask_others(place)}))
            stack.enter_context(_served(_Scraped(self._socket.dup(), shown)))
            yield

    def _text(self) -> bytes:
        return generate_latest(self._registry)

    def close(self) -> None:
        """Listen no more; idempotent. In a worker only its share of the socket is closed."""
        self._socket.close()
        self._places.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(error.errno, f"cannot serve metrics on {host}:{port}: {error.strerror}") from error
    try:
        if os.name == "posix":  # elsewhere it would share the port with whoever has it
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)  # several processes wait here, and all but one are late
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"cannot serve metrics on {host}:{port}: {error.strerror}") from error
    return listening


@contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve in a thread, until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL,), name="sage_ws metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(WSGIRequestHandler):
    timeout = SLOWEST

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing: a scrape is no event."""


class _Scraped(socketserver.ThreadingMixIn, WSGIServer):
    """HTTP on a socket that listens already."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, registry: CollectorRegistry) -> None:
        name = listening.getsockname()
        super().__init__(name[:2], _Quiet, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_name, self.server_port = name[:2]
        self.setup_environ()
        self.set_app(make_wsgi_app(registry))


class _Own(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """What this process shows, to another one that connects."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, text: Callable[[], bytes]) -> None:
        super().__init__(listening.getsockname(), _Sender, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.text = text


class _Sender(socketserver.StreamRequestHandler):
    timeout = SLOWEST

    def handle(self) -> None:
        assert isinstance(self.server, _Own)
        self.wfile.write(self.server.text() + END)
