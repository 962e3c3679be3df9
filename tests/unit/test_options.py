"""Every option: its default as the contract states it, what it takes, what it refuses and in which words."""

from __future__ import annotations

import ssl
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

from sage_ws import Client, DedupeMemory, Deflate, Server, options
from sage_ws.options import (
    UNSET,
    ClientOptions,
    ClientSettings,
    CommonOptions,
    CommonSettings,
    ServerOptions,
    ServerSettings,
    Unset,
    check_timeout,
    full_jitter,
)

# The contract, written out: nothing here is read from the code under test.
COMMON: dict[str, Any] = {
    "read_timeout": 60.0,
    "write_timeout": 30.0,
    "close_timeout": 10.0,
    "ping_interval": 20.0,
    "ping_timeout": 20.0,
    "keepalive_interval": 20.0,
    "max_message_size": 16 * 1024 * 1024,
    "max_concurrency": 64,
    "max_pending": 1024,
    "max_queue_bytes": 4 * 1024 * 1024,
    "compression": None,
    "encoding": "auto",
    "busy_poll": None,
    "link": "auto",
    "ssl": None,
    "interceptors": (),
    "push_interceptors": (),
}
CLIENT: dict[str, Any] = {
    **COMMON,
    "dial_timeout": 30.0,
    "headers": (),
    "origin": None,
    "proxy": True,
    "reconnect": True,
    "wait_for_ready": False,
    "backoff": full_jitter,
    "handler": None,
}
SERVER: dict[str, Any] = {
    **COMMON,
    "open_timeout": 10.0,
    "origins": None,
    "authorize": None,
    "max_connections": None,
    "max_connections_per_address": None,
    "max_connections_per_identity": None,
    "dedupe": None,
    "lifespan": None,
    "health_path": "/healthz",
    "trusted_proxies": (),
}

SECONDS = [
    "read_timeout",
    "write_timeout",
    "close_timeout",
    "ping_interval",
    "ping_timeout",
    "keepalive_interval",
    "dial_timeout",
    "open_timeout",
    "busy_poll",
]
OPTIONAL_COUNTS = [
    "max_message_size",
    "max_connections",
    "max_connections_per_address",
    "max_connections_per_identity",
]
COUNTS = ["max_concurrency", "max_queue_bytes", "max_pending", *OPTIONAL_COUNTS]
BOTH = [ClientSettings, ServerSettings]


def settings_of(name: str) -> type[CommonSettings]:
    return ClientSettings if name in CLIENT else ServerSettings


def parse(name: str, value: Any) -> Any:
    return getattr(settings_of(name).parse({name: value}, "Client"), name)


@pytest.mark.parametrize(
    ("settings", "contract"), [(CommonSettings, COMMON), (ClientSettings, CLIENT), (ServerSettings, SERVER)]
)
def test_defaults_are_the_contracts(settings: type[CommonSettings], contract: dict[str, Any]) -> None:
    parsed = settings.parse({}, "owner")
    assert {one.name: getattr(parsed, one.name) for one in fields(settings)} == contract


@pytest.mark.parametrize(
    ("typed", "contract"), [(CommonOptions, COMMON), (ClientOptions, CLIENT), (ServerOptions, SERVER)]
)
def test_a_type_checker_sees_the_same_names(typed: Any, contract: dict[str, Any]) -> None:
    assert typed.__annotations__.keys() | CommonOptions.__annotations__.keys() == contract.keys()
    assert typed.__total__ is False


def test_settings_cannot_be_changed() -> None:
    parsed = ClientSettings.parse({}, "Client")
    with pytest.raises(AttributeError):
        parsed.read_timeout = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("name", SECONDS)
class TestSeconds:
    @pytest.mark.parametrize("value", [0.001, 1, 2.5, 1e9, float("inf"), None])
    def test_takes(self, name: str, value: float | None) -> None:
        assert parse(name, value) == value

    @pytest.mark.parametrize("value", [0, 0.0, -1, -0.001, float("nan"), float("-inf")])
    def test_a_senseless_one_is_a_value_error_that_names_it(self, name: str, value: float) -> None:
        with pytest.raises(
            ValueError, match=rf"^{name} must be over 0 seconds, or None to switch it off, not"
        ):
            parse(name, value)

    @pytest.mark.parametrize("value", [2**63, 10**400])
    def test_one_that_no_clock_holds_is_a_value_error_too(self, name: str, value: int) -> None:
        with pytest.raises(ValueError, match=rf"^{name} must be at most 9223372036854775807 seconds"):
            parse(name, value)

    @pytest.mark.parametrize(("value", "kind"), [("5", "str"), (True, "bool"), (b"5", "bytes"), ([], "list")])
    def test_a_wrong_type_is_a_type_error_that_names_it(self, name: str, value: Any, kind: str) -> None:
        with pytest.raises(TypeError, match=rf"^{name} must be seconds or None, not {kind}$"):
            parse(name, value)


