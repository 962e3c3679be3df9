"""The program that measures floods measures each: small ones here."""

from __future__ import annotations

import sys

import pytest
from tests.faults import floods

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads other processes' memory in /proc")


@pytest.mark.parametrize("name", floods.FLOODS)
async def test_it_is_measured(name: str, monkeypatch: pytest.MonkeyPatch, baseline: None) -> None:
    small = {
        "SLOW": 5,
        "STALLED": 2,
        "CALLS": 1000,
        "CANCELS": 2000,
        "ROUNDTRIPS": 100,
        "RUNS": 1,
        "SECONDS": 0.2,
        "FULL": 0.2,
    }
    for constant, value in small.items():
        monkeypatch.setattr(floods, constant, value)
    figures = await floods.FLOODS[name]()
    assert figures
    assert all(isinstance(value, int | float) for value in figures.values())
    assert figures.get("pending", 0) == figures.get("loop_exceptions", 0) == 0
