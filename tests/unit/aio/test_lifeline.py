"""The socket pair between a parent and its worker: every word, and each end's end."""

from __future__ import annotations

import asyncio

import pytest

from sage_ws.aio.lifeline import LONGEST_CAUSE, RELOAD, lifeline
from sage_ws.aio.stopping import Stop


def nothing() -> None:
    """For who loads no certificate."""


async def test_a_word_drains_and_a_second_one_cuts() -> None:
    parent, worker = lifeline()
    stop = Stop()
    reloads: list[bool] = []
    worker.attend(asyncio.get_running_loop(), stop, lambda: reloads.append(stop.drain.is_set()))
    parent.order(RELOAD)
    parent.order()
    await asyncio.wait_for(stop.drain.wait(), 10)
    assert not stop.cut.is_set()
    assert reloads == [False]
    parent.order()
    await asyncio.wait_for(stop.cut.wait(), 10)
    parent.close()
    worker.close()


@pytest.mark.parametrize("unread", [False, True], ids=["read", "unread"])
@pytest.mark.parametrize("ordered", [False, True], ids=["first", "after a word"])
async def test_the_parents_end_drains_and_cuts_nothing(unread: bool, ordered: bool) -> None:
    """Words of the worker that nobody has read make the end a reset."""
    parent, worker = lifeline()
    stop = Stop()
    loop = asyncio.get_running_loop()
    worker.attend(loop, stop, nothing)
    if ordered:
        parent.order()
        await asyncio.wait_for(stop.drain.wait(), 10)
        stop.drain.clear()
    if unread:
        worker.say_serving()
    parent.close()
    await asyncio.wait_for(stop.drain.wait(), 10)
    assert not stop.cut.is_set()
    assert not loop.remove_reader(worker._socket), "it reads on after the end"
    worker.close()


def test_what_a_worker_says_is_heard() -> None:
    parent, worker = lifeline()
    parent.hear()
    assert (parent.serving, parent.cause, parent.ended) == (False, "", False)
    worker.say_serving()
    parent.hear()
    assert (parent.serving, parent.cause, parent.ended) == (True, "", False)
    worker.say_failed(ValueError("lost - and gone"))
    worker.close()
    parent.hear()
    assert (parent.serving, parent.cause, parent.ended) == (True, "ValueError: lost - and gone", True)
    parent.close()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError(), "KeyError"),
        (ValueError("lone \udcff"), "ValueError: lone ?"),
        (ValueError("long " * LONGEST_CAUSE), ("ValueError: " + "long " * LONGEST_CAUSE)[:LONGEST_CAUSE]),
    ],
    ids=["none", "no text", "long"],
)
def test_any_cause_can_be_said(error: Exception, text: str) -> None:
    parent, worker = lifeline()
    worker.say_failed(error)
    parent.hear()
    assert (parent.serving, parent.cause) == (False, text)
    worker.close()
    parent.close()


def test_nobody_on_the_other_end_is_no_error() -> None:
    parent, worker = lifeline()
    parent.order()
    worker.close()  # with a word unread: the end is a reset
    parent.hear()
    assert parent.ended
    parent.order()
    parent.close()
    parent, worker = lifeline()
    parent.close()
    worker.say_serving()
    worker.close()
