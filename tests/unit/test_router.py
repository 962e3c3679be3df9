"""A router: many handlers, chosen by a message's metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sage_ws import Call, HandlerError, Response, Router, SecureMessage
from sage_ws.handler import DetachedCall, HandlerCaller


def message(action: str | None = None, **metadata: str) -> SecureMessage:
    if action is not None:
        metadata["action"] = action
    return SecureMessage(payload=b"x", did="did:sage:test", id="1", metadata=metadata)


async def ask(router: Router, message: SecureMessage) -> Response:
    return await HandlerCaller(router)(message, DetachedCall("alice"))


async def test_each_value_has_its_handler_of_any_shape() -> None:
    router = Router()

    @router.on("async")
    async def _(message: SecureMessage) -> bytes:
        return b"async"

    @router.on("plain")
    def _(message: SecureMessage) -> bytes:
        return b"plain"

    @router.on("generator")
    async def _(message: SecureMessage) -> AsyncIterator[bytes]:
        yield b"gene"
        yield b"rator"

    @router.on("call")
    async def _(message: SecureMessage, call: Call) -> bytes:
        return str(call.identity).encode()

    @router.default
    async def _(message: SecureMessage) -> Response:
        return Response(data=b"default")

    for value, data in (
        ("async", b"async"),
        ("plain", b"plain"),
        ("generator", b"generator"),
        ("call", b"alice"),
        ("else", b"default"),
        (None, b"default"),
    ):
        assert (await ask(router, message(value))).data == data


async def test_what_a_handler_raises_is_its_answer() -> None:
    router = Router()

    @router.on("no")
    async def _(message: SecureMessage) -> bytes:
        raise HandlerError("not today")

    assert (await ask(router, message("no"))).error == "not today"


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (None, "no action in metadata"),
        ("nothing", "no handler for action 'nothing'"),
        ("\n" + "x" * 500, "no handler for action '\\n" + "x" * 99),
    ],
)
async def test_what_nobody_serves_is_named(action: str | None, error: str) -> None:
    response = await ask(Router(), message(action))
    assert not response.success
    assert response.error.startswith(error)
    assert len(response.error) < 400


async def test_the_key_is_another_or_a_function() -> None:
    by_key, by_function = Router(key="verb"), Router(key=lambda message: message.did)
    by_key.on("go")(lambda message: b"went")
    by_function.on("did:sage:test")(lambda message: b"known")
    assert (await ask(by_key, message(verb="go"))).data == b"went"
    assert (await ask(by_function, message())).data == b"known"
    other = message().replace(did="did:sage:else")
    assert (await ask(by_function, other)).error == "no handler for this message"


async def test_a_router_is_a_handler_of_another() -> None:
    outer, inner = Router(key="service"), Router()
    outer.on("bank")(inner)
    inner.on("balance")(lambda message: b"100")
    assert (await ask(outer, message("balance", service="bank"))).data == b"100"


async def test_a_key_function_that_raises_is_a_failure() -> None:
    def broken(message: SecureMessage) -> str:
        raise LookupError("a bug")

    assert (await ask(Router(key=broken), message())).error == "internal error"


def raising(error: type[Exception], match: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=match):
        call()


def test_what_makes_no_sense_is_refused() -> None:
    router = Router()
    router.on("a")(lambda message: None)
    router.default(lambda message: None)
    raising(ValueError, "there is a handler for 'a' already", lambda: router.on("a")(lambda message: None))
    raising(ValueError, "there is a default handler already", lambda: router.default(lambda message: None))
    raising(TypeError, "must take", lambda: router.on("b")(lambda: None))
    raising(TypeError, "handler must be callable", lambda: router.on("b")(5))  # type: ignore[type-var]
    raising(TypeError, "a router's value must be a str, not int", lambda: router.on(5))  # type: ignore[arg-type]
    raising(TypeError, "key must be a metadata key or a function", lambda: Router(key=5))  # type: ignore[arg-type]
    assert repr(router) == "<sage_ws.Router ['a'] and a default>"


def test_a_decorated_function_stays_what_it_is() -> None:
    router = Router()

    async def handler(message: SecureMessage) -> bytes:
        return b""

    assert router.on("a")(handler) is handler
    assert asyncio.iscoroutinefunction(router.default(handler))
