"""The plots, as SVG: how ours compares with everybody at each shape, and the curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.curves import CURVES, Curve, lines
from bench.peers import load
from bench.record import Record
from bench.report import Spread, baseline, peers, ratio, shapes

OURS: Final = "#c2410c"
THEIRS: Final = ("#1d4ed8", "#15803d", "#7e22ce", "#525252", "#0e7490")
STYLE: Final[Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9.0,
    "grid.alpha": 0.3,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sage_ws",  # the same record gives the same file
}


def draw(record: Record, path_of: Callable[[str], Path]) -> dict[str, Path]:
    """Draw all that the record has figures for.

    Args:
        record: what was measured.
        path_of: a file for a plot's name.

    Returns:
        Plot's name to its file: ``ratios``, and the curves by their names with dashes.
    """
    import matplotlib as mpl

    mpl.use("svg")
    drawn = {}
    with mpl.rc_context(STYLE):
        if record.shapes:
            drawn["ratios"] = path_of("ratios")
            _draw_ratios(record, drawn["ratios"])
        for curve in CURVES:
            if any(record.curves.get(curve.name, {}).values()):
                name = curve.name.replace(" ", "-")
                drawn[name] = path_of(name)
                _draw_curve(record, curve, drawn[name])
    return drawn


def _draw_ratios(record: Record, path: Path) -> None:
    """A bar for each peer at each shape: how many times our cost its is; across it, the rounds' spread."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ours, names = baseline(record), list(reversed(peers(record)))
    of = [shape for shape in shapes(record) if ours in record.shapes[shape.name]]
    size = (1.7 * len(of) + 3.2, 0.24 * len(names) + 0.8)
    figure, axes = plt.subplots(1, len(of), figsize=size, sharey=True, squeeze=False)
    for axis, shape in zip(axes[0], of, strict=True):
        turns = record.shapes[shape.name]
        for height, name in enumerate(names):
            if name in turns:
                got = ratio(turns[ours], turns[name])
                color = OURS if name.startswith("sage-") else THEIRS[0]
                axis.barh(height, got.middle - 1, left=1, color=color, height=0.7)
                axis.plot([got.least, got.most], [height, height], color="black", linewidth=0.8)
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        axis.xaxis.set_major_locator(LogLocator(subs=(1,) if high / low > 100 else (1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_title(shape.title)
        axis.grid(visible=False, axis="y")
    axes[0][0].set_yticks(range(len(names)), [load(name).title for name in names])
    axes[0][0].set_ylim(-0.6, len(names) - 0.4)
    figure.tight_layout()
    _save(figure, path)


def _draw_curve(record: Record, curve: Curve, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    colors = iter(THEIRS)
    for line, points in lines(record, curve).items():
        color = OURS if line.startswith("sage-") else next(colors)
        xs: list[float] = [x for x, _ in points]
        costs: list[Spread] = [cost for _, cost in points]
        axis.plot(
            xs, [cost.middle * 1e6 for cost in costs], "o-", color=color, label=load(line).title, ms=3.5
        )
        low, high = [cost.least * 1e6 for cost in costs], [cost.most * 1e6 for cost in costs]
        axis.fill_between(xs, low, high, color=color, alpha=0.15, linewidth=0)
    axis.set_xscale("symlog" if curve.points[0].x == 0 else "log")
    axis.set_yscale("log")
    axis.set_title(curve.title)
    axis.set_xlabel(curve.axis)
    axis.set_ylabel(curve.unit)
    axis.legend(frameon=False)
    figure.tight_layout()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
