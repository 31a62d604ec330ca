"""Connections to endpoints and workloads: from the pool or new, admitted, and proven to be who they are."""

import trio

from gossipmesh.dataplane.reference.http1 import MESH_LIMITS
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.dataplane.reference.state import EngineState, UpstreamState, now
from gossipmesh.dataplane.reference.tries import Attempt
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import SnapshotEndpoint
from gossipmesh.net.byte_stream import PlainStream, connect
from gossipmesh.net.shortage import is_own_shortage
from gossipmesh.net.tls import ALPN_HTTP, TlsError, TlsStream, open_tls
from gossipmesh.traffic.outcomes import Outcome


class DialFailed(Exception):
    """No connection. `outcome` None: it was not tried (a limit, or no SVID to speak with)."""

    def __init__(self, outcome: Outcome | None, flag: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.flag = flag
        self.detail = detail


async def dial_endpoint(
    state: EngineState, upstream: UpstreamState, endpoint: SnapshotEndpoint, caller: str, protocol: str
) -> TlsStream:
    """Open an mTLS connection to `endpoint` as `caller`; its place is taken from the admission.

    Raises:
        DialFailed: why not. State: no place is held.
    """
    identities, applied = state.identities, state.applied
    context = None if identities is None else identities.client(caller, protocol)
    if context is None or applied is None:
        raise DialFailed(None, "UF", f"no_svid: {caller}")
    admission = upstream.admission
    admitted = admission.admit_connection()
    if not admitted and upstream.pool.close_oldest():
        admitted = admission.admit_connection()
    if not admitted:
        raise DialFailed(None, "UO", "upstream_connections_overflow")
    stream: TlsStream | None = None
    try:
        with trio.move_on_after(applied.limits.connect_timeout_ns / SECOND_NS):
            stream = await open_tls(
                endpoint.address,
                context,
                server_name=endpoint.server_name,
                spiffe_id=endpoint.spiffe_id,
                protocol=protocol,
            )
    except ConnectionRefusedError as error:
        raise DialFailed(Outcome.CONNECT_REFUSED, "UF", f"connect_refused: {error}") from None
    except OSError as error:
        if isinstance(error, TlsError):
            state.counters.add("tls_client_failures")
        raise DialFailed(Outcome.CONNECT_FAILED, "UF", f"connect_failed: {error}") from None
    finally:
        if stream is None:
            admission.release_connection()
    if stream is None:
        raise DialFailed(Outcome.CONNECT_FAILED, "UF", "connect_timeout")
    state.counters.add("tls_client_handshakes")
    return stream


async def endpoint_connection(
    state: EngineState, upstream: UpstreamState, endpoint: SnapshotEndpoint, caller: str, attempt: Attempt
) -> PooledConnection:
    """Return an HTTP connection to `endpoint` that belongs to `caller`, for `attempt`.

    Raises:
        DialFailed: why not, or the attempt was stopped. State: nothing is held.
    """
    connection = upstream.pool.take(caller, attempt.key, now())
    if connection is None:
        with trio.CancelScope() as attempt.dialing:
            stream = await dial_endpoint(state, upstream, endpoint, caller, ALPN_HTTP)
            connection = PooledConnection(
                stream, caller, attempt.key, upstream.admission.release_connection, MESH_LIMITS
            )
        attempt.dialing = None
    if connection is None or attempt.stopped is not None:
        if connection is not None:
            connection.close()
        raise DialFailed(None, "", "stopped")
    attempt.connection = connection
    return connection


async def dial_workload(state: EngineState, address: Address) -> PlainStream:
    """Open a connection to a local workload.

    Raises:
        DialFailed: why not. State: nothing is left open.
    """
    applied = state.applied
    timeout_s = 1.0 if applied is None else applied.limits.connect_timeout_ns / SECOND_NS
    try:
        with trio.fail_after(timeout_s):
            return PlainStream(await connect(address, mesh=False))
    except ConnectionRefusedError as error:
        raise DialFailed(Outcome.CONNECT_REFUSED, "UF", f"connect_refused: {error}") from None
    except OSError as error:
        if is_own_shortage(error):
            raise DialFailed(None, "UO", f"own_shortage: {error}") from None
        raise DialFailed(Outcome.CONNECT_FAILED, "UF", f"connect_failed: {error}") from None
    except trio.TooSlowError:
        raise DialFailed(Outcome.CONNECT_FAILED, "UF", "connect_timeout") from None


async def workload_connection(
    state: EngineState, registration: str, address: Address, caller: str
) -> PooledConnection:
    """Return an HTTP connection to a local workload that only `caller`'s requests have gone by.

    Raises:
        DialFailed: why not. State: nothing is held.
    """
    key = ("", registration, address.host, address.port)
    pooled = state.workloads.take(caller, key, now())
    if pooled is not None:
        return pooled
    return PooledConnection(await dial_workload(state, address), caller, key, lambda: None)
