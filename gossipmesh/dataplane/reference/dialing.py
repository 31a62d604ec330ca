"""Connections to endpoints and workloads: from the pool or new, admitted, and proven to be who they are."""

import errno
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.dial_queue import Learnt
from gossipmesh.dataplane.reference.http1 import MESH_LIMITS
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.dataplane.reference.state import EngineState, UpstreamState
from gossipmesh.dataplane.reference.tries import Attempt
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import SnapshotEndpoint
from gossipmesh.net.byte_stream import PlainStream, connect
from gossipmesh.net.shortage import is_own_shortage
from gossipmesh.net.tls import ALPN_HTTP, TlsError, TlsPeerRefused, TlsStream, open_tls
from gossipmesh.traffic import endings
from gossipmesh.traffic.endings import Ending
from gossipmesh.traffic.endpoints import key_of
from gossipmesh.traffic.outcomes import FAILURES

log = logging.getLogger("gossipmesh.engine")

_LAG_SHARE: Final = 0.25  # of the connect timeout: a loop this late saw what came too late
_NO_WAY: Final = (
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
)


class DialFailed(Exception):
    """No connection, and why; `more` is for the log. `unreached`: the node gave no sign of life."""

    def __init__(self, ending: Ending, more: str = "", *, unreached: bool = False) -> None:
        super().__init__(f"{ending.detail}: {more}" if more else ending.detail)
        self.ending = ending
        self.more = more
        self.unreached = unreached


async def dial_endpoint(
    state: EngineState, upstream: UpstreamState, endpoint: SnapshotEndpoint, caller: str, protocol: str
) -> TlsStream:
    """Open an mTLS connection to `endpoint` as `caller`; its place is taken from the admission.

    Raises:
        DialFailed: why not. State: no place is held.
    """
    async with _in_turn(state, endpoint):
        return await _shake_hands(state, upstream, endpoint, caller, protocol)


@asynccontextmanager
async def _in_turn(state: EngineState, endpoint: SnapshotEndpoint) -> AsyncIterator[None]:
    """Hold a place to connect to `endpoint`; what is learnt is told to those who wait for one.

    Raises:
        DialFailed: the connection before this one could not be made. State: no place is held.
    """
    before_us = await state.dials.enter(key_of(endpoint))
    if before_us is not None:
        raise DialFailed(endings.FOUND_BEFORE, before_us.detail, unreached=before_us.unreached)
    failure: Learnt | None = None
    try:
        yield
    except DialFailed as error:
        if error.ending.outcome in FAILURES:
            failure = Learnt(str(error), error.unreached)
        raise
    finally:
        state.dials.leave(key_of(endpoint), failure)


async def _shake_hands(
    state: EngineState, upstream: UpstreamState, endpoint: SnapshotEndpoint, caller: str, protocol: str
) -> TlsStream:
    applied, facts = state.applied, state.peers.facts(now())
    if applied is None or facts is None:
        raise DialFailed(endings.NO_SNAPSHOT)
    context = _context(state, caller, protocol)
    admission = upstream.admission
    admitted = admission.admit_connection()
    if not admitted and upstream.pool.close_oldest():
        admitted = admission.admit_connection()
    if not admitted:
        raise DialFailed(endings.CONNECTIONS_OVERFLOW)
    stream: TlsStream | None = None
    timeout_s = applied.limits.connect_timeout_ns / SECOND_NS
    lag_before_s = state.dials.lag.total_s
    try:
        with trio.move_on_after(timeout_s):
            stream = await open_tls(
                endpoint.address,
                context,
                server_name=endpoint.server_name,
                dialled=state.peers.dialled(endpoint),
                facts=facts,
                protocol=protocol,
            )
    except OSError as error:
        if isinstance(error, TlsError):
            state.counters.add("tls_client_failures")
        # The request may go elsewhere and end well: then its own line would not tell.
        if isinstance(error, TlsPeerRefused) and state.peers.refused(error, now()):
            log.warning("who answers at %s for %s is nobody: %s", endpoint.address, endpoint.node, error)
        raise _failed(state, error) from None
    finally:
        if stream is None:
            admission.release_connection()
    if stream is None:
        lag_s = state.dials.lag.total_s - lag_before_s
        if lag_s >= timeout_s * _LAG_SHARE:
            state.counters.add("own_lags")
            raise DialFailed(endings.OWN_LAG, f"this engine was {lag_s:.1f} s late")
        raise DialFailed(endings.CONNECT_TIMEOUT, unreached=True)
    if state.peers.gone(stream.peer):  # it was judged by what was known when the dial began
        stream.close()
        admission.release_connection()
        state.peers.cut()
        raise DialFailed(endings.ENDPOINT_REVOKED)
    state.counters.add("tls_client_handshakes")
    state.reached(endpoint.node, now())
    return stream