@pytest.mark.parametrize("origin", ["https://a.example\r\nX: 1", "https://a b", "https://ä.example", "\0"])
def test_an_origin_that_no_header_may_hold_is_a_value_error(origin: str) -> None:
    with pytest.raises(ValueError, match=r"^origin must be an origin such as https://agent.example, not"):
        ClientSettings.parse({"origin": origin}, "Client")


@pytest.mark.parametrize("name", COUNTS)
class TestCounts:
    def test_one_that_the_native_core_cannot_hold_is_a_value_error(self, name: str) -> None:
        assert parse(name, 2**63 - 1) == 2**63 - 1
        with pytest.raises(ValueError, match=rf"^{name} must be at most 9223372036854775807$"):
            parse(name, 2**63)

    @pytest.mark.parametrize("value", [1, 2, 10**12])
    def test_takes(self, name: str, value: int) -> None:
        assert parse(name, value) == value

    @pytest.mark.parametrize("value", [0, -1])
    def test_a_senseless_one_is_a_value_error_that_names_it(self, name: str, value: int) -> None:
        with pytest.raises(ValueError, match=rf"^{name} must be at least 1, not {value}$"):
            parse(name, value)

    @pytest.mark.parametrize(("value", "kind"), [("5", "str"), (1.0, "float"), (True, "bool")])
    def test_a_wrong_type_is_a_type_error_that_names_it(self, name: str, value: Any, kind: str) -> None:
        with pytest.raises(TypeError, match=rf"^{name} must be an int, not {kind}$"):
            parse(name, value)

    def test_none_switches_off_what_may_be_off(self, name: str) -> None:
        if name in OPTIONAL_COUNTS:
            assert parse(name, None) is None
        else:
            with pytest.raises(TypeError, match=rf"^{name} must be an int, not NoneType$"):
                parse(name, None)


@pytest.mark.parametrize("name", ["reconnect", "wait_for_ready"])
def test_a_switch_takes_a_bool_alone(name: str) -> None:
    assert parse(name, True) is True
    assert parse(name, False) is False
    for value in (1, 0, None, "yes"):
        with pytest.raises(TypeError, match=rf"^{name} must be a bool, not {type(value).__name__}$"):
            parse(name, value)


async def an_authorize(request: Any) -> str | None:
    return None


@pytest.mark.parametrize("name", ["authorize", "lifespan"])
def test_a_callback_may_be_off(name: str) -> None:
    assert parse(name, an_authorize) is an_authorize
    assert parse(name, None) is None
    with pytest.raises(TypeError, match=rf"^{name} must be callable, not str$"):
        parse(name, "token")


def test_backoff_cannot_be_off() -> None:
    assert parse("backoff", float) is float
    with pytest.raises(TypeError, match=r"^backoff must be callable, not NoneType$"):
        parse("backoff", None)


@pytest.mark.parametrize("value", [{"a": "b"}, [("a", "b")], (), dict, an_authorize])
def test_headers_takes_a_mapping_pairs_or_a_callable(value: Any) -> None:
    assert parse("headers", value) is value


@pytest.mark.parametrize("value", ["a: b", b"a: b", 5, None])
def test_headers_refuses_anything_else(value: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^headers must be a mapping, pairs, or a callable that makes them, not "
    ):
        parse("headers", value)


def test_origin_is_a_text() -> None:
    assert parse("origin", "https://a.example") == "https://a.example"
    assert parse("origin", None) is None
    with pytest.raises(TypeError, match=r"^origin must be a str or None, not bytes$"):
        parse("origin", b"https://a.example")


class TestOrigins:
    @pytest.mark.parametrize(
        "value",
        [None, [], [None], ["https://a.example", None], ("http://localhost:3000",), {"https://[::1]:8443"}],
    )
    def test_takes(self, value: Any) -> None:
        assert parse("origins", value) is value

    @pytest.mark.parametrize("value", ["https://a.example", b"x", 5, iter(())])
    def test_needs_a_collection(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"^origins must be a collection of origins or None, not "):
            parse("origins", value)

    def test_holds_texts(self) -> None:
        with pytest.raises(TypeError, match=r"^origins must hold str and None, not bytes$"):
            parse("origins", [b"https://a.example"])

    @pytest.mark.parametrize(
        "value", ["a.example", "null", "*", "https://", "://a", "https://a.example/", ""]
    )
    def test_each_is_an_origin(self, value: str) -> None:
        with pytest.raises(
            ValueError, match=r"^origins must hold origins such as https://agent\.example, not "
        ):
            parse("origins", [value])


