"""One endpoint of an open WebSocket connection that speaks SAGE: bytes in, values out, and back.

No I/O and no clock: the caller brings what it read, takes what is to be written, and says what time it is.
Receiving is one call per socket read, whatever that completes; everything that must be answered at once
(pings, closing, messages that cannot be dispatched) is answered into the output meanwhile.

Neither the role nor the state changes how frames are read: the role decides who masks, and whether messages
are requests or answers. A connection goes from open over *closing* (a close frame was sent or received) to
ended, and never back.

Longer than a file should be: one class cannot stand in two files here, as it does in the Rust core.
"""

from __future__ import annotations

from math import inf
from typing import Any, Literal

from sage_ws import errors
from sage_ws._core import events
from sage_ws._core._pure import extended, mask, random, wire
from sage_ws._core._pure.assemble import Assembly
from sage_ws._core._pure.close import Failure, decode_close, encode_close
from sage_ws._core._pure.deflate import Deflater, Inflater, Negotiated, check
from sage_ws._core._pure.frame import (
    BINARY,
    CLOSE,
    CONTROL_LIMIT,
    PING,
    PONG,
    RSV1,
    TEXT,
    decode_header,
    encode_header,
)
from sage_ws._core._pure.pending import Pending
from sage_ws._core._pure.utf8 import decode_binary, decode_text
from sage_ws._core._pure.value import Response, SecureMessage, received_message, received_response

