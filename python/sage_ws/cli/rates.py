"""From two scrapes of a metrics port to what each server and client did in between."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from prometheus_client.parser import text_string_to_metric_families

Owner: TypeAlias = tuple[str, str, str]
"""``server`` or ``client``, its ``name``, its ``worker``; "" where it has none."""

_SAMPLE: Final = re.compile(r"sage_ws_(server|client)(s|_\w+)")
_BUCKET: Final = "request_duration_seconds_bucket"


@dataclass
class Scrape:
    """What a metrics port showed.

    Attributes:
        at: seconds of some clock that never goes back.
        values: for each server or client the values by the metric's name without its first two words, summed
            over the other labels.
        states: the states that there are, such as ``open``.
        buckets: how many calls took up to so many seconds.
    """

    at: float
    values: defaultdict[Owner, defaultdict[str, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )
    states: defaultdict[Owner, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    buckets: defaultdict[Owner, defaultdict[float, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )


def read(text: str, at: float) -> Scrape:
    """Read what a port answered.

    Raises:
        ValueError: it is not in Prometheus's text format.
    """
    scrape = Scrape(at)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            known = _SAMPLE.fullmatch(sample.name)
            if known is None:
                continue
            kind, rest = known.groups()
            labels: Mapping[str, str] = sample.labels
            owner = kind, labels.get("name", ""), labels.get("worker", "")
            if rest == "s":
                if sample.value:
                    scrape.states[owner][labels.get("state", "")] = sample.value
            elif rest[1:] == _BUCKET:
                scrape.buckets[owner][float(labels["le"])] += sample.value
            else:
                scrape.values[owner][rest[1:]] += sample.value
    return scrape


def rate(now: float, before: float, seconds: float) -> float:
    """How much a counter rose in a second; one that fell has started anew."""
    return (now - before if now >= before else now) / seconds


def quantile(share: float, counts: Mapping[float, float]) -> float:
    """Seconds within which this share of the calls was done.

    Args:
        share: from 0 to 1.
        counts: how many calls took up to so many seconds, infinity among them.

    Returns:
        Within its bucket as if they were spread evenly; NaN where there was no call.
    """
    bounds = sorted(counts)
    if not bounds or not counts[bounds[-1]]:
        return math.nan
    rank = share * counts[bounds[-1]]
    below, before = 0.0, 0.0
    for bound in bounds:
        if counts[bound] >= rank and counts[bound] > before:
            if math.isinf(bound):
                return below
            return below + (bound - below) * (rank - before) / (counts[bound] - before)
        below, before = bound, counts[bound]
    return below


@dataclass(frozen=True)
class Row:
    """One server or client, or all servers together.

    Attributes:
        state: its states, in words.
        values: by the metric's name: gauges as they are, counters since the start.
        rates: by how much each rose in a second; None where there is one scrape only.
        p50, p99: seconds; NaN where no call was timed.
    """

    owner: Owner
    state: str
    values: Mapping[str, float]
    rates: Mapping[str, float] | None
    p50: float
    p99: float


def rows(kind: str, now: Scrape, before: Scrape | None) -> list[Row]:
    """A row for each server or each client; more than one server's have a last one for all."""
    owners = sorted(
        {owner for owner in (*now.values, *now.states) if owner[0] == kind},
        key=lambda owner: (owner[1], len(owner[2]), owner[2]),
    )
    found = [_row(owner, [owner], now, before) for owner in owners]
    if len(owners) > 1:
        found.append(_row((kind, "all", ""), owners, now, before))
    return found


def _row(owner: Owner, owners: Sequence[Owner], now: Scrape, before: Scrape | None) -> Row:
    values: defaultdict[str, float] = defaultdict(float)
    rates: defaultdict[str, float] = defaultdict(float)
    buckets: defaultdict[float, float] = defaultdict(float)
    states: defaultdict[str, float] = defaultdict(float)
    for one in owners:
        for name, value in now.values[one].items():
            values[name] += value
            if before is not None:
                rates[name] += rate(value, before.values[one][name], now.at - before.at)
        fresh = before is None or any(
            now.buckets[one][bound] < before.buckets[one][bound] for bound in now.buckets[one]
        )
        for bound, count in now.buckets[one].items():
            buckets[bound] += count if fresh or before is None else count - before.buckets[one][bound]
        for state, count in now.states[one].items():
            states[state] += count
    shown = (state if count == 1 else f"{count:g} {state}" for state, count in sorted(states.items()))
    return Row(
        owner,
        ", ".join(shown),
        values,
        None if before is None else rates,
        quantile(0.5, buckets),
        quantile(0.99, buckets),
    )
