"""The page on browsers: its script runs, on `ws` of Node, whose `WebSocket` has a browser's interface."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sage_ws import Call, HandlerError, SecureMessage, serve

if TYPE_CHECKING:
    from tests.interop.conftest import Stranger

pytestmark = pytest.mark.timeout(120, func_only=True)

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "from-a-browser.md"
QUESTIONS = """
globalThis.WebSocket ??= require("ws");
globalThis.crypto ??= require("node:crypto").webcrypto;
const told = (call) => call.catch((error) => `refused: ${error.message}`);
(async () => {
  const agent = new Agent(process.argv[2], "did:sage:page");
  const ask = (text) => told(agent.ask(text, { action: "shout" }));
  const answers = await Promise.all(["gr\u00fc\u00df", "", "no"].map(ask));
  answers.push(await told(agent.ask("leave")), await told(agent.ask("late")));
  console.log(JSON.stringify(answers));
})();
"""


async def answer(message: SecureMessage, call: Call) -> bytes:
    text = message.payload.decode()
    if text == "no":
        raise HandlerError("not today")
    if text == "leave":
        assert call.connection is not None
        await call.connection.close()
    return f"{message.metadata.get('action')} {text.upper()}".encode()


async def test_a_page_asks(node_stranger: Stranger, tmp_path: Path) -> None:
    found = re.search(
        r'^```javascript title="agent.js"\n(.*?)^```$', PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found
    script = tmp_path / "agent.js"
    script.write_text(found[1] + QUESTIONS, "utf-8")
    async with serve(answer) as server, asyncio.timeout(60):
        node = await asyncio.create_subprocess_exec(
            node_stranger.command[0],
            str(script),
            f"ws://127.0.0.1:{server.port}/ws",
            env={**os.environ, **node_stranger.environment},
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await node.communicate()
    assert json.loads(printed) == [
        "shout GRÜSS",
        "refused: payload is required",
        "refused: not today",
        "refused: the connection ended with 1000",
        "refused: the connection has ended",
    ]
