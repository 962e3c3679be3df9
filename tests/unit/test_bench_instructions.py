"""Instruction counts: how callgrind's totals become them, and what is said beside a record."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from bench.instructions.callgrind import CountFailed, counts  # noqa: E402
from bench.instructions.record import Record, compare, differences, table, verdict  # noqa: E402

RECORDED = {"core": {"parse request": 1000, "unmask": 200, "gone": 7}, "package": {"dispatch": 30_000}}


def rose(now: dict[str, dict[str, int]]) -> list[str]:
    return [line.name for line in compare(now, RECORDED) if line.rose]


def test_what_rose_by_over_five_percent_is_named() -> None:
    now = {"core": {"parse request": 1050, "unmask": 211}, "package": {"dispatch": 31_501}}
    assert rose(now) == ["unmask", "dispatch"]
    assert list(verdict(compare(now, RECORDED))) == [
        "rose by over 5 %: core, unmask: 200 -> 211 (+5.5 %)",
        "rose by over 5 %: package, dispatch: 30,000 -> 31,501 (+5.0 %)",
    ]


def test_what_fell_came_or_went_did_not_rise() -> None:
    now = {"core": {"parse request": 500, "unmask": 200, "new": 9}, "other": {"dispatch": 90_000}}
    assert rose(now) == []
    assert list(verdict(compare(now, RECORDED))) == ["nothing rose by over 5 %"]


def test_without_a_record_that_is_what_is_said() -> None:
    [said] = verdict(compare(RECORDED, {}))
    assert "nothing is recorded yet" in said


def test_the_table_has_every_operation_of_either() -> None:
    now = {"core": {"parse request": 1100, "new": 9, "unmask": 200}, "package": {"dispatch": 30_000}}
    shown = [line.split() for line in table(compare(now, RECORDED))]
    assert shown == [
        ["core", "instructions", "recorded", "change"],
        ["parse", "request", "1,100", "1,000", "+10.0", "%"],
        ["new", "9", "-"],
        ["unmask", "200", "200", "+0.0", "%"],
        ["gone", "-", "7"],
        ["package", "instructions", "recorded", "change"],
        ["dispatch", "30,000", "30,000", "+0.0", "%"],
    ]


def test_a_record_comes_back_and_says_what_else_changed(tmp_path: Path) -> None:
    file = tmp_path / "instructions.json"
    assert Record.load(file).counts == {}
    kept = Record("2025-01-31T12:00:00+00:00", {"cpu": "one", "cpus": 2}, {"rustc": "1.85.0"}, RECORDED)
    kept.save(file)
    assert Record.load(file) == kept
    now = Record("", {"cpu": "one", "cpus": 2}, {"rustc": "1.95.0"}, RECORDED)
    assert list(differences(now, kept)) == ["recorded with another rustc: 1.85.0, here 1.95.0"]


def test_a_count_is_the_difference_of_its_two_parts() -> None:
    printed = '{"name": "a", "operations": 10}\n{"name": "b", "operations": 2}\n'
    # before the first mark, the part, between, its twin; then the same for b
    assert counts(printed, [99_999, 1030, 500, 2030, 7, 104, 7, 204]) == {"a": 100, "b": 50}


@pytest.mark.parametrize("printed", ["", '{"name": "a", "operations": 1}\n'])
def test_marks_that_do_not_fit_the_names_are_refused(printed: str) -> None:
    with pytest.raises(CountFailed, match="marks, not 3"):
        counts(printed, [1, 2, 3])
