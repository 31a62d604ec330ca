"""What follows an accepted upgrade (WebSocket): bytes both ways until either side ends."""

from gossipmesh.dataplane.reference.forward import Downstream
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.dataplane.reference.state import EngineState
from gossipmesh.dataplane.reference.tcp import tunnel


async def splice(state: EngineState, downstream: Downstream, connection: PooledConnection) -> None:
    """Carry an upgraded connection; both streams are the caller's to close."""
    downstream.keep_alive = False
    ended = await tunnel(
        downstream.stream,
        connection.stream,
        downstream_first=downstream.reader.take_buffered(),
        upstream_first=connection.reader.take_buffered(),
        idle_timeout_s=state.idle_timeout_tcp_s,
    )
    downstream.sent_bytes += ended.sent_bytes
    downstream.body.received_bytes += ended.received_bytes
