"""What a server bounds, and what it does at each bound: pause, wait, cut; never grow."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from sage_ws import ConnectionLostError, Response, SecureMessage, connect, serve
from sage_ws._core import has_poller
from sage_ws.aio.answering import UNSENT_LIMIT
from sage_ws.aio.weight import MESSAGE_OVERHEAD

LINKS = ("direct", "loop") if has_poller else ("loop",)
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


class Gate:
    """A handler that waits until it is told: ``running`` lists the ids inside, ``most`` their peak."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.most = 0
        self._waiters: dict[str, asyncio.Future[None]] = {}

    async def __call__(self, one: SecureMessage) -> bytes:
        self.running.append(one.id)
        self.most = max(self.most, len(self.running))
        self._waiters[one.id] = asyncio.get_running_loop().create_future()
        try:
            await self._waiters[one.id]
        finally:
            self.running.remove(one.id)
        return one.id.encode()

    def release(self, *names: str) -> None:
        for name in names or tuple(self.running):
            self._waiters[name].set_result(None)


class TestMaxConcurrency:
    async def test_so_many_run_and_the_rest_waits_in_order(self, raw_client: Any, eventually: Any) -> None:
        gate = Gate()
        async with serve(gate, max_concurrency=3) as server, raw_client(server.port) as peer:
            for number in range(6):
                peer.ask(f"m-{number}")
            await eventually(lambda: server.stats()["pending"] == 6)
            await eventually(lambda: gate.running == ["m-0", "m-1", "m-2"])
            gate.release("m-1")
            assert (await peer.read_json())["message_id"] == "m-1"
            await eventually(lambda: gate.running == ["m-0", "m-2", "m-3"])
            gate.release("m-0", "m-2", "m-3")
            for _ in range(3):
                await peer.read_json()
            await eventually(lambda: gate.running == ["m-4", "m-5"])
            gate.release()
            for _ in range(2):
                await peer.read_json()
            assert gate.most == 3
            assert server.stats()["pending"] == 0

    async def test_it_is_per_connection(self, raw_client: Any, eventually: Any) -> None:
        gate = Gate()
        async with serve(gate, max_concurrency=1) as server:
            async with raw_client(server.port) as first, raw_client(server.port) as second:
                first.ask("a-1")
                first.ask("a-2")
                second.ask("b-1")
                await eventually(lambda: sorted(gate.running) == ["a-1", "b-1"])
                gate.release()
                await eventually(lambda: gate.running == ["a-2"])
                gate.release()
                await first.read_json()

    async def test_control_frames_pass_while_requests_wait(self, raw_client: Any, eventually: Any) -> None:
        gate = Gate()
        async with serve(gate, max_concurrency=1) as server, raw_client(server.port) as peer:
            for number in range(3):
                peer.ask(f"m-{number}")
            peer.send(PING, b"now")
            assert await peer.read_frame() == (PONG, b"now", True, False)
            peer.send_json({"id": "m-9"})
            assert (await peer.read_json())["error"] == "DID is required"
            peer.close_frame(1000)
            assert await peer.read_close() == (1000, "")
            gate.release()
            await eventually(lambda: server.stats()["pending"] == 0)

    async def test_handlers_that_do_not_suspend_are_bounded_too(self, raw_client: Any) -> None:
        async with (
            serve(lambda one: one.payload, max_concurrency=2) as server,
            raw_client(server.port) as peer,
        ):
            body = b"".join(
                peer.frame(TEXT, b'{"id":"m-%d","payload":"eA==","did":"d"}' % number) for number in range(50)
            )
            peer.write(body)
            assert [(await peer.read_json())["message_id"] for _ in range(50)] == [
                f"m-{n}" for n in range(50)
            ]


