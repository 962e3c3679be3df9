"""What a number of ``stats()`` is as a metric, and how the end of a call is called."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from sage_ws import (
    Client,
    ConnectionLostError,
    DecodeError,
    DialError,
    HandlerError,
    ReadTimeoutError,
    Response,
    Server,
)
from sage_ws.observing.numbers import GAUGES, Kind, known_keys, number
from sage_ws.observing.outcomes import OUTCOMES, outcome_of, outcome_of_error
from sage_ws.observing.sources import kind_of, state_of

KINDS: tuple[Kind, ...] = ("client", "server")


def keys(kind: Kind) -> list[str]:
    """What ``stats()`` has today."""
    if kind == "client":
        return list(Client("ws://agent.example").stats())
    return list(Server(lambda message: None).stats())


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_has_a_name_of_its_own(kind: Kind) -> None:
    names = [number(kind, key).name for key in keys(kind)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z_]*[a-z]", name) for name in names)
    assert not any(name.endswith(("_total", "_count", "_sum", "_bucket", "_created")) for name in names)


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_is_left_of_a_number_that_has_gone(kind: Kind) -> None:
    assert set(known_keys(kind)) <= set(keys(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_nobody_has_named_counts(kind: Kind) -> None:
    one = number(kind, "somersaults")
    assert (one.name, one.is_gauge) == ("somersaults", False)
    assert "somersaults" in one.help


def test_what_the_page_says_is_now_is_a_gauge_and_nothing_else() -> None:
    page = Path(__file__).parents[2].joinpath("docs/how-to/tuning.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|", page.partition("## What `stats()` shows")[2], re.MULTILINE)
    now = {
        name for cell, text in rows if re.search(r"\bnow\b", text) for name in re.findall(r"`(\w+)`", cell)
    }
    assert now == GAUGES


@pytest.mark.parametrize(
    ("kind", "error", "word"),
    [
        ("server", HandlerError("no"), "failure"),
        ("server", ZeroDivisionError(), "error"),
        ("server", asyncio.CancelledError(), "cancelled"),
        ("client", DialError("no"), "not_sent"),
        ("client", ConnectionLostError("no"), "maybe_delivered"),
        ("client", ReadTimeoutError("no"), "maybe_delivered"),
        ("client", DecodeError("no"), "error"),
        ("client", asyncio.CancelledError(), "cancelled"),
    ],
)
def test_how_a_call_ended(kind: Kind, error: BaseException, word: str) -> None:
    assert outcome_of_error(kind, error) == word
    assert word in OUTCOMES[kind]


def test_an_answer_that_says_no_is_a_failure() -> None:
    assert outcome_of(Response()) == "success"
    assert outcome_of(Response.failure("no")) == "failure"
    assert outcome_of(Response(error="no")) == "failure"


async def test_what_has_not_begun_or_has_ended_is_in_no_state() -> None:
    client, server = Client("ws://agent.example"), Server(lambda message: None)
    assert (kind_of(client), kind_of(server)) == ("client", "server")
    assert (state_of(client), state_of(server)) == ("idle", None)
    await server.start()
    assert state_of(server) == "serving"
    await asyncio.gather(client.close(), server.close())
    assert (state_of(client), state_of(server)) == (None, None)
