"""Requests to their handlers on both bodies: what is answered at once, and how the others are handed on.

Equal means: the same requests answered with the same replies in the same order, the same one handed to the
task in the same state, and the same left ready.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from sage_ws._core import _pure, _rust

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


class Task:
    """Stands for a worker's task, cancelled when it is asked for the nth time."""

    def __init__(self, cancelled_at: int) -> None:
        self.left = cancelled_at

    def cancelling(self) -> int:
        self.left -= 1
        return int(self.left < 0)


class Link:
    """Keeps what it is given; the answers of odd requests are not flushed by it."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    def entering(self, message: Any, context: contextvars.Context) -> None:
        assert isinstance(context, contextvars.Context)
        self.log.append(("entering", message.id, message._terms))

    def call(self, message: Any, context: contextvars.Context) -> str:
        assert isinstance(context, contextvars.Context)
        self.log.append(("call", message.id))
        return "call"

    def answer(self, message: Any, reply: Any) -> bool:
        self.log.append(("answer", message.id, reply if isinstance(reply, bytes | None) else reply.error))
        return message.id[-1] in "02468"

    def answered(self) -> None:
        self.log.append("answered")

    def flush(self) -> None:
        self.log.append("flush")


class Suspension:
    """Something that a coroutine waits for."""

    def __await__(self) -> Any:
        yield self


def handler_of(body: ModuleType, seen: list[str]) -> Any:
    """One of every shape, by what a request asks for; each sees the context as the server had it."""

    async def coroutine(kind: str) -> Any:
        if kind == "suspends":
            await Suspension()
        if kind == "sleeps":
            await asyncio.sleep(0)
        if kind == "raises late":
            raise ValueError(kind)
        return None if kind == "none" else body.Response.failure("no") if kind == "failure" else b"later"

    async def parts() -> Any:
        yield b"part"

    def handler(message: Any) -> Any:
        kind = message.payload.decode()
        seen.append(VARIABLE.get())
        VARIABLE.set(message.id)
        if kind == "raises":
            raise ValueError(kind)
        if kind == "interrupts":
            raise KeyboardInterrupt
        if kind == "parts":
            return parts()
        if kind == "number":
            return 5
        return b"now" if kind == "plain" else coroutine(kind)

    return handler


KINDS = [
    "plain",
    "later",
    "none",
    "failure",
    "suspends",
    "sleeps",
    "raises",
    "raises late",
    "parts",
    "number",
]


def told(stopped: Any) -> Any:
    """What was handed to the task, without what belongs to one body; nothing is left running."""
    if stopped is None:
        return None
    _, message, context, outcome, started, awaited, error = stopped
    assert isinstance(context, contextvars.Context)
    if inspect.iscoroutine(outcome):
        outcome.close()
    return message.id, type(outcome), started, type(awaited), type(error), str(error)


def arrived(body: ModuleType, message: Any, number: int) -> Any:
    """A message as it comes by the wire; each third one says how long its sender waits."""
    ends = [body.Connection(role, subprotocol="sage.1.cbor") for role in ("client", "server")]
    ends[0].send_message(message, None, float("inf"), 5.0 if number % 3 == 0 else float("inf"))
    (received,) = ends[1].receive_data(ends[0].data_to_send())
    return received


def run(body: ModuleType, kinds: list[str], cancelled_at: int, takes_call: bool) -> list[Any]:
    log: list[Any] = []
    seen: list[str] = []
    link, task = Link(log), Task(cancelled_at)
    handler = handler_of(body, seen)
    either = (lambda message, call: handler(message)) if takes_call else handler
    dispatch = body.Dispatch(either, takes_call, contextvars.copy_context())
    messages = [
        arrived(
            body, body.SecureMessage(payload=kind.encode(), did="did:sage:test", id=f"m-{number}"), number
        )
        for number, kind in enumerate(kinds)
    ]
    dispatch.submit(link, None, messages)
    for _ in kinds:
        try:
            log.append(told(dispatch.run(task)))
        except KeyboardInterrupt:
            log.append("interrupted")
        log += [len(dispatch), dispatch.ready(link), dispatch.ready(Link([]))]
    dispatch.flush()
    dispatch.clear()
    return [*log, seen, len(dispatch)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*KINDS, "interrupts"]), max_size=8), st.integers(0, 9), st.booleans())
def test_both_go_as_far(kinds: list[str], cancelled_at: int, takes_call: bool) -> None:
    assert run(_pure, kinds, cancelled_at, takes_call) == run(_rust, kinds, cancelled_at, takes_call)


@pytest.mark.parametrize("body", [_pure, _rust], ids=["pure", "rust"])
def test_no_variable_leaks_from_request_to_request(body: ModuleType) -> None:
    *_, seen, left = run(body, ["plain", "later", "plain"], 9, False)
    assert (seen, left) == (["none"] * 3, 0)
