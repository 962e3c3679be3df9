# Written by rust/python/stub.py from the fallback's types: change those, then `make stub`.

from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, Final, Literal, Self, final

__all__ = [
    "Connection",
    "Dispatch",
    "Poller",
    "Response",
    "SecureMessage",
    "Socket",
    "decode_message",
    "decode_response",
    "encode_message",
    "encode_response",
]

@final
class Connection:
    """An open connection, from behind the opening handshake to the close frame.

    Args:
        role: which endpoint this is, "client" or "server".
        max_message_size: bytes of one message on the wire, in and out; `None` for no limit.
        raw: hand out messages as they are (`str` and `bytes`), without reading them as SAGE.
        subprotocol: what was negotiated: "sage.1.json" or "sage.1.cbor"; `None` is plain SAGE JSON.
        deflate: what was negotiated (RFC 7692), `None` without compression: window bits and context takeover
            of what is sent and of what is received, then threshold, level and memory level.

    Raises:
        ValueError: for another role or subprotocol, or parameters that zlib does not have.
    """

    running: int
    watched: bool
    def __new__(
        cls,
        role: Literal["client", "server"],
        *,
        max_message_size: int | None = 16777216,
        raw: bool = False,
        subprotocol: str | None = None,
        deflate: tuple[int, bool, int, bool, int, int, int] | None = None,
    ) -> Self: ...
    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Any]:
        """Take what one socket read brought.

        Returns:
            Everything that it completed, in order: requests on a server, `(waiter, Response)` on a client,
            or `(waiter, DecodeError)`, both on either end of an extended connection; in raw mode `str` and
            `bytes`; and `sage_ws._core.events`. After `Closing` there is nothing more.
        """
    def send_message(
        self, message: SecureMessage, waiter: Any, deadline: float, remaining: float = ..., credit: int = 0
    ) -> int:
        """Send a request; its answer will come with `waiter`.

        Args:
            message: the request.
            waiter: handed back with the answer, untouched.
            deadline: when `expire` gives up on it; infinity for never.
            remaining: seconds that the peer is told it has; infinity for no limit. Extended connections only.
            credit: in how many parts the answer may come; 0 for one answer. Extended connections only.

        Returns:
            Bytes now in the output.

        Raises:
            ClosedError: after a close frame was sent or received.
            DuplicateIdError: while another message with this id is in flight.
            MessageTooBigError: over the limit.
            ValueError: for a credit below 0 or over 4294967295.
        """
    def send_response(
        self, message: SecureMessage, reply: Response | bytes | None, more: bool = False
    ) -> int:
        """Answer a request; after closing, write nothing.

        Args:
            message: the request.
            reply: the answer; bytes are the data of a success, `None` is a success without data.
            more: it is a part, and further ones follow.

        Returns:
            Bytes now in the output.

        Raises:
            TypeError: for anything else as a reply.
            MessageTooBigError: over the limit.
            ValueError: for a part, on a connection that is not extended.
        """
    def send_cancel(self, message_id: str) -> int:
        """Tell the peer that nobody waits for this answer any more; after closing or in plain, write nothing.

        Returns:
            Bytes now in the output.
        """
    def send_credit(self, message_id: str, count: int) -> int:
        """Let the peer send more parts of this answer; after closing or in plain, write nothing.

        Args:
            message_id: the request's.
            count: how many parts more.

        Returns:
            Bytes now in the output.

        Raises:
            ValueError: for a count below 0 or over 4294967295.
        """
    def send_goaway(self, reason: str = "") -> int:
        """Ask the peer to send its next requests elsewhere; after closing or in plain, write nothing.

        Returns:
            Bytes now in the output.
        """
    def send_keepalive(self) -> int:
        """Send what a Go peer takes for traffic and answers or ignores (wire.md, "Who is still there").

        An extended connection needs none, and writes nothing.

        Returns:
            Bytes now in the output.
        """
    def send_raw(self, data: str | bytes) -> int:
        """Send a message as it is: TEXT for `str`, BINARY for `bytes`; after closing, write nothing.

        Returns:
            Bytes now in the output.

        Raises:
            MessageTooBigError: over the limit.
        """
    def send_ping(self, payload: bytes = b"") -> int:
        """Send a ping frame; after closing, write nothing.

        Returns:
            Bytes now in the output.

        Raises:
            ValueError: for a payload that does not fit a control frame.
        """
    def send_close(self, code: int | None = 1000, reason: str = "") -> int:
        """Send a close frame, once; later calls write nothing.

        Returns:
            Bytes now in the output.

        Raises:
            ValueError: for a code that may not be sent, or a reason over 123 bytes.
        """
    def set_blocked(self, blocked: bool) -> None:
        """Tell whether the socket takes bytes; while it does not, pongs are counted."""
    def data_to_send(self) -> bytes:
        """Everything that is to be written, which is then forgotten here."""
    @property
    def buffered(self) -> int:
        """Bytes that `data_to_send` would return."""
    @property
    def bytes_in(self) -> int:
        """Bytes that came in so far."""
    @property
    def bytes_out(self) -> int:
        """Bytes handed out, or written, so far."""
    def forget(self, message_id: str) -> bool:
        """Nobody waits any more; returns whether somebody did. Its answer will count as late."""
    def expire(self, now: float) -> list[tuple[Any, str]]:
        """Remove the messages whose deadline is at or before `now`: waiters and ids, in sending order."""
    def abandon(self) -> list[tuple[Any, str]]:
        """Remove all messages in flight: waiters and ids, in sending order."""
    @property
    def earliest(self) -> float:
        """No pending deadline is before it; infinity when nothing is pending."""
    @property
    def pending(self) -> int:
        """Messages in flight."""
    @property
    def closing(self) -> bool:
        """Whether a close frame was sent or received, or the connection failed."""
    @property
    def extended(self) -> bool:
        """Whether a subprotocol of ours was negotiated."""
    @property
    def spoken(self) -> bool:
        """Whether a decodable SAGE message has been received."""
    def miss(self) -> None:
        """An answer that was handed out last found nobody: its call had been given up a moment before."""
    def counters(self) -> dict[str, int]:
        """What has happened so far: messages sent, received, late, invalid, dropped, not all understood."""
    def counters_back(self) -> dict[str, int]:
        """What was sent and received against the role: a server's requests, a client's answers to them."""

