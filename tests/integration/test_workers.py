"""`run(workers=2)`: real processes on one port, that die, are signalled, or lose their parent.

Over 500 lines: the programs that are run stand beside what is asked of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sage_ws import Client, ClosedError, ConnectionLostError, SageError, SecureMessage, connect, run
from sage_ws.aio.supervisor import LONGEST_WAIT, restart_delay

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")

# Its loop is the one of this test run.
PROGRAM = """
import os, sys
if os.environ.get("SAGE_WS_TEST_LOOP") != "uvloop":
    sys.modules["uvloop"] = None
import asyncio, contextlib, logging, pathlib, signal, threading, time
import sage_ws.aio.run as runs
import sage_ws.aio.supervisor as supervisor
from sage_ws import SecureMessage, run

me = None  # the server, in a worker

def say(text):
    os.write(1, f"{text} in {os.getpid()}\\n".encode())  # in one piece: the other one writes there too

async def handler(message):
    order = message.payload.decode()
    if order == "slow":
        go = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go.set)
        say("handling")
        await go.wait()
    elif order == "block":
        say("blocking")
        time.sleep(1000)
    elif order == "os._exit":
        os._exit(3)
    elif order == "sys.exit":
        sys.exit("enough")
    elif order == "close":
        asyncio.create_task(me.close())
    elif order == "loop":
        return type(asyncio.get_running_loop()).__module__.encode()
    elif order == "id":
        return SecureMessage(payload=b"", did="").id.encode()
    return str(os.getpid()).encode()

@contextlib.asynccontextmanager
async def lifespan(server):
    global me
    me = server
    yield
    say("lifespan ended")

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
SETUP
run(handler, **{"host": "127.0.0.1", "port": 0, "workers": 2, "lifespan": lifespan, **OPTIONS})
print("returned", flush=True)
"""

# A lifespan that fails where there is a file, and says so.
FAILING = """
@contextlib.asynccontextmanager
async def failing(server):
    if pathlib.Path(FLAG).exists():
        raise ValueError("no database")
    yield
"""


@pytest.fixture
def start(start_program: Any) -> Callable[..., Awaitable[Any]]:
    """``await start(options, setup)``: the program above, in an unknown state."""

    async def start(options: str = "{}", setup: str = "") -> Any:
        return await start_program(PROGRAM.replace("OPTIONS", options).replace("SETUP", setup))

    return start


@pytest.fixture
def program(start: Any) -> Callable[..., Awaitable[Any]]:
    """``await program(options, setup)``: the program above, when all its workers serve."""

    async def start_serving(options: str = "{}", setup: str = "") -> Any:
        process = await start(options, setup)
        process.port = int((await process.line("2 workers are serving on")).rpartition(":")[2])
        return process

    return start_serving


@pytest.fixture
async def one_of_each() -> AsyncIterator[Callable[..., Awaitable[dict[int, Client]]]]:
    """``clients = await one_of_each(process)``: a client of each worker, by the worker's process id."""
    async with contextlib.AsyncExitStack() as stack:

        async def dial(process: Any, count: int = 2, without: int = 0) -> dict[int, Client]:
            clients: dict[int, Client] = {}
            async with asyncio.timeout(20):
                while len(clients) < count:
                    client = connect(f"ws://127.0.0.1:{process.port}/ws", reconnect=False)
                    await stack.enter_async_context(client)
                    pid = int(await ask(client))
                    if pid in clients or pid == without:
                        await client.close()
                    else:
                        clients[pid] = client
            return clients

        yield dial


def order(text: str) -> SecureMessage:
    return SecureMessage(payload=text.encode(), did="did:sage:test")


async def ask(client: Client, text: str = "pid") -> str:
    return (await client.send(order(text))).data.decode()


