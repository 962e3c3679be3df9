"""A client's calls against a dictionary: send, cancel, reply, reply twice, duplicate, drop, in any order.

The model is what `Client.send` promises: a call ends once, with its own answer or with the error that says
how far it came. The server is a raw socket that answers what the rules tell it to.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sage_ws import (
    Client,
    ConnectionLostError,
    DuplicateIdError,
    MessageTooBigError,
    Response,
    SecureMessage,
    State,
)

LIMIT = 2000
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
                self.machine.arrived[json.loads(payload)["id"]] = self
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

    def answer(self, message_id: str, data: str) -> None:
        self.write(0x1, json.dumps({"success": True, "message_id": message_id, "error": data}).encode())


class Calls(RuleBasedStateMachine):
    """The rules; each runs the loop until both ends are quiet."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.server_side: Any = None
        self.arrived: dict[str, Answering] = {}
        self.calls: dict[str, asyncio.Task[Response]] = {}  # the model: calls in flight, by id
        self.ended = self.refused = self.late = self.answered = 0
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
        port = self.server.sockets[0].getsockname()[1]
        self.client = Client(
            f"ws://127.0.0.1:{port}",
            backoff=lambda attempt: 0.0,
            max_message_size=LIMIT,
            ping_interval=None,
            keepalive_interval=None,
        )
        await self.client.connect()

    async def settle(self) -> None:
        """Both ends have read what the other has written: a ping and its pong came behind it."""
        await self.client.ping()
        await asyncio.sleep(0)

    def name(self, choice: int) -> str:
        return sorted(self.calls)[choice % len(self.calls)]

    def finish(self, name: str) -> Any:
        """The outcome of a call that has ended, taken out of the model."""

        async def outcome() -> Any:
            await asyncio.wait([task], timeout=5)
            assert task.done(), f"{name} has no outcome"
            return task.exception() if not task.cancelled() and task.exception() else task

        task = self.calls.pop(name)
        return self.run(outcome())

    # ── rules ─────────────────────────────────────────────────────────────────────────

    @rule(size=st.integers(1, 300))
    def send(self, size: int) -> None:
        name = f"m-{next(self.numbers)}"
        message = SecureMessage(payload=os.urandom(size), did="d", id=name)

        async def sending() -> None:
            self.calls[name] = self.loop.create_task(self.client.send(message))
            await asyncio.sleep(0)
            await self.settle()

        self.run(sending())
        assert name in self.arrived
        assert not self.calls[name].done()

    @precondition(lambda self: self.calls)
    @rule(choice=st.integers(0, 1000))
    def send_a_duplicate(self, choice: int) -> None:
        message = SecureMessage(payload=b"another", did="d", id=self.name(choice))
        with pytest.raises(DuplicateIdError) as refused:
            self.run(self.client.send(message))
        assert refused.value.message_id == message.id
        self.refused += 1

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
        response = self.finish(name).result()
        assert (response.message_id, response.error) == (name, f"for {name}")
        self.answered += 1
        self.late += twice

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

    @rule(politely=st.booleans())
    def drop(self, politely: bool) -> None:
        dials = self.client.stats()["dials"]
        if politely:
            self.server_side.write(0x8, (1012).to_bytes(2, "big"))
            self.server_side.transport.close()
        else:
            self.server_side.transport.abort()

        async def back() -> None:
            while not (self.client.stats()["dials"] > dials and self.client.is_connected):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await self.settle()

        self.run(back())
        for name in list(self.calls):
            error = self.finish(name)
            assert isinstance(error, ConnectionLostError)
            assert error.message_id == name
            assert error.code == (1012 if politely else None)
            self.ended += 1

    # ── what always holds ─────────────────────────────────────────────────────────────

    @invariant()
    def it_counts_as_the_model_does(self) -> None:
        stats = self.client.stats()
        assert stats["pending"] == len(self.calls)
        assert stats["queued"] == 0
        assert stats["answered"] == self.answered
        assert stats["late"] == self.late
        assert stats["failed"] == self.ended + self.refused
        assert stats["invalid"] == 0
        assert self.client.state is State.OPEN

    def teardown(self) -> None:
        self.run(self.client.close())
        for name in list(self.calls):
            assert isinstance(self.finish(name), ConnectionLostError)
        self.server.close()
        self.run(asyncio.sleep(0))
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
