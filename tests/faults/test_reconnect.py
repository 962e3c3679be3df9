"""1,000 clients after a restart: at most 20 % of their dials fall into any 100 ms, by the schedule itself.

Here time is computed, not waited for; `make reliability` measures the same with 1,000 real ones.
"""

from __future__ import annotations

import random
from bisect import bisect_left

import pytest
from tests.faults.storm import CLIENTS, WINDOW, most_in_a_window

from sage_ws.options import full_jitter


def dials(outage: float) -> list[float]:
    """Seconds from the loss to each dial of every client: those within the outage fail, another follows."""
    instants = []
    for _ in range(CLIENTS):
        at, attempt = 0.0, 0
        while True:
            at += full_jitter(attempt)
            attempt += 1
            instants.append(at)
            if at >= outage:
                break
    return sorted(instants)


@pytest.mark.parametrize("outage", [0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0, 120.0])
def test_no_tenth_of_a_second_has_over_a_fifth_of_the_dials(outage: float) -> None:
    random.seed(6455)
    for _ in range(10):
        instants = dials(outage)
        assert most_in_a_window(instants) <= 0.2 * len(instants)
        # Nor over a fifth of the clients, who may have dialled in vain before.
        assert most_in_a_window(instants) <= 0.2 * CLIENTS


def test_without_jitter_the_same_count_is_all_of_them() -> None:
    assert most_in_a_window([1.0] * CLIENTS) == CLIENTS
    assert most_in_a_window([0.0, WINDOW * 0.99, WINDOW * 1.01]) == 2


def test_half_of_all_clients_are_back_within_half_a_second() -> None:
    """Spread, and not put off: the price of the jitter after a short restart."""
    random.seed(7692)
    assert bisect_left(dials(0.0), 0.5) >= 0.4 * CLIENTS
