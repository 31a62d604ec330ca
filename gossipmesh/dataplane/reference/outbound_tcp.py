"""From a local caller to a TCP service of the mesh: explicit ports, and CONNECT on the proxy port.

Rule: the tunnel begins once an endpoint has proven who it is and has reached its workload; until then nothing
of the client's is sent, and other endpoints are tried.
"""

from collections.abc import Awaitable, Callable

import trio

from gossipmesh.dataplane.reference.body import MessageReader
from gossipmesh.dataplane.reference.dialing import REVOKED_DETAIL, DialFailed, dial_endpoint, outcome_of
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.forward import Downstream, DownstreamGone
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.state import EngineState, UpstreamState, now
from gossipmesh.dataplane.reference.tcp import TunnelEnd, tunnel
from gossipmesh.dataplane.reference.tunnel_status import TunnelStatus, meaning, read_status_untrusted
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.service import Protocol
from gossipmesh.model.snapshot import Route, SnapshotEndpoint
from gossipmesh.net.byte_stream import ByteStream
from gossipmesh.net.tls import ALPN_TCP, ALPN_TCP_2, TlsStream
from gossipmesh.traffic.outcomes import Outcome
from gossipmesh.traffic.retries import may_retry
from gossipmesh.traffic.routing import pick_backend, service_of_host
from gossipmesh.trust.peer_identity import Peer

ServeInside = Callable[[MessageReader, str], Awaitable[None]]

