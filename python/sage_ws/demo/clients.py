"""The clients' process: lines of text out to the agents, every signature and answer checked, times taken."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Final

from sage_ws.aio.client import Client
from sage_ws.demo.agents import FORGED, SKILLS
from sage_ws.demo.process import Parent, run_child
from sage_ws.demo.report import Report
from sage_ws.demo.signing import SIGNATURE_SIZE, Identity, KeyBook, answer_bytes
from sage_ws.errors import SageError, peer_text
from sage_ws.message import Response, SecureMessage
from sage_ws.transport import MessageTransport

NAMES: Final = ("amir", "bea", "chidi", "dara")
IN_FLIGHT: Final = 4
"""Messages that each client has in flight."""

TALK_SECONDS: Final = 6.0
"""For each transport: a slow machine sends fewer messages, not for longer."""

SEND_SECONDS: Final = 5.0
FORGERIES: Final = 12
REASONS: Final = 5


async def work(parent: Parent) -> None:
    """Tell our public keys, hear where the agents are, talk to them and report, until let go of."""
    clients = [Identity(f"did:sage:demo:{name}") for name in NAMES]
    parent.tell({"clients": {client.did: client.public for client in clients}})
    told = await parent.hear()
    talking = asyncio.create_task(
        _talk_over_all(
            parent,
            clients,
            KeyBook(told["agents"]),
            told["addresses"],
            messages=told["messages"],
            every=told["every"],
        )
    )
    gone = asyncio.create_task(parent.gone())
    try:
        await asyncio.wait({talking, gone}, return_when=asyncio.FIRST_COMPLETED)
        if talking.done():
            await talking
            await gone
    finally:
        talking.cancel()


async def _talk_over_all(
    parent: Parent,
    clients: Sequence[Identity],
    agents: KeyBook,
    addresses: Mapping[str, str],
    *,
    messages: int,
    every: float,
) -> None:
    """One transport after the other, with a report every so many seconds and one at its end."""
    lines = read_text()
    for name, url in addresses.items():
        traffic = Traffic(name, messages, clients, agents, lines)
        async with asyncio.TaskGroup() as group:
            talking = group.create_task(traffic.talk([_transport(url) for _ in clients]))
            while not talking.done():
                await asyncio.wait({talking}, timeout=every)
                if not talking.done():
                    parent.tell(asdict(traffic.report()))
        parent.tell(asdict(traffic.report(done=True)))


def _transport(url: str) -> MessageTransport:
    if url.startswith("ws"):
        return Client(url)
    from sage_ws.transports.http import HTTPTransport  # aiohttp is an extra

    return HTTPTransport(url)


def read_text() -> list[str]:
    """The lines that ship with the demo."""
    return files("sage_ws.demo").joinpath("text.txt").read_text("utf-8").splitlines()


class Traffic:
    """What the clients send over one transport, and what comes of it.

    Args:
        name: of the transport.
        wanted: messages to send.
        clients: one identity per client.
        agents: the agents' public keys.
        lines: what to ask about, over and over.
    """

    def __init__(
        self, name: str, wanted: int, clients: Sequence[Identity], agents: KeyBook, lines: Sequence[str]
    ) -> None:
        self._name = name
        self._wanted = wanted
        self._clients = clients
        self._agents = agents
        self._lines = lines
        self._latencies: list[float] = []
        self._failures: list[str] = []
        self._forgeries = 0
        self._refused = 0
        self._latest: tuple[str, str, str] | None = None
        self._started = self._ended = 0.0

    def report(self, *, done: bool = False) -> Report:
        """A snapshot; with the percentiles when it is the last."""
        seconds = (self._ended or time.perf_counter()) - self._started
        ordered = sorted(self._latencies) if done else []
        return Report(
            name=self._name,
            wanted=self._wanted,
            answered=len(self._latencies),
            failures=len(self._failures),
            reasons=self._failures[:REASONS],
            forgeries=self._forgeries,
            refused=self._refused,
            rate=len(self._latencies) / seconds,
            p50=_percentile(ordered, 50),
            p99=_percentile(ordered, 99),
            latest=self._latest,
            done=done,
        )

    async def talk(self, transports: Sequence[MessageTransport]) -> None:
        """Ask all questions, a transport for each client, then forge some; closes the transports."""
        numbers = iter(range(self._wanted))
        self._started = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for client, transport in zip(self._clients, transports, strict=True):
                    for _ in range(IN_FLIGHT):
                        group.create_task(self._ask(client, transport, numbers))
            self._ended = time.perf_counter()
            await self._forge(transports[0])
        finally:
            for transport in transports:
                await transport.close()

    async def _ask(self, client: Identity, transport: MessageTransport, numbers: Iterator[int]) -> None:
        """One question after the other, as long as there are numbers and time."""
        names = list(SKILLS)
        for number in numbers:
            line, agent = self._lines[number % len(self._lines)], names[number % len(names)]
            message = client.signed(
                SecureMessage(line.encode(), client.did, metadata={"to": agent}, role="agent")
            )
            sent = time.perf_counter()
            if sent - self._started > TALK_SECONDS:
                return
            response = await self._send(transport, message)
            if response is None:
                continue
            took = time.perf_counter() - sent
            wrong = self._wrong(message, agent, line, response)
            if wrong is not None:
                self._failures.append(wrong)
                continue
            self._latencies.append(took)
            answer = response.data[SIGNATURE_SIZE:].decode()
            self._latest = (client.name, agent.rpartition(":")[2], answer)

    async def _send(self, transport: MessageTransport, message: SecureMessage) -> Response | None:
        """The answer; None when there was none, which is a failure."""
        try:
            return await transport.send(message, timeout=SEND_SECONDS)
        except SageError as error:
            self._failures.append(f"{type(error).__name__}: {error}")
            return None

    def _wrong(self, message: SecureMessage, agent: str, line: str, response: Response) -> str | None:
        """What is wrong with an answer; None when it holds."""
        if not response.success:
            return f"answered with an error: {peer_text(response.error)}"
        if response.message_id != message.id:
            return f"answer to another message: {peer_text(response.message_id)}"
        signature, answer = response.data[:SIGNATURE_SIZE], response.data[SIGNATURE_SIZE:]
        if not self._agents.holds(agent, signature, answer_bytes(message.id, agent, answer)):
            return "the agent's signature does not hold"
        if answer != SKILLS[agent](line).encode():
            return "the agent's answer is wrong"
        return None

    async def _forge(self, transport: MessageTransport) -> None:
        """Change signed messages on their way, in each part that the signature covers."""
        honest, other = self._clients[0], self._clients[1]
        herald, mirror = list(SKILLS)[:2]
        for number in range(FORGERIES):
            message = honest.signed(
                SecureMessage(self._lines[number].encode(), honest.did, metadata={"to": herald})
            )
            forged = (
                message.replace(payload=message.payload + b"!"),
                message.replace(did=other.did),
                message.replace(metadata={"to": mirror}),
                message.replace(id=message.id + "0"),
            )[number % 4]
            self._forgeries += 1
            response = await self._send(transport, forged)
            self._refused += response is not None and response.error == FORGED


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """In milliseconds; 0 without a sample."""
    return ordered[len(ordered) * percent // 100] * 1000 if ordered else 0.0


if __name__ == "__main__":
    run_child(work, sys.stdin.buffer, sys.stdout.buffer)
