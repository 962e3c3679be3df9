"""At most once per id, and no answer that belongs to another, over kill -9 restarts under load."""

from __future__ import annotations

from pathlib import Path

from tests.faults.restarts import restarts


async def test_a_message_runs_at_most_once_however_often_its_server_is_killed(tmp_path: Path) -> None:
    """A few kills here; `python -m tests.faults.restarts 200` makes as many as are promised."""
    report = await restarts(3, tmp_path)
    assert (report.twice, report.unrun, report.wrong) == (0, 0, {})
    assert report.answered + report.unknown == report.calls
    assert report.answered
    assert report.retries
    assert report.runs <= report.calls