def test_health_path_is_a_path_or_off() -> None:
    assert parse("health_path", "/alive") == "/alive"
    assert parse("health_path", None) is None
    with pytest.raises(ValueError, match=r"^health_path must start with a slash, not 'alive'$"):
        parse("health_path", "alive")
    with pytest.raises(TypeError, match=r"^health_path must be a str or None, not int$"):
        parse("health_path", 1)


def test_ssl_is_a_context() -> None:
    context = ssl.create_default_context()
    assert parse("ssl", context) is context
    assert parse("ssl", None) is None
    with pytest.raises(TypeError, match=r"^ssl must be an ssl\.SSLContext or None, not bool$"):
        parse("ssl", True)


class TestTrustedProxies:
    @pytest.mark.parametrize("value", [[], ("127.0.0.1", "10.0.0.0/8"), {"::1", "fd00::/8", "unix"}])
    def test_takes(self, value: Any) -> None:
        assert parse("trusted_proxies", value) is value

    @pytest.mark.parametrize("value", ["127.0.0.1", None, 5])
    def test_needs_a_collection(self, value: Any) -> None:
        with pytest.raises(
            TypeError, match=r"^trusted_proxies must be a collection of addresses and networks"
        ):
            parse("trusted_proxies", value)

    def test_holds_texts(self) -> None:
        with pytest.raises(TypeError, match=r"^trusted_proxies must hold str, not int$"):
            parse("trusted_proxies", [1])

    @pytest.mark.parametrize("value", ["proxy.example", "", "*", "10.0.0.1/8", "10.0.0.0/33"])
    def test_each_is_an_address_or_a_network(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"^trusted_proxies must hold addresses or networks such as 10"):
            parse("trusted_proxies", [value])


class TestProxy:
    @pytest.mark.parametrize(
        "value",
        [True, None, "http://proxy:3128", "https://u:p@proxy", "socks5h://[::1]:1080/", "socks4a://proxy"],
    )
    def test_takes(self, value: Any) -> None:
        assert parse("proxy", value) == value

    @pytest.mark.parametrize("value", [False, 1, b"http://proxy:3128"])
    def test_a_wrong_type_is_a_type_error(self, value: Any) -> None:
        with pytest.raises(
            TypeError, match=r"^proxy must be a URL, True for the environment's, or None, not "
        ):
            parse("proxy", value)

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "proxy:3128",
            "ftp://me:canary@proxy",
            "http://",
            "http://me:canary@proxy:port",
            "http://me:sec/ret@proxy",
            "http://me:canary@proxy:0",
            "http://me:canary@proxy/path",
            "http://me:canary@proxy?query",
        ],
    )
    def test_another_url_is_a_value_error_without_the_password(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"^proxy: a proxy's URL ") as caught:
            parse("proxy", value)
        assert "canary" not in str(caught.value)


def test_the_link_is_one_of_three() -> None:
    for value in ("auto", "direct", "loop"):
        assert parse("link", value) == value
    with pytest.raises(ValueError, match=r"^link must be auto, direct or loop, not None$"):
        parse("link", None)


def test_the_encoding_is_one_of_four() -> None:
    for value in ("auto", "cbor", "json", "plain"):
        assert parse("encoding", value) == value
    for value in (None, "JSON"):
        with pytest.raises(ValueError, match=r"^encoding must be auto, cbor, json or plain, not "):
            parse("encoding", value)


def test_a_clients_handler_is_callable() -> None:
    assert ClientSettings.parse({"handler": print}, "Client").handler is print
    with pytest.raises(TypeError, match=r"^handler must be callable, not int$"):
        ClientSettings.parse({"handler": 5}, "Client")


def test_compression_is_a_word_or_its_details() -> None:
    for value in (None, "deflate", Deflate(), Deflate(level=9)):
        assert parse("compression", value) == value
    for value in (False, True, "gzip", 9, Deflate):
        with pytest.raises(TypeError, match=r"^compression must be 'deflate', a Deflate or None, not "):
            parse("compression", value)


