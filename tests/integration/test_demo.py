"""The demo: children that nobody outlives, checks that would notice, and what it shows."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self

import pytest

from sage_ws import HandlerError, Response, SecureMessage
from sage_ws.cli import main
from sage_ws.demo import agents, clients, command, process, screen
from sage_ws.demo.process import Parent, child, run_child
from sage_ws.demo.report import Report
from sage_ws.demo.signing import Identity, KeyBook, answer_bytes, request_bytes
from sage_ws.testing import MemoryTransport

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
DEMO = [sys.executable, "-m", "sage_ws", "demo"]


@pytest.fixture(autouse=True)
def children_find_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])


def report(**changes: Any) -> Report:
    values = {"name": "WebSocket", "wanted": 10, "answered": 10, "forgeries": 4, "refused": 4, "done": True}
    return Report(**{**values, **changes})


# ── the whole of it ────────────────────────────────────────────────────────────────────


def test_the_demo_in_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert main(["demo", "--messages", "60"]) == 0
    assert time.monotonic() - started < 20
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "SAGE agents talking"
    table = {line[:18].strip(): line[18:].split() for line in lines}
    assert table["messages"] == ["60", "60"]
    assert table["failures"] == ["0", "0"]
    assert table["forgeries refused"] == ["12", "of", "12", "12", "of", "12"]
    assert all(float(one.replace(",", "")) > 0 for one in table["messages/s"])
    assert all(float(one) > 0 for row in ("p50", "p99") for one in table[row][::2])
    assert re.fullmatch(r"(rust|pure) core, sage-ws \S+, Python 3\.\S+, .*", lines[-1])


def test_the_demo_without_aiohttp(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one: None if one == "aiohttp" else find_spec(one))
    assert command.run(20) == 0
    out = capsys.readouterr().out
    assert "HTTP skipped: it needs aiohttp, pip install 'sage-ws[http]'\n" in out
    assert re.search(r"^messages\s+20$", out, re.MULTILINE)


def test_the_demo_without_cryptography(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda one: None)
    assert command.run() == 1
    assert capsys.readouterr() == ("", "sage-ws: the demo needs cryptography: pip install 'sage-ws[demo]'\n")


def test_a_failed_check_is_exit_1_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def talk(messages: int, screen: screen.Screen) -> list[Report]:
        return [report(), report(name="HTTP", failures=1, reasons=["the agent's answer is wrong"])]

    monkeypatch.setattr(command, "_talk", talk)
    assert command.run() == 1
    assert capsys.readouterr().err == "sage-ws: HTTP: the agent's answer is wrong\n"


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"failures": 1}, False),
        ({"refused": 3}, False),
        ({"answered": 0}, False),
        ({"done": False}, False),
    ],
)
def test_what_passes(changes: dict[str, Any], passed: bool) -> None:
    assert report(**changes).passed is passed


def test_a_demo_that_hangs_is_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def talk(messages: int, screen: screen.Screen) -> list[Report]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(command, "_talk", talk)
    monkeypatch.setattr(command, "WHOLE_SECONDS", 0.05)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "sage-ws: the demo did not end within 0.05 s\n"


# ── on a terminal, and interrupted ─────────────────────────────────────────────────────


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


def read_until(descriptor: int, text: bytes, seconds: float = 20) -> bytes:
    """What a terminal shows, up to and with a text."""
    seen, until = b"", time.monotonic() + seconds
    while text not in seen:
        readable, _, _ = select.select([descriptor], [], [], max(0, until - time.monotonic()))
        assert readable, f"{text!r} did not come after {seen[-2000:]!r}"
        seen += os.read(descriptor, 65536)
    return seen


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        select.select([], [], [], 0.02)


def is_gone(pid: int) -> bool:
    """Ended; where nobody reaps orphans it may still be listed, as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second when it goes between open and read
        return True


