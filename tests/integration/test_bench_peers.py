"""Every peer of the benchmarks that is written in Python brings messages there and back, in each shape.

Those in Go and Rust, which must be built first, stand in tests/interop/test_bench_programs.py.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import sage_ws

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from bench import idle, startup  # noqa: E402
from bench.message import WrongAnswer, check  # noqa: E402
from bench.peer import PythonPeer, Sage  # noqa: E402
from bench.peers import PEERS, load  # noqa: E402
from bench.processes import ChildFailed, running  # noqa: E402
from bench.race import Field, race  # noqa: E402
from bench.record import Record  # noqa: E402
from bench.shapes import SHAPES, Wanted  # noqa: E402

LOOP = "asyncio"
"""Of the peers that state none: what is tested here awaits nothing, and so runs in no process with uvloop."""
SEQUENTIAL = SHAPES[0]


def belongs_here(name: str) -> bool:
    """Whether a peer has its turn in this process: ours in their core's, others once, in the fallback's."""
    peer = PEERS[name]
    core = peer.core if isinstance(peer, Sage) else "pure"
    return isinstance(peer, PythonPeer) and core == sage_ws.core_name


@pytest.mark.parametrize("name", [name for name in PEERS if belongs_here(name)])
def test_peer_answers(name: str) -> None:
    peer = load(name)
    reason = peer.missing()
    if reason is not None and "not built yet" in reason:
        pytest.skip(reason)
    if name == "grpc" and reason is not None:
        pytest.skip(reason)  # long compiled where it has no wheel: too much for the extra `test`
    assert reason is None
    with running(name, loop=LOOP) as runner:
        assert runner.ready["loop"] == (peer.loop or LOOP)
        for shape in SHAPES if peer.shapes is None else [shape for shape in SHAPES if peer.takes(shape.name)]:
            small = replace(shape, connections=min(shape.connections, 4), in_flight=min(shape.in_flight, 4))
            got = runner.round(Wanted(small, seconds=30, messages=10))
            assert got.messages == 10
            assert got.cost > 0
            assert (got.p50 is None) == (shape.figure == "rate")


def test_a_timed_round_tells_the_processor_time_of_both_ends() -> None:
    with running(f"sage-{sage_ws.core_name}", loop=LOOP) as runner:
        for shape in SHAPES[:2]:
            got = runner.round(Wanted(shape, seconds=0.05))
            assert got.messages > 0
            assert got.rate > 0
            assert got.cpu is not None or sys.platform != "linux"


async def test_a_sage_peer_refuses_the_wrong_core(monkeypatch: pytest.MonkeyPatch) -> None:
    other = load("sage-pure" if sage_ws.core_name == "rust" else "sage-rust")
    assert isinstance(other, PythonPeer)
    monkeypatch.setattr("sage_ws.core_name", "neither")
    with pytest.raises(RuntimeError, match="runs the neither core"):
        async with other.ends().serve():
            pass


def test_an_option_that_is_not_built_leaves_its_peer_out() -> None:
    peer = replace(load(f"sage-{sage_ws.core_name}"), option=("nothing_like_it", 1))
    assert "nothing_like_it" in str(peer.missing())


def test_wrong_answers_end_the_run() -> None:
    check(True, True)
    with pytest.raises(WrongAnswer, match="another message"):
        check(False, True)
    with pytest.raises(WrongAnswer, match="bytes differ"):
        check(True, False)


def test_a_client_that_gives_up_is_an_error() -> None:
    with running("websockets") as runner:
        runner.ready = {"address": "ws://127.0.0.1:1/ws"}
        with pytest.raises(ChildFailed, match="'drive', 'websockets'"):
            runner.round(Wanted(SEQUENTIAL, seconds=1, messages=1))


def test_a_peer_that_gives_up_is_out_and_the_others_go_on() -> None:
    record, turns, ours = Record(), {}, f"sage-{sage_ws.core_name}"
    with Field(record, [ours, "websockets"], loop=LOOP) as field:
        field._running["websockets"].ready = {"address": "ws://127.0.0.1:1/ws"}
        for _ in range(2):
            for name in (ours, "websockets"):
                field.turn(name, Wanted(SEQUENTIAL, seconds=1, messages=1), turns)
    assert "'drive', 'websockets'" in record.failed["websockets"]
    assert {name: len(rounds) for name, rounds in turns.items()} == {ours: 2}


def test_a_race_fills_a_record() -> None:
    record, said = Record(), list[str]()
    ours = f"sage-{sage_ws.core_name}"
    race(record, [ours], SHAPES[:1], rounds=2, seconds=0.02, loop=LOOP, said=said.append)
    assert len(record.shapes["sequential"][ours]) == 2
    assert record.loops == {ours: LOOP}
    assert "sage-ws" in record.versions
    assert said == ["sequential: 2 rounds of 1 peers"]


@pytest.mark.skipif(sys.platform != "linux", reason="they are measured from outside, which only Linux can")
def test_idle_connections_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    record, ours = Record(), f"sage-{sage_ws.core_name}"
    for figure in ("HELD", "OPENED"):
        monkeypatch.setattr(idle, figure, (ours,))
    monkeypatch.setattr(idle, "PINGING", {ours: ours})
    idle.take_memory(record, 20, 1, LOOP, lambda _: None)
    idle.take_handshakes(record, 20, 1, LOOP, lambda _: None)
    assert record.figures[idle.MEMORY].keys() == {ours}
    assert record.figures[idle.HANDSHAKES][ours][0] > 0
    assert record.skipped == {}


def test_imports_are_measured() -> None:
    record = Record()
    startup.take_imports(record, 1, lambda _: None)
    assert all(0 < took < 60 for took in record.figures[startup.IMPORT]["sage-pure"])
