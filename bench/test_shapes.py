"""A benchmark for each shape of traffic and each peer, in pytest-benchmark's own tables and files.

The race is over when these run: its rounds are interleaved, which pytest-benchmark's are not. So each
benchmark reads its rounds off a clock that only they move, by seconds for one message each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench.effort import Effort
from bench.peers import RACING, load
from bench.race import Said, race
from bench.record import Record
from bench.shapes import SHAPES, Round, Shape


class _Clock:
    """Stands still, but for the rounds that were measured."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_round(self, rounds: Iterator[Round]) -> None:
        self.now += next(rounds).cost


CLOCK = _Clock()


@pytest.fixture(scope="module")
def raced(pytestconfig: pytest.Config, record: Record, effort: Effort, said: Said) -> Record:
    """The record, once the race is over."""
    option = pytestconfig.getoption
    race(
        record,
        option("--peers"),
        [shape for shape in SHAPES if shape.name in option("--shapes")],
        rounds=effort.rounds,
        seconds=effort.seconds,
        loop=option("--loop"),
        said=said,
    )
    return record


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("name", [peer.name for peer in RACING])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_messages(benchmark: Any, raced: Record, shape: Shape, name: str) -> None:
    rounds = raced.shapes.get(shape.name, {}).get(name)
    if name in raced.failed:
        pytest.fail(raced.failed[name])
    if rounds is None:
        pytest.skip(raced.skipped.get(load(name).title, "not asked for"))
    benchmark.group = f"{shape.name}: seconds for a message"
    benchmark.name = name
    benchmark.pedantic(CLOCK.pass_round, args=(iter(rounds),), rounds=len(rounds))
