"""The command ``sage-ws``: in this process against real servers, and as the process that a user starts.

Over 500 lines: a class for each command.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import queue
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import sage_ws
from sage_ws import HandlerError, Response, SecureMessage, connect
from sage_ws.cli import main, ping
from sage_ws.testing import RecordingHandler, ThreadServer, serve_in_thread

HANDLERS = """
from sage_ws import Response

async def upper(message):
    return message.payload.upper()

class Box:
    @staticmethod
    def inside(message):
        return b"boxed"

def too_many(one, two, three):
    pass

number = 3
"""


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with serve_in_thread(RecordingHandler(lambda message: message.payload.upper())) as server:
        yield server


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with modules of handlers."""
    tmp_path.joinpath("cli_handlers.py").write_text(HANDLERS)
    tmp_path.joinpath("cli_broken.py").write_text("import math\n\n1 / 0\n")
    tmp_path.joinpath("cli_needy.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    yield tmp_path
    for name in ("cli_handlers", "cli_broken", "cli_needy"):
        sys.modules.pop(name, None)


def run(*arguments: str, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """As a user would, from a shell."""
    return subprocess.run(
        [sys.executable, "-m", "sage_ws", *arguments],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)},
        timeout=30,
        check=False,
    )


def recorded(server: ThreadServer) -> RecordingHandler:
    assert isinstance(server.handler, RecordingHandler)
    return server.handler


# ── the front ──────────────────────────────────────────────────────────────────────────


def test_the_version_names_the_core() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.decode().startswith(
        f"sage-ws {sage_ws.__version__} ({sage_ws.core_name} core, Python 3."
    )


