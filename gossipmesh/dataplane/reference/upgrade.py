"""What follows an accepted upgrade (WebSocket): bytes both ways until either side ends."""

from gossipmesh.dataplane.reference.forward import Downstream
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.dataplane.reference.state import EngineState
from gossipmesh.dataplane.reference.tcp import tunnel
from gossipmesh.model.instant import SECOND_NS


async def splice(state: EngineState, downstream: Downstream, connection: PooledConnection) -> None:
    """Carry an upgraded connection; both streams are the caller's to close."""
    applied = state.applied
    idle_ns = 3600 * SECOND_NS if applied is None else applied.limits.idle_timeout_tcp_ns
    downstream.keep_alive = False
    ended = await tunnel(
        downstream.stream,
        connection.stream,
        downstream_first=downstream.reader.take_buffered(),
        upstream_first=connection.reader.take_buffered(),
        idle_timeout_s=idle_ns / SECOND_NS,
    )
    downstream.sent_bytes += ended.sent_bytes
    downstream.body.received_bytes += ended.received_bytes