def is_there(pid: int) -> bool:
    """Whether there is such a process, a zombie too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ── serving ────────────────────────────────────────────────────────────────────────────


async def test_each_serves_on_the_same_port(program: Any, one_of_each: Any) -> None:
    process = await program(
        setup="SecureMessage(payload=b'', did='')  # so that ids are at hand before the fork"
    )
    clients = await one_of_each(process)
    assert process.pid not in clients
    loop = "uvloop" if os.environ.get("SAGE_WS_TEST_LOOP") == "uvloop" else "asyncio"
    assert {(await ask(client, "loop")).partition(".")[0] for client in clients.values()} == {loop}
    ids = [await ask(client, "id") for client in clients.values()]
    assert len(set(ids)) == 2
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


@pytest.mark.parametrize("host", ["localhost", None])
async def test_every_address_of_the_host_is_served(start: Any, host: str | None) -> None:
    process = await start(f"{{'host': {host!r}}}")
    places = (await process.line("2 workers are serving on")).partition(" serving on ")[2].split(", ")
    assert len({place.rpartition(":")[2] for place in places}) == 1
    assert len(places) == 2 or host is not None or not socket.has_dualstack_ipv6()
    for place in places:
        place = place.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")  # noqa: PLW2901
        async with connect(f"ws://{place}/") as client:
            assert await ask(client)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_a_port_of_other_workers_is_taken(program: Any, start: Any) -> None:
    process = await program()
    second = await start(f"{{'port': {process.port}}}")
    assert await second.ended() == 1
    (error,) = [line for line in await second.rest() if line.startswith("OSError")]
    assert "address already in use" in error
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_a_wanted_port_is_free_again_at_once(program: Any) -> None:
    process = await program()
    async with connect(f"ws://127.0.0.1:{process.port}/") as client:
        assert await ask(client)
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    again = await program(f"{{'port': {process.port}}}")
    assert again.port == process.port
    again.signal(signal.SIGTERM)
    assert await again.ended() == 0


# ── signals ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("to_all", [False, True], ids=["parent", "group"])
async def test_a_signal_drains_all(
    program: Any,
    one_of_each: Any,
    http_status: Any,
    opening_request: Any,
    number: signal.Signals,
    to_all: bool,
) -> None:
    """To the group, as a terminal's Ctrl-C and systemd's stop are: each worker hears of it twice."""
    process = await program()
    clients = await one_of_each(process)
    slow = [asyncio.create_task(ask(client, "slow")) for client in clients.values()]
    for pid in clients:
        await process.line(f"handling in {pid}")
    (os.killpg if to_all else os.kill)(process.pid, number)
    await process.line("signalled: draining 2 workers")
    for _ in clients:
        await process.line("draining")
    assert (await http_status(process.port, opening_request()))[0] == 503
    assert not any(one.done() for one in slow)
    for pid in clients:
        os.kill(pid, signal.SIGUSR1)
    assert await asyncio.gather(*slow) == [str(pid) for pid in clients]
    for pid in clients:
        await process.line(f"lifespan ended in {pid}")
    await process.line("returned")
    assert await process.ended() == 0
    assert not any(is_there(pid) for pid in clients)


async def test_a_second_signal_cuts_the_drain_short(program: Any, one_of_each: Any) -> None:
    process = await program()
    clients = await one_of_each(process)
    slow = [asyncio.create_task(ask(client, "slow")) for client in clients.values()]
    for pid in clients:
        await process.line(f"handling in {pid}")
    process.signal(signal.SIGTERM)
    await process.line("signalled: draining 2 workers; a second signal ends them at once")
    process.signal(signal.SIGTERM)
    for one in slow:
        with pytest.raises(ConnectionLostError) as raised:
            await one
        assert raised.value.code == 1001
    for pid in clients:
        await process.line(f"lifespan ended in {pid}")
    await process.line("returned")
    assert await process.ended() == 0


async def test_a_third_signal_kills_what_does_not_listen(program: Any, one_of_each: Any) -> None:
    process = await program()
    (pid, client), (other, _) = (await one_of_each(process)).items()
    blocked = asyncio.create_task(ask(client, "block"))
    await process.line(f"blocking in {pid}")
    process.signal(signal.SIGTERM)
    await process.line(f"(pid {other}) ended with code 0")
    process.signal(signal.SIGTERM)
    process.signal(signal.SIGINT)
    await process.line(f"(pid {pid}) has not ended in time: killing it")
    with pytest.raises(ConnectionLostError):
        await blocked
    assert await process.ended() == 1
    assert any("ChildProcessError: worker" in line for line in await process.rest())


async def test_who_takes_longer_than_the_drain_is_killed(program: Any, one_of_each: Any) -> None:
    process = await program("{'close_timeout': 0.1}", "runs.DRAIN_TIMEOUT = supervisor.LEAVING = 0.1")
    (pid, client), (other, _) = (await one_of_each(process)).items()
    blocked = asyncio.create_task(ask(client, "block"))
    await process.line(f"blocking in {pid}")
    process.signal(signal.SIGTERM)
    await process.line(f"(pid {other}) ended with code 0")
    await process.line(f"(pid {pid}) has not ended in time: killing it")
    with pytest.raises(ConnectionLostError):
        await blocked
    assert await process.ended() == 1
    assert any(f"(pid {pid}) was killed by signal 9" in line for line in await process.rest())
    assert not is_there(pid)


async def test_a_lifespan_that_fails_at_the_end_is_told(program: Any) -> None:
    leaving = """
@contextlib.asynccontextmanager
async def leaving(server):
    yield
    raise ValueError("lost")
