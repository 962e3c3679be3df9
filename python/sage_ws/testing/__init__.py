"""What an agent's own tests need: a real server in a thread, a recording handler, a transport without socket.

::

    from sage_ws.testing import MemoryTransport, RecordingHandler, serve_in_thread

    with serve_in_thread(handler) as server:          # a real server; its address is server.url
        ...
    transport = MemoryTransport(handler)              # the same answers, no socket
    peer = RecordingHandler([b"first", b"second"])    # a handler: replies in turn, keeps what came

In pytest the fixture ``sage_server`` is there by itself (``sage_ws.testing.plugin``).
"""

from __future__ import annotations

from sage_ws.testing.memory import MemoryTransport
from sage_ws.testing.recording import RecordingHandler
from sage_ws.testing.threads import ThreadServer, serve_in_thread

__all__ = ["MemoryTransport", "RecordingHandler", "ThreadServer", "serve_in_thread"]