class TestMaxQueueBytes:
    async def test_beyond_it_reading_pauses_and_goes_on_when_there_is_room(
        self, raw_client: Any, eventually: Any, growing: Any
    ) -> None:
        payload = b"x" * 10_000

        async def all_are_answered(seconds: float) -> bool:
            """Within ping times of so many seconds; False where a pong came too late."""
            gate = Gate()
            times = {"ping_interval": seconds, "ping_timeout": seconds}
            async with (
                serve(gate, max_concurrency=1, max_queue_bytes=50_000, **times) as server,
                raw_client(server.port) as peer,
            ):
                link: Any
                (link,) = server.connections
                for number in range(400):  # 5 MB: more than the kernel would keep at once
                    peer.ask(f"m-{number}", payload)
                await eventually(lambda: not link._reading)
                read = server.stats()["received"]
                # one read of the socket (256 KiB at most) may go over the limit, no more
                assert read * (10_000 + MESSAGE_OVERHEAD) <= 50_000 + 300_000
                await asyncio.sleep(4 * seconds)  # the ping deadline pauses with reading
                assert server.stats()["received"] == read
                assert server.connection_count == 1
                for answered in range(400):
                    await eventually(lambda: gate.running or link.closed)
                    gate.release()
                    frame = await peer.read_frame()
                    while frame.opcode == PING:
                        peer.send(PONG)
                        frame = await peer.read_frame()
                    if frame.opcode == CLOSE:
                        return False
                    assert json.loads(frame.payload)["message_id"] == f"m-{answered}"
                assert gate.most == 1
                assert link._reading
                assert link._waiting_bytes == 0
            return True

        for seconds in growing(0.05):
            if await all_are_answered(seconds):
                break

    @pytest.mark.parametrize("either", LINKS)
    @pytest.mark.parametrize("size", [10, 10_000], ids=["some wait", "reading pauses"])
    async def test_handlers_that_take_long_do_not_cost_the_link(
        self, either: Any, size: int, eventually: Any, growing: Any
    ) -> None:
        """64 of them, many times longer than both ends wait for a pong: 90 s with the defaults."""

        async def lives(seconds: float) -> bool:
            """For eight times as many seconds; False where a pong came too late."""
            gate = Gate()
            pings: dict[str, Any] = {"ping_interval": seconds, "ping_timeout": seconds, "link": either}
            async with (
                serve(gate, max_queue_bytes=50_000, **pings) as server,
                connect(f"ws://127.0.0.1:{server.port}", reconnect=False, **pings) as client,
            ):
                link: Any
                (link,) = server.connections
                calls = [asyncio.ensure_future(client.send(message(b"x" * size))) for _ in range(100)]
                await eventually(lambda: len(gate.running) == 64 or link.closed)
                if size > 10:
                    await eventually(lambda: not link._reading or link.closed)
                await asyncio.sleep(8 * seconds)
                while not all(call.done() for call in calls):
                    await eventually(lambda: gate.running or all(call.done() for call in calls))
                    gate.release()
                    await asyncio.sleep(0)
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
                if link.closed or not client.is_connected:
                    return False
                assert all(isinstance(one, Response) and one.success for one in outcomes)
                assert client.stats()["dials"] == 1
            return True

        for seconds in growing(0.1):
            if await lives(seconds):
                break

    async def test_a_paused_connection_closes_all_the_same(self, raw_client: Any, eventually: Any) -> None:
        gate = Gate()
        server = await serve(gate, max_concurrency=1, max_queue_bytes=1, close_timeout=0.2)
        async with raw_client(server.port) as peer:
            (link,) = server.connections
            for number in range(3):
                peer.ask(f"m-{number}")
            await eventually(lambda: not link._reading)  # type: ignore[attr-defined]
            closing = asyncio.create_task(server.close())
            assert (await peer.until_closed())[0] == 1001
            await asyncio.wait_for(closing, 20)

    async def test_a_peer_that_breaks_the_rules_while_paused_is_let_go_at_its_end(
        self, raw_client: Any, eventually: Any
    ) -> None:
        gate = Gate()
        async with serve(gate, max_concurrency=1, max_queue_bytes=1, close_timeout=None) as server:
            async with raw_client(server.port) as peer:
                (link,) = server.connections
                asked = b'{"id":"m-%d","payload":"eA==","did":"d"}'
                requests = b"".join(peer.frame(TEXT, asked % number) for number in range(3))
                peer.write(requests + b"\xff\xff")  # reserved bits, in the read that pauses the next
                assert (await peer.until_closed())[0] == 1002
            await eventually(lambda: server.connection_count == 0)
            gate.release()

    @pytest.mark.parametrize(
        "fields",
        [
            {"metadata": {"key": "v" * 100_000}},
            {"metadata": {"k" * 100_000: ""}},
            {"metadata": {str(number): "" for number in range(1000)}},
            {"signature": "eHh4" * 40_000},
            {"context_id": "c" * 100_000},
            {"task_id": "t" * 100_000},
            {"role": "r" * 100_000},
            {"did": "d" * 100_000},
        ],
        ids=lambda fields: f"{next(iter(fields))}",
    )
    async def test_whatever_a_peer_can_make_large_counts(
        self, fields: dict[str, Any], raw_client: Any, eventually: Any
    ) -> None:
        gate = Gate()
        async with (
            serve(gate, max_concurrency=1, max_queue_bytes=200_000) as server,
            raw_client(server.port) as peer,
        ):
            (link,) = server.connections
            for number in range(6):
                peer.ask(f"m-{number}", **fields)
            await eventually(lambda: not link._reading)  # type: ignore[attr-defined]
            for _ in range(6):
                await eventually(lambda: gate.running)
                gate.release()
                await peer.read_json()
            assert link._reading  # type: ignore[attr-defined]
            assert link._waiting_bytes == 0  # type: ignore[attr-defined]

    async def test_a_peer_that_leaves_while_paused_is_noticed_in_the_end(
        self, raw_client: Any, eventually: Any
    ) -> None:
        gate = Gate()
        async with serve(gate, max_concurrency=1, max_queue_bytes=1) as server:
            async with raw_client(server.port) as peer:
                (link,) = server.connections
                for number in range(3):
                    peer.ask(f"m-{number}")
                await eventually(lambda: not link._reading)  # type: ignore[attr-defined]
            while server.connection_count:
                await eventually(lambda: gate.running or not server.connection_count)
                gate.release()
                await asyncio.sleep(0)
            await eventually(lambda: server.stats()["pending"] == 0)