"""
    process = await program("{'lifespan': leaving}", leaving)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 1
    rest = await process.rest()
    assert any(
        "ChildProcessError: worker" in line and "ended with code 1: ValueError: lost" in line for line in rest
    )
    assert "returned" not in rest


# ── a worker that ends ─────────────────────────────────────────────────────────────────


async def test_a_killed_worker_is_replaced_under_load(program: Any, one_of_each: Any) -> None:
    process = await program()
    (killed, client), (other, left) = (await one_of_each(process)).items()
    ended = asyncio.Event()

    async def load(client: Client) -> tuple[int, Exception | None]:
        """Call after call, eight at a time; how many were answered."""
        answered = 0
        while not ended.is_set():
            try:
                await asyncio.gather(*(ask(client) for _ in range(8)))
            except (ConnectionLostError, ClosedError) as error:
                return answered, error
            answered += 8
        return answered, None

    async def newcomers() -> set[int]:
        """One client after the other until one is served by a worker that was not there; who served them."""
        seen: set[int] = set()
        while seen <= {killed, other}:
            try:
                async with connect(f"ws://127.0.0.1:{process.port}/", reconnect=False) as one:
                    seen.add(int(await ask(one)))
            except SageError:  # it had come to the one that was killed
                assert is_there(process.pid)
        return seen

    async with asyncio.timeout(20):
        loads = [asyncio.create_task(load(one)) for one in (client, left)]
        os.kill(killed, signal.SIGKILL)
        await process.line(f"(pid {killed}) was killed by signal 9")
        served = await newcomers()
        assert not is_there(killed)
        ended.set()
        (_, lost), (answered, error) = await asyncio.gather(*loads)
    assert lost is not None
    assert (answered > 0, error) == (True, None)
    assert served - {killed, other}
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("os._exit", "ended with code 3"),
        ("sys.exit", "ended with code 1: SystemExit: enough"),
        ("close", "ended with code 0"),
        ("SIGTERM", "ended with code 0"),
    ],
)
async def test_whatever_ends_a_worker_it_is_replaced(
    program: Any, one_of_each: Any, way: str, said: str
) -> None:
    process = await program()
    (pid, client), (other, _) = (await one_of_each(process)).items()
    if way == "SIGTERM":
        os.kill(pid, signal.SIGTERM)
    else:
        with contextlib.suppress(ConnectionLostError):
            await ask(client, way)
    await process.line(f"(pid {pid}) {said}")
    ((new, _),) = (await one_of_each(process, 1, without=other)).items()
    assert new != pid
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_one_that_ends_again_and_again_has_to_wait(program: Any, one_of_each: Any) -> None:
    process = await program()
    ((other, _), _) = (await one_of_each(process)).items()
    for seconds in (None, 0.25, 0.5):
        ((pid, client),) = (await one_of_each(process, 1, without=other)).items()
        with pytest.raises(ConnectionLostError):
            await ask(client, "os._exit")
        line = await process.line(f"(pid {pid}) ended with code 3")
        if seconds:
            await process.line(f"{line.partition(' (')[0]} starts again in {seconds} s")
    ((_, client),) = (await one_of_each(process, 1, without=other)).items()
    assert await ask(client)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_one_that_had_proved_itself_is_replaced_at_once(program: Any, one_of_each: Any) -> None:
    process = await program(setup="supervisor.PROVEN = 0.0")
    ((other, _), _) = (await one_of_each(process)).items()
    for _ in range(3):
        ((pid, _),) = (await one_of_each(process, 1, without=other)).items()
        os.kill(pid, signal.SIGKILL)
        await process.line(f"(pid {pid}) was killed by signal 9")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    assert not any("starts again" in line for line in await process.rest())


async def test_a_signal_while_a_worker_is_waited_for(program: Any, one_of_each: Any) -> None:
    process = await program(setup="supervisor.restart_delay = lambda failures: 1000.0")
    for pid in await one_of_each(process):
        os.kill(pid, signal.SIGKILL)
        await process.line("starts again in 1000 s")
    process.signal(signal.SIGTERM)
    await process.line("returned")
    assert await process.ended() == 0


async def test_a_lifespan_that_fails_later_is_tried_again(
    program: Any, one_of_each: Any, tmp_path: Path
) -> None:
    flag = tmp_path / "failing"
    process = await program("{'lifespan': failing}", f"FLAG = {str(flag)!r}\n{FAILING}")
    (pid, _), (other, left) = (await one_of_each(process)).items()
    flag.touch()
    os.kill(pid, signal.SIGKILL)
    await process.line("ended with code 1: ValueError: no database")
    assert await ask(left) == str(other)
    flag.unlink()
    assert await one_of_each(process, 1, without=other)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_a_fork_that_fails_later_is_tried_again(program: Any, one_of_each: Any) -> None:
    setup = """
