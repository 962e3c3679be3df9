"""``sage-ws serve --metrics-port`` and ``sage-ws top``, as the processes that a user starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sage_ws import SecureMessage, connect, serve
from sage_ws.cli import main
from sage_ws.metrics import Metrics, MetricsPort

HANDLER = """
async def answer(message):
    return message.payload.upper()
"""
PROGRAM = """
import contextlib, os, sys
if os.environ.get("SAGE_WS_TEST_LOOP") != "uvloop":
    sys.modules["uvloop"] = None
from sage_ws.cli import main
from sage_ws.observing import sources
sources.PATIENCE = 20.0  # whatever is slow is waited for
with contextlib.suppress(ImportError):
    from sage_ws.metrics import places
    places.PATIENCE = 20.0
sys.exit(main(ARGUMENTS))
"""


def message() -> SecureMessage:
    return SecureMessage(payload=b"x", did="did:sage:test")


@pytest.fixture
def command(
    start_program: Callable[[str], Awaitable[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Awaitable[Any]]:
    """``program = await command("top", …)``, in a folder with ``agents.py``."""
    tmp_path.joinpath("agents.py").write_text(HANDLER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(Path(one).absolute()) for one in sys.path if one))
    monkeypatch.chdir(tmp_path)

    async def start(*arguments: str) -> Any:
        return await start_program(PROGRAM.replace("ARGUMENTS", repr(list(arguments))))

    return start


def once(port: int, *arguments: str) -> int:
    return main(["top", f"http://127.0.0.1:{port}/metrics", "--once", "--interval", "0.05", *arguments])


# ── serve --metrics-port ───────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "workers",
    [1, pytest.param(2, marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked"))],
)
async def test_serve_shows_its_metrics(
    command: Callable[..., Awaitable[Any]], workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    program = await command(
        "serve", "agents:answer", "--port", "0", "--metrics-port", "0", "--workers", str(workers)
    )
    line = await program.line("metrics on http://127.0.0.1:")
    port = int(line.rpartition(":")[2].partition("/")[0])
    said = "workers are serving on" if workers > 1 else "serving on"
    served = int((await program.line(said)).rpartition(":")[2])
    async with connect(f"ws://127.0.0.1:{served}/ws") as client:
        for _ in range(3):
            await client.send(message())
        assert await asyncio.to_thread(once, port) == 0
        heading, *rows = capsys.readouterr().out.splitlines()
        assert heading.split()[:1] == ["SERVER"]
        assert all(row.startswith("agents:answer ") for row in rows[:workers])
        assert rows[-1].split()[0] == ("agents:answer" if workers == 1 else "all")
        assert re.search(r"serving +1 +0 ", rows[-1])
        with await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}") as answer:
            text = answer.read().decode()
        counts = re.findall(
            r'^sage_ws_server_requests_total{name="agents:answer".*} (\S+)', text, re.MULTILINE
        )
        assert (len(counts), sum(map(float, counts))) == (workers, 3)
        assert "process_cpu_seconds_total" in text
    program.signal(signal.SIGTERM)
    assert await program.ended() == 0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port)).close()


async def test_a_port_that_is_taken_is_one_line(
    command: Callable[..., Awaitable[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = await command("serve", "agents:answer", "--port", "0", "--metrics-port", str(port))
        assert await program.ended() == 1
    (line,) = await program.rest()
    assert line.startswith("sage-ws: ")
    assert f"cannot serve metrics on 127.0.0.1:{port}: Address already in use" in line


async def test_metrics_can_be_elsewhere(command: Callable[..., Awaitable[Any]]) -> None:
    program = await command(
        "serve", "agents:answer", "--port", "0", "--metrics-port", "0", "--metrics-host", "127.0.0.2"
    )
    await program.line("metrics on http://127.0.0.2:")
    await program.line("serving on")
    program.signal(signal.SIGTERM)
    assert await program.ended() == 0


def test_a_host_needs_a_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "m:h", "--metrics-host", "0.0.0.0"]) == 2
    assert capsys.readouterr().err == "sage-ws: --metrics-host needs --metrics-port\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["serve", "agents:answer", "--metrics-port", "0"],
            "--metrics-port needs prometheus_client: pip install 'sage-ws[prometheus]'",
        ),
        (["top"], "top needs prometheus_client: pip install 'sage-ws[top]'"),
    ],
)
async def test_a_missing_extra_is_one_line(
    arguments: list[str], text: str, command: Callable[..., Awaitable[Any]], start_program: Any
) -> None:
    program = await start_program(
        "import sys; sys.modules['prometheus_client'] = None\n"
        + PROGRAM.replace("ARGUMENTS", repr(arguments))
    )
    assert await program.ended() == 1
    assert await program.rest() == [f"sage-ws: {text}"]


# ── top ────────────────────────────────────────────────────────────────────────────────
async def test_once_shows_servers_and_clients(capsys: pytest.CaptureFixture[str]) -> None:
    registry = CollectorRegistry()

    async def echo(message: SecureMessage) -> bytes:
        return message.payload

    with Metrics(registry) as metrics, MetricsPort(0, registry=registry) as port, port.serving():
        assert await asyncio.to_thread(once, port.port) == 0
        assert capsys.readouterr().out == "no server and no client is shown there\n"
        interceptors = [metrics.server_interceptor("[bold]agent")]
        async with serve(echo, interceptors=interceptors) as server:
            async with connect(f"ws://127.0.0.1:{server.port}/ws") as client:
                metrics.watch(server, "[bold]agent")
                metrics.watch(client, "bank\x1b[2J")
                showing = asyncio.ensure_future(asyncio.to_thread(once, port.port, "--interval", "0.3"))
                while not showing.done():
                    await client.send(message())
                assert await showing == 0
    heading, of_server, of_clients, of_client = capsys.readouterr().out.splitlines()
    assert " ".join(heading.split()) == (
        "SERVER STATE CONNS PENDING REQ/S ANS/S IN B/S OUT B/S P50 P99 REFUSED DROPPED"
    )
    assert re.fullmatch(
        r"\[bold\]agent +serving +1 +\d +\S+ +\S+ +\S+ +\S+ +\S+ ms +\S+ m?s +0 +0 *", of_server
    ), of_server
    requests = of_server.split()[4]
    assert requests != "0"
    assert of_clients.split()[:4] == ["CLIENT", "STATE", "PENDING", "QUEUED"]
    assert re.fullmatch(r"bank\S* +open +\d +0 +\S+ +\S+ +\S+ +\S+ +- +- +0 +0 *", of_client), of_client
    assert "\x1b" not in of_client


class Other(BaseHTTPRequestHandler):
    """Answers what the path says."""

    def do_GET(self) -> None:
        if self.path == "/404":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>\xff" if self.path == "/bytes" else b"<html>")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def other() -> Iterator[str]:
    """The URL of a server that is no metrics port."""
    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "text"),
    [("/404", "answers 404"), ("/", "answers no metrics: "), ("/bytes", "answers no metrics: ")],
)
def test_once_of_something_else(other: str, path: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", other + path, "--once"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"sage-ws: {other}{path} {text}")
    assert err.count("\n") == 1


def test_once_where_nobody_is(closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert once(closed_port) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"sage-ws: no answer from http://127\.0\.0\.1:\d+/metrics: .*refused\n", err)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:8080/ws", "127.0.0.1:9464"])
def test_top_needs_an_http_url(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", url]) == 2
    assert capsys.readouterr().err == f"sage-ws: top needs the http:// URL of a metrics port, not {url!r}\n"


async def test_a_server_that_is_away_for_a_while(
    command: Callable[..., Awaitable[Any]], closed_port: int
) -> None:
    registry = CollectorRegistry()
    url = f"http://127.0.0.1:{closed_port}/metrics"
    with Metrics(registry) as metrics:
        async with serve(lambda message: None) as server:
            program = await command("top", url, "--interval", "0.02")
            for life in ("first", "second"):
                await program.line(f"no answer from {url}")
                with metrics.watch(server, life):
                    with MetricsPort(closed_port, registry=registry) as port, port.serving():
                        # Without rates at first, for it may be another one.
                        rates = [(await program.line(life)).split()[4] for _ in range(2)]
                        assert rates == ["-", "0"]
            program.signal(signal.SIGINT)
            assert await program.ended() == 130


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_on_a_terminal_it_is_shown_in_place() -> None:
    import pty

    registry = CollectorRegistry()
    ours, theirs = pty.openpty()
    with Metrics(registry), MetricsPort(0, registry=registry) as port, port.serving():
        arguments = ["top", f"http://127.0.0.1:{port.port}", "--interval", "0.02"]
        with subprocess.Popen(
            [sys.executable, "-m", "sage_ws", *arguments],
            stdout=theirs,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(one for one in sys.path if one),
                "TERM": "xterm",
                "COLUMNS": "120",
                "LINES": "20",
            },
        ) as process:
            os.close(theirs)
            seen = b""
            while seen.count(b"no client is shown there") < 3:  # in its loop
                seen += os.read(ours, 4096)
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):  # its end is an error on Linux
                while more := os.read(ours, 4096):
                    seen += more
            assert process.wait(20) == 130
    os.close(ours)
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1  # the terminal is as it was
