"""The ledger finds what it is there to find: each entry that is wrong on purpose is told of."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.faults import soak
from tests.faults.baseline import Baseline
from tests.faults.handling import Handling, answer_of, part_of, payload_of
from tests.faults.ledger import Ending, Journal, Ledger
from tests.faults.progress import Lines

from sage_ws import ConnectionLostError, DialError, Response, SecureMessage

Answer = Callable[[SecureMessage], Awaitable[Response]]


class Scripted:
    """In a client's place."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def send(self, message: SecureMessage, *, timeout: float) -> Response:
        return await self._answer(message)


async def judged(ledger: Ledger, answer: Answer, **options: Any) -> list[str]:
    await ledger.call(Scripted(answer), **options)  # type: ignore[arg-type]
    return list(ledger.problems())


def right(message: SecureMessage) -> Response:
    return Response(message_id=message.id, data=answer_of(message.id, len(message.payload)))


async def test_a_call_that_was_run_and_answered_balances() -> None:
    ledger = Ledger()

    async def honest(message: SecureMessage) -> Response:
        return Response(message_id=message.id, data=await ledger.handler(message))

    assert await judged(ledger, honest) == []
    assert ledger.endings == {Ending.ANSWERED: 1}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda one: Response(message_id="m-7", data=right(one).data), "an answer to 'm-7'"),
        (lambda one: Response(message_id=one.id, data=answer_of("m-7", 100)), "the data of another answer"),
        (lambda one: Response(message_id=one.id, success=False, error="no"), "the answer 'no'"),
    ],
)
async def test_an_answer_that_belongs_to_another(
    answer: Callable[[SecureMessage], Response], problem: str
) -> None:
    ledger = Ledger()

    async def liar(message: SecureMessage) -> Response:
        ledger.ran(message.id)
        return answer(message)

    assert await judged(ledger, liar) == [f"m-0 got {problem}"]


async def test_a_handler_that_got_the_payload_of_another() -> None:
    with pytest.raises(Exception, match="belongs to another"):
        await Ledger().handler(SecureMessage(id="m-1", payload=payload_of("m-2", 10), did="d"))


async def test_never_sent_and_run_all_the_same() -> None:
    ledger = Ledger()

    async def runs(message: SecureMessage) -> Response:
        ledger.ran(message.id)
        raise DialError("never")

    assert await judged(ledger, runs) == [
        "m-0 was run, and its caller was told by DialError that it never left"
    ]


async def test_lost_may_be_run_once_and_not_twice() -> None:
    ledger = Ledger()

    async def lost(message: SecureMessage) -> Response:
        ledger.ran(message.id)
        raise ConnectionLostError("lost")

    assert await judged(ledger, lost) == []
    assert ledger.lost == 1
    ledger.ran("m-0")
    with pytest.raises(AssertionError, match="m-0 was run 2 times"):
        ledger.check()


async def test_answered_by_nobody_and_run_for_nobody() -> None:
    async def echo(message: SecureMessage) -> Response:
        return right(message)

    ledger = Ledger()
    assert await judged(ledger, echo) == ["m-0 was answered, and no handler ran it"]
    with pytest.raises(AssertionError, match="m-8 was run, and nobody sent it"):
        ledger.check(["m-0", "m-8"])


async def test_a_call_that_hangs_and_one_that_is_late() -> None:
    ledger = Ledger()
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(message: SecureMessage) -> Response:
        ledger.ran(message.id)
        begun.set()
        await go.wait()
        return right(message)

    call = asyncio.create_task(ledger.call(Scripted(slow), timeout=0.001))  # type: ignore[arg-type]
    await begun.wait()
    await asyncio.sleep(0.01)
    assert list(ledger.problems()) == ["m-0 never ended", "1 calls have 0 endings"]
    go.set()
    await call
    (late,) = ledger.problems(slack=0)
    assert late.startswith("m-0 had 0.001 s, and took ")
    assert not list(ledger.problems())


async def test_a_cancelled_one() -> None:
    async def never(message: SecureMessage) -> Response:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    ledger = Ledger()
    assert await judged(ledger, never, cancel_after=0.01) == []
    assert ledger.endings == {Ending.CANCELLED: 1}


class InParts:
    """In a client's place, for answers in parts."""

    def __init__(self, *parts: Response) -> None:
        self._parts = parts

    @contextlib.asynccontextmanager
    async def stream(
        self, message: SecureMessage, *, timeout: float
    ) -> AsyncIterator[AsyncIterator[Response]]:
        async def parts() -> AsyncIterator[Response]:
            for part in self._parts:
                yield part

        yield parts()


