"""The strangers themselves: they are what they pass for, and where one is missing that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Program, Stranger

pytestmark = pytest.mark.timeout(60, func_only=True)

HERE = Path(__file__).parent


async def test_two_in_go_deadlock(go_stranger: Stranger, run: Callable[..., Awaitable[Program]]) -> None:
    """Else the stall that ours passes with each of them would prove nothing."""
    server = await run(go_stranger, "server", "-write-deadline", "1s")
    port = (await server.event("listening"))["port"]
    client = await run(go_stranger, "client", "-write-deadline", "1s")
    await client.ask("dial", "opened", url=f"ws://127.0.0.1:{port}/ws")
    done = await client.ask("calls", "done", count=256, in_flight=256, size=65_536, timeout=3)
    assert done["answered"] < 256
    assert any("timeout" in text for text in done["failures"])


@pytest.mark.parametrize("ci", ["", "true"])
def test_what_is_missing_is_skipped_but_in_ci(ci: str, tmp_path: Path) -> None:
    needing = {
        "go": "test_go_client.py::test_binary_messages",
        "node": "test_plain_peers.py::test_our_client_closes[ws]",
        "cargo": "test_plain_peers.py::test_our_client_closes[tungstenite]",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            *(HERE / test for test in needing.values()),
        ],
        env={**os.environ, "PATH": str(tmp_path), "CI": ci},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ("3 errors" if ci else "3 skipped") in done.stdout, done.stdout + done.stderr
    assert (done.returncode == 0) == (not ci)
    for program in needing:
        assert f"{program} is not installed" in done.stdout
