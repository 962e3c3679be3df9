"""The ``X-SAGE-*`` headers that accompany a message over HTTP: written here, and held against the body.

They are for proxies and logs. Nothing signs them, so the body alone is what a message says; SAGE's Go
server lets them override it, and ours refuses a request in which the two disagree (wire.md, "HTTP").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sage_ws.message import SecureMessage

DID: Final = "X-SAGE-DID"
MESSAGE_ID: Final = "X-SAGE-Message-ID"
CONTEXT_ID: Final = "X-SAGE-Context-ID"
TASK_ID: Final = "X-SAGE-Task-ID"
META_PREFIX: Final = "X-SAGE-Meta-"

# What leaves as a header must not cost the request: servers bound a header's size and their number
# (aiohttp 8190 bytes and 128 of them), and the body carries everything anyway.
_VALUE_LIMIT: Final = 4096
_METADATA_LIMIT: Final = 64

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")  # RFC 9110 §5.6.2, token
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")  # §5.5, without obs-text


def headers_of(message: SecureMessage) -> list[tuple[str, str]]:
    """The headers for ``message``: those of its fields that are not empty and legal in a header."""
    headers = [
        (DID, message.did),
        (MESSAGE_ID, message.id),
        (CONTEXT_ID, message.context_id),
        (TASK_ID, message.task_id),
    ]
    headers.extend(
        (META_PREFIX + key, message.metadata[key])
        for key in islice(message.metadata, _METADATA_LIMIT)
        if _NAME.fullmatch(key)
    )
    return [
        (name, value) for name, value in headers if len(value) <= _VALUE_LIMIT and _VALUE.fullmatch(value)
    ]


def contradicting(
    headers: Iterable[tuple[str, str]],
    *,
    message_id: str,
    did: str,
    context_id: str,
    task_id: str,
    metadata: Mapping[str, str],
) -> str | None:
    """The name of the first header that says something else than the body; an empty one says nothing.

    White space around a value does not survive a header, and case not in its name: neither counts.
    """
    said = {
        DID.lower(): {did},
        MESSAGE_ID.lower(): {message_id},
        CONTEXT_ID.lower(): {context_id},
        TASK_ID.lower(): {task_id},
    }
    for key, value in metadata.items():
        said.setdefault((META_PREFIX + key).lower(), set()).add(value)
    for name, value in headers:
        folded = name.lower()
        if not value or not (folded in said or folded.startswith(META_PREFIX.lower())):
            continue
        if value not in {text.strip(" \t") for text in said.get(folded, ())}:
            return name
    return None