def _context(state: EngineState, caller: str, protocol: str) -> ssl.SSLContext:
    try:
        context = None if state.identities is None else state.identities.client(caller, protocol)
    except OSError as error:  # a key passes through a descriptor
        raise _failed(state, error) from None
    if context is None:
        raise DialFailed(endings.NO_SVID, caller)
    return context


def _failed(state: EngineState, error: OSError) -> DialFailed:
    """Return whose fault an error at connecting is, and count it when it is our own."""
    if is_own_shortage(error):
        state.counters.add("own_shortages")
        return DialFailed(endings.OWN_SHORTAGE, str(error))
    if isinstance(error, ConnectionRefusedError):
        return DialFailed(endings.CONNECT_REFUSED, str(error))
    unreached = error.errno in _NO_WAY
    return DialFailed(endings.CONNECT_FAILED, str(error), unreached=unreached)


async def wait_for_connection(
    state: EngineState, upstream: UpstreamState, endpoint: SnapshotEndpoint, caller: str, attempt: Attempt
) -> PooledConnection:
    """Return an HTTP connection to `endpoint` that belongs to `caller`, for `attempt`; the pool had none.

    It is the first there is: a new one, or one that another request gives back.

    Raises:
        DialFailed: why not, or the attempt was stopped. State: nothing is held.
    """
    wants = upstream.pool.wants
    want = wants.add((caller, key_of(endpoint)))
    try:
        if wants.begin_dial(want.place):
            state.dials.start(_dial_for_pool, state, upstream, endpoint, caller)
        with trio.CancelScope() as attempt.dialing:
            await want.wait()
    finally:
        attempt.dialing = None
        wants.give_up(want)
    connection = want.connection
    if connection is not None and state.peers.gone(connection.peer):  # while it was on its way to us
        connection.close()
        state.peers.cut()
        raise DialFailed(endings.ENDPOINT_REVOKED)
    if connection is None or attempt.exchange.stopped is not None:
        if connection is not None:
            upstream.keep_or_close(connection)
        raise DialFailed(endings.CONNECT_FAILED, "stopped")
    attempt.connection = connection
    return connection


async def _dial_for_pool(
    state: EngineState, upstream: UpstreamState, endpoint: SnapshotEndpoint, caller: str
) -> None:
    """Make a connection for who has waited longest, or for later; tell them when it fails.

    It goes on though whoever asked first has got another: the next will be glad of it.
    """
    wants, place = upstream.pool.wants, (caller, key_of(endpoint))
    try:
        async with _in_turn(state, endpoint):
            if wants.is_spare(place):
                return
            stream = await _shake_hands(state, upstream, endpoint, caller, ALPN_HTTP)
        release = upstream.admission.release_connection
        connection = PooledConnection(stream, caller, place[1], release, MESH_LIMITS)
        connection.peer = stream.peer
    except Exception as error:  # the request's to report, as if it had dialled itself
        want = wants.oldest(place)
        if want is not None:
            want.fail(error)
        elif not isinstance(error, DialFailed):
            raise
    else:
        upstream.deliver(connection)
    finally:
        wants.end_dial(place)


async def dial_workload(state: EngineState, address: Address) -> PlainStream:
    """Open a connection to a local workload.

    Raises:
        DialFailed: why not. State: nothing is left open.
    """
    try:
        with trio.fail_after(state.limits.connect_timeout_ns / SECOND_NS):
            return PlainStream(await connect(address, mesh=False))
    except OSError as error:
        raise _failed(state, error) from None
    except trio.TooSlowError:
        raise DialFailed(endings.CONNECT_TIMEOUT) from None


async def workload_connection(
    state: EngineState, registration: str, address: Address, caller: str, began: Instant
) -> PooledConnection:
    """Return an HTTP connection to a local workload that only `caller`'s requests have gone by.

    One that rests until after `began`, when the request came, is left alone.

    Raises:
        DialFailed: why not. State: nothing is held.
    """
    key = ("", registration, address.host, address.port)
    pooled = state.workloads.take(caller, key, began)
    if pooled is not None:
        return pooled
    return PooledConnection(await dial_workload(state, address), caller, key, lambda: None)