def test_on_a_terminal_it_is_drawn_and_redrawn(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(
        [*DEMO, "--messages", "400"], stdout=theirs, stderr=theirs, env=environment
    ) as demo:
        os.close(theirs)
        seen = read_until(ours, b" CPUs")
        assert demo.wait(10) == 0
    assert b"every answer checked" in seen
    assert b"\x1b[?25l" in seen
    assert b"\x1b[?25h" in seen
    table = seen.decode().rpartition("\x1b[?25h")[2]
    assert "forgeries refused" in table
    assert "every answer checked" not in table


@pytest.mark.skipif(sys.platform != "linux", reason="looks for children in /proc")
def test_ctrl_c_ends_it_quietly_and_its_children_with_it(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    with subprocess.Popen(
        [*DEMO, "--messages", "1000000"], stdout=theirs, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as demo:
        os.close(theirs)
        read_until(ours, b"every answer checked")
        children = children_of(demo.pid)
        assert len(children) == 2
        demo.send_signal(signal.SIGINT)
        read_until(ours, b"\x1b[?25h")
        assert demo.stderr is not None
        assert demo.stderr.read() == b""
        assert demo.wait(10) == 130
    assert all(is_gone(one) for one in children)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for children in /proc")
def test_children_end_when_their_parent_is_killed() -> None:
    with subprocess.Popen([*DEMO, "--messages", "1000000"], stdout=subprocess.PIPE, env=ENVIRONMENT) as demo:
        assert demo.stdout is not None
        while not demo.stdout.readline().startswith(b"WebSocket"):
            pass
        children = children_of(demo.pid)
        assert len(children) == 2
        demo.kill()
    wait_until(lambda: all(is_gone(one) for one in children))


# ── a child and its parent ─────────────────────────────────────────────────────────────


async def test_a_child_that_ends_too_early_is_named() -> None:
    async with child("odd", "string") as odd:  # nothing happens in it
        with pytest.raises(OSError, match="the odd process ended with code 0"):
            await odd.hear()


async def test_a_child_that_does_not_let_go_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    real = asyncio.create_subprocess_exec

    async def deaf(*_: str, **options: Any) -> asyncio.subprocess.Process:
        return await real("/bin/sleep", "600", **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", deaf)
    async with child("deaf", "whatever") as one:
        pass
    assert one.process.returncode == -signal.SIGKILL


async def test_a_child_needs_pipes() -> None:
    one = await asyncio.create_subprocess_exec("/bin/true")
    with pytest.raises(RuntimeError, match="needs pipes"):
        process.Child("deaf", one)
    await one.wait()


class Lines:
    """A child's ``main`` in a thread of this process, behind real pipes."""

    def __init__(self, work: Callable[[Parent], Any]) -> None:
        their_stdin, our_stdin = os.pipe()
        our_stdout, their_stdout = os.pipe()
        self._downwards = os.fdopen(our_stdin, "wb")
        self._upwards = os.fdopen(our_stdout, "rb")
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(work, os.fdopen(their_stdin, "rb"), os.fdopen(their_stdout, "wb"))
        )

    def _run(self, work: Callable[[Parent], Any], stdin: BinaryIO, stdout: BinaryIO) -> None:
        with stdin, stdout:
            try:
                run_child(work, stdin, stdout)
            except BaseException as error:  # raised again at the end
                self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._downwards.close()
        self._thread.join(10)
        self._upwards.close()
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def tell(self, **line: Any) -> None:
        self._downwards.write(json.dumps(line).encode() + b"\n")
        self._downwards.flush()

    def hear(self) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads(self._upwards.readline())
        return heard


def test_agents_and_clients_talk_and_end_when_let_go_of() -> None:
    with Lines(agents.work) as agents_lines, Lines(clients.work) as clients_lines:
        agents_lines.tell(**clients_lines.hear(), http=True)
        ready = agents_lines.hear()
        assert list(ready["addresses"]) == ["WebSocket", "HTTP"]
        clients_lines.tell(**ready, messages=300, every=0.001)
        reports = [Report(**clients_lines.hear())]
        while not (reports[-1].done and reports[-1].name == "HTTP"):
            reports.append(Report(**clients_lines.hear()))
    last = [one for one in reports if one.done]
    assert all(one.passed for one in last)
    assert [(one.name, one.answered, one.forgeries) for one in last] == [
        ("WebSocket", 300, 12),
        ("HTTP", 300, 12),
    ]
    assert all(0 < one.p50 <= one.p99 for one in last)
    under_way = [one for one in reports if one.name == "WebSocket" and not one.done]
    assert [one.answered for one in under_way] == sorted(one.answered for one in under_way)
    assert under_way
    assert under_way[0].latest is not None or under_way[0].answered == 0


def test_clients_that_are_let_go_of_stop_talking() -> None:
    with Lines(agents.work) as agents_lines, Lines(clients.work) as clients_lines:
        agents_lines.tell(**clients_lines.hear(), http=False)
        ready = agents_lines.hear()
        assert list(ready["addresses"]) == ["WebSocket"]
        clients_lines.tell(**ready, messages=10**9, every=0.01)
        assert clients_lines.hear()["wanted"] == 10**9


# ── the checks would notice ────────────────────────────────────────────────────────────

AMIR, BEA = Identity("did:sage:demo:amir"), Identity("did:sage:demo:bea")
BOOK = KeyBook({one.did: one.public for one in (AMIR, BEA)})


def asked(**changes: Any) -> SecureMessage:
    values = {"payload": b"Soon.", "did": AMIR.did, "metadata": {"to": "did:sage:demo:mirror"}, "id": "m-1"}
    return SecureMessage(**{**values, **changes})


def test_an_agent_answers_what_is_signed() -> None:
    handler = agents.Agents(BOOK)
    book = KeyBook({did: one.public for did, one in handler.identities.items()})
    for did, answer in {
        "did:sage:demo:mirror": b".nooS",
        "did:sage:demo:herald": b"SOON.",
        "did:sage:demo:cipher": b"Fbba.",
        "did:sage:demo:scribe": b"1 words, 5 characters",
    }.items():
        message = AMIR.signed(asked(metadata={"to": did}))
        data = handler(message)
        assert data[64:] == answer
        assert book.holds(did, data[:64], answer_bytes("m-1", did, answer))
        assert not book.holds(did, data[:64], answer_bytes("m-2", did, answer))


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": b"Later."},
        {"did": BEA.did},
        {"did": "did:sage:demo:nobody"},
        {"metadata": {"to": "did:sage:demo:herald"}},
        {"id": "m-2"},
        {"signature": b""},
        {"signature": bytes(64)},
    ],
)
def test_an_agent_refuses_what_was_changed(changes: dict[str, Any]) -> None:
    message = AMIR.signed(asked())
    assert BOOK.holds(AMIR.did, message.signature, request_bytes(message))
    with pytest.raises(HandlerError, match="signature does not hold"):
        agents.Agents(BOOK)(message.replace(**changes))


def test_an_agent_that_is_not_there() -> None:
    with pytest.raises(HandlerError, match="no such agent"):
        agents.Agents(BOOK)(AMIR.signed(asked(metadata={"to": "did:sage:demo:nobody"})))


def test_no_two_messages_sign_the_same_bytes() -> None:
    assert request_bytes(asked(id="ab", did="c")) != request_bytes(asked(id="a", did="bc"))
    assert request_bytes(asked()) != answer_bytes("m-1", AMIR.did, b"Soon.")


Spoiler = Callable[[agents.Agents, SecureMessage], Any]


def spoil_signature(handler: agents.Agents, message: SecureMessage) -> bytes:
    data = bytearray(handler(message))
    data[3] ^= 1
    return bytes(data)


def spoil_answer(handler: agents.Agents, message: SecureMessage) -> bytes:
    return handler.identities[message.metadata["to"]].answer(message, b"something else")


def spoil_id(handler: agents.Agents, message: SecureMessage) -> Response:
    return Response(message_id="other", data=handler(message))


def refuse(handler: agents.Agents, message: SecureMessage) -> bytes:
    raise HandlerError("closed today")


async def hang(handler: agents.Agents, message: SecureMessage) -> None:
    await asyncio.Event().wait()


def believe(handler: agents.Agents, message: SecureMessage) -> bytes:
    agent = handler.identities[message.metadata["to"]]
    return agent.answer(message, agents.SKILLS[agent.did](message.payload.decode()).encode())


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_signature, "the agent's signature does not hold"),
        (spoil_answer, "the agent's answer is wrong"),
        (spoil_id, "answer to another message: 'other'"),
        (refuse, "answered with an error: 'closed today'"),
        (hang, "ReadTimeoutError: no answer came in time"),
    ],
)
async def test_the_clients_notice(spoil: Spoiler, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "SEND_SECONDS", 0.05 if spoil is hang else 30.0)
    result = await spoiled(spoil)
    assert (result.answered, result.failures > 0, result.passed) == (0, True, False)
    assert result.reasons[0] == reason
    assert len(result.reasons) <= 5
    assert result.p50 == 0


