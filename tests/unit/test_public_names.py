"""The public face, written out: names, signatures, defaults. A change here is a change for every user."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import sage_ws

VALUES = {"Reply", "Response", "SecureMessage"}
ERRORS = {
    "AnsweredError",
    "ClosedError",
    "ConnectionLostError",
    "DecodeError",
    "DialError",
    "DialTimeoutError",
    "DuplicateIdError",
    "HandlerError",
    "MaybeDeliveredError",
    "MessageTooBigError",
    "NotSentError",
    "QueueTimeoutError",
    "ReadTimeoutError",
    "RefusedError",
    "SageError",
    "TransportError",
    "WriteTimeoutError",
}
OPTIONS = {
    "UNSET",
    "ClientOptions",
    "CommonOptions",
    "Dedupe",
    "DedupeMemory",
    "DedupeSQLite",
    "Deflate",
    "Headers",
    "HeadersFactory",
    "Interceptor",
    "Next",
    "Seconds",
    "ServerOptions",
    "Unset",
}
HANDLERS = {"Call", "Connection", "Handler", "Outcome", "Router", "UpgradeRequest", "current_call"}
ENDS = {"Client", "Server", "State", "connect", "run", "serve"}
TRANSPORTS = {"MessageTransport", "TransportFactory", "register", "schemes", "select_by_url"}

# name: (parameter, default) in order; a star before what is keyword-only, two before the options
EMPTY = inspect.Parameter.empty
SERVE = [
    ("handler", EMPTY),
    ("host", "127.0.0.1"),
    ("port", 0),
    ("*path", None),
    ("*sock", None),
    ("*unix", None),
]
SIGNATURES: dict[str, list[tuple[str, Any]]] = {
    "Client": [("url", EMPTY), ("**options", EMPTY)],
    "Client.connect": [],
    "Client.send": [("message", EMPTY), ("*timeout", sage_ws.UNSET), ("*idempotent", False)],
    "Client.stream": [("message", EMPTY), ("*timeout", sage_ws.UNSET)],
    "Client.drain": [("*timeout", 30)],
    "Client.close": [],
    "Client.wait_closed": [],
    "Client.stats": [],
    "connect": [("url", EMPTY), ("**options", EMPTY)],
    "Server": [("handler", EMPTY), ("**options", EMPTY)],
    "Server.start": SERVE[1:],
    "Server.send": [("identity", EMPTY), ("message", EMPTY), ("*timeout", sage_ws.UNSET)],
    "Server.drain": [("*timeout", 30)],
    "Server.close": [],
    "Server.wait_closed": [],
    "Server.stats": [],
    "serve": [*SERVE, ("**options", EMPTY)],
    "run": [
        ("handler", EMPTY),
        ("host", "127.0.0.1"),
        ("port", 8080),
        ("*path", None),
        ("*workers", 1),
        ("*certfile", None),
        ("*keyfile", None),
        ("**options", EMPTY),
    ],
    "MessageTransport.send": [("message", EMPTY), ("*timeout", sage_ws.UNSET)],
    "MessageTransport.close": [],
    "register": [("scheme", EMPTY), ("factory", EMPTY), ("*replace", False)],
    "schemes": [],
    "select_by_url": [("url", EMPTY), ("**options", EMPTY)],
}
COROUTINES = {
    "Client": {"connect", "send", "drain", "close", "wait_closed", "__aenter__", "__aexit__"},
    "Server": {"start", "send", "drain", "close", "wait_closed", "__aenter__", "__aexit__"},
}


def find(name: str) -> Any:
    found: Any = sage_ws
    for part in name.split("."):
        found = getattr(found, part)
    return found


def shape(function: Any) -> list[tuple[str, Any]]:
    stars = {inspect.Parameter.KEYWORD_ONLY: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [
        (stars.get(one.kind, "") + one.name, one.default)
        for one in inspect.signature(function).parameters.values()
        if one.name != "self"
    ]


def test_all_is_the_contract() -> None:
    assert set(sage_ws.__all__) == VALUES | ERRORS | OPTIONS | HANDLERS | ENDS | TRANSPORTS | {"core_name"}


def test_all_repeats_nothing() -> None:
    assert len(set(sage_ws.__all__)) == len(sage_ws.__all__)


@pytest.mark.parametrize("name", sorted(sage_ws.__all__))
def test_every_name_is_there(name: str) -> None:
    assert getattr(sage_ws, name) is not None


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_the_contracts(name: str) -> None:
    assert shape(find(name)) == SIGNATURES[name]


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in COROUTINES.items() for name in sorted(names)]
)
def test_what_is_awaited_is_a_coroutine_function(owner: str, name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(getattr(sage_ws, owner), name))


def test_values_take_their_fields_in_the_contracts_order() -> None:
    message = sage_ws.SecureMessage(b"p", "d", "i", b"s", "c", "t", {"k": "v"}, "user")
    assert (message.payload, message.did, message.id, message.signature) == (b"p", "d", "i", b"s")
    assert (message.context_id, message.task_id, message.metadata, message.role) == (
        "c",
        "t",
        {"k": "v"},
        "user",
    )
    response = sage_ws.Response(False, "m", "t", b"d", "e")
    assert (response.success, response.message_id, response.task_id, response.data, response.error) == (
        False,
        "m",
        "t",
        b"d",
        "e",
    )


def test_values_have_the_contracts_defaults() -> None:
    message = sage_ws.SecureMessage(payload=b"p", did="d")
    assert message.id
    assert (message.signature, message.context_id, message.task_id, message.role) == (b"", "", "", "")
    assert message.metadata == {}
    response = sage_ws.Response()
    assert (response.success, response.message_id, response.task_id, response.data, response.error) == (
        True,
        "",
        "",
        b"",
        "",
    )


def test_the_states_are_the_contracts() -> None:
    assert {state.name: state.value for state in sage_ws.State} == {
        "IDLE": 0,
        "DIALING": 1,
        "OPEN": 2,
        "WAITING": 3,
        "DRAINING": 4,
        "CLOSED": 5,
    }


def test_a_client_is_a_message_transport() -> None:
    assert isinstance(sage_ws.Client("ws://localhost"), sage_ws.MessageTransport)
    assert isinstance(sage_ws.connect("ws://localhost"), sage_ws.Client)


def test_a_client_shows_what_the_contract_lists() -> None:
    client = sage_ws.Client("ws://localhost:1234/ws")
    assert client.url == "ws://localhost:1234/ws"
    assert client.state is sage_ws.State.IDLE
    assert client.is_connected is False
    assert set(client.stats()) >= {
        "pending",
        "queued",
        "sent",
        "answered",
        "late",
        "failed",
        "dials",
        "reconnects",
        "bytes_in",
        "bytes_out",
    }
    assert all(value == 0 for value in client.stats().values())


def test_a_server_shows_what_the_contract_lists() -> None:
    server = sage_ws.Server(lambda message: None)
    assert server.connection_count == 0
    assert len(server.connections) == 0
    assert set(server.stats()) >= {
        "connections",
        "accepted",
        "refused",
        "pending",
        "received",
        "answered",
        "invalid",
        "bytes_in",
        "bytes_out",
    }
    assert all(value == 0 for value in server.stats().values())


def test_the_core_is_named(core: str) -> None:
    assert sage_ws.core_name == core


def test_the_version_is_a_text() -> None:
    assert sage_ws.__version__
    assert sage_ws.__version__[0].isdigit()


def test_the_package_says_that_it_is_typed() -> None:
    from importlib.resources import files

    assert files("sage_ws").joinpath("py.typed").is_file()


LATE = [
    "websockets",
    "uvloop",
    "aiohttp",
    "rich",
    "cryptography",
    "prometheus_client",
    "opentelemetry",
    "sage_ws.testing",
    "sage_ws.cli",
    "sage_ws.demo",
    "sage_ws.metrics",
    "sage_ws.observing",
    "sage_ws.otel",
]


def test_importing_brings_nothing_heavy_or_optional() -> None:
    code = f"import sys, sage_ws; print([name for name in {LATE!r} if name in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert shown.stdout.strip() == "[]"