class TestUnsentAnswers:
    async def test_over_a_mebibyte_nothing_more_is_dispatched(self, raw_client: Any, eventually: Any) -> None:
        ran: list[str] = []
        size = 256 * 1024

        def handler(one: SecureMessage) -> bytes:
            ran.append(one.id)
            return b"x" * size

        async with serve(handler, max_concurrency=3) as server, raw_client(server.port) as peer:
            (link,) = server.connections
            peer.writer.transport.pause_reading()
            total = 100  # 34 MB of answers, were all dispatched
            for number in range(total):
                peer.ask(f"m-{number}")
            await eventually(lambda: server.stats()["received"] == total)
            encoded = size * 4 // 3
            await eventually(lambda: link.unsent > UNSENT_LIMIT)  # type: ignore[attr-defined]
            # beside the limit the answers of what was running already, each a little longer than its data
            assert link.unsent <= UNSENT_LIMIT + 3 * (encoded + 100)  # type: ignore[attr-defined]
            assert len(ran) < total
            assert server.stats()["pending"] == total - len(ran)
            peer.writer.transport.resume_reading()
            assert [(await peer.read_json())["message_id"] for _ in range(total)] == [
                f"m-{number}" for number in range(total)
            ]
            assert len(ran) == total
            assert server.stats()["pending"] == 0

    @pytest.mark.parametrize("size", [800_000, 3_000_000])
    async def test_an_answer_over_it_that_the_peer_takes_holds_nothing_up(self, size: int) -> None:
        async with serve(lambda one: b"x" * size, max_concurrency=1) as server:
            async with connect(f"ws://127.0.0.1:{server.port}") as client:
                answers = asyncio.gather(*(client.send(message()) for _ in range(5)))
                assert [len(one.data) for one in await asyncio.wait_for(answers, 20)] == [size] * 5

    async def test_others_are_served_meanwhile(self, raw_client: Any, eventually: Any) -> None:
        async with serve(lambda one: b"x" * 2_000_000) as server:
            async with raw_client(server.port) as stalled:
                stalled.writer.transport.pause_reading()
                for number in range(20):
                    stalled.ask(f"m-{number}")
                await eventually(lambda: server.stats()["received"] == 20)
                async with connect(f"ws://127.0.0.1:{server.port}") as client:
                    assert len((await client.send(message())).data) == 2_000_000

    async def test_a_stalled_peer_that_closes_is_gone_within_close_timeout(
        self, raw_client: Any, eventually: Any
    ) -> None:
        async with serve(lambda one: b"x" * 2_000_000, close_timeout=0.1, write_timeout=None) as server:
            async with raw_client(server.port) as peer:
                (link,) = server.connections
                peer.writer.transport.pause_reading()
                for number in range(20):
                    peer.ask(f"m-{number}")
                await eventually(lambda: link.blocked)  # type: ignore[attr-defined]
                peer.close_frame(1000)  # and takes no bytes still
                await eventually(lambda: server.connection_count == 0)

    async def test_too_many_pings_of_one_are_too_many(self, raw_client: Any, eventually: Any) -> None:
        async with serve(lambda one: b"x" * 10_000_000, write_timeout=None, close_timeout=0.1) as server:
            async with raw_client(server.port) as peer:
                (link,) = server.connections
                peer.writer.transport.pause_reading()
                peer.ask("m-1")
                await eventually(lambda: link.blocked)  # type: ignore[attr-defined]
                for _ in range(64):
                    peer.send(PING)
                await asyncio.sleep(0.02)
                assert server.connection_count == 1
                peer.send(PING)
                await eventually(lambda: server.connection_count == 0)


