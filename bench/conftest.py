"""pytest's side of the race: its options, the race itself as a fixture, the tables at the end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest

from bench.peers import PEERS
from bench.race import ROOT, Results, race
from bench.report import plain, save
from bench.shapes import SHAPES

RESULTS = pytest.StashKey[Results]()


def _names(known: list[str]) -> Callable[[str], list[str]]:
    """An option's type: names, comma-separated, of those that are known."""

    def chosen(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise pytest.UsageError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return chosen


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("race", "sage_ws beside its alternatives")
    group.addoption("--rounds", type=int, default=7, help="turns of each peer at each shape (7)")
    group.addoption("--seconds", type=float, default=1.0, help="that a turn lasts (1)")
    group.addoption("--loop", choices=["auto", "asyncio", "uvloop"], default="auto", help="of every process")
    group.addoption("--peers", type=_names(list(PEERS)), default=list(PEERS), help="comma-separated names")
    shapes = [shape.name for shape in SHAPES]
    group.addoption("--shapes", type=_names(shapes), default=shapes, help="comma-separated names")
    group.addoption("--record", action="store_true", help="keep the result, rewrite the pages' figures")


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Results:
    """The race, run once for all benchmarks."""
    option = pytestconfig.getoption
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")

    def said(line: str) -> None:
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(line)

    shapes = [shape for shape in SHAPES if shape.name in option("--shapes")]
    raced = race(
        option("--peers"),
        shapes,
        rounds=option("--rounds"),
        seconds=option("--seconds"),
        loop=option("--loop"),
        said=said,
    )
    pytestconfig.stash[RESULTS] = raced
    return raced


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    raced = config.stash.get(RESULTS, None)
    if raced is None:
        return
    terminalreporter.section("side by side")
    for line in plain(raced):
        terminalreporter.write_line(line)
    terminalreporter.write_line("")
    for path in save(raced, dt.datetime.now(dt.UTC), record=config.getoption("--record")):
        terminalreporter.write_line(f"wrote {path.relative_to(ROOT)}")