_MOST_BLOCKED_PONGS = 64
_MOST_UNDECODABLE = 3
_MOST_KEEPALIVES = 16
"""Keepalives whose answers are still told from late ones."""


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

    # Requests handed out and not answered yet, which the caller counts; and whether each answer is to be
    # given by the link itself.
    running: int = 0
    watched: bool = False

    def __init__(
        self,
        role: Literal["client", "server"],
        *,
        max_message_size: int | None = 16 * 1024 * 1024,
        raw: bool = False,
        subprotocol: str | None = None,
        deflate: Negotiated | None = None,
    ) -> None:
        if role not in {"client", "server"}:
            raise ValueError(f"role must be client or server, not {role!r}")
        if subprotocol is not None and subprotocol not in extended.SUBPROTOCOLS:
            raise ValueError(f"subprotocol must be sage.1.json, sage.1.cbor or None, not {subprotocol!r}")
        self._client = role == "client"
        self._raw = raw
        self._subprotocol = subprotocol
        self._opcode = BINARY if subprotocol == "sage.1.cbor" else TEXT
        self._limit = max_message_size
        # receiving: an incomplete header or control frame; the open data frame's missing bytes, fin and key
        self._rest = b""
        self._missing = 0
        self._fin = 0
        self._key = b""
        self._key_offset = 0
        inflater: Inflater | None = None
        self._deflater: Deflater | None = None
        if deflate is not None:
            check(deflate)
            inflater = Inflater(deflate, max_message_size)
            self._deflater = Deflater(deflate)
        self._deflate = deflate is not None
        self._assembly = Assembly(max_message_size, inflater)
        self._undecodable = 0
        self._ended = False
        # sending
        self._output: list[bytes] = []
        self._buffered = 0
        self._close_sent = False
        self._blocked = False
        self._blocked_pongs = 0
        # correlation
        self._pending = Pending()
        self._keepalives: dict[str, None] = {}
        self._did = ""
        self._spoken = False
        self._sent = self._received = self._late = self._invalid = self._unknown = self._dropped = 0
        self._back_sent = self._back_received = 0
        self._bytes_in = self._bytes_out = 0

    # ── receiving ──────────────────────────────────────────────────────────────────────

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Any]:
        """Take what one socket read brought.

        Returns:
            Everything that it completed, in order: requests on a server, `(waiter, Response)` on a client,
            or `(waiter, DecodeError)`, both on either end of an extended connection; in raw mode `str` and
            `bytes`; and `sage_ws._core.events`. After `Closing` there is nothing more.
        """
        chunk = data if isinstance(data, bytes) else bytes(memoryview(data))
        self._bytes_in += len(chunk)
        if self._ended:
            return []
        if self._rest:
            chunk = self._rest + chunk
            self._rest = b""
        received: list[Any] = []
        try:
            self._receive_frames(chunk, received)
        except Failure as failure:
            self._fail(failure, received)
        return received

    def _receive_frames(self, chunk: bytes, received: list[Any]) -> None:
        end = len(chunk)
        position = 0
        masked = not self._client
        deflate = self._deflate
        assembly = self._assembly
        if self._missing:
            position = self._continue_frame(chunk, received)
        while position < end and not self._ended:
            header = decode_header(chunk, position, masked=masked, deflate=deflate)
            if header is None:
                break
            opcode, fin, rsv1, length, start = header
            stop = start + length
            if opcode >= CLOSE:
                if stop > end:
                    break
                payload = chunk[start:stop]
                if masked:
                    payload = mask.apply(payload, chunk[start - 4 : start])
                self._receive_control(opcode, payload, received)
                position = stop
                continue
            assembly.admit(opcode, length, rsv1)
            if start > end:
                break
            payload = chunk[start:stop]
            key = chunk[start - 4 : start]
            if masked and payload:
                payload = mask.apply(payload, key)
            if opcode and fin and stop <= end and not rsv1:
                # The usual case: a message in one frame, in one chunk.
                self._receive_message(decode_text(payload) if opcode == TEXT else payload, received)
                position = stop
                continue
            assembly.open(opcode, rsv1)
            assembly.feed(payload)
            if stop > end:
                self._missing = stop - end
                self._fin = fin
                self._key = key
                self._key_offset = end - start
                return
            if fin:
                self._receive_message(assembly.finish(), received)
            position = stop
        if not self._ended:
            self._rest = chunk[position:]

    def _continue_frame(self, chunk: bytes, received: list[Any]) -> int:
        """The next part of the data frame that an earlier chunk began; returns where it ends."""
        part = chunk[: self._missing]
        length = len(part)
        if not self._client:
            part = mask.apply(part, self._key, self._key_offset)
            self._key_offset += length
        self._assembly.feed(part)
        self._missing -= length
        if self._fin and not self._missing:
            self._receive_message(self._assembly.finish(), received)
        return length

    def _receive_control(self, opcode: int, payload: bytes, received: list[Any]) -> None:
        if opcode == PING:
            # Our own close frame does not excuse us from this, the peer's would (§5.5.2).
            if self._blocked:
                if self._blocked_pongs == _MOST_BLOCKED_PONGS:
                    raise Failure(1008, "too many pings unanswered")
                self._blocked_pongs += 1
            self._write(PONG, payload)
        elif opcode == PONG:
            received.append(events.Pong(payload))
        else:
            code, reason = decode_close(payload)
            if not self._close_sent:
                self._close_sent = True
                self._write(CLOSE, payload[:2])
            self._end(events.Closing(code, reason, True), received)

    def _receive_message(self, message: str | bytes, received: list[Any]) -> None:
        if not self._client and self._close_sent and not self._subprotocol:
            self._dropped += 1
            return
        if self._raw:
            received.append(message)
            return
        try:
            if self._subprotocol:
                self._receive_extended(message, self._subprotocol, received)
                return
            text = decode_binary(message) if isinstance(message, bytes) else message
            if self._client:
                self._receive_answer(text, received)
            else:
                self._receive_request(text, received)
        except errors.DecodeError as error:
            self._refuse(error, received)

    def _receive_request(self, text: str, received: list[Any]) -> None:
        fields, error = wire.read_message(text)
        if error:
            raise error
        self._spoken = True
        self._undecodable = 0
        message_id, _, task_id, payload, did, _, _, _ = fields
        if message_id and did and payload:
            self._received += 1
            received.append(received_message(*fields))
        else:
            self._refuse_request(message_id, task_id, did)

    def _refuse_request(self, message_id: str, task_id: str, did: str) -> None:
        """One of the fields that a request must have is empty."""
        self._invalid += 1
        if not message_id:
            answer = self._response(False, "", "", b"", "message ID is required")
        else:
            required = "payload is required" if did else "DID is required"
            answer = self._response(False, message_id, task_id, b"", required)
        self._write(self._opcode, answer)

    def _receive_answer(self, text: str, received: list[Any]) -> None:
        (success, message_id, task_id, data, error_text), error = wire.read_response(text)
        if error:
            waiting = self._pending.take(message_id)
            if waiting is None:
                raise error
            self._invalid += 1
            received.append((waiting[0], error))
            return
        self._spoken = True
        waiting = self._pending.take(message_id)
        if waiting is not None:
            self._received += 1
            response = received_response(
                success and not error_text, message_id, task_id or waiting[2], data, error_text
            )
            received.append((waiting[0], response))
        elif message_id in self._keepalives:
            del self._keepalives[message_id]
        elif message_id or not success:  # a server's keepalive is a success that answers no message
            self._late += 1

    def _receive_extended(self, message: str | bytes, subprotocol: str, received: list[Any]) -> None:
        values, is_unknown, error = extended.read(message, subprotocol)
        kind = values[extended.KIND]
        if error:
            waiting = self._pending.take(values[extended.MESSAGE_ID]) if kind == extended.RESPONSE else None
            if waiting is None:
                raise error
            self._invalid += 1
            received.append((waiting[0], error))
            return
        self._spoken = True
        self._undecodable = 0
        self._unknown += is_unknown
        if kind == extended.RESPONSE:
            self._receive_part(values, received)
        elif self._close_sent:
            self._dropped += kind == extended.REQUEST  # nothing can be answered any more
        elif kind == extended.REQUEST:
            message_id, context_id, task_id, payload, did, signature, metadata, role = values[
                extended.ID : extended.SUCCESS
            ]
            if message_id and did and payload:
                self._count_received(not self._client)
                terms = extended.terms(values)
                received.append(
                    received_message(
                        message_id, context_id, task_id, payload, did, signature, metadata or {}, role, terms
                    )
                )
            else:
                self._refuse_request(message_id, task_id, did)
        elif kind == extended.CANCEL:
            received.append(events.Cancel(values[extended.ID]))
        elif kind == extended.CREDITS:
            received.append(events.Credit(values[extended.ID], values[extended.CREDIT] or 0))
        elif kind == extended.GOAWAY:
            received.append(events.GoAway(values[extended.REASON]))

    def _receive_part(self, values: extended.Values, received: list[Any]) -> None:
        """A response: the last one, or a part before it."""
        message_id = values[extended.MESSAGE_ID]
        is_last = not values[extended.MORE]
        waiting = self._pending.take(message_id) if is_last else self._pending.find(message_id)
        if waiting is None:
            self._late += 1
            return
        if is_last:
            self._count_received(self._client)
        error_text = values[extended.ERROR]
        response = received_response(
            values[extended.SUCCESS] and not error_text,
            message_id,
            values[extended.TASK_ID] or waiting[2],
            values[extended.DATA],
            error_text,
        )
        if is_last:
            received.append((waiting[0], response))
        else:
            received.append(events.Part(waiting[0], response))  # type: ignore[arg-type]  # checkers know the native class

    def _refuse(self, error: errors.DecodeError, received: list[Any]) -> None:
        """A message that cannot be read and belongs to nobody."""
        if self._close_sent and not self._client:
            return
        self._invalid += 1
        received.append(events.Undecodable(error))
        if self._client:
            return
        self._write(self._opcode, self._response(False, "", "", b"", str(error)))
        self._undecodable += 1
        if self._undecodable == _MOST_UNDECODABLE:
            raise Failure(1008, "three undecodable messages in a row")

    def _fail(self, failure: Failure, received: list[Any]) -> None:
        if not self._close_sent:
            self._close_sent = True
            self._write(CLOSE, encode_close(failure.code, failure.reason))
        self._end(events.Closing(failure.code, failure.reason, False), received)

    def _end(self, closing: events.Closing, received: list[Any]) -> None:
        self._ended = True
        self._assembly = Assembly(self._limit)
        received.append(closing)

    # ── sending ────────────────────────────────────────────────────────────────────────

    def send_message(
        self, message: SecureMessage, waiter: Any, deadline: float, remaining: float = inf, credit: int = 0
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
        if self._subprotocol:
            extended.refuse_credit(credit)
        message_id = message.id
        if self._close_sent:
            raise errors.ClosedError("connection is closing", message_id=message_id)
        if message_id in self._pending:
            raise errors.DuplicateIdError(
                f"a message with id {errors.peer_text(message_id)} is in flight", message_id=message_id
            )
        if self._subprotocol:
            payload = extended.write_request(message, remaining, credit, self._subprotocol)
        else:
            payload = wire.write_message(
                message_id,
                message.context_id,
                message.task_id,
                message.payload,
                message.did,
                message.signature,
                message.metadata,
                message.role,
            )
        if self._is_too_big(payload):
            raise self._too_big("message", len(payload), message_id)
        self._did = message.did
        self._pending.add(message_id, waiter, deadline, message.task_id)
        self._count_sent(self._client)
        return self._write(self._opcode, payload)

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
        success, message_id, task_id, data, error = True, message.id, message.task_id, b"", ""
        if isinstance(reply, Response):
            error = reply.error
            success = reply.success and not error
            message_id = reply.message_id or message_id
            task_id = reply.task_id or task_id
            data = reply.data
        elif isinstance(reply, bytes):
            data = reply
        elif reply is not None:
            raise TypeError(f"a handler must return a Response, bytes or None, not {type(reply).__name__}")
        if more and not self._subprotocol:
            raise ValueError("a response in parts needs an extended connection")
        if self._close_sent:
            self._dropped += 1
            return self._buffered
        if self._subprotocol:
            payload = self._response(success, message_id, task_id, data, error, more)
        else:
            payload = wire.write_response(success, message_id, task_id, data, error)
        if self._is_too_big(payload):
            raise self._too_big("response", len(payload), message.id)
        if not more:
            self._count_sent(not self._client)
        return self._write(self._opcode, payload)

    def send_cancel(self, message_id: str) -> int:
        """Tell the peer that nobody waits for this answer any more; after closing or in plain, write nothing.

        Returns:
            Bytes now in the output.
        """
        return self._send_note(extended.CANCEL, (extended.ID, message_id))

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
        extended.refuse_credit(count)
        return self._send_note(extended.CREDITS, (extended.ID, message_id), (extended.CREDIT, count))

    def send_goaway(self, reason: str = "") -> int:
        """Ask the peer to send its next requests elsewhere; after closing or in plain, write nothing.

        Returns:
            Bytes now in the output.
        """
        return self._send_note(extended.GOAWAY, (extended.REASON, reason))

    def send_keepalive(self) -> int:
        """Send what a Go peer takes for traffic and answers or ignores (wire.md, "Who is still there").

        An extended connection needs none, and writes nothing.

        Returns:
            Bytes now in the output.
        """
        if self._close_sent or self._subprotocol:
            return self._buffered
        if not self._client:
            return self._write(TEXT, wire.write_response(True, "", "", b"", ""))
        if not self._did:
            return self._buffered
        if len(self._keepalives) == _MOST_KEEPALIVES:
            del self._keepalives[next(iter(self._keepalives))]
        fresh = random.message_id()
        self._keepalives[fresh] = None
        payload = wire.write_message(fresh, "", "", b"", self._did, b"", {}, "")
        # Over the limit it is let be: nobody waits for it who could be told.
        return self._buffered if self._is_too_big(payload) else self._write(TEXT, payload)

    def send_raw(self, data: str | bytes) -> int:
        """Send a message as it is: TEXT for `str`, BINARY for `bytes`; after closing, write nothing.

        Returns:
            Bytes now in the output.

        Raises:
            MessageTooBigError: over the limit.
        """
        opcode, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, bytes(data))
        if self._is_too_big(payload):
            raise self._too_big("message", len(payload), None)
        return self._buffered if self._close_sent else self._write(opcode, payload)

    def send_ping(self, payload: bytes = b"") -> int:
        """Send a ping frame; after closing, write nothing.

        Returns:
            Bytes now in the output.

        Raises:
            ValueError: for a payload that does not fit a control frame.
        """
        if len(payload) > CONTROL_LIMIT:
            raise ValueError(f"ping payload over {CONTROL_LIMIT} bytes")
        return self._buffered if self._close_sent else self._write(PING, bytes(payload))

    def send_close(self, code: int | None = 1000, reason: str = "") -> int:
        """Send a close frame, once; later calls write nothing.

        Returns:
            Bytes now in the output.

        Raises:
            ValueError: for a code that may not be sent, or a reason over 123 bytes.
        """
        payload = encode_close(code, reason)
        if self._close_sent:
            return self._buffered
        self._close_sent = True
        return self._write(CLOSE, payload)

    def set_blocked(self, blocked: bool) -> None:
        """Tell whether the socket takes bytes; while it does not, pongs are counted."""
        self._blocked = blocked
        if not blocked:
            self._blocked_pongs = 0

    # ── output ─────────────────────────────────────────────────────────────────────────

    def data_to_send(self) -> bytes:
        """Everything that is to be written, which is then forgotten here."""
        output = b"".join(self._output)
        self._output.clear()
        self._bytes_out += self._buffered
        self._buffered = 0
        return output

    @property
    def buffered(self) -> int:
        """Bytes that `data_to_send` would return."""
        return self._buffered

    @property
    def bytes_in(self) -> int:
        """Bytes that came in so far."""
        return self._bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes handed out, or written, so far."""
        return self._bytes_out

    # ── correlation ────────────────────────────────────────────────────────────────────

    def forget(self, message_id: str) -> bool:
        """Nobody waits any more; returns whether somebody did. Its answer will count as late."""
        return self._pending.take(message_id) is not None

    def expire(self, now: float) -> list[tuple[Any, str]]:
        """Remove the messages whose deadline is at or before `now`: waiters and ids, in sending order."""
        return self._pending.expire(now)

    def abandon(self) -> list[tuple[Any, str]]:
        """Remove all messages in flight: waiters and ids, in sending order."""
        return self._pending.abandon()

    @property
    def earliest(self) -> float:
        """No pending deadline is before it; infinity when nothing is pending."""
        return self._pending.earliest

    @property
    def pending(self) -> int:
        """Messages in flight."""
        return len(self._pending)

    # ── state ──────────────────────────────────────────────────────────────────────────

    @property
    def closing(self) -> bool:
        """Whether a close frame was sent or received, or the connection failed."""
        return self._close_sent

    @property
    def extended(self) -> bool:
        """Whether a subprotocol of ours was negotiated."""
        return self._subprotocol is not None

    @property
    def spoken(self) -> bool:
        """Whether a decodable SAGE message has been received."""
        return self._spoken

    def miss(self) -> None:
        """An answer that was handed out last found nobody: its call had been given up a moment before."""
        if self._client:
            self._received -= 1
        else:
            self._back_received -= 1
        self._late += 1

    def counters(self) -> dict[str, int]:
        """What has happened so far: messages sent, received, late, invalid, dropped, not all understood."""
        return {
            "sent": self._sent,
            "received": self._received,
            "late": self._late,
            "invalid": self._invalid,
            "dropped": self._dropped,
            "unknown": self._unknown,
        }

    def counters_back(self) -> dict[str, int]:
        """What was sent and received against the role: a server's requests, a client's answers to them."""
        return {"sent": self._back_sent, "received": self._back_received}

    # ── private ────────────────────────────────────────────────────────────────────────

    def _response(
        self, success: bool, message_id: str, task_id: str, data: bytes, error: str, more: bool = False
    ) -> bytes:
        if self._subprotocol:
            answer = (success, message_id, task_id, data, error)
            return extended.write_response(*answer, more, self._subprotocol)
        return wire.write_response(success, message_id, task_id, data, error)

    def _send_note(self, kind: int, *fields: tuple[int, str | int]) -> int:
        if self._close_sent or not self._subprotocol:
            return self._buffered
        payload = extended.write(kind, fields, self._subprotocol)
        # Over the limit it is let be: nobody waits for it who could be told.
        return self._buffered if self._is_too_big(payload) else self._write(self._opcode, payload)

    def _write(self, opcode: int, payload: bytes) -> int:
        deflater = self._deflater
        if deflater is not None:
            if opcode < CLOSE and len(payload) >= deflater.threshold:
                deflated = deflater.deflate(payload)
                if deflated is not None:
                    payload = deflated
                    opcode |= RSV1
            elif opcode == CLOSE:
                self._deflater = None
        header = encode_header(opcode, len(payload), masked=self._client)
        if self._client:
            key = random.masking_key()
            header += key
            payload = mask.apply(payload, key)
        self._output.append(header)
        self._output.append(payload)
        self._buffered += len(header) + len(payload)
        return self._buffered

    def _count_received(self, of_this_role: bool) -> None:
        if of_this_role:
            self._received += 1
        else:
            self._back_received += 1

    def _count_sent(self, of_this_role: bool) -> None:
        if of_this_role:
            self._sent += 1
        else:
            self._back_sent += 1

    def _is_too_big(self, payload: bytes) -> bool:
        return self._limit is not None and len(payload) > self._limit

    def _too_big(self, what: str, length: int, message_id: str | None) -> errors.MessageTooBigError:
        return errors.MessageTooBigError(
            f"{what} of {length} bytes is over max_message_size {self._limit}", message_id=message_id
        )