async def test_the_clients_notice_agents_that_believe_everything() -> None:
    result = await spoiled(believe)
    assert (result.answered, result.failures, result.forgeries, result.refused) == (8, 0, 12, 0)
    assert not result.passed


async def spoiled(spoil: Spoiler) -> Report:
    people = [AMIR, BEA]
    handler = agents.Agents(BOOK)
    book = KeyBook({did: one.public for did, one in handler.identities.items()})
    traffic = clients.Traffic("Memory", 8, people, book, clients.read_text())
    await traffic.talk([MemoryTransport(lambda message: spoil(handler, message)) for _ in people])
    return traffic.report(done=True)


async def test_a_slow_machine_sends_fewer_messages_not_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "TALK_SECONDS", 0.0)
    result = await spoiled(lambda handler, message: handler(message))
    assert (result.answered, result.failures) == (0, 0)
    assert not result.passed


def test_the_text_that_ships() -> None:
    lines = clients.read_text()
    assert 60 <= len(lines) <= 100
    assert all(lines)
    assert len(set(lines)) == len(lines)


# ── the screens ────────────────────────────────────────────────────────────────────────


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_screen_fits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(screen.screen_for(io.StringIO()), screen.PlainScreen)
    assert isinstance(screen.screen_for(Terminal()), screen.RichScreen)
    monkeypatch.setattr(importlib.util, "find_spec", lambda one: None)
    assert isinstance(screen.screen_for(Terminal()), screen.PlainScreen)


@pytest.mark.parametrize("kind", [screen.PlainScreen, screen.RichScreen])
def test_what_a_screen_shows(kind: Callable[[Any], screen.Screen], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    stream = Terminal()
    under_way = report(done=False, answered=4, latest=("amir", "mirror", ".nooS"))
    with ExitStack() as stack:
        shown = stack.enter_context(kind(stream))
        shown.note("one line")
        shown.show([report(done=False, answered=0)])
        shown.show([under_way])
        assert "one line" in stream.getvalue()
        for text in ("WebSocket", "4 of 10", "mirror", "amir", ".nooS"):
            assert text in stream.getvalue()
        before = len(stream.getvalue())
        shown.result([report(rate=1234.5, p50=0.5), report(name="HTTP", failures=7)], "pure core")
        shown.show([under_way])
        table = stream.getvalue()[before:]
    for text in ("messages/s", "1,234", "0.50 ms", "4 of 4", "HTTP", "7", "pure core"):
        assert text in table
