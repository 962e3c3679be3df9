"""The agents' process: four agents behind one server, and the same handler over HTTP."""

from __future__ import annotations

import codecs
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from sage_ws.aio.server import serve
from sage_ws.demo.process import Parent, run_child
from sage_ws.demo.signing import Identity, KeyBook, request_bytes
from sage_ws.errors import HandlerError
from sage_ws.message import SecureMessage

HOST: Final = "127.0.0.1"

FORGED: Final = "signature does not hold"
"""What a forger is told."""

SKILLS: Final[Mapping[str, Callable[[str], str]]] = {
    "did:sage:demo:herald": str.upper,
    "did:sage:demo:mirror": lambda text: text[::-1],
    "did:sage:demo:cipher": lambda text: codecs.encode(text, "rot13"),
    "did:sage:demo:scribe": lambda text: f"{len(text.split())} words, {len(text)} characters",
}
"""What each agent does with a line of text; a client knows it too, and so can check the answer."""


class Agents:
    """The handler behind both transports: checks who asks, then lets the agent that is asked answer."""

    def __init__(self, clients: KeyBook) -> None:
        self.identities = {did: Identity(did) for did in SKILLS}
        self._clients = clients

    def __call__(self, message: SecureMessage) -> bytes:
        """Answer one line of text, signed."""
        if not self._clients.holds(message.did, message.signature, request_bytes(message)):
            raise HandlerError(FORGED)
        agent = self.identities.get(message.metadata.get("to", ""))
        if agent is None:
            raise HandlerError("no such agent")
        answer = SKILLS[agent.did](message.payload.decode())
        return agent.answer(message, answer.encode())


async def work(parent: Parent) -> None:
    """Hear the clients' public keys, tell the addresses and the agents' own, serve until let go of."""
    wanted = await parent.hear()
    agents = Agents(KeyBook(wanted["clients"]))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(agents, HOST, 0, path="/ws"))
        addresses = {"WebSocket": f"ws://{HOST}:{server.port}/ws"}
        if wanted["http"]:
            addresses["HTTP"] = await stack.enter_async_context(_serve_http(agents))
        keys = {did: identity.public for did, identity in agents.identities.items()}
        parent.tell({"addresses": addresses, "agents": keys})
        await parent.gone()


@asynccontextmanager
async def _serve_http(agents: Agents) -> AsyncIterator[str]:
    from aiohttp import web  # an extra: the demo runs without it, too

    from sage_ws.transports.http import http_app

    runner = web.AppRunner(http_app(agents), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    run_child(work, sys.stdin.buffer, sys.stdout.buffer)
