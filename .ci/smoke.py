"""An installed sage_ws serves one message over a real socket, on the core that is named as the argument."""

from __future__ import annotations

import asyncio
import sys

import sage_ws


async def handler(message: sage_ws.SecureMessage) -> bytes:
    return message.payload.upper()


async def main() -> None:
    async with (
        sage_ws.serve(handler, "127.0.0.1", 0) as server,
        sage_ws.connect(f"ws://127.0.0.1:{server.port}/ws") as client,
    ):
        response = await client.send(sage_ws.SecureMessage(payload=b"hello", did="did:sage:ethereum:0x1"))
    if response.data != b"HELLO":
        sys.exit(f"answered {response!r}")


asyncio.run(main())
if sage_ws.core_name != sys.argv[1]:
    sys.exit(f"ran on the {sage_ws.core_name} core, not on {sys.argv[1]}")
print(f"{sage_ws.__file__}: the {sage_ws.core_name} core served a message on Python {sys.version.split()[0]}")
