"""Workers that are restarted one after the other cost no call, where their peers can be told to move."""

from __future__ import annotations

import os

import pytest
from tests.faults.rolling import rolling

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")


@pytest.mark.parametrize("encoding", ["cbor", "json"])
async def test_a_rolling_restart_of_two_workers_fails_no_call(encoding: str) -> None:
    report = await rolling(encoding=encoding)
    assert (report.failed, report.problems) == ({}, [])
    assert report.answered == report.calls
    assert report.streams
    assert report.restarts == 2
    assert report.dials >= 1
