"""Whatever a caller hands to the core, and whatever its objects do when they are called back: an exception or
a value, never a panic.

Calls follow from a seed: any method, with arguments that are mostly what it wants, in any order, with bytes
of a peer between them. What the core calls, a handler, a link, a future, does the same again from within.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import cache
from math import inf, nan
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

from sage_ws._core import _pure, _rust

CALLS = settings().max_examples * 2000
"""Of the native core. The fallback is slower, and has no panics: a fiftieth."""
CALLS_OF_A_WORLD = 100
DEEPEST = 3
BODIES = pytest.mark.parametrize(
    ("body", "calls"), [(_rust, CALLS), (_pure, CALLS // 50)], ids=["rust", "pure"]
)
FRAMES = [
    b"\x81\x02{}",
    b"\x89\x01?",
    b"\x88\x02\x03\xe8",
    b"\x01\x01{",
    b"\x80\x01}",
    b"\xff",
    b"\x82\xfe\0",
]
FRAMES += [b'\x81\x22{"success":true,"message_id":"m-1"}', b'\x81\x85\0\0\0\0{"id"', b"\x89\x80\0\0\0\0"]
PLAIN: list[Any] = [None, True, 0, 1, -1, 3, 1000, 4999, 65535, 1 << 31, 1 << 63, 1 << 64, -(1 << 70)]
PLAIN += [0.0, -0.0, 1.5, inf, -inf, nan, "", "m-1", "é", "\ud800", "x" * 2000, b"", b"p", b"\xff" * 2000]
PLAIN += [bytearray(b"ab"), memoryview(b"abcd")[::2], memoryview(b"abcd"), [], [None], (), {}, {"a": "b"}]
PLAIN += [{"a": 1}, {1: "a"}, {"\ud800": "x"}, type("Text", (str,), {})("m-1"), object(), str, range(3)]


FITTING: dict[str, list[Any]] = {
    "code": [None, 1000, 4999, 1006],
    "payload": [b"", b"p"],
    "data": [b"", b"d", b"{}", b'{"id":"m-1"}', *FRAMES],
    "error": ["", "e"],
    "reason": ["", "r", "r" * 200],
    "deadline": [inf, 0.0, 1.5],
    "now": [inf, 0.0, 2.0],
    "read_timeout": [inf, 1.0],
    "max_pending": [0, 5],
    "max_concurrency": [0, 5],
    "max_message_size": [None, 50, 5000],
    "signature": [b"", b"s"],
} | {name: [True, False] for name in ("success", "takes_call", "reading", "blocked")}
FITTING |= {name: ["m-1", "m-2", "é"] for name in ("id", "message_id", "did")}
FITTING |= {name: ["", "t"] for name in ("task_id", "context_id")}


@cache
def callables(kind: Any) -> list[tuple[str, list[inspect.Parameter]]]:
    """What can be called of a type or a module, and what that takes."""
    found = []
    for name, value in vars(kind).items():
        if callable(value) or isinstance(value, classmethod | staticmethod):
            with suppress(ValueError):  # nothing is said of its parameters
                parameters = inspect.signature(getattr(kind, name)).parameters.values()
                found.append((name, [one for one in parameters if one.name not in {"self", "cls"}]))
    return [(name, parameters) for name, parameters in found if not name.startswith("_")]


pytestmark = pytest.mark.timeout(60 if CALLS <= 200_000 else 900)


class World:
    """The core's objects that can reach one another, and what else may be handed to them."""

    def __init__(self, body: ModuleType, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.random = random.Random(number)
        self.depth = 0
        self.calls = 0
        strange = Strange(self)
        role = self.random.choice(["client", "server"])
        self.connection = body.Connection(role, max_message_size=self.random.choice([None, 50, 5000]))
        dispatch = body.Dispatch(self.handler(), self.random.random() < 0.5, contextvars.copy_context())
        messages = [body.SecureMessage(b"p", "did:x", name, metadata={"a": "b"}) for name in ("m-1", "m-2")]
        answers = [body.Response(), body.Response(data=b"d"), b"d", None]
        self.called: list[Any] = [self.connection, dispatch, messages[0], answers[1], body]
        self.sound: dict[str, list[Any]] = {
            "role": ["client", "server"],
            "message": messages,
            "messages": [messages, messages[:1]],
            "reply": answers,
            "connection": [self.connection],
            "dispatch": [dispatch],
            "handler": [self.handler()],
            "context": [contextvars.copy_context()],
            "loop": [loop],
            "future": [loop.create_future()],
            "metadata": [{}, {"a": "b"}],
        }
        self.peer: socket.socket | None = None
        if hasattr(body, "Poller"):
            self.ours, self.peer = socket.socketpair()
            poller = body.Poller(loop)
            one = poller.add(self.ours.fileno(), self.connection, strange)
            one.limit(5, inf)
            one.set_reading(True)
            self.called += [poller, poller, one, one]
            self.sound |= {"socket": [None, one], "fd": [self.ours.fileno()]}
        self.values = PLAIN + 10 * [*self.called, strange, *answers, messages]

    def close(self) -> None:
        if self.peer is not None:
            self.peer.close()
            self.ours.close()
            self.called[-1].close()

    def handler(self) -> Callable[..., Any]:
        async def at_once(*_: Any) -> Any:
            return self.anything()

        async def fails(*_: Any) -> Any:
            raise LookupError

        async def waits(*_: Any) -> Any:
            await asyncio.sleep(0)

        return self.random.choice([at_once, fails, waits, lambda *_: self.anything(), Strange(self)])

    def anything(self) -> Any:
        return self.random.choice(self.values)

    def argument(self, name: str) -> Any:
        """Mostly one that fits its name."""
        if name == "patience":  # it looks as often as it is told
            return self.random.choice([0, 1, None, -1])
        sound = self.sound.get(name) or FITTING.get(name)
        return self.random.choice(sound) if sound and self.random.random() < 0.8 else self.anything()

    def call(self) -> None:
        """One of them, from outside or from within another call."""
        one = self.random.choice(self.called)
        self.calls += 1
        with suppress(Exception):
            kind = one if isinstance(one, ModuleType) else type(one)
            name, parameters = self.random.choice(callables(kind))
            positional, named = [], {}
            for parameter in parameters:
                if parameter.default is not parameter.empty and self.random.random() < 0.5:
                    continue
                if parameter.kind is parameter.KEYWORD_ONLY or named:
                    named[parameter.name] = self.argument(parameter.name)
                elif parameter.kind is not parameter.VAR_KEYWORD:
                    positional.append(self.argument(parameter.name))
            self.look_at(getattr(one, name)(*positional, **named))

    def look_at(self, result: Any) -> None:
        if isinstance(result, list | tuple):
            for item in result:
                self.look_at(item)
        elif asyncio.iscoroutine(result):
            result.close()
        else:
            repr(result)

    def step(self) -> None:
        what = self.random.random()
        if what < 0.2:
            data = self.random.choice(FRAMES)
            if self.peer is None or what < 0.05:
                with suppress(Exception):
                    self.look_at(self.connection.receive_data(data))
            else:
                with suppress(OSError):
                    self.peer.send(data)
        else:
            self.call()

    def called_back(self) -> Any:
        """What a foreign object does: anything at all, of which the core may know nothing."""
        if self.depth < DEEPEST and self.random.random() < 0.5:
            self.depth += 1
            try:
                self.call()
            finally:
                self.depth -= 1
        if self.random.random() < 0.3:
            raise LookupError
        return self.anything()


class Strange:
    """Has every attribute, can be called, and is as good as any number, text or mapping."""

    def __init__(self, world: World) -> None:
        object.__setattr__(self, "world", world)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self.world.called_back()

    def __iter__(self) -> Iterator[Any]:
        yield self.world.called_back()

    def __getitem__(self, key: Any) -> Any:
        return self.world.called_back()

    def keys(self) -> Any:
        return [self.world.called_back()]

    def __index__(self) -> Any:
        return self.world.called_back()

    __float__ = __bool__ = __len__ = __eq__ = __hash__ = __index__


@BODIES
def test_any_call(body: ModuleType, calls: int) -> None:
    loop = asyncio.new_event_loop()
    panics: list[BaseException] = []

    def seen_by_the_loop(_: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, Exception | asyncio.CancelledError):
            panics.append(error)

    loop.set_exception_handler(seen_by_the_loop)

    async def live(number: int) -> int:
        world = World(body, number, loop)
        try:
            for _ in range(CALLS_OF_A_WORLD):
                world.step()
            await asyncio.sleep(0)
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__} in world {number}") from error
        finally:
            world.close()
        return world.calls

    done = number = 0
    with closing(loop):
        while done < calls:
            done += loop.run_until_complete(live(number))
            number += 1
    assert panics == []