class TestMessageSize:
    @staticmethod
    def body(size: int) -> bytes:
        """A request of exactly so many bytes."""
        smallest = b'{"id":"m-1","payload":"eA==","did":"d","role":""}'
        return smallest[:-2] + b"r" * (size - len(smallest)) + smallest[-2:]

    @pytest.mark.parametrize("fragments", [1, 3])
    @pytest.mark.parametrize(("size", "passes"), [(999, True), (1000, True), (1001, False)])
    async def test_the_limit_is_exact(self, raw_client: Any, size: int, passes: bool, fragments: int) -> None:
        async with serve(lambda one: None, max_message_size=1000) as server, raw_client(server.port) as peer:
            body = self.body(size)
            step = -(-size // fragments)
            for start in range(0, size, step):
                opcode = 0 if start else TEXT
                peer.send(opcode, body[start : start + step], fin=start + step >= size)
            if passes:
                assert (await peer.read_json())["success"] is True
            else:
                assert await peer.read_close() == (1009, "message over 1000 bytes")

    async def test_none_is_no_limit(self) -> None:
        big = bytes(range(256)) * 80_000  # 20 MB, 27 on the wire
        async with serve(lambda one: one.payload, max_message_size=None) as server:
            url = f"ws://127.0.0.1:{server.port}"
            async with connect(url, max_message_size=None, ping_interval=None) as client:
                assert (await client.send(message(big))).data == big

    async def test_the_default_is_sixteen_mebibytes(self) -> None:
        async with serve(lambda one: b"%d" % len(one.payload)) as server:
            url = f"ws://127.0.0.1:{server.port}"
            async with connect(url, max_message_size=None, encoding="plain") as client:
                fits = 16 * 1024 * 1024 * 3 // 4 - 1000
                assert (await client.send(message(b"x" * fits))).data == b"%d" % fits
                with pytest.raises(ConnectionLostError):
                    await client.send(message(b"x" * (fits + 2000)))


@pytest.mark.parametrize(
    "fields",
    [
        {"signature": base64.b64encode(b"s" * 60_000).decode()},
        {"context_id": "c" * 60_000},
        {"metadata": {"key": "v" * 60_000}},
        {"metadata": {f"{number}": "" for number in range(500)}},
    ],
    ids=["signature", "string", "metadata", "many-entries"],
)
async def test_whatever_a_peer_can_make_large_counts(
    raw_client: Any, eventually: Any, fields: dict[str, Any]
) -> None:
    gate = Gate()
    async with (
        serve(gate, max_concurrency=1, max_queue_bytes=40_000) as server,
        raw_client(server.port) as peer,
    ):
        (link,) = server.connections
        peer.ask("m-1")
        peer.ask("m-2", **fields)
        await eventually(lambda: gate.running == ["m-1"])
        await eventually(lambda: not link._reading)  # type: ignore[attr-defined]
        gate.release()
        await peer.read_json()
        await eventually(lambda: gate.running == ["m-2"])
        assert link._waiting_bytes == 0  # type: ignore[attr-defined]
        assert link._reading  # type: ignore[attr-defined]
        gate.release()
        await peer.read_json()


async def test_what_costs_memory_is_counted(raw_client: Any, eventually: Any) -> None:
    """A request that waits is counted for its payload and a fixed rest."""
    gate = Gate()
    async with serve(gate, max_concurrency=1) as server, raw_client(server.port) as peer:
        (link,) = server.connections
        for number in range(4):
            peer.ask(f"m-{number}", b"x" * 1000)
        await eventually(lambda: server.stats()["pending"] == 4)
        assert link._waiting_bytes == 3 * (1000 + MESSAGE_OVERHEAD)  # type: ignore[attr-defined]
        for _ in range(4):
            await eventually(lambda: gate.running)
            gate.release()
            assert base64.b64decode((await peer.read_json())["data"])
        assert link._waiting_bytes == 0  # type: ignore[attr-defined]
