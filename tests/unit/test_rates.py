"""From two scrapes to rates: what `sage-ws top` reckons."""

from __future__ import annotations

import math

import pytest

from sage_ws.cli.rates import Scrape, quantile, rate, read, rows

TEXT = """
# TYPE sage_ws_server_requests_total counter
sage_ws_server_requests_total{name="a",worker="1"} %d
sage_ws_server_requests_total{name="a",worker="2"} 5
# TYPE sage_ws_server_connections gauge
sage_ws_server_connections{name="a",worker="1"} 3
# TYPE sage_ws_servers gauge
sage_ws_servers{name="a",state="serving",worker="1"} 1
sage_ws_servers{name="a",state="draining",worker="2"} 2
sage_ws_servers{name="a",state="serving",worker="2"} 0
# TYPE sage_ws_server_request_duration_seconds histogram
sage_ws_server_request_duration_seconds_bucket{name="a",outcome="success",le="0.1",worker="1"} %d
sage_ws_server_request_duration_seconds_bucket{name="a",outcome="success",le="+Inf",worker="1"} %d
sage_ws_server_request_duration_seconds_bucket{name="a",outcome="error",le="0.1",worker="1"} 0
sage_ws_server_request_duration_seconds_bucket{name="a",outcome="error",le="+Inf",worker="1"} 0
# TYPE sage_ws_client_pending_requests gauge
sage_ws_client_pending_requests{name="b",worker="1"} 7
# TYPE somebody_elses_total counter
somebody_elses_total 3
"""


def scrape(at: float, requests: int, quick: int = 0, all_of_them: int = 0) -> Scrape:
    return read(TEXT % (requests, quick, all_of_them), at)


def test_rows_of_two_workers_and_of_both() -> None:
    first, second, both = rows("server", scrape(12.0, 30, 9, 10), scrape(10.0, 10, 1, 2))
    assert (first.owner, second.owner, both.owner) == (
        ("server", "a", "1"),
        ("server", "a", "2"),
        ("server", "all", ""),
    )
    assert (first.state, second.state, both.state) == ("serving", "2 draining", "2 draining, serving")
    assert [row.values["connections"] for row in (first, second, both)] == [3, 0, 3]
    rates = [row.rates["requests_total"] for row in (first, second, both) if row.rates is not None]
    assert rates == [10, 0, 10]
    assert first.p50 == both.p50 == pytest.approx(0.05)
    assert math.isnan(second.p50)
    (client,) = rows("client", scrape(12.0, 30), None)
    assert (client.owner, client.values["pending_requests"], client.rates) == (("client", "b", "1"), 7, None)


def test_one_that_has_started_anew_has_no_rate_below_zero() -> None:
    first, _, both = rows("server", scrape(12.0, 4, 3, 4), scrape(10.0, 100, 50, 60))
    assert first.rates is not None
    assert both.rates is not None
    assert (first.rates["requests_total"], both.rates["requests_total"]) == (2, 2)
    assert first.p50 == pytest.approx(0.1 * 2 / 3)


def test_rate() -> None:
    assert rate(30, 10, 2) == 10
    assert rate(6, 10, 2) == 3


@pytest.mark.parametrize(
    ("share", "counts", "seconds"),
    [
        (0.5, {0.1: 10, 0.2: 10, math.inf: 10}, 0.05),
        (0.5, {0.1: 0, 0.2: 10, math.inf: 10}, 0.15),
        (0.99, {0.1: 50, 0.2: 100, math.inf: 100}, 0.198),
        (0.99, {0.1: 50, 0.2: 50, math.inf: 100}, 0.2),  # longer than any bound: the last one
    ],
)
def test_quantile(share: float, counts: dict[float, float], seconds: float) -> None:
    assert quantile(share, counts) == pytest.approx(seconds)


@pytest.mark.parametrize("counts", [{}, {0.1: 0, math.inf: 0}])
def test_nothing_has_no_quantile(counts: dict[float, float]) -> None:
    assert math.isnan(quantile(0.5, counts))


@pytest.mark.parametrize("text", ["<html>", "sage_ws_server_requests_total{"])
def test_what_is_no_scrape(text: str) -> None:
    with pytest.raises(ValueError):
        read(text, 0.0)
