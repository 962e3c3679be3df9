"""A client's calls against a dictionary, in any order: connect, send, time out, cancel, reply, reply twice or
badly, duplicate, drop, wait in line while nobody is there, drain, close.

The model is what `Client.send` promises: a call ends once, with its own answer or with the error that says
how far it came. The server is a raw socket that answers what the rules tell it to.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sage_ws import (
    Client,
    ClosedError,
    ConnectionLostError,
    DecodeError,
    DuplicateIdError,
    MessageTooBigError,
    QueueTimeoutError,
    ReadTimeoutError,
    Response,
    SecureMessage,
    State,
)

LIMIT = 2000
SOON = 0.001
EXAMPLES = settings().max_examples * 3 // 10
HEAD = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: {}\r\n\r\n"
)


class Answering(asyncio.Protocol):
    """The server's end: takes requests down, writes what it is told."""

    def __init__(self, machine: Calls) -> None:
        self.machine = machine
        self.buffer = b""
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.machine.down:
            transport.abort()  # type: ignore[attr-defined]
            return
        self.machine.server_side = self
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.open:
            head, end, self.buffer = self.buffer.partition(b"\r\n\r\n")
            if not end:
                self.buffer = head
                return
            self.open = True
            self.transport.write(HEAD.format(self.machine.accept(head)).encode())
        while (frame := self.take()) is not None:
            opcode, payload = frame
            if opcode == 0x1:
                name = json.loads(payload)["id"]
                self.machine.order.append(name)
                self.machine.arrived[name] = self
            elif opcode == 0x9:
                self.write(0xA, payload)
            elif opcode == 0x8:
                self.write(0x8, payload[:2])
                self.transport.close()

    def take(self) -> tuple[int, bytes] | None:
        """The next whole frame of the buffer, unmasked."""
        data = self.buffer
        if len(data) < 2:
            return None
        length, start = data[1] & 0x7F, 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        end = start + 4 + length
        if len(data) < end:
            return None
        key, payload = data[start : start + 4], data[start + 4 : end]
        self.buffer = data[end:]
        return data[0] & 0x0F, bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))

    def write(self, opcode: int, payload: bytes) -> None:
        head = bytes([0x80 | opcode])
        head += bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
        self.transport.write(head + payload)

    def answer(self, message_id: str, data: str, success: Any = True) -> None:
        answer = {"success": success, "message_id": message_id, "error": data}
        self.write(0x1, json.dumps(answer).encode())


def up(machine: Calls) -> bool:
    """Whether the server is there."""
    return not machine.down


