"""Writes each target's first corpus, of the vectors: at most 100 files of at most 2 KB.

A corpus that is there is added to, not emptied: what a fuzzer has found stays.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "tests" / "vectors"
LONGEST = 2000

# The options of targets/frames.rs, and its seed of the cuts.
CLIENT, RAW, BUILT, LIMITED, COMPRESSED = 1, 2, 4, 8, 64
CUTS = b"\x07\x01"

# The options of targets/inflate.rs are 1 (takeover), 2 (messages to compress), 4 (limited), 8 (repeated).
HELLO = bytes.fromhex("f248cdc9c90700")
BOMB = zlib.compress(bytes(100_000), wbits=-15)[:-2]


def spread(items: list[bytes], count: int) -> list[bytes]:
    """So many of them, from all over the list: neighbours are alike."""
    short = [item for item in dict.fromkeys(items) if len(item) <= LONGEST]
    return short[:: max(1, -(-len(short) // count))]


def messages(cases: list[dict[str, Any]], kind: str) -> list[bytes]:
    """The texts of one kind; a target reads UTF-8 alone."""
    wires = [base64.b64decode(case["wire"]) for case in cases if case["kind"] == kind]
    return [wire for wire in wires if wire.decode(errors="replace").encode() == wire]


def frames(vectors: dict[str, Any]) -> Iterator[bytes]:
    """What one end wrote, for the other to read."""
    for case in vectors["messages"] + vectors["controls"]:
        if "raw" in case:
            reader = CLIENT if case["role"] == "server" else 0
            yield bytes([reader | RAW]) + CUTS + bytes.fromhex(case["raw"])
    for case in vectors["replies"]:
        reader = CLIENT if case["role"] == "client" else 0
        yield bytes([reader | LIMITED]) + CUTS + bytes.fromhex(case["received"])


def extended() -> list[bytes]:
    """The extended wire's messages in CBOR, sound and not."""
    groups: dict[str, list[dict[str, Any]]] = json.loads((VECTORS / "extended.json").read_bytes())
    return [bytes.fromhex(case["cbor"]) for group in groups.values() for case in group if "cbor" in case]


def built(text: bytes, reader: int) -> bytes:
    """A message that targets/frames.rs puts into two frames, with a ping between them."""
    first, last = text[: len(text) // 2], text[len(text) // 2 :]
    plan = [(0x01, first), (0x89, b"?"), (0x80, last)]
    return bytes([reader | BUILT]) + CUTS + b"".join(bytes([byte, len(part)]) + part for byte, part in plan)


def main() -> None:
    """Writes them."""
    cases = json.loads((VECTORS / "decode.json").read_bytes())
    requests, responses = messages(cases, "message"), messages(cases, "response")
    texts = [(text, 0) for text in spread(requests, 8)] + [(text, CLIENT) for text in spread(responses, 4)]
    seeds = {
        "request": spread(requests, 32),
        "response": spread(responses, 16),
        "frames": [
            *spread(list(frames(json.loads((VECTORS / "frames.json").read_bytes()))), 24),
            *(built(text, reader) for text, reader in texts if len(text) <= 500),
            bytes([RAW | BUILT | COMPRESSED]) + CUTS + b"\x41\3" + HELLO[:3] + b"\x80\4" + HELLO[3:],
        ],
        "cbor": spread(extended(), 100),
        "base64": [b"", b"QQ==", b"QUI=", b"QUJD", b"QU\r\nJD", b"Q=Q=", b"QR==", b"QUJDREVGR0hJSktM"],
        "unmask": [bytes(range(15)) + b"payload", b"\x00\x9c\x01\xff" + b"\xff" * 10 + bytes(100)],
        "inflate": [
            b"\1\0\0" + b"\7" + HELLO + b"\5\xf2\0\x11\0\0",  # RFC 7692 §7.2.3.2
            b"\0\7\1" + b"\x0b\0\5\0\xfa\xffHello\0",
            b"\0\7\1" + b"\x08\xf3" + HELLO[1:] + b"\0",
            b"\4\7\1" + bytes([len(BOMB)]) + BOMB,
            b"\3\7\1" + b"\5Hello" * 3 + b"\0",
            b"\x0f\x2a\1" + b"\xc8" + bytes(range(200)) + b"\x20" + b"agent message " * 3,
        ],
        "correlate": [
            b"\0\1\5\7\1\0",  # sent, answered
            b"\0\2\1\0\2\1\x0b\2\0\7\2\0",  # sent twice, given up, answered late
            b"\0\1\1\0\2\2\x0d\0\1",  # of two, one expires
            b"\0\1\1\x0e\0\0\x0f\0\0\0\1\1",  # abandoned, closed, sent in vain
        ],
    }
    for target, inputs in seeds.items():
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / f"seed-{number:02}").write_bytes(data)


if __name__ == "__main__":
    main()
