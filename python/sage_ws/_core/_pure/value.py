"""SecureMessage and Response: what users make and get (the tables of docs/reference/wire.md).

Both are frozen, comparable, hashable and picklable, and their repr shows no payload. What the wire brought is
known to have the right types, so values are made in two ways: the constructor checks, `received_message` and
`received_response` do not. An instance is filled as a draft, an open class with the same slots, and becomes
the frozen class when it is whole; setting eight attributes past a frozen class takes five times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn, final

from sage_ws import errors
from sage_ws._core._pure import random

_REPR_LIMIT: Final = 200
"""Characters of a string that a repr shows."""

NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


def _checked_bytes(name: str, value: object) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{name} must be bytes, not {type(value).__name__}")


def _checked_str(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds a lone surrogate at character {error.start}") from None
    return str.__str__(value)


def _checked_metadata(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(f"metadata must be a mapping, not {type(value).__name__}")
    copied = {}
    for key, entry in value.items():
        if not (isinstance(key, str) and isinstance(entry, str)):
            raise TypeError("metadata must map str to str")
        copied[str.__str__(key)] = str.__str__(entry)
    try:
        "".join(copied).encode()
        "".join(copied.values()).encode()
    except UnicodeEncodeError:
        raise ValueError("metadata holds a lone surrogate") from None
    return MappingProxyType(copied) if copied else NO_METADATA


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _REPR_LIMIT else repr(text[:_REPR_LIMIT]) + "…"


def _shown_bytes(data: bytes) -> str:
    return f"<{len(data)} byte{'' if len(data) == 1 else 's'}>"


def _frozen(text: str) -> AttributeError:
    # Late, since it costs milliseconds, and this is a mistake's path.
    from dataclasses import FrozenInstanceError

    return FrozenInstanceError(text)


class _Frozen:
    """What both values share: once made, they do not change."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise _frozen(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise _frozen(f"cannot delete field {name!r}")


class _MessageDraft:
    # `_given` is not set but where the wire brought it: a message without costs nothing more.
    __slots__ = ("_given", "context_id", "did", "id", "metadata", "payload", "role", "signature", "task_id")

    _given: tuple[float, int]
    payload: bytes
    did: str
    id: str
    signature: bytes
    context_id: str
    task_id: str
    metadata: Mapping[str, str]
    role: str


