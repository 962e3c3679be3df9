"""Every peer of the benchmark suite brings ten messages there and back, in each shape of traffic."""

from __future__ import annotations

import datetime as dt
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import sage_ws

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from bench import report  # noqa: E402
from bench.message import WrongAnswer, check  # noqa: E402
from bench.peer import PythonPeer  # noqa: E402
from bench.peers import PEERS, load  # noqa: E402
from bench.race import ChildFailed, Results, running  # noqa: E402
from bench.shapes import SHAPES, Round, Wanted  # noqa: E402

LOOP = os.environ.get("SAGE_WS_TEST_LOOP") or "asyncio"
HERE = [name for name in PEERS if not name.startswith("sage-") or name == f"sage-{sage_ws.core_name}"]
"""The other core's turn comes in the other core's process."""


@pytest.mark.parametrize("name", HERE)
def test_peer_answers(name: str) -> None:
    reason = load(name).missing()
    if name == "grpc" and reason is not None:
        pytest.skip(reason)  # long compiled where it has no wheel: too much for the extra `test`
    assert reason is None
    with running(name, loop=LOOP) as runner:
        if isinstance(load(name), PythonPeer):
            assert runner.ready["loop"] == (load(name).loop or LOOP)
        for shape in SHAPES:
            small = replace(shape, connections=min(shape.connections, 4), in_flight=min(shape.in_flight, 4))
            got = runner.round(Wanted(small, seconds=30, messages=10))
            assert got.messages == 10
            assert got.cost > 0
            assert (got.p50 is None) == (shape.figure == "rate")
            assert got.cpu is not None
            assert got.cpu >= 0


async def test_a_sage_peer_refuses_the_wrong_core(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "pure" if sage_ws.core_name == "rust" else "rust"
    monkeypatch.setattr("sage_ws.core_name", "neither")
    peer = load(f"sage-{other}")
    assert isinstance(peer, PythonPeer)
    with pytest.raises(RuntimeError, match="runs the neither core"):
        async with peer.ends().serve():
            pass


def test_wrong_answers_end_the_run() -> None:
    check(True, True)
    with pytest.raises(WrongAnswer, match="another message"):
        check(False, True)
    with pytest.raises(WrongAnswer, match="bytes differ"):
        check(True, False)


def test_a_client_that_gives_up_is_an_error() -> None:
    with running("websockets", loop=LOOP) as runner:
        runner.ready = {"address": "ws://127.0.0.1:1/ws"}
        with pytest.raises(ChildFailed, match="'drive', 'websockets'"):
            runner.round(Wanted(SHAPES[0], seconds=1, messages=1))


def test_ratio_is_taken_inside_each_round() -> None:
    # the machine halves its speed for the second round: both peers lose, the ratio stands
    ours = [Round(100, 1.0), Round(100, 2.0), Round(100, 1.0)]
    theirs = [Round(100, 3.0), Round(100, 6.0), Round(100, 3.3)]
    assert report.ratio(ours, theirs) == 3.0


def test_the_block_between_the_comments_is_rewritten(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n")
    report.rewrite(page, "new")
    assert page.read_text() == f"above\n{report.BEGIN}\nnew\n{report.END}\nbelow\n"
    page.write_text("no place here")
    with pytest.raises(ValueError, match=r"page\.md has no <!-- bench:begin -->"):
        report.rewrite(page, "new")


@pytest.mark.parametrize("page", report.PAGES, ids=lambda page: page.name)
def test_the_pages_have_the_place(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.count(report.BEGIN) == text.count(report.END) == 1
    assert text.index(report.BEGIN) < text.index(report.END)


def test_tables_name_every_peer_and_the_machine() -> None:
    results = Results(
        rounds={"64 in flight": {"sage-pure": [Round(1000, 1.0)], "http": [Round(50, 1.0)]}},
        seconds=0.5,
        skipped={"sage-rust": "the native extension is not built here"},
        loops={"sage-pure": "asyncio", "http": "asyncio"},
    )
    text = "\n".join(report.plain(results))
    assert "sage_ws, pure core" in text
    assert "1,000/s" in text
    assert "20×" in text
    assert str(report.machine()["cpu"]) in text
    assert "left out: sage_ws, rust core (the native extension is not built here)" in text
    block = report.markdown(results, dt.date(2025, 1, 31))
    assert "| HTTP, aiohttp both ends | 50/s | 20× |" in block
    assert "1 interleaved rounds of 0.5 s. Taken on 2025-01-31" in block
    kept = report.as_json(results, dt.datetime(2025, 1, 31, tzinfo=dt.UTC))
    assert kept["shapes"]["64 in flight"]["peers"]["http"]["ratio"] == 20.0