@final
class Dispatch:
    """Requests that wait for a worker, and the way from each to its answer.

    Args:
        handler: what serves them.
        takes_call: whether it wants `(message, call)`.
        context: each request runs in a copy of it.
    """

    summoned: bool
    def __new__(cls, handler: Callable[..., Any], takes_call: bool, context: Context) -> Self: ...
    def submit(self, link: Any, socket: Any, messages: list[Any]) -> None:
        """Requests come in.

        Args:
            link: where they came from.
            socket: its direct socket, if it has one.
            messages: the requests.
        """
    def __len__(self) -> int:
        """Requests that no worker has taken."""
    def ready(self, link: Any) -> list[str]:
        """The ids of those that came from this link, in their order."""
    def clear(self) -> None:
        """Forget them."""
    def run(
        self, task: Any
    ) -> tuple[Any, SecureMessage, Context, Any, bool, Any, BaseException | None] | None:
        """Serve until no request is ready, a handler needs more than its first step, or `task` is cancelled.

        Args:
            task: the task that calls this.

        Returns:
            None, or `(link, message, context, outcome, started, awaited, error)` of the request whose handler
            is not done: `error` if it raised; else what its call gave, whether that is a coroutine which was
            started, and what it waits for then. Its link awaits an answer.
        """
    def flush(self) -> None:
        """The rest of a batch leaves."""

