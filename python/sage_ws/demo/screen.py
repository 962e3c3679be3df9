"""What the demo shows: talk and progress while it runs, then a table.

With rich on a terminal; in plain lines elsewhere.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol, Self, TextIO

from sage_ws.demo.report import Report

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

TITLE: Final = "SAGE agents talking"
COLOURS: Final = {"amir": "cyan", "bea": "green", "chidi": "yellow", "dara": "magenta"}
TALK_LINES: Final = 8
BAR: Final = 28  # short of 80 columns: the terminal's own echo of ^C then breaks no line


class Screen(Protocol):
    """Where the demo is shown; a context manager, so that the terminal is given back as it was."""

    refresh_seconds: float

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

    def note(self, text: str) -> None:
        """Say one line that stays."""
        ...

    def show(self, reports: Sequence[Report]) -> None:
        """Show how far it is; called about every ``refresh_seconds``."""
        ...

    def result(self, reports: Sequence[Report], about: str) -> None:
        """Show the table and, below it, what ran where."""
        ...


def screen_for(stream: TextIO) -> Screen:
    """The best screen that ``stream`` can show."""
    if stream.isatty() and importlib.util.find_spec("rich") is not None:
        return RichScreen(stream)
    return PlainScreen(stream)


def rows(reports: Sequence[Report]) -> list[tuple[str, ...]]:
    """The table's rows: a label, then a cell per transport."""
    return [
        ("messages", *(f"{report.answered:,}" for report in reports)),
        ("failures", *(f"{report.failures:,}" for report in reports)),
        ("forgeries refused", *(f"{report.refused} of {report.forgeries}" for report in reports)),
        ("messages/s", *(f"{report.rate:,.0f}" for report in reports)),
        ("p50", *(f"{report.p50:.2f} ms" for report in reports)),
        ("p99", *(f"{report.p99:.2f} ms" for report in reports)),
    ]


class PlainScreen:
    """Lines without colours, one a second: for a pipe, a log, or without rich."""

    refresh_seconds = 1.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        self._line(TITLE)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.flush()

    def note(self, text: str) -> None:
        """See `Screen`."""
        self._line(text)

    def show(self, reports: Sequence[Report]) -> None:
        """See `Screen`."""
        report = reports[-1]
        said = ""
        if report.latest is not None:
            client, agent, answer = report.latest
            said = f'  {agent} to {client}: "{answer}"'
        self._line(f"{report.name:<9}  {report.answered:>6,} of {report.wanted:,}{said}")

    def result(self, reports: Sequence[Report], about: str) -> None:
        """See `Screen`."""
        self._line()
        for label, *cells in [("", *(report.name for report in reports)), *rows(reports)]:
            self._line(f"{label:<18}" + "".join(f"{cell:>14}" for cell in cells))
        self._line()
        self._line(about)

    def _line(self, text: str = "") -> None:
        self._stream.write(text.rstrip() + "\n")
        self._stream.flush()


class RichScreen:
    """A panel of talk over the bars, redrawn in place; the table takes its place at the end."""

    refresh_seconds = 0.1

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # rich is an extra

        self._console = Console(file=stream, highlight=False)
        self._talk: deque[tuple[str, str, str]] = deque(maxlen=TALK_LINES)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        live = Live(console=self._console, auto_refresh=False, transient=True)
        live.start()
        self._live = live
        return self

    def __exit__(self, *exc: object) -> None:
        self._leave()

    def note(self, text: str) -> None:
        """See `Screen`."""
        self._console.print(text, style="dim")

    def show(self, reports: Sequence[Report]) -> None:
        """See `Screen`."""
        latest = reports[-1].latest
        if latest is not None:
            self._talk.append(latest)
        if self._live is not None:
            self._live.update(self._picture(reports), refresh=True)

    def result(self, reports: Sequence[Report], about: str) -> None:
        """See `Screen`."""
        from rich import box
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        self._leave()
        table = Table(box=box.ROUNDED, border_style="blue")
        table.add_column(Text(TITLE, style="bold"), style="dim", min_width=20)
        for report in reports:
            table.add_column(report.name, justify="right", min_width=14)
        for label, *cells in rows(reports):
            style = "bold" if label == "messages/s" else ""
            if label == "failures":
                coloured = [
                    Text(cell, style="bold red" if report.failures else "bold green")
                    for cell, report in zip(cells, reports, strict=True)
                ]
                table.add_row(label, *coloured)
            else:
                table.add_row(label, *cells, style=style)
        self._console.print(table)
        self._console.print(Padding(Text(about, style="dim"), (0, 1)))

    def _picture(self, reports: Sequence[Report]) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        talk = Table.grid(padding=(0, 1), expand=True)
        talk.add_column(width=6, no_wrap=True)
        talk.add_column(width=8, no_wrap=True)
        talk.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for client, agent, answer in self._talk:
            colour = COLOURS.get(client, "white")
            talk.add_row(
                Text(agent, style="bold"),
                Text(f"→ {client}", style=f"bold {colour}"),
                Text(answer, style=colour),
            )
        bars = Table.grid(padding=(0, 2))
        for report in reports:
            bars.add_row(
                Text(f" {report.name}", style="bold"),
                ProgressBar(total=report.wanted, completed=report.answered + report.failures, width=BAR),
                Text(f"{report.answered:,} of {report.wanted:,}", justify="right"),
                Text(f"{report.rate:,.0f}/s", style="bold green", justify="right"),
                Text(f"{report.failures} failed", style="bold red" if report.failures else "dim"),
            )
        panel = Panel(
            talk,
            title=f"[bold]{TITLE}[/bold]",
            subtitle="[dim]every message signed, every answer checked[/dim]",
            border_style="blue",
            height=TALK_LINES + 2,
        )
        return Group(panel, bars)

    def _leave(self) -> None:
        """Take the picture away and show the cursor again; a second time does nothing."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
