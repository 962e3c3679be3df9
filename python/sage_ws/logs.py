"""Where every log line of sage_ws comes from: one event a line, whatever a peer has put into it.

Text of a peer's is quoted where it enters a line (`sage_ws.errors.peer_text`). This is the door behind it:
what leaves by one of these loggers holds no character that a terminal or a reader of lines obeys, and is cut.
A traceback stands below its event, each line indented, so that none of it passes for an event of its own.
"""

from __future__ import annotations

import logging
from typing import Final

LINE_LIMIT: Final = 1000
"""Characters of a line."""
TRACEBACK_LIMIT: Final = 100
"""Lines of a traceback from its start, and as many from its end; what lies between is left out."""
INDENT: Final = "    "


def one_line(text: str) -> str:
    """Text as it may stand in a log: nothing but what is printable, `LINE_LIMIT` characters at most."""
    if len(text) > LINE_LIMIT:
        text = f"{text[:LINE_LIMIT]} … ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def shown_traceback(error: BaseException) -> str:
    """An exception's traceback, its causes' too, indented; its text is escaped and cut line by line."""
    import traceback  # where a line is written, logging has imported it

    lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    left_out = len(lines) - 2 * TRACEBACK_LIMIT
    if left_out > 0:
        lines[TRACEBACK_LIMIT:-TRACEBACK_LIMIT] = [f"… ({left_out} lines)"]
    return "\n".join(INDENT + one_line(line) for line in lines)


class _OneLine(logging.Filter):
    """Lets every record pass, made safe."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        shown = one_line(text)
        if shown != text:
            record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = shown_traceback(record.exc_info[1])  # which a Formatter takes as it is
        return True


_ONE_LINE = _OneLine()


def logger_of(part: str) -> logging.Logger:
    """The logger ``sage_ws.<part>``: the only way here to one."""
    logger = logging.getLogger(f"sage_ws.{part}")
    logger.addFilter(_ONE_LINE)
    return logger
