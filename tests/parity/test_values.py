"""SecureMessage and Response of both bodies side by side, built from anything at all.

Equal means: the same attributes with the same types, repr, hash, parts for pickling, and after `replace` the
same again; or an error of the same type with the same text.
"""

from __future__ import annotations

import inspect
import sys
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import assume, given, settings, strategies as st

from sage_ws._core import _pure, _rust

EXAMPLES = settings(max_examples=500, deadline=None)
KINDS = ("SecureMessage", "Response")


class Text(str):
    __slots__ = ()


class Octets(bytes):
    __slots__ = ()


STRINGS = st.one_of(
    st.text(max_size=8),
    st.text(st.characters(codec=None), max_size=8),
    st.text(min_size=195, max_size=205),
    st.sampled_from(
        ["", "m-1", "it's", '"', 'it\'s "both"', "\\\n\0\x7f\x85\u00ad\u2028\u3000", "\U000e0001\u0378\uffff"]
    ),
    st.text(max_size=3).map(Text),
)
OCTETS = st.one_of(
    st.binary(max_size=8),
    st.binary(max_size=8).map(bytearray),
    st.binary(max_size=8).map(memoryview),
    st.binary(max_size=8).map(lambda data: memoryview(data)[::2]),
    st.binary(max_size=8).map(Octets),
)
WRONG = st.one_of(
    st.none(), st.integers(0, 3), st.floats(0, 1), st.just([]), st.just(("a",)), st.just(object)
)
MAPPINGS = st.one_of(
    st.dictionaries(STRINGS, STRINGS, max_size=4),
    st.dictionaries(STRINGS, STRINGS, max_size=4).map(MappingProxyType),
    st.dictionaries(st.one_of(STRINGS, st.integers(0, 2)), st.one_of(STRINGS, OCTETS), max_size=2),
)
BOOLS = st.booleans()


def _mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(*[right] * 12, STRINGS, OCTETS, WRONG)


MESSAGE_FIELDS = {
    "payload": _mostly(OCTETS),
    "did": _mostly(STRINGS),
    "id": _mostly(STRINGS),
    "signature": _mostly(OCTETS),
    "context_id": _mostly(STRINGS),
    "task_id": _mostly(STRINGS),
    "metadata": _mostly(MAPPINGS),
    "role": _mostly(STRINGS),
}
RESPONSE_FIELDS = {
    "success": _mostly(BOOLS),
    "message_id": _mostly(STRINGS),
    "task_id": _mostly(STRINGS),
    "data": _mostly(OCTETS),
    "error": _mostly(STRINGS),
}


def _facts(value: Any) -> list[Any]:
    fields = {name: getattr(value, name) for name in type(value).__match_args__}
    constructor, arguments = value.__reduce__()
    assert constructor is type(value)
    return [
        fields,
        [type(field) for field in fields.values()],
        [list(field) for field in fields.values() if isinstance(field, MappingProxyType)],
        repr(value),
        hash(value),
        arguments,
        [type(argument) for argument in arguments],
    ]


def _outcome(make: Any, /, *arguments: Any, **fields: Any) -> Any:
    try:
        return make(*arguments, **fields)
    except Exception as error:
        return type(error), str(error)


def _same(pure: Any, rust: Any) -> Any:
    """Both values, or `None` where both refused alike."""
    if isinstance(pure, tuple) or isinstance(rust, tuple):
        assert pure == rust
        return None
    assert _facts(pure) == _facts(rust)
    assert pure != rust, "values of the two bodies never meet"
    return pure, rust


@EXAMPLES
@given(st.fixed_dictionaries(MESSAGE_FIELDS), st.data())
def test_messages(fields: dict[str, Any], data: st.DataObject) -> None:
    assume(fields["id"] != "")  # a fresh one is never the same
    both = _same(_outcome(_pure.SecureMessage, **fields), _outcome(_rust.SecureMessage, **fields))
    positional = [fields[name] for name in _pure.SecureMessage.__match_args__]
    assert repr(both) == repr(
        _same(_outcome(_pure.SecureMessage, *positional), _outcome(_rust.SecureMessage, *positional))
    )
    if both is None:
        return
    pure, rust = both
    assert pure == _pure.SecureMessage(**fields)
    assert rust == _rust.SecureMessage(**fields)
    name = data.draw(st.sampled_from(sorted(set(MESSAGE_FIELDS))))
    value = data.draw(MESSAGE_FIELDS[name])
    assume(name != "id" or value != "")
    changed = _same(_outcome(pure.replace, **{name: value}), _outcome(rust.replace, **{name: value}))
    if changed:
        assert (changed[0] == pure) == (changed[1] == rust)


