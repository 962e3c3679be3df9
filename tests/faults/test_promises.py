"""The page on reliability: each promise names tests that exist, and the page is what its record gives."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from tests.faults.figures import NOT_MEASURED, Record, asserted, both, by_axis, newest, total, worst
from tests.faults.page import PAGE, render
from tests.faults.promises import PROMISES

TESTS = Path(__file__).parents[1]


def names(path: Path) -> set[str]:
    """The tests of a file, as pytest writes them behind its path."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for one in inside:
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_"):
                found.add(prefix + one.name)
    return found


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.threat)
def test_each_promise_names_tests_that_exist(promise: Any) -> None:
    assert promise.tests
    for test in promise.tests:
        path, _, name = test.partition("::")
        known = names(TESTS / path)
        assert name in known or (not name and known), f"there is no {test}"


def test_the_page_is_what_the_newest_record_gives() -> None:
    assert PAGE.read_text("utf-8") == render(newest())


def test_figures_in_words() -> None:
    runs: dict[str, dict[str, Any]] = {
        "rust": {"soak": {"calls": 1000, "worst": {"lost": 0.5}}},
        "pure": {"soak": {"calls": 2000, "worst": {"lost": 0.25}}, "wrong": {"a": 1, "b": 2}},
    }
    record = Record("2025-01-31T00:00:00+00:00", "abc", {}, runs)
    assert by_axis("{:.2f} s", "soak", "worst", "lost")(record) == "0.50 s (rust); 0.25 s (pure)"
    assert by_axis("{:.0f} s", "soak", "worst", "lost")(record) == "0 s"
    assert worst("{:.2f} s", "soak", "worst", "lost")(record) == "0.50 s"
    assert total("{:,.0f} calls", "soak", "calls")(record) == "3,000 calls"
    assert total("{:.0f}", "wrong")(record) == "3"
    assert both(asserted("one"), total("{:.0f}", "soak", "calls"))(record) == "asserted: one; 3000"
    assert by_axis("{}", "storm", "percent")(record) == worst("{}", "storm")(record) == NOT_MEASURED
    assert total("{}", "storm")(record) == NOT_MEASURED
    assert str(record.date) == "2025-01-31"
