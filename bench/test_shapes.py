"""A benchmark for each shape of traffic and each peer, in pytest-benchmark's own tables and files.

The race is over when these run: its rounds are interleaved, which pytest-benchmark's are not. So each
benchmark reads its rounds off a clock that only they move, by seconds for one message each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench.peers import PEERS
from bench.race import Results
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


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_messages(benchmark: Any, results: Results, shape: Shape, name: str) -> None:
    rounds = results.rounds.get(shape.name, {}).get(name)
    if rounds is None:
        pytest.skip(results.skipped.get(name, "not asked for"))
    benchmark.group = f"{shape.name}: seconds for a message"
    benchmark.name = name
    benchmark.pedantic(CLOCK.pass_round, args=(iter(rounds),), rounds=len(rounds))