@final
class SecureMessage(_Frozen, _MessageDraft):
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

    __slots__ = ()
    __module__ = "sage_ws"
    __match_args__ = ("payload", "did", "id", "signature", "context_id", "task_id", "metadata", "role")

    def __new__(
        cls,
        payload: bytes,
        did: str,
        id: str = "",  # noqa: A002 -- the wire's name
        signature: bytes = b"",
        context_id: str = "",
        task_id: str = "",
        metadata: Mapping[str, str] = NO_METADATA,
        role: str = "",
    ) -> SecureMessage:
        # ASCII has no surrogates: the usual case costs two looks per field.
        if payload.__class__ is not bytes:
            payload = _checked_bytes("payload", payload)
        if did.__class__ is not str or not did.isascii():
            did = _checked_str("did", did)
        if id.__class__ is not str or not id.isascii():
            id = _checked_str("id", id)  # noqa: A001
        if signature.__class__ is not bytes:
            signature = _checked_bytes("signature", signature)
        if context_id.__class__ is not str or not context_id.isascii():
            context_id = _checked_str("context_id", context_id)
        if task_id.__class__ is not str or not task_id.isascii():
            task_id = _checked_str("task_id", task_id)
        if metadata is not NO_METADATA:
            metadata = _checked_metadata(metadata)
        if role.__class__ is not str or not role.isascii():
            role = _checked_str("role", role)
        if not id:
            id = random.message_id()  # noqa: A001
        return _message(payload, did, id, signature, context_id, task_id, metadata, role)

    @property
    def _terms(self) -> tuple[float, int] | None:
        """Seconds that are left and parts that may come, where an extended peer told either."""
        return getattr(self, "_given", None)

    def replace(self, **changes: Any) -> SecureMessage:
        """A copy with other values in some fields; `id=""` gives it a fresh id."""
        return SecureMessage(**(self._fields() | changes))

    __replace__ = replace

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SecureMessage.__match_args__}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecureMessage):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(
            (self.payload, self.did, self.id, self.signature, self.context_id, self.task_id, self.role)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return SecureMessage, tuple((self._fields() | {"metadata": dict(self.metadata)}).values())

    def __repr__(self) -> str:
        entries = len(self.metadata)
        return (
            f"SecureMessage(id={_shown(self.id)}, did={_shown(self.did)}, "
            f"payload={_shown_bytes(self.payload)}, signature={_shown_bytes(self.signature)}, "
            f"context_id={_shown(self.context_id)}, task_id={_shown(self.task_id)}, "
            f"metadata=<{entries} {'entry' if entries == 1 else 'entries'}>, role={_shown(self.role)})"
        )


class _ResponseDraft:
    __slots__ = ("data", "error", "message_id", "success", "task_id")

    success: bool
    message_id: str
    task_id: str
    data: bytes
    error: str


@final
class Response(_Frozen, _ResponseDraft):
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

    __slots__ = ()
    __module__ = "sage_ws"
    __match_args__ = ("success", "message_id", "task_id", "data", "error")

    def __new__(
        cls,
        success: bool = True,
        message_id: str = "",
        task_id: str = "",
        data: bytes = b"",
        error: str = "",
    ) -> Response:
        if success.__class__ is not bool:
            raise TypeError(f"success must be bool, not {type(success).__name__}")
        if message_id.__class__ is not str or not message_id.isascii():
            message_id = _checked_str("message_id", message_id)
        if task_id.__class__ is not str or not task_id.isascii():
            task_id = _checked_str("task_id", task_id)
        if data.__class__ is not bytes:
            data = _checked_bytes("data", data)
        if error.__class__ is not str or not error.isascii():
            error = _checked_str("error", error)
        return received_response(success, message_id, task_id, data, error)

    @classmethod
    def failure(cls, error: str, *, data: bytes = b"") -> Response:
        """An answer that says no, with the text that the caller will read."""
        return Response(False, "", "", data, error)

    def raise_for_error(self) -> Response:
        """Itself, for chaining.

        Raises:
            AnsweredError: when `success` is false.
        """
        if not self.success:
            raise errors.AnsweredError(self)  # type: ignore[arg-type]  # checkers know the native class
        return self

    def __replace__(self, **changes: Any) -> Response:
        return Response(**(self._fields() | changes))

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Response.__match_args__}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Response):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((self.success, self.message_id, self.task_id, self.data, self.error))

    def __reduce__(self) -> tuple[Any, ...]:
        return Response, tuple(self._fields().values())

    def __repr__(self) -> str:
        return (
            f"Response(success={self.success}, message_id={_shown(self.message_id)}, "
            f"task_id={_shown(self.task_id)}, data={_shown_bytes(self.data)}, error={_shown(self.error)})"
        )


def _message(
    payload: bytes,
    did: str,
    id: str,  # noqa: A002
    signature: bytes,
    context_id: str,
    task_id: str,
    metadata: Mapping[str, str],
    role: str,
) -> SecureMessage:
    message = _MessageDraft()
    message.payload = payload
    message.did = did
    message.id = id
    message.signature = signature
    message.context_id = context_id
    message.task_id = task_id
    message.metadata = metadata
    message.role = role
    message.__class__ = SecureMessage
    return message  # type: ignore[return-value]  # it is one, as of the line above


def received_message(
    id: str,  # noqa: A002
    context_id: str,
    task_id: str,
    payload: bytes,
    did: str,
    signature: bytes,
    metadata: dict[str, str],
    role: str,
    terms: tuple[float, int] | None = None,
) -> SecureMessage:
    """A message from the wire, in the wire's order; `metadata` belongs to it from now on."""
    entries = MappingProxyType(metadata) if metadata else NO_METADATA
    message = _message(payload, did, id, signature, context_id, task_id, entries, role)
    if terms:
        object.__setattr__(message, "_given", terms)
    return message


def received_response(success: bool, message_id: str, task_id: str, data: bytes, error: str) -> Response:
    """A response from the wire, in the wire's order."""
    response = _ResponseDraft()
    response.success = success
    response.message_id = message_id
    response.task_id = task_id
    response.data = data
    response.error = error
    response.__class__ = Response
    return response  # type: ignore[return-value]  # it is one, as of the line above