def part(number: int, message_id: str = "m-0") -> Response:
    return Response(message_id=message_id, data=part_of(message_id, number, 100))


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ([part(0), part(1), part(2)], ""),
        ([Response(message_id="m-0", data=b"".join(part(number).data for number in range(3)))], ""),
        ([part(0), part(2), part(1)], "another part than number 1"),
        ([part(0), part(0), part(1), part(2)], "another part than number 1"),
        ([part(0), part(1)], "2 parts of 3"),
        ([part(0), part(1), part(2), part(3)], "4 parts of 3"),
        ([part(0), part(1, "m-7"), part(2)], "a part of 'm-7'"),
        (
            [part(0), Response(message_id="m-0", data=part(1, "m-7").data), part(2)],
            "another part than number 1",
        ),
        ([part(0), Response(message_id="m-0", success=False, error="no")], "the part 'no'"),
    ],
)
async def test_parts_in_order_and_of_their_message(parts: list[Response], problem: str) -> None:
    ledger = Ledger()
    ledger.ran("m-0")
    await ledger.call(InParts(*parts), parts=3)  # type: ignore[arg-type]
    assert list(ledger.problems()) == ([f"m-0 got {problem}"] if problem else [])
    assert ledger.endings == {Ending.ANSWERED: 1}


async def test_a_stream_that_its_caller_left_is_no_answer() -> None:
    ledger = Ledger()
    ledger.ran("m-0")
    await ledger.call(InParts(part(0), part(1), part(2)), parts=3, leave_after=1)  # type: ignore[arg-type]
    assert list(ledger.problems()) == []
    assert ledger.endings == {Ending.CANCELLED: 1}


async def test_handlers_and_generators_that_still_run() -> None:
    ledger = Ledger(back=Ledger("back"))
    message = SecureMessage(id="m-0", payload=payload_of("m-0", 10), did="d", metadata={"parts": "2"})
    assert ledger.back is not None
    for handler in (ledger.handler, ledger.back.handler):
        handler.running = 1
    assert list(ledger.problems()) == ["1 handlers of m still run", "1 handlers of back still run"]
    counted = Handling(lambda _: None)
    generator = counted(message)
    assert await anext(generator) == part_of("m-0", 0, 10)
    assert counted.running == 1
    await generator.aclose()
    assert counted.running == 0


async def test_more_handlers_stopped_than_callers_gave_up() -> None:
    async def never(message: SecureMessage) -> Response:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    ledger = Ledger()
    await judged(ledger, never, cancel_after=0.001)
    assert list(ledger.implausible({"stopped": 1, "expired": 0, "pending": 0})) == []
    assert list(ledger.implausible({"stopped": 1, "expired": 1, "pending": 3})) == [
        "2 handlers of m were ended early, and 1 callers gave up",
        "3 are pending",
    ]


def test_a_journal_goes_on_where_a_killed_one_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert Journal.read(path) == []
    for name in ("m-1", "m-2"):
        journal = Journal(path)
        journal.ran(name)
        journal.close()
    assert Journal.read(path) == ["m-1", "m-2"]


async def test_tasks_and_descriptors_that_are_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gc.collect()  # what an earlier test let go of counts neither before nor after
    before = Baseline()
    monkeypatch.setattr("tests.faults.baseline.PATIENCE", 0.02)
    with (tmp_path / "open").open("w"):
        with pytest.raises(AssertionError, match="descriptors are left: .*open"):
            await before.regained()
    task = asyncio.create_task(asyncio.sleep(10))
    with pytest.raises(AssertionError, match="tasks are left: .*sleep"):
        await before.regained()
    task.cancel()
    monkeypatch.undo()
    await before.regained()


async def test_a_soak_fails_by_an_exception_that_reached_the_loop(
    monkeypatch: pytest.MonkeyPatch, loop_exceptions: list[Any]
) -> None:
    async def trouble(ledger: Ledger, note: Callable[[str, float], None]) -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    monkeypatch.setattr(soak, "TROUBLES", {"trouble": trouble})
    with Lines(io.StringIO()) as progress:
        ran = soak.Soak(1e-6, progress)
        await ran.run()
    assert "ZeroDivisionError" in ran.problems[0]
    assert not loop_exceptions


@pytest.mark.parametrize("balances", [True, False])
async def test_a_soak_tells_its_ledger(monkeypatch: pytest.MonkeyPatch, balances: bool) -> None:
    async def trouble(ledger: Ledger, note: Callable[[str, float], None]) -> None:
        note("something", 0.5)

        async def answer(message: SecureMessage) -> Response:
            ledger.ran(message.id)
            return right(message) if balances else Response(message_id="m-7")

        await ledger.call(Scripted(answer))  # type: ignore[arg-type]

    monkeypatch.setattr(soak, "TROUBLES", {"trouble": trouble})
    shown = io.StringIO()
    with Lines(shown) as progress:
        ran = soak.Soak(1e-6, progress)
        await ran.run()
    assert shown.getvalue().startswith("100%  trouble, 0 calls so far\n")
    assert ("the ledger balances" in ran.told()) is balances
    assert ("m0-0 got an answer to 'm-7'" in ran.told()) is not balances
    assert "something: at most 0.500 s" in ran.told()
