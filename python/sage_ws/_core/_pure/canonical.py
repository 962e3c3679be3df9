"""The fast way for the form that nearly all messages have: as Go and this package write them.

Keys in the wire's order, no white space, no escape: then three expressions and a search for the quote behind
the payload read a message, and its longest string is passed over at the speed of memory. Whatever differs, be
it in a single byte and be it an error, is not refused here: `None` leaves it to `wire`, which has all the
rules.
"""

from __future__ import annotations

import re

from sage_ws._core._pure import base64

_TEXT = r'"([^"\\\x00-\x1f]*+)"'
_ENTRY = r'"[^"\\\x00-\x1f]*+":"[^"\\\x00-\x1f]*+"'

_LONG_METADATA = 64 * 1024
"""Characters of entries from which on they are not all taken apart at once."""

_message_head = re.compile(
    rf'\{{"id":{_TEXT}(?:,"context_id":{_TEXT})?(?:,"task_id":{_TEXT})?,"payload":"'
).match
_message_tail = re.compile(
    rf'","did":{_TEXT},"signature":(?:null|{_TEXT})'
    rf'(?:,"metadata":\{{({_ENTRY}(?:,{_ENTRY})*+)\}})?(?:,"role":{_TEXT})?\}}\n?\Z'
).match
_entries = re.compile(rf"{_TEXT}:{_TEXT}").findall
_response_head = re.compile(
    rf'\{{"success":(true|false),"message_id":{_TEXT}(?:,"task_id":{_TEXT})?(,"data":")?'
).match
_response_tail = re.compile(rf'(?:,"error":{_TEXT})?\}}\n?\Z').match


def read_message(text: str) -> tuple[str, str, str, bytes, str, bytes, dict[str, str], str] | None:
    """A message in this form to its fields, in the wire's order."""
    head = _message_head(text)
    if head is None:
        return None
    start = head.end()
    end = text.find('"', start)
    tail = _message_tail(text, end)
    if tail is None:
        return None
    payload = base64.decode_line(text[start:end])
    did, signature, metadata, role = tail.groups("")
    signed = base64.decode_line(signature)
    if payload is None or signed is None:
        return None
    message_id, context_id, task_id = head.groups("")
    if len(metadata) > _LONG_METADATA:
        return None
    entries = dict(_entries(metadata)) if metadata else {}
    return message_id, context_id, task_id, payload, did, signed, entries, role


def read_response(text: str) -> tuple[bool, str, str, bytes, str] | None:
    """A response in this form to its fields, in the wire's order."""
    head = _response_head(text)
    if head is None:
        return None
    success, message_id, task_id, has_data = head.groups("")
    data: bytes | None = b""
    end = head.end()
    if has_data:
        start = end
        end = text.find('"', start)
        data = base64.decode_line(text[start:end])
        end += 1
    tail = _response_tail(text, end)
    if tail is None or data is None:
        return None
    return success == "true", message_id, task_id, data, tail[1] or ""