@final
class Response:
    """An answer, as a handler builds it and a caller gets it.

    Args:
        success: whether the handler did what was asked.
        message_id: the request's id; the server fills it in where empty.
        task_id: the request's task; the server fills it in where empty.
        data: the content; bytes-like is copied.
        error: what went wrong; with one, the answer never counts as a success.

    Raises:
        TypeError: for a value of another type.
        ValueError: for a string with a lone surrogate, which UTF-8 cannot carry.
    """

    __match_args__: Final = ("success", "message_id", "task_id", "data", "error")
    @property
    def success(self) -> bool: ...
    @property
    def message_id(self) -> str: ...
    @property
    def task_id(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def error(self) -> str: ...
    def __new__(
        cls, success: bool = True, message_id: str = "", task_id: str = "", data: bytes = b"", error: str = ""
    ) -> Self: ...
    @classmethod
    def failure(cls, error: str, *, data: bytes = b"") -> Response:
        """An answer that says no, with the text that the caller will read."""
    def raise_for_error(self) -> Response:
        """Itself, for chaining.

        Raises:
            AnsweredError: when `success` is false.
        """
    def __replace__(self, **changes: Any) -> Response: ...

@final
class SecureMessage:
    """A request, as its sender builds it and a handler gets it.

    Args:
        payload: the content; bytes-like is copied.
        did: the sender's decentralized identifier.
        id: the correlation key; empty makes a fresh UUID.
        signature: over whatever sender and receiver agreed on; not checked here.
        context_id: of the conversation.
        task_id: of the task.
        metadata: copied, and read-only afterwards.
        role: "user" or "agent" by convention.

    Raises:
        TypeError: for a value of another type.
        ValueError: for a string with a lone surrogate, which UTF-8 cannot carry.
    """

    __match_args__: Final = ("payload", "did", "id", "signature", "context_id", "task_id", "metadata", "role")
    @property
    def payload(self) -> bytes: ...
    @property
    def did(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def signature(self) -> bytes: ...
    @property
    def context_id(self) -> str: ...
    @property
    def task_id(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...
    @property
    def role(self) -> str: ...
    def __new__(
        cls,
        payload: bytes,
        did: str,
        id: str = "",
        signature: bytes = b"",
        context_id: str = "",
        task_id: str = "",
        metadata: Mapping[str, str] = ...,
        role: str = "",
    ) -> Self: ...
    @property
    def _terms(self) -> tuple[float, int] | None:
        """Seconds that are left and parts that may come, where an extended peer told either."""
    def replace(self, **changes: Any) -> SecureMessage:
        """A copy with other values in some fields; `id=""` gives it a fresh id."""
    def __replace__(self, **changes: Any) -> SecureMessage:
        """A copy with other values in some fields; `id=""` gives it a fresh id."""

def decode_message(
    data: bytes | bytearray | memoryview,
) -> tuple[str, str, str, bytes, str, bytes, dict[str, str], str]:
    """A message's JSON to its fields, in the wire's order; what is absent is empty.

    Raises:
        DecodeError: for anything but one JSON object with the right types; `field` names the key.
    """

def decode_response(data: bytes | bytearray | memoryview) -> tuple[bool, str, str, bytes, str]:
    """A response's JSON to its fields, in the wire's order; what is absent is empty or false.

    Raises:
        DecodeError: for anything but one JSON object with the right types; `field` names the key.
    """

def encode_message(
    id: str,
    context_id: str,
    task_id: str,
    payload: bytes,
    did: str,
    signature: bytes,
    metadata: Mapping[str, str],
    role: str,
) -> bytes:
    """A message's JSON as Go writes it, final newline included."""

def encode_response(success: bool, message_id: str, task_id: str, data: bytes, error: str) -> bytes:
    """A response's JSON as Go writes it, final newline included."""

@final
class Poller:
    def __new__(cls, loop: Any) -> Self: ...
    def fileno(self) -> int: ...
    def add(self, fd: int, connection: Connection, link: Any) -> Socket: ...
    def poll(self, patience: int = 0) -> None: ...
    def call_later(self, callback: Any) -> None: ...
    def flush(self) -> None: ...
    @staticmethod
    def wake(future: Any) -> None: ...
    def __len__(self) -> int: ...

@final
class Socket:
    def start(self, transport: Any) -> None: ...
    def set_reading(self, reading: bool) -> None: ...
    due: float
    last_received: float
    busy_poll: bool
    def serve(self, dispatch: Dispatch, summon: Any, max_concurrency: int) -> None: ...
    def limit(self, max_pending: int, read_timeout: float) -> None: ...
    def ask(self, message: Any) -> Any: ...
    def send(self, message: SecureMessage, deadline: float, remaining: float = ...) -> Any: ...
    def flush(self) -> None: ...
    def flush_soon(self) -> None: ...
    def shut_writing(self) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    def fileno(self) -> int: ...
