"""sage_ws itself, both ends, on one core or the other; options as they are by default."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import sage_ws
from bench.driving import Ask, drive
from bench.message import CONTEXT_ID, DID, METADATA, ROLE, SIGNATURE, TASK_ID, check
from bench.shapes import Round, Wanted
from sage_ws import SecureMessage


async def handler(message: SecureMessage) -> bytes:
    return message.payload


@asynccontextmanager
async def connect(address: str, _in_flight: int) -> AsyncIterator[Ask]:
    async with sage_ws.connect(address) as client:

        async def ask(payload: bytes) -> None:
            message = SecureMessage(payload, DID, "", SIGNATURE, CONTEXT_ID, TASK_ID, METADATA, ROLE)
            response = await client.send(message)
            check(response.message_id == message.id, response.data == payload)

        yield ask


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    async with sage_ws.serve(handler, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.port}/ws"


@dataclass(frozen=True)
class Sage:
    """sage_ws on one of its cores; see `bench.peers.Peer`."""

    core: Literal["rust", "pure"]

    @property
    def name(self) -> str:
        return f"sage-{self.core}"

    @property
    def title(self) -> str:
        return f"sage_ws, {self.core} core"

    @property
    def environment(self) -> Mapping[str, str]:
        return {"SAGE_WS_CORE": self.core}

    def missing(self) -> str | None:
        if self.core == "rust" and importlib.util.find_spec("sage_ws._core._rust") is None:
            return "the native extension is not built here"
        return None

    def versions(self) -> Mapping[str, str]:
        return {"sage-ws": sage_ws.__version__}

    def serve(self) -> AbstractAsyncContextManager[str]:
        if sage_ws.core_name != self.core:
            raise RuntimeError(f"{self.name} runs on the {sage_ws.core_name} core")
        return serve()

    async def drive(self, address: str, wanted: Wanted) -> Round:
        if sage_ws.core_name != self.core:
            raise RuntimeError(f"{self.name} runs on the {sage_ws.core_name} core")
        return await drive(connect, address, wanted)


RUST = Sage("rust")
PURE = Sage("pure")
