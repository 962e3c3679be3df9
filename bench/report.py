"""From rounds to what is read: ratios, the machine, the tables, the JSON, the block in the pages."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.peers import OURS, load
from bench.race import ROOT, Results
from bench.shapes import SHAPES, Round, Shape

RESULTS: Final = ROOT / "bench" / "results"
LATEST: Final = RESULTS / "latest.json"
PAGES: Final = (ROOT / "README.md", ROOT / "docs" / "explanation" / "comparison.md")
"""Where the recorded figures stand."""
BEGIN: Final = "<!-- bench:begin -->"
END: Final = "<!-- bench:end -->"


def ratio(ours: Sequence[Round], theirs: Sequence[Round]) -> float:
    """How many times the cost of ours theirs is: the median of the ratios inside each round."""
    return median(other.cost / one.cost for one, other in zip(ours, theirs, strict=True))


def baseline(results: Results) -> str:
    """The peer that the others are compared with: our first core that ran, or the first peer."""
    return next((name for name in OURS if name in results.peers), results.peers[0])


# ── the machine ────────────────────────────────────────────────────────────────────────
def machine() -> dict[str, str | int]:
    """What the figures were taken on; nothing that names its owner."""
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _cpu() -> str:
    try:
        listed = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        listed = None
    return listed[1].strip() if listed else platform.processor() or platform.machine()


def conditions(results: Results) -> str:
    """Machine, versions and loop, in one sentence."""
    about = machine()
    pinned = "server and client pinned to a core each" if results.cpus else "not pinned"
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"{about['cpu']}, {about['cpus']} CPUs, {about['system']}, {about['python']}, {versions}; "
        f"{', '.join(sorted(set(results.loops.values())))}, {pinned}, loopback"
    )


# ── tables ─────────────────────────────────────────────────────────────────────────────
def figure(shape: Shape, rounds: Sequence[Round]) -> str:
    """The median of a peer's rounds, as it is read."""
    if shape.figure == "p50":
        return f"{median(one.cost for one in rounds) * 1e6:,.0f} µs"
    return f"{median(one.rate for one in rounds):,.0f}/s"


def times(factor: float) -> str:
    """A ratio, with no more digits than it deserves."""
    return f"{factor:.0f}×" if factor >= 9.95 else f"{factor:.1f}×"


def rows(results: Results) -> Iterator[tuple[str, ...]]:
    """The heading, then a row per peer: its title, and for each shape its figure and how ours compares."""
    base, shapes = baseline(results), _shapes(results)
    yield ("", *(cell for shape in shapes for cell in (shape.title, "ratio")))
    for name in results.peers:
        cells = [load(name).title]
        for shape in shapes:
            turns = results.rounds[shape.name]
            if name not in turns:
                cells += ["", ""]
                continue
            cells.append(figure(shape, turns[name]))
            cells.append("1" if name == base else times(ratio(turns[base], turns[name])))
        yield tuple(cells)


def plain(results: Results) -> Iterator[str]:
    """The table for a terminal, with what it means and where it was taken."""
    table = list(rows(results))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells])
    yield ""
    yield f"ratio: cost of a message against {_base_title(results)}, median of the ratios in each round"
    yield conditions(results)
    for name, reason in results.skipped.items():
        yield f"left out: {load(name).title} ({reason})"


def markdown(results: Results, today: dt.date) -> str:
    """The block of figures in a page."""
    heading, *peers = rows(results)
    lines = [
        "| " + " | ".join(heading) + " |",
        "| --- |" + " ---: |" * (len(heading) - 1),
        *("| " + " | ".join(row) + " |" for row in peers),
        "",
        f"Payloads of 256 bytes. *Ratio*: cost of a message against {_base_title(results)}, the median over",
        f"{_count(results)} interleaved rounds of {results.seconds:g} s. Taken on {today.isoformat()} with:",
        f"{conditions(results)}.",
    ]
    return "\n".join(lines)


def _base_title(results: Results) -> str:
    return load(baseline(results)).title


def _count(results: Results) -> int:
    return len(next(iter(next(iter(results.rounds.values())).values())))


def _shapes(results: Results) -> list[Shape]:
    return [shape for shape in SHAPES if shape.name in results.rounds]


# ── files ──────────────────────────────────────────────────────────────────────────────
def as_json(results: Results, now: dt.datetime) -> dict[str, Any]:
    """Every round, and what follows from them."""
    base = baseline(results)
    return {
        "when": now.isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": results.versions,
        "loops": results.loops,
        "pinned": results.cpus is not None,
        "seconds": results.seconds,
        "baseline": base,
        "skipped": results.skipped,
        "shapes": {
            shape.name: {
                "connections": shape.connections,
                "in_flight": shape.in_flight,
                "payload": shape.payload,
                "peers": {name: _summary(results.rounds[shape.name], name, base) for name in results.peers},
            }
            for shape in _shapes(results)
        },
    }


def _summary(turns: Mapping[str, Sequence[Round]], name: str, base: str) -> dict[str, Any]:
    rounds = turns[name]
    summary: dict[str, Any] = {
        "ratio": round(ratio(turns[base], rounds), 3),
        "messages_per_second": round(median(one.rate for one in rounds)),
        "rounds": [{"messages": one.messages, "seconds": round(one.seconds, 6)} for one in rounds],
    }
    for percentile in ("p50", "p99"):
        taken = [one for one in (getattr(each, percentile) for each in rounds) if one is not None]
        if taken:
            summary[f"{percentile}_us"] = round(median(taken) * 1e6, 1)
    return summary


def save(results: Results, now: dt.datetime, *, record: bool) -> list[Path]:
    """Write the JSON; to keep a record, also under its date and machine, and the block in `PAGES`.

    Returns:
        What was written.
    """
    text = json.dumps(as_json(results, now), indent=1) + "\n"
    written = [LATEST]
    if record:
        slug = re.sub(r"[^a-z0-9]+", "-", str(machine()["cpu"]).lower().replace("(r)", "")).strip("-")
        written.append(RESULTS / f"{now.date().isoformat()}-{slug}.json")
    for path in written:
        path.write_text(text, "utf-8")
    if record:
        for page in PAGES:
            rewrite(page, markdown(results, now.date()))
            written.append(page)
    return written


def rewrite(path: Path, block: str) -> None:
    """Put ``block`` between the two comments that mark its place.

    Raises:
        ValueError: the file has no such place.
    """
    before, begin, rest = path.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path.name} has no {BEGIN} … {END}")
    path.write_text(f"{before}{begin}\n{block}\n{end}{after}", "utf-8")