@pytest.mark.parametrize(
    ("name", "takes", "refuses"),
    [
        ("server_max_window_bits", [9, 15], [8, 16, -1]),
        ("client_max_window_bits", [9, 15], [8, 16]),
        ("threshold", [0, 1 << 40], [-1, 1 << 63]),
        ("level", [0, 9], [-1, 10]),
        ("memory_level", [1, 9], [0, 10]),
    ],
)
def test_deflate_is_checked(name: str, takes: list[int], refuses: list[int]) -> None:
    for value in takes:
        assert getattr(Deflate(**{name: value}), name) == value  # type: ignore[arg-type]
    for value in refuses:
        with pytest.raises(ValueError, match=rf"^{name} must be \d+ to \d+, not {value}$"):
            Deflate(**{name: value})  # type: ignore[arg-type]
    for wrong in (True, None, "9", 9.0):
        with pytest.raises(TypeError, match=rf"^{name} must be an int, not "):
            Deflate(**{name: wrong})  # type: ignore[arg-type]


def test_deflate_takes_its_flags_as_bools() -> None:
    for name in ("server_no_context_takeover", "client_no_context_takeover"):
        with pytest.raises(TypeError, match=rf"^{name} must be a bool, not int$"):
            Deflate(**{name: 1})  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        Deflate().level = 3  # type: ignore[misc]
    assert Deflate() == Deflate(threshold=1024)


@pytest.mark.parametrize("name", ["interceptors", "push_interceptors"])
def test_interceptors_are_a_collection_of_functions(name: str) -> None:
    for value in ((), [], [print], (print,)):
        assert parse(name, value) == value
    for value, what in ((None, "NoneType"), (print, "builtin_function_or_method"), ("ab", "str")):
        with pytest.raises(TypeError, match=rf"^{name} must be a collection of functions, not {what}$"):
            parse(name, value)
    with pytest.raises(TypeError, match=rf"^{name} must hold functions, not int$"):
        parse(name, [print, 5])


def test_dedupe_is_a_store() -> None:
    store = DedupeMemory()
    assert ServerSettings.parse({"dedupe": store}, "Server").dedupe is store
    with pytest.raises(TypeError, match=r"^dedupe must be a store, not a class: DedupeMemory\(\.\.\.\)$"):
        ServerSettings.parse({"dedupe": DedupeMemory}, "Server")
    with pytest.raises(
        TypeError, match=r"^dedupe must be a store or None; dict has no open, begin, finish, cut, close$"
    ):
        ServerSettings.parse({"dedupe": {}}, "Server")


def test_an_unknown_option_is_a_type_error_that_names_the_known() -> None:
    with pytest.raises(
        TypeError, match=r"^Client has no option 'retries'; it has backoff, busy_poll, close_"
    ):
        Client("ws://localhost", retries=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^Server has no option 'dial_timeout'; it has authorize, "):
        Server(an_authorize, dial_timeout=3)  # type: ignore[call-arg]


def test_a_wrong_option_is_refused_at_construction() -> None:
    with pytest.raises(ValueError, match="read_timeout"):
        Client("ws://localhost", read_timeout=-1)
    with pytest.raises(ValueError, match="open_timeout"):
        Server(an_authorize, open_timeout=0)


class TestTimeoutOfACall:
    @pytest.mark.parametrize("value", [UNSET, None, 0.1, 5])
    def test_takes(self, value: Any) -> None:
        check_timeout(value)

    @pytest.mark.parametrize("value", [0, -1, float("nan")])
    def test_refuses_no_time_at_all(self, value: float) -> None:
        with pytest.raises(ValueError, match=r"^timeout must be over 0 seconds"):
            check_timeout(value)

    def test_refuses_a_wrong_type(self) -> None:
        with pytest.raises(TypeError, match=r"^timeout must be seconds or None, not str$"):
            check_timeout("5")  # type: ignore[arg-type]


def test_unset_is_one_value_of_its_own_type() -> None:
    assert UNSET is Unset.UNSET
    assert list(Unset) == [UNSET]


class TestFullJitter:
    @pytest.mark.parametrize(
        ("attempt", "ceiling"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (5, 30), (6, 30), (10**6, 30)]
    )
    def test_the_ceiling_doubles_from_one_second_to_thirty(
        self, attempt: int, ceiling: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[float, float]] = []

        def uniform(low: float, high: float) -> float:
            asked.append((low, high))
            return high

        monkeypatch.setattr(options.random, "uniform", uniform)
        assert full_jitter(attempt) == ceiling
        assert asked == [(0, ceiling)]

    def test_waits_differ(self) -> None:
        assert len({full_jitter(3) for _ in range(50)}) > 40


def test_type_hints_of_the_options_resolve() -> None:
    hints = get_type_hints(CommonOptions, vars(options))
    assert hints["read_timeout"] == float | None
    assert hints["max_concurrency"] is int
