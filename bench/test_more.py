"""What is no race of shapes: the curves, connections without traffic, what it costs to have sage_ws at all.

Each adds to the run's record; what was found stands in the tables at the end.
"""

from __future__ import annotations

import pytest

from bench import idle, startup, workers
from bench.curves import CURVES, Curve, trace
from bench.effort import Effort
from bench.race import Said
from bench.record import Record
from bench.wire import CONTESTS, take_wire


@pytest.fixture
def loop(pytestconfig: pytest.Config) -> str:
    """Of the peers that state none."""
    return str(pytestconfig.getoption("--loop"))


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_curve(
    curve: Curve, record: Record, effort: Effort, said: Said, loop: str, pytestconfig: pytest.Config
) -> None:
    asked = pytestconfig.getoption("--peers")
    trace(
        record,
        curve,
        rounds=effort.curve_rounds,
        seconds=effort.seconds,
        most=effort.most,
        peers=[name for name in curve.lines[: effort.curve_lines] if name in asked],
        loop=loop,
        said=said,
    )
    assert not set(curve.lines) & set(record.failed), record.failed


def test_our_wire(record: Record, effort: Effort, said: Said, loop: str) -> None:
    take_wire(record, effort.rounds, effort.seconds, loop, said)
    assert not any(line in record.failed for contest in CONTESTS for line in contest.lines), record.failed


def test_memory(record: Record, effort: Effort, said: Said, loop: str) -> None:
    idle.take_memory(record, effort.idle, effort.idle_rounds, loop, said)


def test_opening_handshakes(record: Record, effort: Effort, said: Said, loop: str) -> None:
    idle.take_handshakes(record, effort.handshakes, effort.storms, loop, said)


def test_pings(record: Record, effort: Effort, said: Said, loop: str) -> None:
    idle.take_pings(record, effort.pinged, effort.ping_seconds, effort.idle_rounds, loop, said)


def test_workers(record: Record, effort: Effort, said: Said) -> None:
    workers.take_workers(record, effort.storms, effort.seconds, said)


def test_import(record: Record, effort: Effort, said: Said) -> None:
    startup.take_imports(record, effort.imports, said)


def test_wheel(record: Record, said: Said) -> None:
    startup.take_wheel(record, said)
