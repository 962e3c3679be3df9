"""`run`: a process of its own that serves until it is signalled, then drains."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sage_ws import ConnectionLostError, DialError, SecureMessage, connect, run, serve

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

PROGRAM = """
import asyncio, contextlib, logging, signal, sys
from sage_ws import run

async def handler(message):
    if message.payload == b"slow":
        go = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go.set)
        print("in handler", flush=True)
        await go.wait()
    return type(asyncio.get_running_loop()).__module__.encode()

@contextlib.asynccontextmanager
async def lifespan(server):
    yield
    print("lifespan ended", flush=True)

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
run(handler, port=0, path="/ws", lifespan=lifespan, **OPTIONS)
print("returned", flush=True)
"""


@pytest.fixture
def program(start_program: Any) -> Callable[..., Awaitable[Any]]:
    """``await program(options)``: the program above, serving."""

    async def start(options: str = "{}") -> Any:
        process = await start_program(PROGRAM.replace("OPTIONS", options))
        await process.serving()
        return process

    return start


def message(payload: bytes = b"x") -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", signature=b"canary")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(
    program: Any, http_status: Any, opening_request: Any, number: signal.Signals
) -> None:
    process = await program()
    client = await connect(f"ws://127.0.0.1:{process.port}/ws", reconnect=False)
    slow = asyncio.create_task(client.send(message(b"slow")))
    await process.line("in handler")
    process.signal(number)
    await process.line("draining")
    assert (await http_status(process.port, opening_request()))[0] == 503
    assert not slow.done()
    process.signal(signal.SIGUSR1)
    assert (await slow).success
    await process.line("lifespan ended")
    await process.line("returned")
    assert await process.ended() == 0
    await client.close()


async def test_a_second_signal_cuts_the_drain_short(program: Any) -> None:
    process = await program()
    client = await connect(f"ws://127.0.0.1:{process.port}/ws", reconnect=False)
    slow = asyncio.create_task(client.send(message(b"slow")))
    await process.line("in handler")
    process.signal(signal.SIGTERM)
    await process.line("draining")
    process.signal(signal.SIGTERM)
    with pytest.raises(ConnectionLostError) as raised:
        await slow  # which nobody lets go of
    assert raised.value.code == 1001
    await process.line("lifespan ended")
    await process.line("returned")
    assert await process.ended() == 0
    await client.close()


async def test_a_signal_ends_an_idle_one_at_once(program: Any) -> None:
    process = await program()
    process.signal(signal.SIGTERM)
    await process.line("returned")
    assert await process.ended() == 0


async def test_it_runs_on_uvloop_where_that_is_installed(program: Any) -> None:
    pytest.importorskip("uvloop")
    process = await program()
    async with connect(f"ws://127.0.0.1:{process.port}/ws") as client:
        assert (await client.send(message())).data == b"uvloop"
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_its_path_and_options_are_the_servers(program: Any) -> None:
    process = await program("{'max_connections': 1}")
    url = f"ws://127.0.0.1:{process.port}"
    with pytest.raises(DialError) as raised:
        await connect(f"{url}/elsewhere").connect()
    assert raised.value.status == 404
    async with connect(f"{url}/ws"):
        with pytest.raises(DialError) as raised:
            await connect(f"{url}/ws").connect()
        assert raised.value.status == 503
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


def test_without_uvloop_it_runs_on_asyncio() -> None:
    code = (
        "import sys; sys.modules['uvloop'] = None\n"
        "import asyncio, signal, os\n"
        "from sage_ws import run\n"
        "from contextlib import asynccontextmanager\n"
        "@asynccontextmanager\n"
        "async def lifespan(server):\n"
        "    print(type(asyncio.get_running_loop()).__module__)\n"
        "    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)\n"
        "    yield\n"
        "run(lambda message: None, port=0, lifespan=lifespan)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("asyncio.")


def test_where_the_loop_takes_no_signals_the_signal_module_does() -> None:
    code = (
        "import sys; sys.modules['uvloop'] = None\n"
        "import asyncio, signal\n"
        "def without(self, number, callback): raise NotImplementedError  # as on Windows\n"
        "asyncio.SelectorEventLoop.add_signal_handler = without\n"
        "from sage_ws import run\n"
        "from contextlib import asynccontextmanager\n"
        "@asynccontextmanager\n"
        "async def lifespan(server):\n"
        "    asyncio.get_running_loop().call_later(0.05, signal.raise_signal, signal.SIGTERM)\n"
        "    yield\n"
        "    print('drained')\n"
        "run(lambda message: None, port=0, lifespan=lifespan)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "drained\n", "")


def test_a_server_that_is_closed_from_within_ends_it() -> None:
    async def closing(server: Any) -> None:
        async with asyncio.timeout(10):
            while not server.sockets:  # noqa: ASYNC110  # it listens when its lifespan has begun
                await asyncio.sleep(0.001)
        await server.close()

    class Around:
        def __init__(self, server: Any) -> None:
            self.server = server

        async def __aenter__(self) -> None:
            self.task = asyncio.create_task(closing(self.server))

        async def __aexit__(self, *exc: object) -> None: ...

    run(lambda one: None, port=0, lifespan=Around)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("workers", "error", "text"),
    [
        (0, ValueError, "workers must be at least 1, not 0"),
        (-1, ValueError, "workers must be at least 1, not -1"),
        (True, TypeError, "workers must be an int, not bool"),
        (2.0, TypeError, "workers must be an int, not float"),
        (None, TypeError, "workers must be an int, not NoneType"),
    ],
)
def test_a_senseless_number_of_workers_is_refused(workers: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        run(lambda one: None, port=0, workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_path_without_a_slash_is_refused_before_anything_runs(workers: int) -> None:
    with pytest.raises(ValueError, match="path must start with a slash, not 'ws'"):
        run(lambda one: None, port=0, path="ws", workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_taken_port_is_an_os_error(workers: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="(?i)address already in use"):
            run(lambda one: None, port=taken.getsockname()[1], workers=workers)


def test_a_wrong_option_is_refused_before_anything_runs() -> None:
    with pytest.raises(TypeError, match="has no option 'retries'"):
        run(lambda one: None, retries=1)  # type: ignore[call-arg]


async def test_inside_a_running_loop_it_is_refused() -> None:
    with pytest.raises(RuntimeError, match="use serve"):
        run(lambda one: None, port=0)
    async with serve(lambda one: b"the loop goes on") as server:
        async with connect(f"ws://127.0.0.1:{server.port}") as client:
            assert (await client.send(message())).data == b"the loop goes on"
