"""``sage-ws send URL``: one message out, its response's data to stdout."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from sage_ws._core import encode_response
from sage_ws.cli.usage import Commands, UsageError, seconds
from sage_ws.errors import peer_text
from sage_ws.message import Response, SecureMessage
from sage_ws.options import UNSET
from sage_ws.transport import MessageTransport, select_by_url


def add_to(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("send", help="send one message and print what is answered")
    parser.add_argument("url", metavar="URL", help="such as ws://127.0.0.1:8080/ws or http://127.0.0.1:8080")
    parser.add_argument("--did", required=True, help="who sends it")
    payload = parser.add_mutually_exclusive_group(required=True)
    payload.add_argument("--payload", metavar="TEXT", help="what to send, as UTF-8")
    payload.add_argument("--payload-file", metavar="FILE", help="what to send; - reads stdin")
    parser.add_argument(
        "--metadata", metavar="KEY=VALUE", action="append", default=[], help="may be repeated"
    )
    parser.add_argument("--id", default="", help="the message's id; a fresh one by default")
    parser.add_argument("--context-id", default="")
    parser.add_argument("--task-id", default="")
    parser.add_argument("--role", default="")
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS", help="for dialling and answer together")
    parser.add_argument(
        "--json", action="store_true", help="print the whole response, as it stands on the wire"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send, print, and tell by the exit code whether the answer was a success."""
    try:
        message = SecureMessage(
            _payload(arguments),
            arguments.did,
            arguments.id,
            b"",
            arguments.context_id,
            arguments.task_id,
            _metadata(arguments.metadata),
            arguments.role,
        )
        transport = select_by_url(arguments.url)
    except ValueError as error:
        raise UsageError(str(error)) from error
    response = asyncio.run(_send(transport, message, arguments.timeout))
    if arguments.json:
        _write(
            encode_response(
                response.success, response.message_id, response.task_id, response.data, response.error
            )
        )
    elif response.success:
        _write(response.data)
    if not response.success:
        sys.stderr.write(f"sage-ws: answered with an error: {peer_text(response.error)}\n")
    return 0 if response.success else 1


async def _send(transport: MessageTransport, message: SecureMessage, timeout: float | None) -> Response:
    try:
        return await transport.send(message, timeout=UNSET if timeout is None else timeout)
    finally:
        await transport.close()


def _payload(arguments: argparse.Namespace) -> bytes:
    if arguments.payload is not None:
        payload: str = arguments.payload
        return payload.encode("utf-8", "surrogateescape")
    if arguments.payload_file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(arguments.payload_file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {arguments.payload_file}: {error.strerror}") from error


def _metadata(pairs: list[str]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UsageError(f"metadata must be KEY=VALUE, not {pair!r}")
        metadata[key] = value
    return metadata


def _write(data: bytes) -> None:
    """Bytes as they are to a file or pipe; to a terminal as text that cannot command it."""
    if sys.stdout.isatty():
        text = data.decode("utf-8", "backslashreplace")
        shown = "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)
        sys.stdout.write(shown if shown.endswith("\n") else shown + "\n")
    else:
        sys.stdout.buffer.write(data)
    sys.stdout.flush()
