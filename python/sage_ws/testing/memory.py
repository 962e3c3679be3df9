"""A transport without a socket: the handler is called in the same loop, under a real server's rules."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Self

from sage_ws._core import encode_response
from sage_ws.errors import (
    ClosedError,
    ConnectionLostError,
    DuplicateIdError,
    ReadTimeoutError,
    peer_text,
)
from sage_ws.handler import DetachedCall, Handler, HandlerCaller, validate
from sage_ws.interceptors import Intercepted
from sage_ws.message import Response, SecureMessage, encode_within
from sage_ws.options import UNSET, CommonSettings, Interceptor, Seconds, Unset, check_timeout


class MemoryTransport:
    """A ``MessageTransport`` that brings each message to ``handler`` without leaving the process.

    Validation texts, ids filled in, failures, limits, timeouts and errors are those of a `Client` and a
    `Server` with a socket between them, so that code under test need not know which it talks to.

    Args:
        handler: any shape that a server takes.
        read_timeout: seconds for an answer, where ``send`` is given none.
        max_message_size: bytes that a message or a response would have on the wire.
        identity: stands on ``call.identity``, as if ``authorize`` had returned it.
        interceptors: as a server has them: functions around every call of the handler, the first outermost.

    Raises:
        TypeError, ValueError: the handler or an option cannot be used.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        read_timeout: Seconds = 60.0,
        max_message_size: int | None = 16 * 1024 * 1024,
        identity: str | None = None,
        interceptors: Collection[Interceptor] = (),
    ) -> None:
        CommonSettings.parse(
            {
                "read_timeout": read_timeout,
                "max_message_size": max_message_size,
                "interceptors": interceptors,
            },
            "MemoryTransport",
        )
        if interceptors:
            handler = Intercepted(handler, interceptors, max_message_size)
        self._call_handler = HandlerCaller(handler, limit=max_message_size)
        self._read_timeout = read_timeout
        self._limit = max_message_size
        self._identity = identity
        self._waiting: dict[str, asyncio.Future[Response]] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def pending(self) -> int:
        """Calls that await an answer."""
        return len(self._waiting)

    async def send(self, message: SecureMessage, *, timeout: Seconds | Unset = UNSET) -> Response:
        """Have the handler answer ``message``.

        A handler whose caller gave up, by timeout or cancellation, runs on; its answer is dropped.

        Raises:
            ClosedError, DuplicateIdError, MessageTooBigError: the handler was not called.
            ReadTimeoutError: it did not answer in time.
            ConnectionLostError: ``close`` was called meanwhile.
            RuntimeError: called from another event loop than before.
        """
        check_timeout(timeout)
        self._refuse(message)
        loop = asyncio.get_running_loop()
        if self._loop not in {None, loop}:
            raise RuntimeError("this transport belongs to another event loop; make one for each loop")
        self._loop = loop
        waiter: asyncio.Future[Response] = loop.create_future()
        self._waiting[message.id] = waiter
        serving = loop.create_task(self._serve(message, waiter))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        try:
            async with asyncio.timeout(self._read_timeout if timeout is UNSET else timeout):
                return await waiter
        except TimeoutError as error:
            raise ReadTimeoutError("no answer came in time", message_id=message.id) from error
        finally:
            self._waiting.pop(message.id, None)

    async def close(self) -> None:
        """End calls in flight with ConnectionLostError, cancel their handlers.

        A handler that ignores its cancellation is waited for a second at most. One that calls this itself is
        neither cancelled nor waited for: its answer has nowhere to go.
        """
        self._closed = True
        for message_id, waiter in self._waiting.items():
            if not waiter.done():
                waiter.set_exception(
                    ConnectionLostError("the connection was closed here", code=1000, message_id=message_id)
                )
        serving = [task for task in self._serving if task is not asyncio.current_task()]
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving, timeout=1.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _refuse(self, message: SecureMessage) -> None:
        """What a client refuses before anything leaves it."""
        if self._closed:
            raise ClosedError("the transport is closed", message_id=message.id)
        if message.id in self._waiting:
            raise DuplicateIdError(
                f"a message with id {peer_text(message.id)} is in flight", message_id=message.id
            )
        encode_within(message, self._limit)

    async def _serve(self, message: SecureMessage, waiter: asyncio.Future[Response]) -> None:
        response = await self._answer(message)
        if not waiter.done():
            waiter.set_result(response)

    async def _answer(self, message: SecureMessage) -> Response:
        """What the server's side of a connection would answer."""
        refusal = validate(message.id, message.did, message.payload)
        if refusal is not None:
            return Response(False, message.id, message.task_id, b"", refusal)
        response = await self._call_handler(message, DetachedCall(self._identity))
        size = len(
            encode_response(
                response.success, response.message_id, response.task_id, response.data, response.error
            )
        )
        if self._limit is not None and size > self._limit:
            text = f"response of {size} bytes is over max_message_size {self._limit}"
            return Response(False, message.id, message.task_id, b"", text)
        return response
