"""How far a soak is: a picture on a terminal that rich can draw on, a line for each round elsewhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self, TextIO

if TYPE_CHECKING:
    from rich.live import Live

Rows = Sequence[Sequence[str]]
"""A heading, then a row for each trouble."""


class Progress(Protocol):
    """A context manager, so that the terminal is given back as it was."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

    def show(self, title: str, rows: Rows, share: float) -> None:
        """A round has ended, or begins; ``share`` of the time is over."""
        ...


def progress_for(stream: TextIO) -> Progress:
    """The best that this stream can show."""
    if stream.isatty() and importlib.util.find_spec("rich") is not None:
        return Picture(stream)
    return Lines(stream)


def plain(rows: Rows) -> str:
    """A table in plain text: the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )


class Lines:
    """A line each time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.flush()

    def show(self, title: str, rows: Rows, share: float) -> None:
        """See `Progress`."""
        self._stream.write(f"{share:>4.0%}  {title}\n")
        self._stream.flush()


class Picture:
    """The ledger so far, over a bar, redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # rich is an extra

        self._console = Console(file=stream, highlight=False)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, title: str, rows: Rows, share: float) -> None:
        """See `Progress`."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(border_style="blue", row_styles=["", "dim"])
        for column, name in enumerate(rows[0]):
            table.add_column(name, justify="right" if column else "left")
        for row in rows[1:]:
            table.add_row(*row)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=1.0, completed=share, width=40), Text(title, style="bold"))
        if self._live is not None:
            self._live.update(Group(table, bar), refresh=True)
