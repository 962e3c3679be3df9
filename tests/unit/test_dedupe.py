"""The stores that remember what ran: bounds, joining, and what a second process finds."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from sage_ws import DedupeMemory, DedupeSQLite, Response, SecureMessage
from sage_ws.aio.once import key_of
from sage_ws.dedupe.table import Table

Make: TypeAlias = Callable[..., Any]
ANSWER = Response(message_id="1", task_id="t", data=b"\x00\xff", error="")
FAILURE = Response(success=False, message_id="1", error="no\u2028")


@pytest.fixture(params=["memory", "sqlite"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes an open store; all are closed at the end."""
    stores = []

    async def made(**bounds: Any) -> Any:
        store = (
            DedupeMemory(**bounds) if request.param == "memory" else DedupeSQLite(tmp_path / "a", **bounds)
        )
        await store.open()
        stores.append(store)
        return store

    yield made
    for store in stores:
        await store.close()


class TestAnyStore:
    async def test_the_first_runs_and_the_next_has_its_answer(self, make: Make) -> None:
        store = await make()
        for key, answer in ((b"a", ANSWER), (b"b", FAILURE)):
            assert await store.begin(key) == "run"
            await store.finish(key, answer)
            assert await store.begin(key) == answer
            assert await store.begin(key) == answer

    async def test_who_comes_during_the_run_waits_for_it(self, make: Make) -> None:
        store = await make()
        assert await store.begin(b"a") == "run"
        waiting = [asyncio.ensure_future(store.begin(b"a")) for _ in range(3)]
        waiting[0].cancel()
        assert await store.begin(b"b") == "run"  # another is not held up
        await store.finish(b"a", ANSWER)
        assert await asyncio.gather(*waiting[1:]) == [ANSWER, ANSWER]

    async def test_of_a_run_that_was_cut_nothing_is_known(self, make: Make) -> None:
        store = await make()
        assert await store.begin(b"a") == "run"
        waiting = asyncio.ensure_future(store.begin(b"a"))
        await asyncio.sleep(0)
        store.cut(b"a")
        assert await waiting == "unknown"
        assert await store.begin(b"a") == "unknown"

    async def test_many_at_once(self, make: Make) -> None:
        store = await make()
        keys = [str(number).encode() for number in range(300)]
        assert set(await asyncio.gather(*map(store.begin, keys))) == {"run"}
        joined = [asyncio.ensure_future(store.begin(key)) for key in keys]
        await asyncio.gather(*(store.finish(key, Response(data=key)) for key in keys))
        assert [answer.data for answer in await asyncio.gather(*joined)] == keys
        assert [answer.data for answer in await asyncio.gather(*map(store.begin, keys))] == keys

    async def test_what_is_too_old_is_forgotten(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        store = await make(max_age=100)
        assert await store.begin(b"runs") == "run"
        await store.begin(b"a")
        await store.finish(b"a", ANSWER)
        shift(monkeypatch, 99)
        assert await store.begin(b"a") == ANSWER
        shift(monkeypatch, 102)
        await store.begin(b"b")
        assert await store.begin(b"a") == "run"
        joined = asyncio.ensure_future(store.begin(b"runs"))  # what still runs is never too old
        await asyncio.sleep(0)
        await store.finish(b"runs", ANSWER)
        assert await joined == ANSWER

    async def test_the_oldest_is_forgotten_where_there_are_too_many(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = await make(max_entries=3)
        for number in range(5):
            key = str(number).encode()
            assert await store.begin(key) == "run"
            await store.finish(key, ANSWER)
        shift(monkeypatch, 2)  # a file is looked through every second
        await store.begin(b"4")
        assert [await store.begin(str(number).encode()) for number in (2, 3, 4)] == [ANSWER] * 3
        assert await store.begin(b"0") == "run"

    async def test_another_loop_is_refused(self, make: Make) -> None:
        store = await make()

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="in use in another event loop"):
                asyncio.run(store.open())

        await asyncio.to_thread(elsewhere)

    async def test_it_is_used_between_open_and_close(self, make: Make) -> None:
        store = await make()
        await store.open()
        await store.close()
        assert await store.begin(b"a") == "run"  # one user is left
        await store.finish(b"a", ANSWER)
        await store.close()
        with pytest.raises(RuntimeError, match="not open"):
            await store.begin(b"b")
        await store.open()
        assert await store.begin(b"a") == ANSWER


def shift(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the stores' clocks ahead."""
    import time

    from sage_ws.dedupe import memory, table

    monkeypatch.setattr(memory, "monotonic", lambda: time.monotonic() + seconds)
    monkeypatch.setattr(table, "monotonic", lambda: time.monotonic() + seconds)
    monkeypatch.setattr(table, "time", lambda: time.time() + seconds)


@pytest.mark.parametrize("store", [DedupeMemory, lambda **bounds: DedupeSQLite("a", **bounds)])
@pytest.mark.parametrize("name", ["max_entries", "max_age"])
def test_a_bound_without_sense_is_refused(store: Any, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be over 0, not 0$"):
        store(**{name: 0})


class TestMemory:
    async def test_over_its_bytes_answers_are_dropped_and_ids_kept(self) -> None:
        store = DedupeMemory(max_bytes=250)
        await store.open()
        for number in range(4):
            key = str(number).encode()
            assert await store.begin(key) == "run"
            await store.finish(key, Response(data=b"x" * 100))
        assert (len(store), store.nbytes) == (4, 200)
        assert [await store.begin(str(number).encode()) for number in (0, 1)] == ["unknown"] * 2
        assert await store.begin(b"3") == Response(data=b"x" * 100)

    async def test_one_answer_over_all_its_bytes_is_not_kept(self) -> None:
        store = DedupeMemory(max_bytes=99)
        await store.open()
        await store.begin(b"a")
        await store.finish(b"a", Response(data=b"x" * 100))
        assert (store.nbytes, await store.begin(b"a")) == (0, "unknown")

    async def test_its_bytes_follow_what_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store = DedupeMemory(max_entries=2, max_age=10)
        await store.open()
        for number in range(6):
            key = str(number).encode()
            await store.begin(key)
            store.cut(key) if number % 3 == 0 else await store.finish(key, Response(data=b"x" * 10))
        assert (len(store), store.nbytes) == (2, 20)
        shift(monkeypatch, 11)
        await store.begin(b"6")
        assert (len(store), store.nbytes) == (0, 0)


def files(path: Path) -> list[str]:
    return sorted(one.name for one in path.iterdir())


def run_and_die(path: Path, pipe: Any) -> None:
    """In a process of its own: answer ``done``, begin ``cut``, and wait for the kill."""

    async def main() -> None:
        store = DedupeSQLite(path)
        await store.open()
        assert await store.begin(b"done") == "run"
        await store.finish(b"done", ANSWER)
        assert await store.begin(b"cut") == "run"
        pipe.send("ready")
        await asyncio.sleep(60)

    asyncio.run(main())


def finish_at_once(path: Path, pipe: Any) -> None:
    """In a process of its own: begin ``a``, and finish it when told."""

    async def main() -> None:
        store = DedupeSQLite(path)
        await store.open()
        pipe.send(await store.begin(b"a"))
        await asyncio.to_thread(pipe.recv)
        await store.finish(b"a", ANSWER)
        await store.close()

    asyncio.run(main())


@pytest.fixture
def child() -> Any:
    """Starts a function in a process of its own; returns the process, and the pipe to it."""
    spawn = multiprocessing.get_context("spawn")
    children = []

    def start(target: Callable[..., None], path: Path) -> Any:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=target, args=(path, theirs), daemon=True)
        process.start()
        theirs.close()
        children.append(process)
        return process, ours

    yield start
    for process in children:
        process.kill()
        process.join(10)


class TestSQLite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "kept % file.db"

    async def test_what_ran_is_known_after_kill_9(self, path: Path, child: Any) -> None:
        process, pipe = child(run_and_die, path)
        assert await asyncio.to_thread(pipe.recv) == "ready"
        os.kill(process.pid, signal.SIGKILL)
        process.join(10)
        store = DedupeSQLite(path)
        await store.open()
        assert await store.begin(b"done") == ANSWER
        assert await store.begin(b"cut") == "unknown"
        assert await store.begin(b"new") == "run"
        assert (
            len(files(path.parent)) == 4
        )  # the file, its -wal and -shm, and one owner: the dead one's lock was cleared away
        store.cut(b"new")
        await store.close()
        assert files(path.parent) == [path.name]

    async def test_a_crash_is_noticed_by_who_is_there_already(self, path: Path, child: Any) -> None:
        store = DedupeSQLite(path)
        await store.open()
        process, pipe = child(run_and_die, path)
        assert await asyncio.to_thread(pipe.recv) == "ready"
        waiting = asyncio.ensure_future(store.begin(b"cut"))
        assert await store.begin(b"done") == ANSWER
        assert not waiting.done()
        os.kill(process.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            assert await waiting == "unknown"
        await store.close()

    async def test_who_meets_a_run_of_another_process_waits_for_it(self, path: Path, child: Any) -> None:
        process, pipe = child(finish_at_once, path)
        assert await asyncio.to_thread(pipe.recv) == "run"
        store = DedupeSQLite(path)
        await store.open()
        waiting = [asyncio.ensure_future(store.begin(b"a")) for _ in range(2)]
        assert await store.begin(b"b") == "run"
        store.cut(b"b")
        assert not any(one.done() for one in waiting)
        pipe.send("finish")
        async with asyncio.timeout(10):
            assert await asyncio.gather(*waiting) == [ANSWER, ANSWER]
        await asyncio.to_thread(process.join, 10)
        assert process.exitcode == 0
        await store.close()

    async def test_many_processes_may_begin_at_once(self, path: Path, child: Any) -> None:
        started = [child(finish_at_once, path) for _ in range(3)]
        store = DedupeSQLite(path)
        await store.open()
        for _, pipe in started:
            pipe.send("finish")
        begun = [await asyncio.to_thread(pipe.recv) for _, pipe in started]
        assert sorted(begun, key=repr) == sorted(["run"] + [ANSWER] * 2, key=repr)
        await store.close()

    async def test_a_cancelled_begin_never_runs(self, path: Path) -> None:
        store = DedupeSQLite(path)
        await store.open()
        first = asyncio.ensure_future(store.begin(b"a"))
        await asyncio.sleep(0)
        joined = asyncio.ensure_future(store.begin(b"a"))
        await asyncio.sleep(0)
        first.cancel()
        assert await joined == "run"  # in its place
        store.cut(b"a")
        await store.close()

    async def test_nor_does_it_hold_up_another_process(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, another = DedupeSQLite(path), DedupeSQLite(path)  # another owner, as in another process
        await store.open()
        await another.open()
        claim, loop = Table.claim, asyncio.get_running_loop()

        def claimed_in_vain(table: Table, key: bytes) -> Any:
            answer = claim(table, key)
            loop.call_soon_threadsafe(first.cancel)
            return answer

        monkeypatch.setattr(Table, "claim", claimed_in_vain)
        first = asyncio.ensure_future(store.begin(b"a"))
        with pytest.raises(asyncio.CancelledError):
            await first
        async with asyncio.timeout(10):
            assert await another.begin(b"a") == "run"
            await another.finish(b"a", ANSWER)
            assert await store.begin(b"a") == ANSWER
        await store.close()
        await another.close()

    async def test_a_cancelled_repeat_forgets_no_run(self, path: Path) -> None:
        store, another = DedupeSQLite(path), DedupeSQLite(path)
        await store.open()
        await another.open()
        assert await another.begin(b"runs") == "run"
        assert await store.begin(b"ran") == "run"
        await store.finish(b"ran", ANSWER)
        for key in (b"runs", b"ran"):
            repeat = asyncio.ensure_future(store.begin(key))
            await asyncio.sleep(0)
            repeat.cancel()
            with pytest.raises(asyncio.CancelledError):
                await repeat
        assert await store.begin(b"ran") == ANSWER
        waiting = asyncio.ensure_future(store.begin(b"runs"))
        await another.finish(b"runs", FAILURE)
        async with asyncio.timeout(10):
            assert await waiting == FAILURE
        await store.close()
        await another.close()

    async def test_who_closes_waits_for_no_process_that_is_stopped_in_its_commit(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sage_ws.dedupe.table.LAST_PATIENCE", 0.1)
        store, another = DedupeSQLite(path), DedupeSQLite(path)
        await store.open()
        await another.open()
        assert await store.begin(b"a") == "run"
        stopped = sqlite3.connect(path, isolation_level=None)
        stopped.execute("BEGIN IMMEDIATE")
        asking = asyncio.ensure_future(store.begin(b"b"))
        await asyncio.sleep(0)
        async with asyncio.timeout(10):  # a third of what it waits at other times
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                await store.close()
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                await asking
        stopped.close()
        assert await another.begin(b"a") == "unknown"  # its owner is known to be gone all the same
        await another.close()

    async def test_closing_writes_what_was_asked_for(self, path: Path) -> None:
        store = DedupeSQLite(path, synchronous="full")
        await store.open()
        await store.begin(b"a")
        await store.begin(b"still runs")
        finishing = asyncio.ensure_future(store.finish(b"a", ANSWER))
        await asyncio.sleep(0)
        await asyncio.gather(store.close(), finishing)
        await store.close()  # once more than opened: nothing
        again = DedupeSQLite(path)
        await again.open()
        assert await again.begin(b"a") == ANSWER
        assert await again.begin(b"still runs") == "unknown"
        await again.close()

    async def test_what_cannot_be_written_is_not_run(self, path: Path) -> None:
        store = DedupeSQLite(path)
        await store.open()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("DROP TABLE runs")
        other.close()
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await store.begin(b"a")
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await store.begin(b"a")
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await store.close()

    async def test_a_file_that_cannot_be_used_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "text").write_bytes(b"this is no database, but a text that is long enough to be one" * 20)
        newer = sqlite3.connect(tmp_path / "newer")
        newer.execute("PRAGMA user_version = 99")
        newer.close()
        for name, why in (
            ("no/such", "unable to open"),
            ("text", "not a database"),
            ("newer", "version is 99"),
        ):
            store = DedupeSQLite(tmp_path / name)
            with pytest.raises(OSError, match=rf"^dedupe store .*{name}: .*{why}"):
                await store.open()
            assert not store._users
        assert files(tmp_path) == ["newer", "text"]

    @pytest.mark.parametrize("path", ["", ":memory:"])
    def test_a_path_that_names_no_file_is_refused(self, path: str) -> None:
        with pytest.raises(ValueError, match="path must name a file"):
            DedupeSQLite(path)

    def test_another_word_for_synchronous_is_refused(self) -> None:
        with pytest.raises(ValueError, match="^synchronous must be normal or full, not 'off'$"):
            DedupeSQLite("a", synchronous="off")  # type: ignore[arg-type]


class TestKeys:
    MESSAGE = SecureMessage(payload=b"p", did="did:sage:a", id="1")

    def test_an_identity_and_an_id(self) -> None:
        key = key_of(self.MESSAGE, "alice")
        assert len(key) == 32
        assert key == key_of(self.MESSAGE.replace(payload=b"other", did="did:sage:b"), "alice")
        assert key != key_of(self.MESSAGE, "bob")
        assert key != key_of(self.MESSAGE.replace(id="2"), "alice")

    def test_without_one_the_did_the_id_and_what_was_sent(self) -> None:
        key = key_of(self.MESSAGE, None)
        assert key == key_of(self.MESSAGE.replace(metadata={"a": "b"}), None)
        for other in (
            self.MESSAGE.replace(id="2"),
            self.MESSAGE.replace(did="did:sage:b"),
            self.MESSAGE.replace(payload=b"q"),
        ):
            assert key_of(other, None) != key
        assert key_of(self.MESSAGE, "") != key

    def test_parts_do_not_run_into_each_other(self) -> None:
        assert key_of(self.MESSAGE.replace(id="12"), "a") != key_of(self.MESSAGE.replace(id="2"), "a1")
