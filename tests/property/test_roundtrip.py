"""Whatever can be built, travels: any message and any answer, through a real client and a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sage_ws import Client, DuplicateIdError, HandlerError, Response, SecureMessage, connect, serve

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
BYTES = st.binary(max_size=3000)
MESSAGES = st.builds(
    SecureMessage,
    payload=st.binary(min_size=1, max_size=3000),
    did=NAME,
    id=NAME,
    signature=BYTES,
    context_id=TEXT,
    task_id=TEXT,
    metadata=st.dictionaries(TEXT, TEXT, max_size=5),
    role=TEXT,
)
RESPONSES = st.builds(
    Response, success=st.booleans(), message_id=st.just(""), task_id=TEXT, data=BYTES, error=TEXT
)
REAL = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Peers:
    """A client of ours and a server of ours whose handler is exchanged for each example."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.handler: Callable[[SecureMessage], Any] = lambda one: None


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    async def handler(one: SecureMessage) -> Any:
        answer = made.handler(one)
        return await answer if asyncio.iscoroutine(answer) else answer

    async with serve(handler) as server, connect(f"ws://127.0.0.1:{server.port}") as client:
        made = Peers(client)
        yield made
        assert client.stats()["pending"] == 0
        assert client.stats()["dials"] == 1


@REAL
@given(message=MESSAGES)
async def test_any_message_arrives_as_it_was_sent(peers: Peers, message: SecureMessage) -> None:
    arrived: list[SecureMessage] = []
    peers.handler = arrived.append
    response = await peers.client.send(message, timeout=20)
    assert arrived == [message]
    assert hash(arrived[0]) == hash(message)
    assert arrived[0].metadata == message.metadata
    assert response == Response(message_id=message.id, task_id=message.task_id)


@REAL
@given(message=MESSAGES, answer=RESPONSES)
async def test_any_answer_arrives_as_it_was_given(
    peers: Peers, message: SecureMessage, answer: Response
) -> None:
    peers.handler = lambda one: answer
    response = await peers.client.send(message, timeout=20)
    assert response == Response(
        success=answer.success and not answer.error,
        message_id=message.id,
        task_id=answer.task_id or message.task_id,
        data=answer.data,
        error=answer.error,
    )


@REAL
@given(message=MESSAGES, text=TEXT)
async def test_any_text_of_a_handler_error_arrives(peers: Peers, message: SecureMessage, text: str) -> None:
    def failing(one: SecureMessage) -> None:
        raise HandlerError(text)

    peers.handler = failing
    response = await peers.client.send(message, timeout=20)
    assert (response.success, response.error) == (False, text)


@REAL
@given(messages=st.lists(st.tuples(MESSAGES, st.integers(0, 5)), max_size=20))
async def test_any_messages_at_once_each_get_their_own_answer(
    peers: Peers, messages: list[tuple[SecureMessage, int]]
) -> None:
    waits = {message.id: count for message, count in messages}

    async def answering(one: SecureMessage) -> bytes:
        for _ in range(waits[one.id]):
            await asyncio.sleep(0)
        return one.id.encode() + one.payload

    peers.handler = answering
    results = await asyncio.gather(
        *(peers.client.send(message, timeout=20) for message, _ in messages), return_exceptions=True
    )
    seen: set[str] = set()
    for (message, _), result in zip(messages, results, strict=True):
        if message.id in seen:
            assert isinstance(result, DuplicateIdError)
            continue
        seen.add(message.id)
        assert isinstance(result, Response)
        assert result.message_id == message.id
        assert result.data == message.id.encode() + message.payload