@EXAMPLES
@given(st.fixed_dictionaries(RESPONSE_FIELDS), st.data())
def test_responses(fields: dict[str, Any], data: st.DataObject) -> None:
    both = _same(_outcome(_pure.Response, **fields), _outcome(_rust.Response, **fields))
    positional = [fields[name] for name in _pure.Response.__match_args__]
    _same(_outcome(_pure.Response, *positional), _outcome(_rust.Response, *positional))
    if both is None:
        return
    pure, rust = both
    assert pure == _pure.Response(**fields)
    assert rust == _rust.Response(**fields)
    name = data.draw(st.sampled_from(sorted(RESPONSE_FIELDS)))
    value = data.draw(RESPONSE_FIELDS[name])
    changed = _same(_outcome(pure.__replace__, **{name: value}), _outcome(rust.__replace__, **{name: value}))
    if changed:
        assert (changed[0] == pure) == (changed[1] == rust)
    checked = _outcome(pure.raise_for_error), _outcome(rust.raise_for_error)
    assert (checked[0] is pure) == (checked[1] is rust)
    if checked[0] is not pure:
        assert checked[0] == checked[1]


@EXAMPLES
@given(_mostly(STRINGS), _mostly(OCTETS))
def test_failures(error: Any, data: Any) -> None:
    _same(_outcome(_pure.Response.failure, error), _outcome(_rust.Response.failure, error))
    _same(
        _outcome(_pure.Response.failure, error, data=data), _outcome(_rust.Response.failure, error, data=data)
    )


@pytest.mark.parametrize("name", KINDS)
def test_the_same_face(name: str) -> None:
    pure, rust = getattr(_pure, name), getattr(_rust, name)
    assert pure.__name__ == rust.__name__ == pure.__qualname__ == rust.__qualname__ == name
    assert pure.__module__ == rust.__module__ == "sage_ws"
    assert pure.__match_args__ == rust.__match_args__
    assert list(inspect.signature(pure).parameters) == list(inspect.signature(rust).parameters)
    public = [{entry for entry in dir(kind) if not entry.startswith("_")} for kind in (pure, rust)]
    assert public[0] == public[1]


def test_the_same_names() -> None:
    assert set(_pure.__all__) <= set(dir(_rust))
    public = {name for name in dir(_rust) if not name.startswith("_")}
    direct = {"Poller", "Socket"} if sys.platform == "linux" else set()  # the native core's alone
    assert public - direct == set(_pure.__all__)
    assert direct <= public


@pytest.mark.parametrize("name", ["Connection", "Dispatch"])
def test_the_same_faces(name: str) -> None:
    classes = [getattr(body, name) for body in (_pure, _rust)]
    faces = [{entry for entry in dir(one) if not entry.startswith("_")} for one in classes]
    assert faces[0] == faces[1]
    for entry in faces[0]:
        pure, rust = (getattr(one, entry) for one in classes)
        assert callable(pure) == callable(rust)
        if callable(pure):
            assert list(inspect.signature(pure).parameters) == list(inspect.signature(rust).parameters), entry


@pytest.mark.parametrize("body", [_pure, _rust], ids=["pure", "rust"])
def test_frozen_in_the_same_words(body: Any) -> None:
    for value in (body.SecureMessage(b"", "d"), body.Response()):
        for name in (*type(value).__match_args__, "other", "__doc__"):
            with pytest.raises(AttributeError) as refused:
                setattr(value, name, 1)
            assert str(refused.value) == f"cannot assign to field {name!r}"
            with pytest.raises(AttributeError) as refused:
                delattr(value, name)
            assert str(refused.value) == f"cannot delete field {name!r}"


@EXAMPLES
@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=5),
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=3),
        st.text(st.characters(codec="utf-8"), max_size=3),
        max_size=3,
    ),
    st.binary(min_size=1, max_size=9),
)
def test_what_is_received_equals_what_is_built(name: str, metadata: dict[str, str], payload: bytes) -> None:
    wire = _pure.encode_message(name, "", "", payload, "d", b"", metadata, "")
    frame = b"\x82\xfe" + len(wire).to_bytes(2, "big") + b"\0\0\0\0" + wire.ljust(126)
    frame = b"\x82\xfe" + max(len(wire), 126).to_bytes(2, "big") + frame[4:]
    both = []
    for body in (_pure, _rust):
        (message,) = body.Connection("server").receive_data(frame)
        assert type(message) is body.SecureMessage
        built = body.SecureMessage(payload, "d", name, metadata=metadata)
        assert message == built
        assert hash(message) == hash(built)
        both.append(message)
    _same(*both)
