"""``sage-ws top [URL]``: what servers and clients do right now, as their metrics port tells."""

from __future__ import annotations

import argparse
import http.client
import math
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final

from sage_ws.cli.usage import Commands, UsageError, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from sage_ws.cli.rates import Row, Scrape

URL: Final = "http://127.0.0.1:9464/metrics"
LONGEST: Final = 64 * 1024 * 1024
"""Bytes of an answer that are read."""
PLAIN_WIDTH: Final = 200


def add_to(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("top", help="watch connections and rates of a server, by its metrics port")
    parser.add_argument("url", metavar="URL", nargs="?", default=URL, help=f"of the metrics port ({URL})")
    parser.add_argument("--interval", type=seconds, default=1.0, metavar="SECONDS", help="between looks (1)")
    parser.add_argument("--once", action="store_true", help="look twice, print what was in between, and end")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show it until Ctrl-C, or once."""
    if not arguments.url.lower().startswith(("http://", "https://")):
        raise UsageError(f"top needs the http:// URL of a metrics port, not {arguments.url!r}")
    try:
        import prometheus_client  # noqa: F401 - whether it is there
        from rich.console import Console
    except ModuleNotFoundError as error:
        raise ImportError(f"top needs {error.name}: pip install 'sage-ws[top]'") from error
    # What is read by a program is cut nowhere.
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    if arguments.once:
        before = _scrape(arguments.url)
        time.sleep(arguments.interval)
        console.print(_shown(_scrape(arguments.url), before))
        return 0
    watching = _Watching(arguments.url)
    if not console.is_terminal:
        while True:
            console.print(watching.look())
            time.sleep(arguments.interval)
    from rich.live import Live

    with Live(watching.look(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(arguments.interval)
            live.update(watching.look(), refresh=True)


class _Watching:
    """Looks at a port again and again, be it there or not."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._last: Scrape | None = None

    def look(self) -> RenderableType:
        """What there is to show now."""
        from rich.text import Text

        try:
            now = _scrape(self._url)
        except OSError as error:
            self._last = None  # rates are of one life of a server
            return Text(_printable(f"{error}; trying again"))
        before, self._last = self._last, now
        return _shown(now, before)


def _scrape(url: str) -> Scrape:
    """What the port shows.

    Raises:
        OSError: there is no answer, or none of that kind.
    """
    from sage_ws.cli.rates import read

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is nearer than any proxy
    try:
        with opener.open(url, timeout=5) as answer:
            text = answer.read(LONGEST).decode()
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"{url} answers {error.code}") from None
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise OSError(f"no answer from {url}: {cause or type(cause).__name__}") from error
    except ValueError as error:
        raise OSError(f"{url} answers no metrics: {error}") from error
    try:
        return read(text, time.monotonic())
    except (ValueError, KeyError) as error:
        raise OSError(f"{url} answers no metrics: {error}") from error


def _shown(now: Scrape, before: Scrape | None) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from sage_ws.cli.rates import rows

    servers, clients = rows("server", now, before), rows("client", now, before)
    if not servers and not clients:
        return Text("no server and no client is shown there")
    tables = [
        _table(title, found, columns)
        for title, found, columns in (("SERVER", servers, SERVER), ("CLIENT", clients, CLIENT))
        if found
    ]
    return Group(*tables)


def _table(title: str, found: Sequence[Row], columns: Mapping[str, Callable[[Row], str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    has_workers = any(row.owner[2] for row in found)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(title, min_width=8, no_wrap=True)
    if has_workers:
        table.add_column("WORKER", justify="right")
    table.add_column("STATE", min_width=8, no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found:
        _, name, worker = row.owner
        about = [name or "-", *([worker] if has_workers else []), row.state]
        cells = [*about, *(column(row) for column in columns.values())]
        table.add_row(*(Text(_printable(cell)) for cell in cells))
    return table


def _printable(text: str) -> str:
    """A name as it cannot command a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _now(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row.values.get(name, 0):,.0f}"


def _rate(name: str) -> Callable[[Row], str]:
    return lambda row: "-" if row.rates is None else _short(row.rates.get(name, 0))


def _short(value: float) -> str:
    for unit in ("", "k", "M"):
        if value < 9999.5:
            return f"{value:.0f}{unit}" if unit == "" else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.1f}G"


def _time(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value * 1000:.2f} ms" if value < 1 else f"{value:.2f} s"


_TIMES: Final[Mapping[str, Callable[[Row], str]]] = {
    "P50": lambda row: _time(row.p50),
    "P99": lambda row: _time(row.p99),
}
SERVER: Final[Mapping[str, Callable[[Row], str]]] = {
    "CONNS": _now("connections"),
    "PENDING": _now("pending_requests"),
    "REQ/S": _rate("requests_total"),
    "ANS/S": _rate("responses_total"),
    "IN B/S": _rate("received_bytes_total"),
    "OUT B/S": _rate("sent_bytes_total"),
    **_TIMES,
    "REFUSED": _now("connections_refused_total"),
    "DROPPED": _now("dropped_total"),
}
CLIENT: Final[Mapping[str, Callable[[Row], str]]] = {
    "PENDING": _now("pending_requests"),
    "QUEUED": _now("queued_requests"),
    "REQ/S": _rate("requests_total"),
    "ANS/S": _rate("responses_total"),
    "IN B/S": _rate("received_bytes_total"),
    "OUT B/S": _rate("sent_bytes_total"),
    **_TIMES,
    "FAILED": _now("failures_total"),
    "RECONNECTS": _now("reconnects_total"),
}
