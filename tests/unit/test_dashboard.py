"""The Grafana dashboard: it asks for what `sage_ws.metrics` shows, and its JSON is what Grafana loads."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import Metric  # noqa: TC002 # it is loaded anyhow

from sage_ws import Client, Server
from sage_ws.metrics import Metrics
from sage_ws.metrics.together import Together
from sage_ws.observing.numbers import known_keys, number

DASHBOARD: dict[str, Any] = json.loads(
    Path(__file__).parents[2].joinpath("docs/dashboards/sage_ws.json").read_text("utf-8")
)
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SHOWING = [panel for panel in PANELS if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in SHOWING for target in panel["targets"]]
VARIABLES: dict[str, dict[str, Any]] = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
METRIC = re.compile(r"\b(?:sage_ws|process)_\w+")


async def served() -> list[Metric]:
    """What the port of a program with several workers shows, with a server and a client."""
    registry = CollectorRegistry()
    with Metrics(registry) as metrics:
        metrics.server_interceptor("a")
        metrics.client_interceptor("b")
        client, server = Client("ws://agent.example"), Server(lambda message: None)
        async with server:
            metrics.watch(client, "b")
            metrics.watch(server, "a")
            texts = {1: generate_latest(registry) + generate_latest(REGISTRY)}
            return list(Together(lambda: texts).collect())


@pytest.fixture(scope="module")
def shown() -> dict[str, set[str]]:
    """Each metric, as PromQL names it, with its labels; Prometheus adds ``instance``."""
    return {
        sample.name: {*sample.labels, "instance"}
        for family in asyncio.run(served())
        for sample in family.samples
    }


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_it_asks_for_what_there_is(expression: str, shown: dict[str, set[str]]) -> None:
    metrics = set(METRIC.findall(expression))
    assert metrics
    process = {one for one in metrics if one.startswith("process_")}
    assert metrics - process <= set(shown)
    if process <= set(shown):  # prometheus_client finds them on Linux
        labels = set.intersection(*(shown[metric] for metric in metrics))
        asked = set(re.findall(r"[{,]\s*(\w+)[=!]", expression))
        grouped = {one for group in re.findall(r"by \((.*?)\)", expression) for one in group.split(", ")}
        assert asked | grouped <= labels
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")
    assert set(re.findall(r"\$(\w+)", expression)) <= {*VARIABLES, "__rate_interval"}


def test_no_number_of_stats_is_forgotten() -> None:
    asked = {metric for expression in EXPRESSIONS for metric in METRIC.findall(expression)}
    for kind in ("server", "client"):
        for key in known_keys(kind):  # type: ignore[arg-type]
            one = number(kind, key)  # type: ignore[arg-type]
            assert f"sage_ws_{kind}_{one.name}{'' if one.is_gauge else '_total'}" in asked


def test_counters_are_rates_and_gauges_are_not() -> None:
    for expression in EXPRESSIONS:
        for metric in METRIC.findall(expression):
            rated = bool(re.search(rf"(?:rate|increase)\({metric}\b", expression))
            assert rated == metric.endswith(("_total", "_count", "_sum", "_bucket")), expression


def test_grafana_finds_what_it_needs() -> None:
    assert DASHBOARD["title"] == "sage_ws"
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD  # it belongs to one installation
    assert "__inputs" not in DASHBOARD
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert VARIABLES["datasource"]["type"] == "datasource"
    for variable in VARIABLES.values():
        assert variable["type"] == "datasource" or variable["datasource"] == source
    for panel in SHOWING:
        assert panel["datasource"] == source
        assert {target["datasource"] == source for target in panel["targets"]} == {True}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert panel["type"] in {"stat", "timeseries", "heatmap"}
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_its_panels_lie_beside_each_other() -> None:
    places = [(panel["title"], *(panel["gridPos"][side] for side in "xywh")) for panel in PANELS]
    for _, x, y, w, h in places:
        assert x >= 0
        assert x + w <= 24
        assert y >= 0
        assert h > 0
    for (one, x, y, w, h), (other, x2, y2, w2, h2) in combinations(places, 2):
        assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y, (one, other)