@pytest.mark.parametrize("command", [[], ["demo"], ["serve"], ["send"], ["ping"], ["top"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {' '.join(['sage-ws', *command])}")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["send", "ws://host", "--payload", "x"], "the following arguments are required: --did"),
        (["send", "ws://host", "--did", "d"], "--payload --payload-file is required"),
        (["send", "ws://host", "--did", "d", "--payload", "x", "--payload-file", "-"], "not allowed with"),
        (
            ["send", "ws://host", "--did", "d", "--payload", "x", "--timeout", "0"],
            "not a positive number of seconds",
        ),
        (["send", "ws://host", "--did", "d", "--payload", "x", "--timeout", "soon"], "not a positive number"),
        (
            ["send", "ws://host", "--did", "d", "--payload", "x", "--metadata", "k"],
            "metadata must be KEY=VALUE",
        ),
        (
            ["send", "ws://host", "--did", "d", "--payload-file", "/no/such/file"],
            "cannot read /no/such/file: No such",
        ),
        (["send", "ws://host", "--did", "\udcff", "--payload", "x"], "did holds a lone surrogate"),
        (["send", "ftp://host", "--did", "d", "--payload", "x"], "no transport for scheme 'ftp', known are "),
        (["send", "host:80", "--did", "d", "--payload", "x"], "URL has no scheme"),
        (["send", "ws://", "--did", "d", "--payload", "x"], "host"),
        (["ping", "http://host"], "ping needs a ws:// or wss:// URL, not 'http://host'"),
        (["ping", "ws://"], "host"),
        (["ping", "ws://host", "--count", "0"], "'0' is not a whole number from 1 on"),
        (["serve", "m:h", "--port", "65536"], "'65536' is not a port"),
        (["serve", "m:h", "--workers", "0"], "'0' is not a whole number from 1 on"),
        (["serve", "m:h", "--path", "ws"], "'ws' does not start with a slash"),
        (["serve", "m:h", "--keyfile", "own.key"], "--keyfile needs --certfile"),
        (
            ["serve", "m:h", "--trusted-proxy", "nginx"],
            "'nginx' does not appear to be an IPv4 or IPv6 network",
        ),
        (
            ["serve", "cli_handlers"],
            "handler must be MODULE:HANDLER, such as agents:answer, not 'cli_handlers'",
        ),
        (
            ["serve", "cli_handlers.py:shout"],
            "must name a module, as import does, such as agents, not 'cli_handlers.py'",
        ),
        (["serve", "no_such_module:x"], "no module named 'no_such_module', neither here nor installed"),
        (["serve", "cli_handlers.deeper:x"], "no module named 'cli_handlers.deeper'"),
        (["serve", "cli_handlers:nobody"], "module cli_handlers has no nobody"),
        (["serve", "cli_handlers:number"], "handler must be callable, not int"),
        (["serve", "cli_handlers:too_many"], "must take (message) or (message, call)"),
        (["serve", "cli_broken:x"], "cannot import cli_broken: ZeroDivisionError: division by zero ("),
        (["serve", "cli_needy:x"], "cannot import cli_needy: No module named 'no_such_library'"),
        (["demo", "--messages", "many"], "'many' is not a whole number from 1 on"),
    ],
)
@pytest.mark.usefixtures("handlers")
def test_bad_arguments_are_one_clear_line_and_exit_2(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sage-ws: ")
    assert text in err
    assert err.count("\n") == 1


def test_bad_arguments_from_a_shell() -> None:
    done = run("send", "ws://host")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1


# ── send ───────────────────────────────────────────────────────────────────────────────


def test_send_writes_the_answers_bytes_and_nothing_else(server: ThreadServer) -> None:
    done = run("send", server.url, "--did", "did:x", "--payload", "grüße \N{WAVING HAND SIGN}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == "grüße \N{WAVING HAND SIGN}".encode().upper()


def test_send_takes_every_field(server: ThreadServer, capsys: pytest.CaptureFixture[str]) -> None:
    fields = ["--id", "m-1", "--context-id", "c", "--task-id", "t", "--role", "agent", "--timeout", "5"]
    metadata = ["--metadata", "a=1", "--metadata", "b=x=y", "--metadata", "c="]
    assert main(["send", server.url, "--did", "did:x", "--payload", "hi", *fields, *metadata]) == 0
    assert capsys.readouterr().out == "HI"
    expected = SecureMessage(b"hi", "did:x", "m-1", b"", "c", "t", {"a": "1", "b": "x=y", "c": ""}, "agent")
    assert recorded(server).messages == [expected]


def test_send_reads_the_payload_from_a_file_or_stdin(server: ThreadServer, tmp_path: Path) -> None:
    payload = bytes(range(256))
    file = tmp_path / "payload"
    file.write_bytes(payload)
    assert main(["send", server.url, "--did", "did:x", "--payload-file", str(file)]) == 0
    assert run("send", server.url, "--did", "did:x", "--payload-file", "-", stdin=payload).returncode == 0
    assert [message.payload for message in recorded(server).messages] == [payload, payload]


def test_send_can_print_the_whole_response(server: ThreadServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", server.url, "--did", "did:x", "--payload", "hi", "--id", "m", "--json"]) == 0
    assert capsys.readouterr().out == '{"success":true,"message_id":"m","data":"SEk="}\n'


def test_an_error_that_is_answered_is_one_line_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    with serve_in_thread(RecordingHandler(HandlerError("not\x1b[31m today"))) as server:
        assert main(["send", server.url, "--did", "did:x", "--payload", "hi"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "sage-ws: answered with an error: 'not\\x1b[31m today'\n"


class Terminal(io.TextIOWrapper):
    """A stdout that says it is a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain", "plain\n"),
        (b"a\tb\n", "a\tb\n"),
        (b"\x1b]0;title\x07\xff", "\\x1b]0;title\\x07\\xff\n"),
        ("grüße".encode(), "grüße\n"),
        (b"", "\n"),
    ],
)
def test_a_terminal_gets_text_that_cannot_command_it(
    data: bytes, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with serve_in_thread(RecordingHandler(data)) as server:
        assert main(["send", server.url, "--did", "did:x", "--payload", "hi"]) == 0
    assert terminal.text() == shown


@pytest.mark.parametrize("arguments", [["send", "--did", "d", "--payload", "x"], ["ping"]])
def test_nobody_listens(arguments: list[str], closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    command, *rest = arguments
    assert main([command, f"ws://127.0.0.1:{closed_port}/ws", *rest]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"sage-ws: could not reach .*\n", err)


def test_a_missing_extra_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_extra(url: str, **options: Any) -> Any:
        raise ImportError("scheme 'grpc' needs grpcio: pip install sage-ws[grpc]")

    monkeypatch.setattr(sage_ws.transport, "_registered", {"grpc": without_extra})
    assert main(["send", "grpc://host", "--did", "d", "--payload", "x"]) == 1
    assert capsys.readouterr().err == "sage-ws: scheme 'grpc' needs grpcio: pip install sage-ws[grpc]\n"


def test_an_interruption_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        async def send(self, message: SecureMessage, *, timeout: object) -> Response:
            raise KeyboardInterrupt

        async def close(self) -> None:
            pass

    monkeypatch.setattr(sage_ws.transport, "_registered", {"int": lambda url: Interrupted()})
    assert main(["send", "int://host", "--did", "d", "--payload", "x"]) == 130
    assert capsys.readouterr() == ("", "")


# ── ping ───────────────────────────────────────────────────────────────────────────────


def test_ping_prints_each_round_trip_and_a_summary(
    server: ThreadServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ping", server.url, "--count", "3", "--interval", "0.001"]) == 0
    *pongs, summary = capsys.readouterr().out.splitlines()
    times = [
        float(re.fullmatch(rf"pong {number} from {re.escape(server.url)}: ([\d.]+) ms", line)[1])  # type: ignore[index]
        for number, line in enumerate(pongs, 1)
    ]
    assert len(times) == 3
    assert all(0 < one < 5000 for one in times)
    low, mean, high = map(
        float, summary.removeprefix("3 pings, min/avg/max = ").removesuffix(" ms").split("/")
    )
    assert (low, high) == (min(times), max(times))
    assert low <= mean <= high


def test_a_pong_that_does_not_come(
    server: ThreadServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Silent(ping.Client):
        async def ping(self) -> float:
            await self.wait_closed()
            return 0.0

    monkeypatch.setattr(ping, "Client", Silent)
    assert main(["ping", server.url, "--timeout", "0.05"]) == 1
    assert capsys.readouterr().err == "sage-ws: no pong within 0.05 s\n"


def test_ping_can_be_interrupted(server: ThreadServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sage_ws", "ping", server.url, "--interval", "30"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"pong 1 ")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, b"")


# ── serve ──────────────────────────────────────────────────────────────────────────────


class Ports(logging.Handler):
    """Where servers say that they listen."""

    def __init__(self) -> None:
        super().__init__()
        self.found: queue.Queue[int] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        listening = re.fullmatch(r"serving on 127\.0\.0\.1:(\d+)", record.getMessage())
        if listening:
            self.found.put(int(listening[1]))


@pytest.fixture
def ports() -> Iterator[Ports]:
    logger = logging.getLogger("sage_ws.server")
    ports, level = Ports(), logger.level
    logger.addHandler(ports)
    logger.setLevel(logging.INFO)
    yield ports
    logger.setLevel(level)
    logger.removeHandler(ports)


def serve_and(talk: Callable[[int], None], ports: Ports, *arguments: str) -> int:
    """Run ``serve`` here, in the main thread as its signals need, and ``talk`` beside it; then SIGTERM."""
    failures: list[Exception] = []

    def beside() -> None:
        port = ports.found.get(timeout=10)
        try:
            talk(port)
        except Exception as error:  # raised again in the main thread
            failures.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=beside)
    thread.start()
    code = main(["serve", *arguments, "--port", "0"])
    thread.join()
    if failures:
        raise failures[0]
    return code


def ask(url: str) -> Response:
    async def talk() -> Response:
        async with connect(url) as client:
            return await client.send(SecureMessage(payload=b"hi", did="did:x", id="m"), timeout=30)

    return asyncio.run(talk())


@pytest.mark.usefixtures("handlers")
def test_serve_serves_a_handler_of_the_working_directory_until_sigterm(ports: Ports) -> None:
    answers = []

    def talk(port: int) -> None:
        answers.append(ask(f"ws://127.0.0.1:{port}/any/path").data)

    assert serve_and(talk, ports, "cli_handlers:upper") == 0
    assert serve_and(talk, ports, "cli_handlers:Box.inside", "--max-message-size", "1000") == 0
    assert answers == [b"HI", b"boxed"]


@pytest.mark.usefixtures("handlers")
def test_serve_hands_its_options_on(ports: Ports) -> None:
    seen: list[Any] = []

    def talk(port: int) -> None:
        seen.append(ask(f"ws://127.0.0.1:{port}/in").data)
        for path in ("/other", "/healthz"):
            with pytest.raises(sage_ws.DialError) as caught:
                ask(f"ws://127.0.0.1:{port}{path}")
            seen.append(caught.value.status)

        async def two() -> None:
            async with connect(f"ws://127.0.0.1:{port}/in"), connect(f"ws://127.0.0.1:{port}/in"):
                pass

        with pytest.raises(sage_ws.DialError) as caught:
            asyncio.run(two())
        seen.append(caught.value.status)

    options = ["--path", "/in", "--max-connections", "1", "--no-health"]
    assert serve_and(talk, ports, "cli_handlers:upper", *options) == 0
    assert seen == [b"HI", 404, 404, 503]
    seen.clear()
    options = ["--path", "/in", "--max-connections-per-address", "1", "--no-health"]
    assert serve_and(talk, ports, "cli_handlers:upper", *options) == 0
    assert seen == [b"HI", 404, 404, 429]


@pytest.mark.usefixtures("handlers")
def test_serve_believes_the_proxies_that_it_is_told_of(ports: Ports) -> None:
    statuses: list[int | None] = []

    async def two(port: int) -> None:
        url = f"ws://127.0.0.1:{port}"
        async with connect(url, headers={"X-Forwarded-For": "192.0.2.1"}):
            for caller in ("192.0.2.2", "192.0.2.1"):
                try:
                    async with connect(url, headers={"X-Forwarded-For": caller}):
                        statuses.append(101)
                except sage_ws.DialError as error:
                    statuses.append(error.status)

    options = [
        "--max-connections-per-address",
        "1",
        "--trusted-proxy",
        "unix",
        "--trusted-proxy",
        "127.0.0.0/8",
    ]
    assert serve_and(lambda port: asyncio.run(two(port)), ports, "cli_handlers:upper", *options) == 0
    assert statuses == [101, 429]


@pytest.mark.usefixtures("handlers")
def test_serve_with_a_certificate_speaks_tls(ports: Ports, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "own.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    answers: list[bytes] = []

    async def talk_tls(port: int) -> None:
        async with connect(f"wss://127.0.0.1:{port}", ssl=context) as client:
            answers.append((await client.send(SecureMessage(payload=b"hi", did="did:sage:me"))).data)

    options = ["--certfile", "own.pem"]
    assert serve_and(lambda port: asyncio.run(talk_tls(port)), ports, "cli_handlers:upper", *options) == 0
    assert answers == [b"HI"]


@pytest.mark.usefixtures("handlers")
def test_a_certificate_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "cli_handlers:upper", "--port", "0", "--certfile", "own.pem"]) == 1
    assert "cannot load own.pem: [Errno 2] No such file" in capsys.readouterr().err


@pytest.mark.usefixtures("handlers")
def test_a_host_that_nobody_knows_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(*arguments: Any, **options: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("sage_ws.cli.serve.run_server", unknown)
    assert main(["serve", "cli_handlers:upper", "--host", "no.example"]) == 1
    assert capsys.readouterr().err == "sage-ws: cannot listen at no.example: Name or service not known\n"


@pytest.mark.usefixtures("handlers")
def test_a_port_that_is_taken(server: ThreadServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "cli_handlers:upper", "--port", str(server.port)]) == 1
    assert "address already in use" in capsys.readouterr().err


def test_serve_from_a_shell_says_where_and_ends_by_ctrl_c(handlers: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sage_ws", "serve", "cli_handlers:upper", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=handlers,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)},
    ) as process:
        assert process.stderr is not None
        listening = re.search(r"serving on 127\.0\.0\.1:(\d+)", process.stderr.readline())
        assert listening is not None
        assert ask(f"ws://127.0.0.1:{listening[1]}/ws").data == b"HI"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")
def test_serve_with_workers_says_who_says_what(handlers: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sage_ws", "serve", "cli_handlers:upper", "--port", "0", "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=handlers,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)},
    ) as process:
        assert process.stderr is not None
        lines: list[str] = []
        while "2 workers are serving on" not in "".join(lines[-1:]):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        said = [re.search(r"INFO sage_ws\.server\[(\d+)\]: (.*)", line) for line in lines]
        says = {(int(one[1]), one[2]) for one in said if one is not None}
        port = lines[-1].strip().rpartition(":")[2]
        assert (process.pid, f"2 workers are serving on 127.0.0.1:{port}") in says
        assert len({pid for pid, text in says if text == f"serving on 127.0.0.1:{port}"} - {process.pid}) == 2
        assert ask(f"ws://127.0.0.1:{port}/ws").data == b"HI"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err
