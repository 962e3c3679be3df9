"""The storm of opening handshakes, a small one: servers take turns, of this tree and of another."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import sage_ws

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from bench import storm  # noqa: E402
from bench.peers import load  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads another process's clock")
OURS = f"sage-{sage_ws.core_name}"


@pytest.mark.parametrize("take", [storm.race, storm.memory])
def test_every_server_has_its_turns(monkeypatch: pytest.MonkeyPatch, take: object) -> None:
    monkeypatch.setattr(storm, "WARM", 10)
    peers = {OURS: load(OURS), "websockets": load("websockets")}
    storms = take(peers, rounds=2, count=20, loop="asyncio")  # type: ignore[operator]
    assert list(storms) == list(peers)
    for its in storms.values():
        assert len(its) == 2
        for one in its:
            assert 0 < one.opening < one.whole
    _, *rows = storm.lines(storms)
    assert [row.split()[0] for row in rows] == list(peers)
    assert rows[0].endswith(" 1.00x")


def test_another_tree_runs_its_own_sources() -> None:
    peer = storm.of_tree(ROOT)
    assert peer.environment["PYTHONPATH"] == str(ROOT / "python")
    assert peer.environment["SAGE_WS_CORE"] == "rust"
    assert "PYTHONPATH" not in load("sage-rust").environment
