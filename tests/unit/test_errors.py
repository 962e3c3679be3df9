"""The error tree: who stands below whom, what each carries, and that a pickle keeps it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import sage_ws
from sage_ws import errors
from sage_ws.errors import PEER_TEXT_LIMIT, peer_text

PARENTS = {
    "SageError": (Exception,),
    "DecodeError": (errors.SageError, ValueError),
    "HandlerError": (errors.SageError,),
    "AnsweredError": (errors.SageError,),
    "RefusedError": (errors.SageError,),
    "TransportError": (errors.SageError,),
    "NotSentError": (errors.TransportError,),
    "DialError": (errors.NotSentError, ConnectionError),
    "DialTimeoutError": (errors.DialError, TimeoutError),
    "QueueTimeoutError": (errors.NotSentError, TimeoutError),
    "ClosedError": (errors.NotSentError,),
    "DuplicateIdError": (errors.NotSentError, ValueError),
    "MessageTooBigError": (errors.NotSentError, ValueError),
    "MaybeDeliveredError": (errors.TransportError,),
    "ConnectionLostError": (errors.MaybeDeliveredError, ConnectionError),
    "ReadTimeoutError": (errors.MaybeDeliveredError, TimeoutError),
    "WriteTimeoutError": (errors.MaybeDeliveredError, TimeoutError),
}

RESPONSE = sage_ws.Response(success=False, message_id="m-1", error="no such agent", data=b"why")

SAMPLES = [
    errors.SageError("text"),
    errors.DecodeError("payload: wrong", field="payload"),
    errors.HandlerError("no such agent"),
    errors.AnsweredError(RESPONSE),
    errors.RefusedError(401, "a token is needed"),
    errors.TransportError("text", message_id="m-1"),
    errors.NotSentError("text", message_id="m-1"),
    errors.DialError("refused", status=403, message_id="m-1"),
    errors.DialTimeoutError("too slow", message_id="m-1"),
    errors.QueueTimeoutError("too slow", message_id="m-1"),
    errors.ClosedError("closed", message_id="m-1"),
    errors.DuplicateIdError("in flight", message_id="m-1"),
    errors.MessageTooBigError("too big", message_id="m-1"),
    errors.MaybeDeliveredError("text", message_id="m-1"),
    errors.ConnectionLostError("gone", code=1001, reason="going away", message_id="m-1"),
    errors.ReadTimeoutError("no answer", message_id="m-1"),
    errors.WriteTimeoutError("stalled", message_id="m-1"),
]


def test_the_tree_is_the_contracts() -> None:
    assert {name: getattr(errors, name).__bases__ for name in PARENTS} == PARENTS


def test_no_error_stands_outside_the_tree() -> None:
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert classes == set(PARENTS)


def test_the_first_branch_tells_not_sent_from_maybe_delivered() -> None:
    for sample in SAMPLES:
        if isinstance(sample, errors.TransportError) and type(sample) is not errors.TransportError:
            not_sent = isinstance(sample, errors.NotSentError)
            assert not_sent is not isinstance(sample, errors.MaybeDeliveredError)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_a_pickle_keeps_type_text_and_attributes(sample: errors.SageError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(sample, protocol))
        assert type(copy) is type(sample)
        assert str(copy) == str(sample)
        assert copy.args == sample.args
        assert vars(copy) == vars(sample)


def test_every_class_has_a_pickled_sample() -> None:
    assert {type(sample).__name__ for sample in SAMPLES} == set(PARENTS)


def test_attributes_have_their_defaults() -> None:
    assert errors.DecodeError("text").field is None
    assert errors.TransportError("text").message_id is None
    dial = errors.DialError("text")
    assert (dial.status, dial.message_id) == (None, None)
    lost = errors.ConnectionLostError("text")
    assert (lost.code, lost.reason, lost.message_id) == (None, "", None)
    refused = errors.RefusedError()
    assert (refused.status, str(refused)) == (403, "")


def test_attributes_are_keyword_only() -> None:
    for make in (errors.DecodeError, errors.TransportError, errors.DialError, errors.ConnectionLostError):
        with pytest.raises(TypeError):
            make("text", "m-1")  # type: ignore[misc, call-arg]


@pytest.mark.parametrize("status", [100, 101, 200, 302, 399, 600, 1000, -1])
def test_a_refusal_takes_an_http_error_alone(status: int) -> None:
    with pytest.raises(ValueError, match=f"from 400 to 599, not {status}"):
        errors.RefusedError(status)


@pytest.mark.parametrize("status", ["403", 403.5, None])
def test_a_refusals_status_is_an_int(status: Any) -> None:
    with pytest.raises(TypeError, match="status must be an int, not"):
        errors.RefusedError(status)


@pytest.mark.parametrize("status", [400, 401, 403, 429, 503, 599])
def test_a_refusal_keeps_its_status(status: int) -> None:
    assert errors.RefusedError(status).status == status


def test_an_answered_error_shows_the_peers_text_and_keeps_the_answer() -> None:
    error = errors.AnsweredError(RESPONSE)
    assert str(error) == "no such agent"
    assert error.response is RESPONSE


def test_an_answered_error_without_a_text_says_so() -> None:
    error = errors.AnsweredError(sage_ws.Response(success=False))
    assert str(error) == "the peer answered an error without a text"


def test_only_raise_for_error_raises_an_answered_error() -> None:
    with pytest.raises(errors.AnsweredError) as raised:
        RESPONSE.raise_for_error()
    assert raised.value.response is RESPONSE
    good = sage_ws.Response(data=b"yes")
    assert good.raise_for_error() is good


class TestPeerText:
    def test_plain_text_is_quoted(self) -> None:
        assert peer_text("hello") == "'hello'"

    def test_control_characters_and_non_ascii_are_escaped(self) -> None:
        assert peer_text("a\r\nb\x1b[31m\u202eé") == r"'a\r\nb\x1b[31m\u202e\xe9'"

    def test_at_the_limit_nothing_is_cut(self) -> None:
        assert peer_text("x" * PEER_TEXT_LIMIT) == f"'{'x' * PEER_TEXT_LIMIT}'"

    def test_beyond_the_limit_it_is_cut_and_says_how_long_it_was(self) -> None:
        assert peer_text("x" * (PEER_TEXT_LIMIT + 1)) == f"'{'x' * PEER_TEXT_LIMIT}' … (201 characters)"

    def test_a_lone_surrogate_is_escaped(self) -> None:
        assert peer_text("\ud800") == r"'\ud800'"
