"""Other processes, other threads, other loops, and a loop that is gone: each program here ends by itself.

Whatever is asked runs on both links; the core and the loop are those of this process.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from sage_ws import SecureMessage, connect, serve
from sage_ws._core import has_poller

LINKS = ("direct", "loop") if has_poller else ("loop",)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


@pytest.fixture(params=LINKS)
def either(request: pytest.FixtureRequest) -> str:
    """Each way to the socket."""
    return str(request.param)


@pytest.fixture
def program(outcome_of: Any) -> Any:
    """``await program(source)``: what a program prints that has to end well.

    On stderr a child may say that it has tasks of its parent's, and sockets that nobody closed.
    """

    async def run(source: str) -> list[str]:
        code, out, err = await outcome_of(source)
        assert code == 0, err
        assert "Traceback" not in err
        return str(out).split()

    return run


def skip_where_uvloop_crashes() -> None:
    if "uvloop" in type(asyncio.get_running_loop()).__module__:
        pytest.skip("uvloop by itself crashes when a child with an inherited loop ends in order")


@needs_fork
class TestFork:
    @pytest.mark.parametrize(
        ("end", "closes"), [("os._exit(0)", True), ("sys.exit(0)", True), ("sys.exit(0)", False)]
    )
    async def test_a_child_raises_and_disturbs_nobody(
        self, either: str, program: Any, end: str, closes: bool
    ) -> None:
        """Neither the parent nor its peers: one more byte on their connections, and they would break."""
        if end == "sys.exit(0)":
            skip_where_uvloop_crashes()
        out = await program(f"""
            async def begin():
                server = await serve(lambda one: one.payload, link={either!r}).__aenter__()
                client = await connect(f"ws://127.0.0.1:{{server.port}}", link={either!r})
                print((await client.send(message(b"before"))).data, flush=True)
                return server, client
            def sockets():
                links = map(read, os.listdir("/proc/self/fd"))
                return {{link for link in links if link.startswith("socket")}}
            def read(number):
                try:
                    return os.readlink(f"/proc/self/fd/{{number}}")
                except OSError:
                    return ""
            async def child():
                try:
                    await client.send(message(b"child"))
                except ClosedError as error:
                    print(type(error).__name__, flush=True)
                if not {closes}:
                    return
                for _ in range(2):
                    await client.close()
                    for connection in server.connections:
                        await connection.close()
                        assert connection.closed
                    await server.drain()
                    await server.close()
                    await server.wait_closed()
                assert not ours & sockets(), ours & sockets()
            loop = factory.new_event_loop()
            of_loop = sockets()
            server, client = loop.run_until_complete(begin())
            ours = sockets() - of_loop
            assert len(ours) == 3, ours
            pid = os.fork()
            if pid == 0:
                asyncio.run(child())
                del server, client
                gc.collect()
                {end}
            print(os.waitpid(pid, 0)[1], flush=True)
            async def after():
                for _ in range(3):
                    print((await client.send(message(b"after"))).data, flush=True)
                assert client.stats()["dials"] == 1
                async with connect(client.url, link={either!r}) as another:
                    print((await another.send(message(b"new"))).data, flush=True)
                await client.close()
                await server.close()
            loop.run_until_complete(asyncio.wait_for(after(), 20))
            loop.close()
        """)
        assert out == ["b'before'", "ClosedError", "0", *["b'after'"] * 3, "b'new'"]

    async def test_a_child_has_clients_and_servers_of_its_own(self, either: str, program: Any) -> None:
        out = await program(f"""
            async def exchange(count):
                async with serve(lambda one: one.payload, link={either!r}) as server:
                    async with connect(f"ws://127.0.0.1:{{server.port}}", link={either!r}) as client:
                        for _ in range(count):
                            await client.send(message())
                        return (await client.send(message(b"done"))).data
            loop = factory.new_event_loop()
            print(loop.run_until_complete(exchange(3)), flush=True)
            pid = os.fork()
            done = factory.new_event_loop().run_until_complete(asyncio.wait_for(exchange(30), 20))
            if pid == 0:
                os._exit(done != b"done")
            print(done, os.waitpid(pid, 0)[1])
            loop.close()
        """)
        assert out == ["b'done'", "b'done'", "0"]


class TestThreads:
    async def test_a_loop_in_another_thread_has_its_own(self, either: Any) -> None:
        async def exchange(count: int) -> list[bytes]:
            async with (
                serve(lambda one: one.payload, link=either) as server,
                connect(f"ws://127.0.0.1:{server.port}", link=either) as client,
            ):
                payloads = [b"%d" % number for number in range(count)]
                return [
                    (await client.send(SecureMessage(payload=one, did="did:sage:test"))).data
                    for one in payloads
                ]

        here, there = await asyncio.gather(exchange(300), asyncio.to_thread(asyncio.run, exchange(300)))
        assert here == there == [b"%d" % number for number in range(300)]

    async def test_one_end_in_each(self, either: Any) -> None:
        """Many at once, so that both loops are in the middle of a batch when the other one writes."""

        async def ask(port: int) -> int:
            async with connect(f"ws://127.0.0.1:{port}", link=either) as client:
                messages = [SecureMessage(payload=b"%d" % n, did="did:sage:test") for n in range(500)]
                answers = await asyncio.gather(*map(client.send, messages))
                return sum(answer.data == one.payload for answer, one in zip(answers, messages, strict=True))

        async with serve(lambda one: one.payload, link=either) as server:
            asking = [asyncio.to_thread(asyncio.run, ask(server.port)) for _ in range(2)]
            assert await asyncio.gather(*asking, ask(server.port)) == [500] * 3


class TestALoopThatIsGone:
    @pytest.mark.parametrize(("busy", "flags"), [(False, ()), (True, ("-X", "dev"))])
    async def test_is_no_crash_and_no_hang(
        self, either: str, outcome_of: Any, flags: tuple[str, ...], busy: bool
    ) -> None:
        """With calls in flight, handlers that run, a client that waits to dial; closed and let go later."""
        code, out, err = await outcome_of(
            f"""
            async def handler(one):
                await asyncio.sleep(0 if one.payload == b"quick" else 100)
                return one.payload
            async def begin():
                server = await serve(handler, link={either!r}).__aenter__()
                client = await connect(f"ws://127.0.0.1:{{server.port}}", link={either!r})
                await client.send(message(b"quick"))
                calls = []
                if {busy}:
                    nobody = Client("ws://127.0.0.1:9", wait_for_ready=True, backoff=lambda _: 100.0)
                    for one in (client, client, nobody):
                        calls.append(asyncio.ensure_future(one.send(message(b"slow"))))
                    while server.stats()["pending"] < 2 or nobody.state.name != "WAITING":
                        await asyncio.sleep(0)
                return server, client, calls
            loop = factory.new_event_loop()
            server, client, calls = loop.run_until_complete(begin())
            if not {busy}:
                for task in asyncio.all_tasks(loop):
                    task.cancel()
                loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            repr((server, client, server.stats(), client.stats(), client.state))
            for connection in server.connections:
                connection.closed
            async def later():
                ends = [client.close, server.close, client.connect]
                for end in (*ends, *(one.close for one in server.connections)):
                    try:
                        await asyncio.wait_for(end(), 20)
                    except RuntimeError:
                        print("refused", flush=True)
            asyncio.run(later())
            del server, client, calls
            gc.collect()
            print("alive")
            """,
            *flags,
        )
        assert code == 0, err
        assert out.split()[-1] == "alive"
        assert out.split().count("refused") == 4
        for word in ("Traceback", "panic", "Segmentation"):
            # what asyncio says of tasks that its own caller left pending is its own affair
            assert word not in err.replace("Task was destroyed but it is pending!", ""), err


class TestKeyboardInterrupt:
    async def test_in_a_handler_leaves_other_servers_their_work(self, either: str, outcome_of: Any) -> None:
        code, out, err = await outcome_of(f"""
            interrupted = []
            def handler(one):
                if one.payload == b"interrupt" and not interrupted:
                    interrupted.append(one)
                    raise KeyboardInterrupt
                return one.payload
            async def begin():
                for _ in range(3):
                    server = await serve(handler, link={either!r}).__aenter__()
                    servers.append(server)
                    clients.append(await connect(f"ws://127.0.0.1:{{server.port}}", link={either!r}))
                for client in clients:
                    await client.send(message(b"warm"))
            async def ask():
                calls.extend(asyncio.ensure_future(one.send(message(b"interrupt"))) for one in clients)
                await asyncio.sleep(30)
            async def end():
                for call in calls[1:]:
                    print((await call).data)
                for client in clients:
                    print((await client.send(message(b"after"))).data)
                calls[0].cancel()
                for one in clients + servers:
                    await one.close()
            servers, clients, calls = [], [], []
            loop = factory.new_event_loop()
            loop.run_until_complete(begin())
            try:
                loop.run_until_complete(ask())
            except KeyboardInterrupt:
                print("interrupted")
            loop.run_until_complete(asyncio.wait_for(end(), 20))
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
        """)
        assert code == 0, err
        assert out.split() == ["interrupted", *["b'interrupt'"] * 2, *["b'after'"] * 3]

    @pytest.mark.parametrize("when", ["at once", "after an await"])
    async def test_in_the_middle_of_a_batch_loses_nothing_of_other_connections(
        self, either: str, outcome_of: Any, when: str
    ) -> None:
        """One server, whose poll found requests of many connections: those of the others are answered."""
        code, out, err = await outcome_of(f"""
            interrupted = []
            async def handler(one):
                if {when!r} == "after an await":
                    await asyncio.sleep(0)
                if one.payload == b"5" and not interrupted:
                    interrupted.append(one)
                    raise KeyboardInterrupt
                return one.payload
            async def begin():
                server = await serve(handler, link={either!r}).__aenter__()
                url = f"ws://127.0.0.1:{{server.port}}"
                clients = [await connect(url, link={either!r}) for _ in range(12)]
                for client in clients:
                    await client.send(message(b"warm"))
                return server, clients
            async def ask():
                for at, one in enumerate(clients):
                    for _ in range(3):
                        calls.append(asyncio.ensure_future(one.send(message(b"%d" % at))))
                await asyncio.sleep(30)
            async def end():
                done = await asyncio.wait_for(asyncio.gather(*calls[:15], *calls[16:]), 20)
                print(len(done), {{one.data for one in done}} == {{b"%d" % at for at in range(12)}})
                calls[15].cancel()  # the one whose handler was interrupted
                for one in (*clients, server):
                    await one.close()
            calls = []
            loop = factory.new_event_loop()
            server, clients = loop.run_until_complete(begin())
            try:
                loop.run_until_complete(ask())
            except KeyboardInterrupt:
                print("interrupted")
            loop.run_until_complete(asyncio.wait_for(end(), 20))
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
        """)
        assert code == 0, err
        assert out.split() == ["interrupted", "35", "True"]

    async def test_a_program_that_it_ends_ends_in_order(self, either: str, outcome_of: Any) -> None:
        code, out, err = await outcome_of(f"""
            async def handler(one):
                if one.payload == b"interrupt":
                    raise KeyboardInterrupt
                return one.payload
            async def main():
                try:
                    async with serve(handler, link={either!r}) as server:
                        url = f"ws://127.0.0.1:{{server.port}}"
                        async with connect(url, link={either!r}) as a, connect(url, link={either!r}) as b:
                            sends = [a.send(message()), b.send(message(b"interrupt")), a.send(message())]
                            await asyncio.gather(*sends)
                finally:
                    print(server.connection_count, server.stats()["pending"], a.state.name, b.state.name)
            with asyncio.Runner(loop_factory=factory.new_event_loop) as runner:
                runner.run(main())
        """)
        assert code == -signal.SIGINT
        assert out.split() == ["0", "0", "CLOSED", "CLOSED"]
        assert err.count("Traceback") == 1, err
        assert err.rstrip().endswith("KeyboardInterrupt")

    async def test_a_served_handler_that_raises_it_ends_the_command_with_130(
        self, outcome_of: Any, raw_client: Any, start_program: Any
    ) -> None:
        program = await start_program(
            "import logging, sys\n"
            "from sage_ws import cli\n"
            "from sage_ws.cli import serve\n"
            "def handler(message):\n"
            "    if message.payload == b'interrupt':\n"
            "        raise KeyboardInterrupt\n"
            "    return message.payload\n"
            "serve._find = lambda name: handler\n"
            "sys.exit(cli.main(['serve', 'm:h', '--port', '0']))\n"
        )
        await program.serving()
        async with raw_client(program.port) as one, raw_client(program.port) as other:
            other.ask("m-1")
            assert (await other.read_json())["message_id"] == "m-1"
            one.ask("m-2", b"interrupt")
            for peer in (one, other):
                assert (await peer.until_closed())[0] == 1001
            assert await program.ended() == 130
        assert not [line for line in await program.rest() if "Traceback" in line]
