"""Ed25519 over the bytes that matter: who asks whom, in which message, what; and the same for the answer.

SAGE carries a signature and does not say what it covers. Here it covers all that a forger might
change, each part behind its length, so that no two different messages give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sage_ws.message import SecureMessage

SIGNATURE_SIZE: Final = 64
"""Bytes of an Ed25519 signature (RFC 8032 §5.1.6)."""


def request_bytes(message: SecureMessage) -> bytes:
    """What a client signs."""
    return _framed(b"request", message.id, message.did, message.metadata.get("to", ""), message.payload)


def answer_bytes(message_id: str, did: str, answer: bytes) -> bytes:
    """What an agent signs; the message's id binds the answer to its question."""
    return _framed(b"answer", message_id, did, answer)


def _framed(*parts: bytes | str) -> bytes:
    framed = bytearray()
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        framed += len(encoded).to_bytes(4, "big") + encoded
    return bytes(framed)


@dataclass(frozen=True)
class Identity:
    """A DID and its private key, which never leaves the process that made it."""

    did: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate, repr=False)

    @property
    def name(self) -> str:
        """The DID's last part."""
        return self.did.rpartition(":")[2]

    @property
    def public(self) -> str:
        """The public key in hex."""
        return self.key.public_key().public_bytes_raw().hex()

    def signed(self, message: SecureMessage) -> SecureMessage:
        """The message with our signature."""
        return message.replace(signature=self.key.sign(request_bytes(message)))

    def answer(self, message: SecureMessage, answer: bytes) -> bytes:
        """Our signature, then the answer: a Response has no field of its own for one."""
        return self.key.sign(answer_bytes(message.id, self.did, answer)) + answer


class KeyBook:
    """Public keys by DID: the part that a DID registry plays outside of a demo."""

    def __init__(self, public: Mapping[str, str]) -> None:
        self._keys = {
            did: Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)) for did, key in public.items()
        }

    def holds(self, did: str, signature: bytes, signed: bytes) -> bool:
        """Whether ``did`` is known and its key made this signature of these bytes."""
        key = self._keys.get(did)
        if key is None:
            return False
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True
