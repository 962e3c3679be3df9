"""Prometheus metrics of servers and clients: what ``stats()`` counts, how long calls take, a port to scrape.

::

    metrics = Metrics()
    async with serve(handler, interceptors=[metrics.server_interceptor()]) as server:
        metrics.watch(server)
        prometheus_client.start_http_server(9464, "127.0.0.1")

Needs prometheus_client: ``pip install 'sage-ws[prometheus]'``. docs/how-to/metrics.md lists what there is.
"""

from __future__ import annotations

from sage_ws.metrics.port import MetricsPort
from sage_ws.metrics.prometheus import BUCKETS, Metrics
from sage_ws.observing.sources import Watch

__all__ = ["BUCKETS", "Metrics", "MetricsPort", "Watch"]
