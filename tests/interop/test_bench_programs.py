"""The peers of the benchmarks that are written in Go and Rust bring messages there and back."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.interop.conftest import tool

import sage_ws

sys.path.append(str(Path(__file__).parents[2]))

from bench.peer import Program, Sage
from bench.peers import PEERS, load
from bench.processes import running
from bench.shapes import SHAPES, Wanted


def programs(name: str) -> list[Program]:
    """What has to be built for a peer."""
    ends = [PEERS[name].at("serve"), PEERS[name].at("drive")]
    return [end for end in ends if isinstance(end, Program)]


def belongs_here(name: str) -> bool:
    """Ours, and what drives ours, in the core's own process."""
    ends = [PEERS[name].at("serve"), PEERS[name].at("drive")]
    return bool(programs(name)) and all(
        end.core == sage_ws.core_name for end in ends if isinstance(end, Sage)
    )


@pytest.mark.parametrize("name", [name for name in PEERS if belongs_here(name)])
@pytest.mark.timeout(600)
def test_program_answers(name: str) -> None:
    for program in programs(name):
        tool(program.tool)
    reason = load(name).missing()
    if reason is not None:
        assert "not built yet" in reason
        pytest.skip(reason)
    with running(name) as runner:
        for shape in SHAPES:
            if load(name).takes(shape.name):
                small = replace(
                    shape, connections=min(shape.connections, 4), in_flight=min(shape.in_flight, 4)
                )
                got = runner.round(Wanted(small, seconds=30, messages=10))
                assert got.messages == 10
                assert got.cost > 0
                assert (got.p50 is None) == (shape.figure == "rate")
