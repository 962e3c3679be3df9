"""The demo itself: starts agents and clients, shows what the clients report, judges their last reports."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import sys
from typing import Final

import sage_ws
from sage_ws.demo.process import child
from sage_ws.demo.report import Report
from sage_ws.demo.screen import Screen, screen_for

MESSAGES: Final = 5000

WHOLE_SECONDS: Final = 18.0
"""Past it something hangs, and the demo has failed."""


def run(messages: int = MESSAGES) -> int:
    """Run the demo.

    Args:
        messages: to send over each transport.

    Returns:
        0 when every check held, else 1.

    Raises:
        OSError: a child failed, or something hung.
    """
    if importlib.util.find_spec("cryptography") is None:
        sys.stderr.write("sage-ws: the demo needs cryptography: pip install 'sage-ws[demo]'\n")
        return 1
    with screen_for(sys.stdout) as screen:
        reports = asyncio.run(_bounded(messages, screen))
        screen.result(reports, _about())
    for report in reports:
        for reason in report.reasons:
            sys.stderr.write(f"sage-ws: {report.name}: {reason}\n")
    return 0 if all(report.passed for report in reports) else 1


async def _bounded(messages: int, screen: Screen) -> list[Report]:
    try:
        async with asyncio.timeout(WHOLE_SECONDS):
            return await _talk(messages, screen)
    except TimeoutError as error:
        raise TimeoutError(f"the demo did not end within {WHOLE_SECONDS:g} s") from error


async def _talk(messages: int, screen: Screen) -> list[Report]:
    """Bring agents and clients together; returns the last report of each transport."""
    over_http = importlib.util.find_spec("aiohttp") is not None
    if not over_http:
        screen.note("HTTP skipped: it needs aiohttp, pip install 'sage-ws[http]'")
    reports: dict[str, Report] = {}
    async with (
        child("agents'", "sage_ws.demo.agents") as agents,
        child("clients'", "sage_ws.demo.clients") as clients,
    ):
        await agents.tell({**await clients.hear(), "http": over_http})
        ready = await agents.hear()
        await clients.tell({**ready, "messages": messages, "every": screen.refresh_seconds})
        while len(reports) < len(ready["addresses"]) or not all(one.done for one in reports.values()):
            report = Report(**await clients.hear())
            reports[report.name] = report
            screen.show(list(reports.values()))
    return list(reports.values())


def _about() -> str:
    """What ran where, in one line."""
    python = f"Python {platform.python_version()}"
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return f"{sage_ws.core_name} core, sage-ws {sage_ws.__version__}, {python}, {system}"
