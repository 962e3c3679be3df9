"""The pages: `docs/performance.md` and the blocks of figures elsewhere, made from a record without measuring.

::

    python -m bench.page        of the newest record in bench/results (``make bench-page``)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from string import Template
from typing import Final

from bench import idle, plots, startup, targets, wire, workers
from bench.curves import CURVES, Curve, lines, rise
from bench.losses import losses
from bench.peers import load
from bench.processes import ROOT
from bench.record import RESULTS, Record, newest
from bench.report import baseline, block, conditions, figure, markdown, processor, ratio, shapes, short, times

PAGE: Final = ROOT / "docs" / "performance.md"
IMAGES: Final = ROOT / "docs" / "images"
PAGES: Final = (ROOT / "README.md", ROOT / "docs" / "explanation" / "comparison.md")
"""Where the figures stand between two comments."""
BEGIN: Final = "<!-- bench:begin -->"
END: Final = "<!-- bench:end -->"
TEMPLATE: Final = Path(__file__).parent / "performance.md"


def write(record: Record) -> list[Path]:
    """Write the page, its plots, and the blocks in `PAGES`; returns what was written."""
    drawn = plots.draw(record, lambda name: IMAGES / f"bench-{name}.svg")
    PAGE.write_text(render(record, drawn), "utf-8")
    for page in PAGES:
        rewrite(page, block(record))
    return [PAGE, *drawn.values(), *PAGES]


def render(record: Record, drawn: Mapping[str, Path]) -> str:
    """The page on performance.

    Args:
        record: that it shows.
        drawn: plot's name to its file.
    """
    text = Template(TEMPLATE.read_text("utf-8")).substitute(
        date=record.date,
        conditions=conditions(record),
        rounds=f"{record.effort['rounds']:g}",
        seconds=f"{record.effort['seconds']:g}",
        base=load(baseline(record)).title,
        targets=markdown(list(targets.table(record, targets.BESIDE_OTHERS)), align="llrrl"),
        ratios=_image(drawn, "ratios", "How many times our cost each peer's is, at each shape of traffic"),
        shapes="\n\n".join(_shape(record, shape.name) for shape in shapes(record)),
        curves="\n\n".join(_curve(record, curve, drawn) for curve in CURVES if record.curves.get(curve.name)),
        wire="\n\n".join(_wire(record)),
        idle="\n\n".join(_idle(record)),
        startup=_startup(record),
        losses=markdown(list(_losses(record)), align="lll"),
        skipped=_skipped(record),
    )
    return text.rstrip() + "\n"


def _image(drawn: Mapping[str, Path], name: str, what: str) -> str:
    return f"![{what}](images/{drawn[name].name})" if name in drawn else ""


def _shape(record: Record, name: str) -> str:
    """A shape's table: figure, ratio with its spread, processor time."""
    shape = next(each for each in shapes(record) if each.name == name)
    turns, ours = record.shapes[name], baseline(record)
    table = [("", shape.title, "ratio", "of the rounds", "µs of processor")]
    for peer, rounds in turns.items():
        got = ratio(turns[ours], rounds) if ours in turns and peer != ours else None
        table.append(
            (
                load(peer).title,
                figure(shape, rounds),
                "1" if got is None else times(got.middle),
                "" if got is None else f"{times(got.least)} … {times(got.most)}",
                processor(rounds),
            )
        )
    return f"### {shape.title}\n\n{markdown(table)}"


def _curve(record: Record, curve: Curve, drawn: Mapping[str, Path]) -> str:
    name = curve.name.replace(" ", "-")
    its = lines(record, curve)
    xs = [point.x for point in curve.points if any(point.x == x for line in its.values() for x, _ in line)]
    table = [(curve.axis, *(f"{x:,.0f}" for x in xs), "rise")]
    for line, costs in its.items():
        known = {x: short(cost.middle * 1e6) for x, cost in costs}
        bend = rise(record, curve, line)
        table.append((load(line).title, *(known.get(x, "") for x in xs), times(bend.middle)))
    image = _image(drawn, name, f"{curve.unit}, over {curve.axis}")
    about = f"{curve.title.capitalize()}; {curve.unit}."
    return f"### {curve.name.capitalize()}\n\n{about}\n\n{image}\n\n{markdown(table)}"


def _wire(record: Record) -> Iterator[str]:
    """What was to be reached with our own wire, and its tables."""
    yield markdown(list(targets.table(record, targets.OUR_WIRE)), align="llrrl")
    yield from wire.tables(record)


def _idle(record: Record) -> Iterator[str]:
    """The tables of figures that are one number for each peer."""
    for title, unit in ((idle.MEMORY, 1.0), (idle.HANDSHAKES, 1.0), (idle.PINGS, 0.01)):
        its = record.figures.get(title)
        if not its:
            continue
        table = [("", f"{title}{', %' if unit == 0.01 else ''}", "of the rounds")]
        for name, values in its.items():
            scaled = [value / unit for value in values]
            spread = f"{short(min(scaled))} … {short(max(scaled))}"
            table.append((load(name).title, short(median(scaled)), spread))
        yield markdown(table)


def _startup(record: Record) -> str:
    table: list[tuple[str, ...]] = [("", "")]
    for name, values in record.figures.get(startup.IMPORT, {}).items():
        table.append((f"`import sage_ws`, {load(name).title}", f"{median(values) * 1e3:.1f} ms"))
    wheels = record.figures.get(startup.WHEEL, {}).values()
    table += [("the wheel, native", f"{median(values) / 1e6:.2f} MB") for values in wheels]
    for name, values in record.figures.get(workers.WORKERS, {}).items():
        table.append((f"messages per second of processor time, {name}", short(median(values))))
    return markdown(table)


def _losses(record: Record) -> Iterator[tuple[str, ...]]:
    """What is lost to one peer for one reason shares a row."""
    yield ("who is ahead", "where, and how far", "why")
    shared: dict[tuple[str, str], list[str]] = {}
    missed = []
    for loss in losses(record):
        lost, reason = f"{loss.row}: {loss.by}", loss.reason or "*not explained yet*"
        if loss.ahead:
            shared.setdefault((loss.ahead, reason), []).append(lost)
        else:
            missed.append(("the target", lost, reason))
    yield from ((ahead, "; ".join(where), reason) for (ahead, reason), where in shared.items())
    yield from missed


def _skipped(record: Record) -> str:
    out = {**record.skipped, **{load(name).title: "it gave up" for name in record.failed}}
    if not out:
        return ""
    return "Left out in this run:\n\n" + "\n".join(f"- {what}: {why}" for what, why in out.items())


def rewrite(path: Path, text: str) -> None:
    """Put ``text`` between the two comments that mark its place.

    Raises:
        ValueError: the file has no such place.
    """
    before, begin, rest = path.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path.name} has no {BEGIN} … {END}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")


def recorded() -> Sequence[Path]:
    """The files that were kept."""
    return sorted(path for path in RESULTS.glob("*.json") if path.name != "latest.json")


def main() -> None:
    record = newest(recorded())
    print(f"of {record.when}, commit {record.commit}:")
    for path in write(record):
        print(f"wrote {path.relative_to(ROOT)}")
    for loss in losses(record):
        if loss.reason is None:
            print(f"not explained: {loss.row}, {loss.ahead or loss.by}")


if __name__ == "__main__":
    main()
