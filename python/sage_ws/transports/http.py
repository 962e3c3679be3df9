"""SAGE over HTTP, both ends: one ``POST {base}/messages`` per message (docs/reference/wire.md, "HTTP").

The client end is a ``MessageTransport``, the server end an aiohttp application that calls the same
handlers as a WebSocket ``Server`` does::

    transport = HTTPTransport("http://agent.example")
    response = await transport.send(SecureMessage(payload=b"hello", did="did:sage:me"))

    aiohttp.web.run_app(http_app(handler), port=8080)

Needs aiohttp: ``pip install 'sage-ws[http]'``.
"""

from __future__ import annotations

from sage_ws.transports.http_client import HTTPTransport
from sage_ws.transports.http_server import http_app

__all__ = ["HTTPTransport", "http_app"]