class Calls(RuleBasedStateMachine):
    """The rules; each runs the loop until both ends are quiet."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.server_side: Any = None
        self.down = False
        self.order: list[str] = []
        self.arrived: dict[str, Answering] = {}
        # The model: calls in flight, by id, and those in line, of which some have another's id.
        self.calls: dict[str, asyncio.Task[Response]] = {}
        self.line: list[tuple[str, asyncio.Task[Response]]] = []
        self.numbers = iter(range(10**6))
        self.run(self.start())

    @staticmethod
    def accept(head: bytes) -> str:
        (key,) = (line[19:] for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: "))
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        return base64.b64encode(digest).decode()

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 20))

    async def start(self) -> None:
        self.server = await self.loop.create_server(lambda: Answering(self), "127.0.0.1", 0)
        await self.connect(by_sending=False)

    async def connect(self, *, by_sending: bool) -> None:
        """A client of its own, whose first use dials."""
        self.ended = self.refused = self.late = self.answered = self.invalid = 0
        port = self.server.sockets[0].getsockname()[1]
        self.client = Client(
            f"ws://127.0.0.1:{port}",
            backoff=lambda attempt: SOON if self.down else 0.0,
            dial_timeout=None,
            max_message_size=LIMIT,
            ping_interval=None,
            keepalive_interval=None,
        )
        if by_sending:
            name = self.begin()
            await self.until(lambda: name in self.arrived)
        else:
            await self.client.connect()

    def begin(self, size: int = 20) -> str:
        """A new call, in the model's dictionary."""
        name = f"m-{next(self.numbers)}"
        self.calls[name] = self.loop.create_task(self.client.send(self.message(name, size)))
        return name

    @staticmethod
    def message(name: str, size: int = 20) -> SecureMessage:
        return SecureMessage(payload=os.urandom(size), did="d", id=name)

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():  # noqa: ASYNC110 -- what the machine sees of a client tells nobody that it changed
            await asyncio.sleep(SOON)

    async def settle(self) -> None:
        """Both ends have read what the other has written: a ping and its pong came behind it."""
        await self.client.ping()
        await asyncio.sleep(0)

    def name(self, choice: int) -> str:
        return sorted(self.calls)[choice % len(self.calls)]

    def finish(self, name: str) -> Any:
        """The outcome of a call that has ended, taken out of the model."""
        return self.outcome(self.calls.pop(name))

    def outcome(self, task: asyncio.Task[Response]) -> Any:
        """Its error, or the task itself."""

        async def end() -> Any:
            await asyncio.wait([task], timeout=5)
            assert task.done(), "a call has no outcome"
            return task.exception() if not task.cancelled() and task.exception() else task

        return self.run(end())

    def expect_own_answer(self, name: str) -> None:
        response = self.finish(name).result()
        assert (response.message_id, response.error) == (name, f"for {name}")
        self.answered += 1

    def expect_loss(self, code: int | None) -> None:
        """All calls in flight have ended: they may have been delivered."""
        for name in list(self.calls):
            error = self.finish(name)
            assert isinstance(error, ConnectionLostError)
            assert (error.message_id, error.code) == (name, code)
            self.ended += 1

    # ── rules ─────────────────────────────────────────────────────────────────────────

    @precondition(up)
    @rule(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=5))
    def send(self, sizes: list[int]) -> None:
        async def sending() -> list[str]:
            names = [self.begin(size) for size in sizes]
            await asyncio.sleep(0)
            await self.settle()
            return names

        for name in self.run(sending()):
            assert name in self.arrived
            assert not self.calls[name].done()

    @rule()
    def send_what_nobody_answers_in_time(self) -> None:
        name, sent = f"m-{next(self.numbers)}", self.client.stats()["sent"]
        with pytest.raises((QueueTimeoutError, ReadTimeoutError)) as over:
            self.run(self.client.send(self.message(name), timeout=SOON))
        assert over.value.message_id == name
        self.ended += 1
        # Where the process had no turn for so long, it is over before the message leaves, connected or not.
        left = isinstance(over.value, ReadTimeoutError)
        assert self.client.stats()["sent"] == sent + left
        assert not (left and self.down)
        if not left:
            return
        self.run(self.settle())
        self.arrived[name].answer(name, "too late")
        self.run(self.settle())
        self.late += 1

    @precondition(lambda self: self.calls)
    @rule(choice=st.integers(0, 1000))
    def send_a_duplicate(self, choice: int) -> None:
        message = SecureMessage(payload=b"another", did="d", id=self.name(choice))
        with pytest.raises(DuplicateIdError) as refused:
            self.run(self.client.send(message))
        assert refused.value.message_id == message.id
        self.refused += 1

    @precondition(up)
    @rule()
    def send_too_much(self) -> None:
        with pytest.raises(MessageTooBigError):
            self.run(self.client.send(SecureMessage(payload=b"x" * LIMIT, did="d")))
        self.refused += 1

    @precondition(lambda self: self.calls)
    @rule(choice=st.integers(0, 1000), twice=st.booleans())
    def reply(self, choice: int, twice: bool) -> None:
        name = self.name(choice)
        for _ in range(1 + twice):
            self.arrived[name].answer(name, f"for {name}")
        self.run(self.settle())
        self.expect_own_answer(name)
        self.late += twice

    @precondition(lambda self: self.calls)
    @rule(seed=st.integers(0, 1000))
    def reply_to_all_at_once(self, seed: int) -> None:
        names = random.Random(seed).sample(sorted(self.calls), len(self.calls))
        for name in names:
            self.arrived[name].answer(name, f"for {name}")
        self.run(self.settle())
        for name in names:
            self.expect_own_answer(name)

    @precondition(lambda self: self.calls)
    @rule(choice=st.integers(0, 1000))
    def reply_badly(self, choice: int) -> None:
        name = self.name(choice)
        self.arrived[name].answer(name, "", success=1)
        self.run(self.settle())
        assert isinstance(self.finish(name), DecodeError)
        self.ended += 1
        self.invalid += 1

    @precondition(up)
    @rule()
    def reply_to_nobody(self) -> None:
        self.server_side.answer("nobody", "")
        self.run(self.settle())
        self.late += 1

    @precondition(lambda self: self.calls)
    @rule(choice=st.integers(0, 1000), answer=st.booleans())
    def cancel(self, choice: int, answer: bool) -> None:
        name = self.name(choice)
        self.calls[name].cancel()
        assert self.finish(name).cancelled()
        if answer:
            self.arrived[name].answer(name, "too late")
            self.run(self.settle())
            self.late += 1

    @precondition(up)
    @rule(politely=st.booleans(), goes_down=st.booleans())
    def drop(self, politely: bool, goes_down: bool) -> None:
        self.down = goes_down
        dials = self.client.stats()["dials"]
        if politely:
            self.server_side.write(0x8, (1012).to_bytes(2, "big"))
            self.server_side.transport.close()
        else:
            self.server_side.transport.abort()
        self.run(self.until(lambda: self.client.stats()["dials"] > dials))
        if not goes_down:
            self.run(self.settle())
        self.expect_loss(1012 if politely else None)

    @precondition(lambda self: self.down)
    @rule(count=st.integers(1, 4))
    def wait_in_line(self, count: int) -> None:
        for _ in range(count):
            self.stand_in_line(f"m-{next(self.numbers)}")

    @precondition(lambda self: self.line)
    @rule(choice=st.integers(0, 1000))
    def wait_in_line_with_the_id_of_another(self, choice: int) -> None:
        self.stand_in_line(self.line[choice % len(self.line)][0])

    def stand_in_line(self, name: str) -> None:
        self.line.append((name, self.loop.create_task(self.client.send(self.message(name)))))
        self.run(asyncio.sleep(0))

    @precondition(lambda self: self.line)
    @rule(choice=st.integers(0, 1000))
    def leave_the_line(self, choice: int) -> None:
        _, task = self.line.pop(choice % len(self.line))
        task.cancel()
        assert self.outcome(task).cancelled()

    @precondition(lambda self: self.down)
    @rule()
    def come_back(self) -> None:
        self.down = False
        before = len(self.order)
        self.run(self.until(lambda: self.client.is_connected))
        self.run(self.settle())
        leaving, second = [], []
        for name, task in self.line:
            if name in self.calls:
                second.append((name, task))
            else:
                self.calls[name] = task
                leaving.append(name)
        self.line.clear()
        assert self.order[before:] == leaving
        for name, task in second:
            error = self.outcome(task)
            assert isinstance(error, DuplicateIdError)
            assert error.message_id == name
            self.refused += 1

    @rule(drains=st.booleans(), by_sending=st.booleans())
    def end_and_connect(self, drains: bool, by_sending: bool) -> None:
        if drains and not self.down:
            self.drain()
        else:
            self.run(self.client.close())
        self.expect_the_end()
        self.run(self.connect(by_sending=by_sending))

    def drain(self) -> None:
        draining = self.loop.create_task(self.client.drain())
        self.run(asyncio.sleep(0))
        self.expect_closed()
        for name in list(self.calls):
            assert not draining.done()
            self.arrived[name].answer(name, f"for {name}")
            self.expect_own_answer(name)
        self.run(draining)

    def expect_closed(self) -> None:
        with pytest.raises(ClosedError) as refused:
            self.run(self.client.send(self.message("after the end")))
        assert refused.value.message_id == "after the end"
        self.refused += 1
        with pytest.raises(ClosedError):
            self.run(self.client.connect())

    def expect_the_end(self) -> None:
        """Everything has ended by what it had come to, and nothing begins any more."""
        self.expect_loss(None)
        for name, task in self.line:
            error = self.outcome(task)
            assert isinstance(error, ClosedError)
            assert error.message_id == name
            self.ended += 1
        self.line.clear()
        self.expect_closed()
        assert self.client.state is State.CLOSED
        self.expect_counts()
        self.down = False

    # ── what always holds ─────────────────────────────────────────────────────────────

    @invariant()
    def it_counts_as_the_model_does(self) -> None:
        self.expect_counts()
        assert self.client.state in ({State.WAITING, State.DIALING} if self.down else {State.OPEN})
        assert len(self.order) == len(set(self.order)), "a message left twice"

    def expect_counts(self) -> None:
        stats = self.client.stats()
        assert stats["pending"] == len(self.calls)
        assert stats["queued"] == len(self.line)
        assert stats["answered"] == self.answered
        assert stats["late"] == self.late
        assert stats["failed"] == self.ended + self.refused
        assert stats["invalid"] == self.invalid

    def teardown(self) -> None:
        self.run(self.client.close())
        self.expect_the_end()
        self.server.close()
        self.run(asyncio.sleep(0))
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
TestCalls.pytestmark = [pytest.mark.timeout(60 if EXAMPLES <= 30 else 900)]  # type: ignore[attr-defined]
