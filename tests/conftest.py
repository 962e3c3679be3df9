"""What every test stands on: the loop it runs on, the core it runs with, and the traces it may not leave.

``SAGE_WS_CORE``, ``SAGE_WS_TEST_LOOP`` (``asyncio`` or ``uvloop``) and ``SAGE_WS_LINK`` (``direct`` or
``loop``) are read once, for the whole process: `make test` starts one process for each set.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import inspect
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Literal

import pytest
from hypothesis import settings

import sage_ws._core
from sage_ws import Response, SecureMessage
from sage_ws.aio.link import wants_direct
from sage_ws.logs import INDENT, LINE_LIMIT
from sage_ws.options import ClientSettings

# Tests dial this machine alone: a proxy that the environment names is for elsewhere.
for _variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[_variable]

LOOP_VARIABLE = "SAGE_WS_TEST_LOOP"
SECONDS_TO_END = 15.0
"""For what a test's last line has cancelled or closed to come to its end."""

SECRET = "canary"
"""Stands in payloads, signatures, tokens and passwords all over the tests, and in no log line."""
# Base64 shows a word in three ways, by where it begins; the characters at its ends depend on its neighbours.
SHOWN = [SECRET] + [
    base64.b64encode(b"-" * lead + SECRET.encode()).decode()[
        -(-lead * 8 // 6) : (lead + len(SECRET)) * 8 // 6
    ]
    for lead in range(3)
]

# A test that states no number of examples has these: `--hypothesis-profile=thorough` for more. On a busy
# machine no example is too slow.
settings.register_profile("quick", max_examples=100, deadline=None)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile("quick")


def _loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    name = os.environ.get(LOOP_VARIABLE) or "asyncio"
    if name == "uvloop":
        import uvloop

        return {"uvloop": uvloop.new_event_loop}
    if name == "asyncio":
        return {"asyncio": asyncio.new_event_loop}
    raise pytest.UsageError(f"{LOOP_VARIABLE} must be asyncio or uvloop, not {name!r}")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """pytest-asyncio's hook: the one loop of this process."""
    del config, item
    return _loop_factories()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On uvloop only what awaits: the rest would be what it was in the process with asyncio's loop."""
    if "uvloop" not in _loop_factories():
        return
    awaiting = [item for item in items if item.get_closest_marker("asyncio")]
    config.hook.pytest_deselected(items=[item for item in items if item not in awaiting])
    items[:] = awaiting


class LogWatch(logging.Handler):
    """Reads every record of the whole run, from DEBUG on, as it would stand in a log.

    Attributes:
        findings: what no log of ours may hold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.findings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self.findings += [f"a secret in a log: {text}" for shown in SHOWN if shown in text]
        if not record.name.startswith("sage_ws"):
            return
        event, *traceback = text.split("\n")
        lines = [event, *traceback]
        if not all(line.isprintable() and len(line) < 2 * LINE_LIMIT for line in lines):
            self.findings.append(f"not one line: {text!a}")
        if not all(line.startswith(INDENT) for line in traceback) or (traceback and not record.exc_info):
            self.findings.append(f"a line that could pass for an event: {text!a}")
        if isinstance(record.args, tuple) and any(type(arg) in _OF_MESSAGES for arg in record.args):
            self.findings.append(f"what a message holds is given to a logger: {text!a}")


_OF_MESSAGES = {bytes, bytearray, memoryview, SecureMessage, Response}
WATCH = LogWatch()


def pytest_configure(config: pytest.Config) -> None:
    del config
    for name in ("sage_ws", "asyncio"):
        logging.getLogger(name).addHandler(WATCH)
        logging.getLogger(name).setLevel(logging.DEBUG)
    _link()  # refuses what cannot be, before any test passes on another link than was asked for


def pytest_report_header(config: pytest.Config) -> str:
    del config
    return f"sage_ws: {sage_ws._core.name} core on {', '.join(_loop_factories())}, {_link()} link"


def _link() -> Literal["direct", "loop"]:
    try:
        return "direct" if wants_direct(ClientSettings()) else "loop"
    except ValueError as error:  # SAGE_WS_LINK=direct where it cannot be, or a value that is none
        raise pytest.UsageError(str(error)) from error


@pytest.fixture(scope="session")
def core() -> Literal["rust", "pure"]:
    """The core that this process runs."""
    return sage_ws._core.name


@pytest.fixture(scope="session")
def link() -> Literal["direct", "loop"]:
    """How a connection without TLS reaches its socket in this process, where a test says nothing of it."""
    return _link()


@pytest.fixture(autouse=True)
def log_findings() -> Iterator[list[str]]:
    """What `LogWatch` has found; a test that means to bring it something takes this and empties it."""
    yield WATCH.findings
    found, WATCH.findings[:] = [*WATCH.findings], []
    assert not found, "\n".join(found)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What was logged behind the last test fails the run too."""
    if WATCH.findings:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for finding in WATCH.findings:
        terminalreporter.write_line(finding, red=True)


@pytest.fixture(autouse=True)
def leaves_no_trace(request: pytest.FixtureRequest) -> None:
    """Every async test: no task outlives it and no exception reaches the loop's handler.

    A test that means to bring an exception there takes ``loop_exceptions`` and empties it.
    """
    function = getattr(request, "function", None)
    # hypothesis puts a plain function in front of an async one.
    function = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    if inspect.iscoroutinefunction(function):
        request.getfixturevalue("loop_exceptions")


@pytest.fixture
async def loop_exceptions() -> AsyncIterator[list[dict[str, Any]]]:
    """The contexts that the loop's exception handler was called with so far."""
    loop = asyncio.get_running_loop()
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    yield contexts
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        _, leaked = await asyncio.wait(tasks, timeout=SECONDS_TO_END)
        assert not leaked, f"tasks outlived the test: {leaked}"
    # An exception that nobody fetched is reported when its task is collected.
    gc.collect(0)
    assert not contexts, f"exceptions reached the event loop: {contexts}"
