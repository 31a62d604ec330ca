"""GET /metrics: values are read on the loop in small steps, the text is made in a thread."""

import importlib
from typing import Any, Final

import trio

from gossipmesh.agent.admin.admin_views import Parts
from gossipmesh.agent.admin.http_server import Refused, Request, Response
from gossipmesh.agent.engine.engine_counts import EngineCounts

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class MetricsEndpoint:
    """Answers scrapes; loads what renders them at the first one, off the loop."""

    def __init__(self, parts: Parts, counts: EngineCounts) -> None:
        self._parts = parts
        self._counts = counts

    async def handle(self, request: Request) -> Response:
        """Answer one scrape."""
        if request.path != "/metrics":
            raise Refused(404, "not-found", "metrics are at /metrics")
        if request.method != "GET":
            raise Refused(405, "method", "/metrics takes GET")
        metrics: Any = await trio.to_thread.run_sync(
            importlib.import_module, "gossipmesh.agent.admin.metrics_families"
        )
        families = []
        for family in metrics.collect(self._parts, self._counts):
            if family is None:
                await trio.lowlevel.checkpoint()
            else:
                families.append(family)
        return Response(await trio.to_thread.run_sync(metrics.render, families), _CONTENT_TYPE)
