"""One handler made of many: which of them serves a message stands in its metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sage_ws.errors import peer_text
from sage_ws.handler import takes_call
from sage_ws.message import Response, SecureMessage

if TYPE_CHECKING:
    from sage_ws.handler import Call, Outcome

H = TypeVar("H", bound=Callable[..., Any])


class Router:
    """Calls the handler that a message asks for; itself a `Handler`, and so a part of another router.

    ::

        router = Router()

        @router.on("balance")
        async def balance(message):
            return b"100"

        serve(router)

    A message whose value no handler is for is answered by the default one, or by a failure that names the
    value.

    Args:
        key: the metadata key whose value is looked up; or a function of the message that gives the value.

    Raises:
        TypeError: key is neither.
    """

    def __init__(self, *, key: str | Callable[[SecureMessage], str] = "action") -> None:
        if not (isinstance(key, str) or callable(key)):
            raise TypeError(f"key must be a metadata key or a function, not {type(key).__name__}")
        self._key = key
        self._handlers: dict[str, tuple[Callable[..., Outcome], bool]] = {}
        self._default: tuple[Callable[..., Outcome], bool] | None = None

    def on(self, value: str) -> Callable[[H], H]:
        """Decorate the handler of messages with this value; it may be of any shape.

        Raises:
            TypeError: value is no str, or the handler's arguments fit no shape.
            ValueError: there is a handler for it already.
        """
        if not isinstance(value, str):
            raise TypeError(f"a router's value must be a str, not {type(value).__name__}")

        def register(handler: H) -> H:
            if value in self._handlers:
                raise ValueError(f"there is a handler for {value!r} already")
            self._handlers[value] = _shaped(handler)
            return handler

        return register

    def default(self, handler: H) -> H:
        """Decorate the handler of all other messages.

        Raises:
            TypeError: its arguments fit no shape.
            ValueError: there is one already.
        """
        if self._default is not None:
            raise ValueError("there is a default handler already")
        self._default = _shaped(handler)
        return handler

    def __call__(self, message: SecureMessage, call: Call) -> Outcome:
        """Call the handler that the message asks for; what it gives is given back as it is."""
        key = self._key
        value = message.metadata.get(key) if isinstance(key, str) else key(message)
        found = self._default if value is None else self._handlers.get(value, self._default)
        if found is None:
            return Response.failure(self._unknown(value))
        handler, wants_call = found
        return handler(message, call) if wants_call else handler(message)

    def _unknown(self, value: object) -> str:
        if not isinstance(self._key, str):
            return "no handler for this message"
        if value is None:
            return f"no {self._key} in metadata"
        return f"no handler for {self._key} {peer_text(str(value))}"

    def __repr__(self) -> str:
        return f"<sage_ws.Router {sorted(self._handlers)}{' and a default' if self._default else ''}>"


def _shaped(handler: Callable[..., Any]) -> tuple[Callable[..., Outcome], bool]:
    return cast("Callable[..., Outcome]", handler), takes_call(handler)
