"""pytest's side of a run: its options, the record that every benchmark adds to, the tables at the end."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable

import pytest

from bench import page, plots, targets
from bench.effort import FULL, SHORT, TRIAL, Effort
from bench.peers import RACING
from bench.processes import ROOT, two_cpus
from bench.race import Said
from bench.record import LATEST, RESULTS, Record
from bench.report import columns, plain
from bench.shapes import SHAPES

RECORD = pytest.StashKey[Record]()


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
    group.addoption("--full", action="store_true", help="the whole of it, calmer (some forty minutes)")
    group.addoption("--trial", action="store_true", help="only whether everything runs (a minute)")
    group.addoption("--rounds", type=int, help=f"turns of each peer at each shape ({SHORT.rounds})")
    group.addoption("--seconds", type=float, help=f"that a turn lasts ({SHORT.seconds})")
    group.addoption(
        "--loop", choices=["auto", "asyncio", "uvloop"], default="auto", help="of peers that state none"
    )
    peers = [peer.name for peer in RACING]
    group.addoption("--peers", type=_names(peers), default=peers, help="comma-separated names")
    shapes = [shape.name for shape in SHAPES]
    group.addoption("--shapes", type=_names(shapes), default=shapes, help="comma-separated names")
    group.addoption("--record", action="store_true", help="keep the result, write the pages anew")


@pytest.fixture(scope="session")
def effort(pytestconfig: pytest.Config) -> Effort:
    """How long everything may take."""
    option = pytestconfig.getoption
    asked = {name: option(f"--{name}") for name in ("rounds", "seconds") if option(f"--{name}") is not None}
    base = FULL if option("--full") else TRIAL if option("--trial") else SHORT
    return dataclasses.replace(base, **asked)


@pytest.fixture(scope="session")
def record(pytestconfig: pytest.Config, effort: Effort) -> Record:
    """What is measured goes here."""
    begun = Record.begin(dt.datetime.now(dt.UTC))
    begun.effort = dataclasses.asdict(effort)
    begun.cpus = two_cpus()
    pytestconfig.stash[RECORD] = begun
    return begun


@pytest.fixture(scope="session")
def said(pytestconfig: pytest.Config) -> Said:
    """Says a line of progress."""
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")

    def say(line: str) -> None:
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(line)

    return say


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    record = config.stash.get(RECORD, None)
    if record is None:
        return
    if record.shapes:
        terminalreporter.section("side by side")
        for line in plain(record):
            terminalreporter.write_line(line)
    rows = [row for row in targets.table(record) if row[-1] != targets.verdict(None)]
    if len(rows) > 1:
        terminalreporter.section("what was to be reached")
        for line in columns(rows):
            terminalreporter.write_line(line)
    for what, why in record.skipped.items():
        terminalreporter.write_line(f"left out: {what} ({why})")
    written = [LATEST, *plots.draw(record, lambda name: RESULTS / f"latest-{name}.svg").values()]
    record.dump(LATEST, targets.as_json(record))
    if config.getoption("--record"):
        kept = RESULTS / f"{record.stem}.json"
        record.dump(kept, targets.as_json(record))
        written += [kept, *page.write(record)]
    for path in written:
        terminalreporter.write_line(f"wrote {path.relative_to(ROOT)}")
