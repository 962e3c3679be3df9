"""`sage_ws.logs`: one event a line, whatever stands in it, and a traceback that passes for no event."""

from __future__ import annotations

import base64
import logging

import pytest

from sage_ws import Response, SecureMessage
from sage_ws.errors import peer_text
from sage_ws.logs import INDENT, LINE_LIMIT, TRACEBACK_LIMIT, logger_of, one_line, shown_traceback

BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
"""Whatever some reader of lines takes for the end of one."""
OBEYED = [
    *BREAKS,
    "\x1b[2J",
    "\x9b31m",
    "\x07",
    "\x08",
    "\x00",
    "\x7f",
    "\u202e",
    "\u200b",
    "\ufeff",
    "\ud800",
]
"""And what a terminal obeys, or a reader does not see."""


class TestALine:
    @pytest.mark.parametrize("text", ["", "plain", "a 'quoted' \"word\" \\n", "größer, 日本語, …"])
    def test_what_is_printable_stays(self, text: str) -> None:
        assert one_line(text) == text

    @pytest.mark.parametrize("text", OBEYED, ids=ascii)
    def test_what_is_obeyed_is_escaped(self, text: str) -> None:
        shown = one_line(f"before{text}after")
        assert shown.isprintable()
        assert shown.splitlines() == [shown]
        assert shown.startswith("before\\")
        assert shown.endswith("after")

    def test_a_long_one_is_cut(self) -> None:
        assert one_line("x" * LINE_LIMIT) == "x" * LINE_LIMIT
        assert one_line("x" * 10_000) == "x" * LINE_LIMIT + " … (10000 characters)"


class TestATraceback:
    def shown(self, error: BaseException) -> list[str]:
        try:
            raise error
        except BaseException as raised:
            return shown_traceback(raised).split("\n")

    def test_it_is_indented(self) -> None:
        lines = self.shown(ValueError("no"))
        assert lines[0] == f"{INDENT}Traceback (most recent call last):"
        assert lines[-1] == f"{INDENT}ValueError: no"
        assert all(line.startswith(INDENT) for line in lines)

    @pytest.mark.parametrize("text", OBEYED, ids=ascii)
    def test_a_peers_text_in_it_makes_no_event(self, text: str) -> None:
        lines = self.shown(ValueError(f"unknown agent{text}2026-01-01 ERROR sage_ws.server: faked"))
        assert all(line.startswith(INDENT) and line.isprintable() for line in lines)
        assert "\n".join(lines).splitlines() == lines

    def test_a_long_text_is_cut_and_the_frames_stay(self) -> None:
        lines = self.shown(ValueError("x\n" * 1_000_000))
        assert len(lines) == 2 * TRACEBACK_LIMIT + 1
        assert any("in shown" in line for line in lines)
        assert len(self.shown(ValueError("x" * 1_000_000))[-1]) < LINE_LIMIT + 100

    def test_causes_and_groups_are_shown(self) -> None:
        group = ExceptionGroup("two", [ValueError("one\nline"), KeyError("other")])
        group.__cause__ = OSError("why")
        text = "\n".join(self.shown(group))
        assert all(word in text for word in ("OSError: why", "ValueError: one", "KeyError: 'other'"))


class TestALogger:
    def test_it_stands_below_ours(self) -> None:
        logger = logger_of("test")
        assert logger.name == "sage_ws.test"
        assert logger is logger_of("test")
        assert len(logger.filters) == 1

    def test_an_event_is_one_line(self, caplog: pytest.LogCaptureFixture) -> None:
        logger_of("test").warning("from %s", "a\nb\u2028c")
        (record,) = caplog.records
        assert record.getMessage() == "from a\\nb\\u2028c"

    def test_what_is_safe_keeps_its_template(self, caplog: pytest.LogCaptureFixture) -> None:
        logger_of("test").warning("from %s", "a")
        (record,) = caplog.records
        assert (record.msg, record.args) == ("from %s", ("a",))

    def test_a_traceback_is_told_with_its_exception(self, caplog: pytest.LogCaptureFixture) -> None:
        error = ValueError("a\nb")
        logger_of("test").error("failed", exc_info=error)
        (record,) = caplog.records
        assert record.exc_info is not None
        assert record.exc_info[1] is error
        text = logging.Formatter("%(levelname)s %(message)s").format(record)
        first, *others = text.split("\n")
        assert first == "ERROR failed"
        assert others[-2:] == [f"{INDENT}ValueError: a", f"{INDENT}b"]


class TestTheWatchOverTheTests:
    """`LogWatch` of tests/conftest.py sees what it is there for."""

    @pytest.mark.parametrize(
        "text", ["canary", *(base64.b64encode(b"-" * lead + b"canary!").decode() for lead in range(6))]
    )
    @pytest.mark.parametrize("name", ["sage_ws.test", "sage_ws.other.below", "asyncio"])
    def test_a_secret(self, log_findings: list[str], name: str, text: str) -> None:
        logging.getLogger(name).debug("told: %s", text)
        assert log_findings
        log_findings.clear()

    def test_a_secret_in_an_exception(self, log_findings: list[str]) -> None:
        logger_of("test").error("failed", exc_info=ValueError("can" + "ary"))
        assert log_findings
        log_findings.clear()

    @pytest.mark.parametrize("value", [b"x", SecureMessage(b"x", "did:x"), Response(True, "m-1")])
    def test_what_a_message_holds(self, log_findings: list[str], value: object) -> None:
        logger_of("test").debug("got %r", value)
        assert log_findings
        log_findings.clear()

    def test_a_second_line(self, log_findings: list[str]) -> None:
        logging.getLogger("sage_ws.unguarded").debug("one\ntwo")
        assert log_findings
        log_findings.clear()

    def test_nothing(self, log_findings: list[str]) -> None:
        logger_of("test").debug("from %s: %d", peer_text("a\nb"), 3)
        assert not log_findings