SERVICE_IS_HTTP = "service_is_http"
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class NoTunnel(Exception):
    """No endpoint took the connection. `status` is what CONNECT answers."""

    def __init__(self, status: int, flag: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.flag = flag
        self.detail = detail


class OutboundTunnel:
    """One TCP connection on its way out; `open`, `carry`, and `end` whatever happened."""

    def __init__(self, state: EngineState, journal: Journal, entry: Entry, service: str) -> None:
        self._state = state
        self._journal = journal
        self._entry = entry
        self._handed_over = False
        self._upstream: UpstreamState | None = None
        self._stream: TlsStream | None = None
        self._early = b""  # what the workload sent before the tunnel was open here
        self._revoked = False
        entry.protocol = "tcp"
        entry.service = service

    async def open(self) -> None:
        """Connect to a workload of the service.

        Raises:
            NoTunnel: why not. State: nothing is held.
        """
        entry, state = self._entry, self._state
        router = await state.router_for(entry.service)
        if router is None:
            entry.service = ""  # a name nobody vouches for must not become a metric's label
            raise NoTunnel(503, "NC", "service_not_known")
        if not state.is_served(router):
            raise NoTunnel(503, "UH", "no_healthy_upstream")
        if router.section.protocol != Protocol.TCP:
            raise NoTunnel(400, "DPE", SERVICE_IS_HTTP)
        route = next(iter(router.section.routes), None)
        if route is None:
            raise NoTunnel(404, "NR", "route_not_found")
        entry.route = route.name
        name = pick_backend(route, state.rng.random())
        upstream = None if name is None else state.upstream(name)
        if name is None or upstream is None:
            raise NoTunnel(503, "NC", "no_backend")
        entry.upstream = name
        if not upstream.admission.admit_request(entry.uid):
            raise NoTunnel(503, "UO", "upstream_requests_overflow")
        self._upstream = upstream
        upstream.budget.add_request(now())
        await self._connect(route, upstream)
        self._journal.opened(entry)

    async def _connect(self, route: Route, upstream: UpstreamState) -> None:
        tried: list[SnapshotEndpoint] = []
        entry, state = self._entry, self._state
        while True:
            endpoint = state.pick(upstream, now(), tried)
            if endpoint is None:
                raise NoTunnel(503, "UH", "no_healthy_upstream")
            entry.attempts += 1
            entry.upstream_host = str(endpoint.address)
            entry.callee, entry.server_name = endpoint.spiffe_id, endpoint.server_name
            failed, outcome = await self._one_try(upstream, endpoint, tried)
            if failed is None:
                return
            decision = may_retry(
                route.retry,
                method=None,
                outcome=outcome,
                status=None,
                attempt=entry.attempts,
                response_started=False,
                body_replayable=True,
                budget=upstream.budget,
                now=now(),
                random=state.rng.random(),
            )
            state.count_decision(decision)
            if not decision.retry:
                if decision.reason == "attempts":
                    entry.flag("URX")
                raise NoTunnel(503, failed.flag, failed.detail)
            tried.append(endpoint)
            await trio.sleep(decision.backoff_ns / SECOND_NS)

    async def _one_try(
        self, upstream: UpstreamState, endpoint: SnapshotEndpoint, tried: list[SnapshotEndpoint]
    ) -> tuple[DialFailed | None, Outcome]:
        """Return (None, success) when the tunnel is open, else why not and how the try ended.

        Raises:
            NoTunnel: the callee says that the caller may not. State: nothing is held.
        """
        state, balancer = self._state, upstream.balancer
        attempt = balancer.started(endpoint, now())
        outcome = Outcome.CANCELLED
        try:
            stream = await dial_endpoint(state, upstream, endpoint, self._entry.caller, ALPN_TCP)
            opened = False
            try:
                self._early = await _await_workload(state, stream)
                if state.peers.gone(stream.peer):
                    raise DialFailed(Outcome.CONNECT_FAILED, "UF", REVOKED_DETAIL)
                opened = True
            finally:
                if not opened:
                    stream.close()
                    upstream.admission.release_connection()
            self._stream = stream
            state.tunnels.add(self)
            outcome = Outcome.SUCCESS
            return None, outcome
        except DialFailed as error:
            outcome = outcome_of(state, upstream, endpoint, tried, error)
            return error, outcome
        except NoTunnel:
            outcome = Outcome.SUCCESS
            raise
        finally:
            balancer.finished(attempt, now(), outcome)
            state.tell_changes()

    async def carry(self, downstream: ByteStream, first: bytes) -> TunnelEnd:
        """Carry bytes until the tunnel ends; `first` are bytes read from downstream already."""
        assert self._stream is not None
        end = await tunnel(
            downstream,
            self._stream,
            downstream_first=first,
            upstream_first=self._early,
            idle_timeout_s=self._state.idle_timeout_tcp_s,
            end=self._entry.moved,
        )
        self._entry.flag(end.flag)
        if self._revoked:
            self._entry.details = REVOKED_DETAIL
        return end

    @property
    def peer(self) -> Peer | None:
        """Return who is at the other end, once there is somebody."""
        return None if self._stream is None else self._stream.peer

    def revoke(self) -> None:
        """End it: the node there is revoked, forgotten or enrolled again."""
        self._revoked = True
        if self._stream is not None:
            self._stream.abort()

    def hand_over(self) -> None:
        """Say that the connection goes on as something else: there is nothing to write down."""
        self._handed_over = True

    def end(self) -> None:
        """Close what is open and write the connection down."""
        if self._upstream is not None:
            self._upstream.admission.release_request(self._entry.uid)
        self._state.tunnels.discard(self)
        if self._stream is not None:
            self._stream.close()
            if self._upstream is not None:
                self._upstream.admission.release_connection()
        if not self._handed_over:
            self._journal.end(self._entry, now())


async def _await_workload(state: EngineState, stream: TlsStream) -> bytes:
    """Wait until the callee has reached its workload; return what came behind its status.

    Raises:
        DialFailed: it has not. State: the stream is the caller's to close.
        NoTunnel: it will not. State: the stream is the caller's to close.
    """
    if stream.protocol != ALPN_TCP_2:
        return b""
    data = b""
    try:
        # The callee has as long for its own connection, and the way back is ours.
        with trio.move_on_after(2 * state.limits.connect_timeout_ns / SECOND_NS) as waited:
            data = await stream.receive()
    except OSError as error:
        raise DialFailed(Outcome.CONNECT_FAILED, "UF", f"no_status: {error}") from None
    if not data:
        detail = "no_status_in_time" if waited.cancelled_caught else "closed_before_status"
        raise DialFailed(Outcome.CONNECT_FAILED, "UF", detail)
    status = read_status_untrusted(data[0])
    outcome, flag = meaning(status)
    if status is TunnelStatus.DENIED:
        raise NoTunnel(403, flag, "denied")
    if status is not TunnelStatus.CONNECTED:
        raise DialFailed(outcome, flag, f"workload_{status.name.lower()}")
    return data[1:]


async def serve_tcp(
    state: EngineState, journal: Journal, stream: ByteStream, entry: Entry, service: str
) -> None:
    """Serve one connection on an explicit TCP port."""
    outbound = OutboundTunnel(state, journal, entry, service)
    try:
        await outbound.open()
        await outbound.carry(stream, b"")
    except NoTunnel as error:
        entry.flag(error.flag)
        entry.details = error.detail
    finally:
        outbound.end()


async def serve_connect(
    state: EngineState, journal: Journal, downstream: Downstream, entry: Entry, serve_inside: ServeInside
) -> None:
    """Answer CONNECT: a tunnel to a TCP service, requests inside one to an HTTP service, or why not.

    The target decides, whatever `Host` says. `serve_inside` serves what comes through the tunnel as HTTP
    to the service it is given.

    Raises:
        DownstreamGone: the client left. State: written down; close it.
    """
    head = entry.head = downstream.head
    service = service_of_host((head.authority or head.host).decode("latin-1"))
    outbound = OutboundTunnel(state, journal, entry, service or "")
    try:
        if service is None:
            raise NoTunnel(404, "NR", "route_not_found")
        await outbound.open()
        await _establish(downstream, entry)
        await outbound.carry(downstream.stream, downstream.reader.take_buffered())
    except NoTunnel as error:
        if error.detail == SERVICE_IS_HTTP and service is not None:
            outbound.hand_over()  # each request inside is written down for itself
            await _establish(downstream, entry)
            await serve_inside(downstream.reader, service)
            return
        entry.flag(error.flag)
        entry.details = error.detail
        entry.status = error.status
        downstream.keep_alive = False  # what follows was meant for the tunnel
        await downstream.answer(
            error.status, error.flag, _REASONS.get(error.detail, "no tunnel could be made")
        )
    except DownstreamGone:
        entry.flag("DC")
        raise
    finally:
        outbound.end()


async def _establish(downstream: Downstream, entry: Entry) -> None:
    entry.status = 200
    downstream.keep_alive = False
    await downstream.send(_ESTABLISHED)


_REASONS = {
    "denied": "denied",
    "route_not_found": "no service of the mesh has this name",
    "service_not_known": "this node knows no routes of the service",
    "upstream_requests_overflow": "too many connections of this user to the service",
    "no_healthy_upstream": "no endpoint of the service is healthy",
}