fork, left = os.fork, [None, None, OSError(11, "no more processes"), None]
def scarce():
    if error := left.pop(0):
        raise error
    return fork()
os.fork = scarce
"""
    process = await program(setup=setup)
    (pid, _), (other, left) = (await one_of_each(process)).items()
    os.kill(pid, signal.SIGKILL)
    await process.line("could not be started: [Errno 11] no more processes")
    assert await ask(left) == str(other)
    assert await one_of_each(process, 1, without=other)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


def test_the_waits_are_doubled_and_have_an_end() -> None:
    assert [restart_delay(failures) for failures in range(5)] == [0.0, 0.25, 0.5, 1.0, 2.0]
    assert restart_delay(10**6) == LONGEST_WAIT


# ── one that never serves ──────────────────────────────────────────────────────────────


async def test_a_lifespan_that_fails_at_the_start_ends_it_all(start: Any, tmp_path: Path) -> None:
    process = await start("{'lifespan': failing}", f"FLAG = {str(tmp_path)!r}\n{FAILING}")
    assert await process.ended() == 1
    lines = await process.rest()
    assert "    ValueError: no database" in lines, "the traceback of the worker"
    assert any(
        line.startswith("ChildProcessError: worker ")
        and line.endswith("ended with code 1 before it had served: ValueError: no database")
        for line in lines
    )
    assert "returned" not in lines


async def test_the_others_are_ended_then(start: Any, tmp_path: Path) -> None:
    """The first to come up serves; the other one, which waits for that, ends before it has served."""
    setup = f"""
import fcntl
@contextlib.asynccontextmanager
async def once(server):
    with open({str(tmp_path / "lock")!r}, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os._exit(7)
        yield
        say("lifespan ended")
"""
    process = await start("{'lifespan': once}", setup)
    await process.line("lifespan ended")
    assert await process.ended() == 1
    assert any("ended with code 7 before it had served" in line for line in await process.rest())


def test_a_fork_that_fails_at_the_start_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce() -> int:
        raise OSError(errno.EAGAIN, "no more processes")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(os, "fork", scarce)
    with pytest.raises(OSError, match="no more processes"):
        run(lambda one: None, port=0, workers=2)
    assert signal.getsignal(signal.SIGTERM) is before


# ── a parent that ends ─────────────────────────────────────────────────────────────────


async def test_workers_without_a_parent_drain(program: Any, one_of_each: Any) -> None:
    process = await program()
    clients = await one_of_each(process)
    (pid, client), _ = clients.items()
    slow = asyncio.create_task(ask(client, "slow"))
    await process.line(f"handling in {pid}")
    process.signal(signal.SIGKILL)
    for _ in clients:
        await process.line("draining")
    os.kill(pid, signal.SIGUSR1)
    assert await slow == str(pid)
    rest = await process.rest()  # which ends when both have
    assert {f"lifespan ended in {pid}" for pid in clients} <= set(rest)


async def test_an_exception_in_the_parent_leaves_nobody(program: Any, one_of_each: Any) -> None:
    setup = """
def broken(*arguments):
    raise RuntimeError("broken")
supervisor.Supervisor._replace = broken
"""
    process = await program(setup=setup)
    pids = list(await one_of_each(process))
    os.kill(pids[0], signal.SIGKILL)
    assert await process.ended() == 1
    assert "RuntimeError: broken" in await process.rest()
    assert not any(is_there(pid) for pid in pids)


# ── where it cannot be ─────────────────────────────────────────────────────────────────


async def test_threads_are_warned_of(program: Any) -> None:
    process = await program(
        setup="threading.Thread(target=time.sleep, args=(1000,), name='clock', daemon=True).start()"
    )
    await process.line("what these threads lock may stay locked in workers: clock")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


def test_in_a_thread_it_is_refused() -> None:
    raised: list[BaseException] = []

    def beside() -> None:
        try:
            run(lambda one: None, port=0, workers=2)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    assert str(*raised) == "several workers are run from the main thread: no other gets signals"


@pytest.mark.parametrize(("module", "name"), [(os, "fork"), (socket, "SO_REUSEPORT")])
def test_where_nothing_can_be_forked_or_shared(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    monkeypatch.delattr(module, name)
    with pytest.raises(OSError, match="this platform cannot fork workers that share a port"):
        run(lambda one: None, port=0, workers=2)


async def test_inside_a_running_loop_it_is_refused() -> None:
    with pytest.raises(RuntimeError, match="use serve"):
        run(lambda one: None, port=0, workers=2)
