"""The pytest plugin: the fixture ``sage_server``, there in every project that has sage_ws installed.

::

    def test_my_client(sage_server):                 # as it is: a server that echoes and records
        ask_my_agent(sage_server.url, b"hello")
        assert sage_server.handler.wait(1)[0].payload == b"hello"

    def test_refusal(sage_server):                   # called: a server for your own handler and options
        peer = sage_server(refusing_handler, max_connections=1)
        ask_my_agent(peer.url, b"hello")

Every server is closed when its test ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from sage_ws.testing.recording import RecordingHandler
from sage_ws.testing.threads import ThreadServer, serve_in_thread

if TYPE_CHECKING:
    from sage_ws.handler import Handler
    from sage_ws.message import SecureMessage


class SageServer:
    """What the fixture gives: a server, and a maker of further ones."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, handler: Handler | None = None, **options: Any) -> ThreadServer:
        """Start a server; without a handler it echoes into a `RecordingHandler`.

        Args:
            handler: any shape that ``serve`` takes.
            options: as for ``serve_in_thread``.
        """
        chosen = RecordingHandler(_echo) if handler is None else handler
        return self._stack.enter_context(serve_in_thread(chosen, **options))

    @cached_property
    def _own(self) -> ThreadServer:
        return self()

    @property
    def url(self) -> str:
        """Where the echoing server listens; it is started by the first look."""
        return self._own.url

    @property
    def port(self) -> int:
        """Its port."""
        return self._own.port

    @property
    def handler(self) -> RecordingHandler:
        """What it was asked."""
        handler: Any = self._own.handler
        recording: RecordingHandler = handler
        return recording


def _echo(message: SecureMessage) -> bytes:
    return message.payload


@pytest.fixture
def sage_server() -> Iterator[SageServer]:
    """A real SAGE server in a thread; call it for others of your own making."""
    with ExitStack() as stack:
        yield SageServer(stack)
