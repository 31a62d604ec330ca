"""From a local caller to a TCP service of the mesh: explicit ports, and CONNECT on the proxy port.

Rule: the tunnel begins once an endpoint has proven who it is; until then other endpoints are tried.
"""

import trio

from gossipmesh.dataplane.reference.dialing import DialFailed, dial_endpoint
from gossipmesh.dataplane.reference.forward import Downstream, DownstreamGone
from gossipmesh.dataplane.reference.journal import Entry, Journal
from gossipmesh.dataplane.reference.state import EngineState, UpstreamState, now
from gossipmesh.dataplane.reference.tcp import TunnelEnd, tunnel
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.service import Protocol
from gossipmesh.model.snapshot import Route, SnapshotEndpoint
from gossipmesh.net.byte_stream import ByteStream
from gossipmesh.net.tls import ALPN_TCP, TlsStream
from gossipmesh.traffic.endpoints import key_of
from gossipmesh.traffic.outcomes import Outcome
from gossipmesh.traffic.retries import may_retry
from gossipmesh.traffic.routing import pick_backend, service_of_host

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
        self._upstream: UpstreamState | None = None
        self._stream: TlsStream | None = None
        entry.protocol = "tcp"
        entry.service = service

    async def open(self) -> None:
        """Connect to an endpoint of the service.

        Raises:
            NoTunnel: why not. State: nothing is held.
        """
        entry, state = self._entry, self._state
        router = await state.router_for(entry.service)
        if router is None:
            entry.service = ""  # a name nobody vouches for must not become a metric's label
            raise NoTunnel(503, "NC", "service_not_known")
        if router.section.protocol != Protocol.TCP:
            raise NoTunnel(405, "DPE", "service_is_http")
        route = next(iter(router.section.routes), None)
        if route is None:
            raise NoTunnel(404, "NR", "route_not_found")
        entry.route = route.name
        name = pick_backend(route, state.rng.random())
        upstream = None if name is None else state.upstream(name)
        if name is None or upstream is None:
            raise NoTunnel(503, "NC", "no_backend")
        entry.upstream = name
        self._upstream = upstream
        upstream.budget.add_request(now())
        await self._connect(route, upstream)
        self._journal.opened(entry)

    async def _connect(self, route: Route, upstream: UpstreamState) -> None:
        tried: list[SnapshotEndpoint] = []
        entry, state = self._entry, self._state
        while True:
            endpoint = upstream.balancer.pick(state.rng, now(), tried)
            if endpoint is None:
                raise NoTunnel(503, "UH", "no_healthy_upstream")
            entry.attempts += 1
            entry.upstream_host = str(endpoint.address)
            entry.callee, entry.server_name = endpoint.spiffe_id, endpoint.server_name
            attempt = upstream.balancer.started(endpoint, now())
            outcome = Outcome.CANCELLED
            try:
                self._stream = await dial_endpoint(state, upstream, endpoint, entry.caller, ALPN_TCP)
                outcome = Outcome.SUCCESS
                return
            except DialFailed as error:
                outcome = error.outcome or Outcome.CANCELLED
                failed = error
                if error.unreached:
                    state.unreached(endpoint.node)
                    isolated = state.endpoint_states.isolation.isolated
                    if isolated and upstream.balancer.has_better(key_of(endpoint), now()):
                        outcome = Outcome.MOVED
            finally:
                upstream.balancer.finished(attempt, now(), outcome)
                state.tell_changes()
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
            if not decision.retry:
                if decision.reason == "attempts":
                    entry.flag("URX")
                raise NoTunnel(503, failed.flag, failed.detail)
            state.counters.add("retries")
            tried.append(endpoint)
            await trio.sleep(decision.backoff_ns / SECOND_NS)

    async def carry(self, downstream: ByteStream, first: bytes) -> TunnelEnd:
        """Carry bytes until the tunnel ends; `first` are bytes read from downstream already."""
        assert self._stream is not None
        applied = self._state.applied
        idle_ns = 3600 * SECOND_NS if applied is None else applied.limits.idle_timeout_tcp_ns
        end = await tunnel(
            downstream, self._stream, downstream_first=first, idle_timeout_s=idle_ns / SECOND_NS
        )
        self._entry.received_bytes, self._entry.sent_bytes = end.received_bytes, end.sent_bytes
        self._entry.flag(end.flag)
        return end

    def end(self) -> None:
        """Close what is open and write the connection down."""
        if self._stream is not None:
            self._stream.close()
            if self._upstream is not None:
                self._upstream.admission.release_connection()
        self._journal.end(self._entry, now())


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


async def serve_connect(state: EngineState, journal: Journal, downstream: Downstream, entry: Entry) -> None:
    """Answer CONNECT: a tunnel to a TCP service, or the reason why not.

    Raises:
        DownstreamGone: the client left. State: written down; close it.
    """
    entry.head = downstream.head
    service = service_of_host(downstream.head.host.decode("latin-1"))
    outbound = OutboundTunnel(state, journal, entry, service or "")
    try:
        if service is None:
            raise NoTunnel(404, "NR", "route_not_found")
        await outbound.open()
        entry.status = 200
        downstream.keep_alive = False
        await downstream.send(_ESTABLISHED)
        await outbound.carry(downstream.stream, downstream.reader.take_buffered())
    except NoTunnel as error:
        entry.flag(error.flag)
        entry.details = error.detail
        entry.status = error.status
        await downstream.answer(
            error.status, error.flag, _REASONS.get(error.detail, "no tunnel could be made")
        )
    except DownstreamGone:
        entry.flag("DC")
        raise
    finally:
        outbound.end()


_REASONS = {
    "service_is_http": "the service is HTTP; send the request itself, not CONNECT",
    "route_not_found": "no service of the mesh has this name",
    "service_not_known": "this node knows no routes of the service",
    "no_healthy_upstream": "no endpoint of the service is healthy",
}
