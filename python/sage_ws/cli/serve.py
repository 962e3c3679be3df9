"""``sage-ws serve module:handler``: run a handler as a server, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import importlib
import logging
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any

from sage_ws.aio.run import run as run_server
from sage_ws.cli.usage import Commands, UsageError, count, path, port, trusted_proxy
from sage_ws.handler import takes_call

if TYPE_CHECKING:
    from sage_ws.aio.server import Server
    from sage_ws.options import ServerOptions


def add_to(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("serve", help="run a handler of yours as a server")
    parser.add_argument("handler", metavar="MODULE:HANDLER", help="such as agents:answer, of ./agents.py")
    parser.add_argument("--host", default="127.0.0.1", help="to listen at (127.0.0.1)")
    parser.add_argument("--port", type=port, default=8080, help="0 takes a free one (8080)")
    parser.add_argument(
        "--path", type=path, metavar="/PATH", help="the only one served, such as /ws; every path by default"
    )
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="processes that share the port (1)"
    )
    parser.add_argument("--certfile", metavar="FILE", help="a certificate: serve TLS; SIGHUP loads it again")
    parser.add_argument("--keyfile", metavar="FILE", help="its private key, unless that stands there too")
    parser.add_argument("--max-connections", type=count, metavar="N")
    parser.add_argument("--max-connections-per-address", type=count, metavar="N")
    parser.add_argument(
        "--trusted-proxy",
        type=trusted_proxy,
        metavar="ADDRESS",
        action="append",
        help="or network, whose X-Forwarded-For is believed; may be repeated",
    )
    parser.add_argument("--max-message-size", type=count, metavar="BYTES")
    parser.add_argument("--no-health", action="store_true", help="no answer at /healthz")
    parser.add_argument(
        "--metrics-port", type=port, metavar="N", help="serve Prometheus metrics there; 0 takes a free one"
    )
    parser.add_argument("--metrics-host", metavar="HOST", help="to listen at for metrics (127.0.0.1)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    if arguments.keyfile is not None and arguments.certfile is None:
        raise UsageError("--keyfile needs --certfile, the certificate that it is the key of")
    if arguments.metrics_host is not None and arguments.metrics_port is None:
        raise UsageError("--metrics-host needs --metrics-port")
    handler = _find(arguments.handler)
    # The server itself says where it listens, at level INFO.
    name = "%(name)s" if arguments.workers == 1 else "%(name)s[%(process)d]"
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s {name}: %(message)s")
    options: ServerOptions = {}
    if arguments.max_connections is not None:
        options["max_connections"] = arguments.max_connections
    if arguments.max_connections_per_address is not None:
        options["max_connections_per_address"] = arguments.max_connections_per_address
    if arguments.trusted_proxy is not None:
        options["trusted_proxies"] = arguments.trusted_proxy
    if arguments.max_message_size is not None:
        options["max_message_size"] = arguments.max_message_size
    if arguments.no_health:
        options["health_path"] = None
    with ExitStack() as stack:
        if arguments.metrics_port is not None:
            stack.enter_context(_measured(arguments, options))
        try:
            run_server(
                handler,
                arguments.host,
                arguments.port,
                path=arguments.path,
                workers=arguments.workers,
                certfile=arguments.certfile,
                keyfile=arguments.keyfile,
                **options,
            )
        except socket.gaierror as error:  # which does not say whom it asked for
            raise OSError(f"cannot listen at {arguments.host}: {error.strerror}") from error
    return 0


@contextmanager
def _measured(arguments: argparse.Namespace, options: ServerOptions) -> Iterator[None]:
    """Add to the options what shows this server at the metrics port, which is bound here, before any fork."""
    try:
        from sage_ws.metrics import Metrics, MetricsPort
    except ModuleNotFoundError as error:
        raise ImportError(f"--metrics-port needs {error.name}: pip install 'sage-ws[prometheus]'") from error
    metrics = Metrics()
    name = arguments.handler

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        with metrics.watch(server, name), opened.serving():
            yield

    host = arguments.metrics_host or "127.0.0.1"
    with metrics, MetricsPort(arguments.metrics_port, host, workers=arguments.workers) as opened:
        options["interceptors"] = [metrics.server_interceptor(name)]
        options["lifespan"] = lifespan
        yield


def _find(name: str) -> Any:
    """The handler that ``module:handler`` names, looked for in the working directory first.

    Raises:
        UsageError: there is none, or it is no handler.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise UsageError(f"handler must be MODULE:HANDLER, such as agents:answer, not {name!r}")
    if module_name.endswith(".py") or "/" in module_name:
        raise UsageError(f"handler must name a module, as import does, such as agents, not {module_name!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(f"no module named {module_name!r}, neither here nor installed") from error
        raise UsageError(f"cannot import {module_name}: {error}") from error
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename}:{last.lineno}"
        raise UsageError(f"cannot import {module_name}: {type(error).__name__}: {error} ({where})") from error
    try:
        handler: Any = reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        raise UsageError(f"module {module_name} has no {attribute}") from error
    try:
        takes_call(handler)
    except TypeError as error:
        raise UsageError(str(error)) from error
    return handler
