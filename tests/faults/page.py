"""`docs/reliability.md`, from the table of promises and the newest record, without measuring.

::

    python -m tests.faults.page        (``make reliability-page``)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Final

from tests.faults.figures import ROOT, Record, newest
from tests.faults.promises import PROMISES, Promise

PAGE: Final = ROOT / "docs" / "reliability.md"
TEMPLATE: Final = Path(__file__).parent / "reliability.md"


def render(record: Record) -> str:
    """The page."""
    machine = record.machine
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        date=record.date,
        conditions=", ".join(
            [f"{machine['cpus']} × {machine['cpu']}", *map(str, (machine["system"], machine["python"]))]
        ),
        table=_table([("", "asked", "measured"), *(_row(promise, record) for promise in PROMISES)]),
        promises="\n\n".join(map(_section, PROMISES)),
        ledgers="\n\n".join(
            f"### {axis}\n\n{_table(programs['soak']['rows'], '---:')}"
            for axis, programs in record.runs.items()
        ),
    )


def _row(promise: Promise, record: Record) -> tuple[str, ...]:
    anchor = slugify(promise.threat)
    return f"[{promise.threat}](#{anchor})", promise.asked, promise.figure(record)


def slugify(heading: str) -> str:
    """The anchor that mkdocs gives to a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def _section(promise: Promise) -> str:
    """What stands behind a row. The tests are listed: their names are wider than a column."""
    tests = "\n".join(f"- `tests/{test}`" for test in promise.tests)
    return f"### {_capital(promise.threat)}\n\nOurs: {promise.does}.\n\n{tests}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _table(rows: Sequence[Sequence[str]], align: str = "---") -> str:
    heading, *body = rows
    rule = f"| --- |{f' {align} |' * (len(heading) - 1)}"
    return "\n".join([f"| {' | '.join(heading)} |", rule, *(f"| {' | '.join(row)} |" for row in body)])


def write(record: Record) -> Path:
    """Write the page; returns where."""
    PAGE.write_text(render(record), "utf-8")
    return PAGE


if __name__ == "__main__":
    sys.stdout.write(f"wrote {write(newest()).relative_to(ROOT)}\n")
