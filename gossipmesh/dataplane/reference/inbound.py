"""From the mesh to a local workload: who calls, whether they may, and their bytes.

Responsible for the mesh listener. Rules:

1. SNI names the registration, never a Host; an unknown one ends in a TLS alert.
2. The caller is its certificate. Authorization is asked per HTTP request and per TCP connection, and
   again for open TCP connections when the snapshot changes.
3. A denial says 403 and no more; the rule is for the log.
4. A caller whose node is what it was no more is cut off at once, whatever it is doing.
"""

import socket
import ssl
from collections.abc import Awaitable

import trio

from gossipmesh.dataplane.reference.body import MessageReader
from gossipmesh.dataplane.reference.connections import Connection
from gossipmesh.dataplane.reference.denials import REVOKED, deny
from gossipmesh.dataplane.reference.dialing import DialFailed, workload_connection
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.forward import Downstream, DownstreamGone, Exchange, TryEnd
from gossipmesh.dataplane.reference.handshakes import Handshakes
from gossipmesh.dataplane.reference.http1 import MESH_LIMITS, HeaderList, ResponseHead, write_request
from gossipmesh.dataplane.reference.inbound_tcp import InboundTunnel, say
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.passing import (
    CERTIFICATE,
    HOPS,
    TooManyHops,
    announced_trailers,
    may_go_on,
    passed_headers,
)
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.dataplane.reference.request_life import Refused, written_down
from gossipmesh.dataplane.reference.service import serve_http
from gossipmesh.dataplane.reference.state import EngineState, now
from gossipmesh.dataplane.reference.tries import Attempt
from gossipmesh.dataplane.reference.tunnel_status import TunnelStatus
from gossipmesh.dataplane.reference.upgrade import splice
from gossipmesh.model import limits
from gossipmesh.model.service import Protocol
from gossipmesh.model.snapshot import InboundSection
from gossipmesh.net.byte_stream import set_options
from gossipmesh.net.tls import (
    ALPN_HTTP,
    ALPN_PROBE,
    ALPN_TCP,
    ALPN_TCP_2,
    TlsError,
    TlsPeerRefused,
    TlsStream,
    select_by_name,
)
from gossipmesh.traffic.authorization import decide
from gossipmesh.traffic.outcomes import Outcome
from gossipmesh.traffic.retries import is_idempotent
from gossipmesh.trust.peer_identity import Peer

HANDSHAKE_TIMEOUT_S = 5.0
_TCP = (ALPN_TCP_2, ALPN_TCP)
_WORKLOAD_TRIES = 2  # a kept connection may have ended at the moment it was used


class MeshListener:
    """Takes connections from other nodes' engines."""

    def __init__(self, state: EngineState, journal: Journal, handshakes: Handshakes) -> None:
        self._state = state
        self._journal = journal
        self._handshakes = handshakes
        self._front: ssl.SSLContext | None = None
        self._callers: dict[Connection, Peer] = {}
        self._tunnels: dict[Connection, InboundTunnel] = {}

    def end_gone(self) -> None:
        """End the connections of callers whose nodes are what they were no more.

        Requests under way have been written down by then (`EngineState.review`).
        Cost: O(connections from other nodes), when credentials have changed.
        """
        for connection, caller in list(self._callers.items()):
            if self._state.peers.gone(caller):
                tunnel = self._tunnels.get(connection)
                if tunnel is not None:
                    tunnel.revoke()
                connection.cut()
                self._state.peers.cut()

    def identities_changed(self) -> None:
        """Accept with the new SVIDs and roots from the next connection on."""
        identities = self._state.identities
        self._front = None if identities is None else identities.front()
        if self._front is not None:
            select_by_name(self._front, self._choose)

    def _choose(self, server_name: str) -> ssl.SSLContext | None:
        applied, identities = self._state.applied, self._state.identities
        if applied is None or identities is None:
            return None
        if server_name == applied.probe_name:
            return identities.server(applied.node_spiffe_id)
        inbound = applied.inbounds.get(server_name)
        return None if inbound is None else identities.server(inbound.spiffe_id)

    async def accept(self, connection: Connection, client: socket.socket) -> None:
        """Serve one connection."""
        applied = self._state.applied
        if self._front is None or applied is None:
            self._state.counters.add("mesh_not_ready")
            return
        set_options(client, mesh=True)
        stream = TlsStream(client, self._front, server_name=None, server_side=True)
        connection.carry(stream)
        try:
            with self._handshakes.under_way(connection), trio.move_on_after(HANDSHAKE_TIMEOUT_S) as scope:
                await stream.handshake()
            if scope.cancelled_caught:
                self._state.counters.add("tls_server_failures")
                return
            facts = self._state.peers.facts(now())
            if facts is None:
                return
            caller = self._callers[connection] = stream.identify(facts)
            self._state.counters.add("tls_server_handshakes")
            connection.prove(caller.spiffe_id)
            await self._serve(connection, stream, caller)
        except TlsError as error:
            self._state.counters.add("tls_server_failures")
            if isinstance(error, TlsPeerRefused):
                self._refused(connection, stream, error)
        finally:
            self._callers.pop(connection, None)
            self._tunnels.pop(connection, None)
            stream.close()

    def _refused(self, connection: Connection, stream: TlsStream, error: TlsPeerRefused) -> None:
        """Write down whom we take for nobody; nobody is told, and no name of its choosing becomes a label."""
        if self._state.peers.refused(error, now()):
            entry = Entry("inbound", "tcp", connection.remote, "", now())
            entry.server_name = stream.requested_name
            entry.flag("UAEX")
            entry.details = str(error)
            self._journal.end(entry, now())

    async def _serve(self, connection: Connection, stream: TlsStream, caller: Peer) -> None:
        name = stream.requested_name or ""
        applied = self._state.applied
        if applied is not None and name == applied.probe_name:
            if stream.protocol == ALPN_PROBE:
                self._state.counters.add("probes_answered")
            return
        inbound = self._state.inbound(name)
        wanted = _TCP if inbound is not None and inbound.protocol == Protocol.TCP else (ALPN_HTTP,)
        if inbound is None or stream.protocol not in wanted:
            self._state.counters.add("tls_server_failures")
            if inbound is None:
                await say(stream, TunnelStatus.GONE)
            return
        if wanted is _TCP:
            if connection.full:
                await say(stream, TunnelStatus.OVERLOADED)
                return
            connection.begin_request()
            remote, name = connection.remote, caller.spiffe_id
            tunnel = InboundTunnel(self._state, self._journal, remote, name, inbound)
            self._tunnels[connection] = tunnel
            await tunnel.serve(stream)
            return

        def handle(downstream: Downstream) -> Awaitable[None]:
            remote = connection.remote
            return InboundRequest(self._state, self._journal, downstream, caller, name, remote).run()

        def bad(status: int, reason: str) -> None:
            entry = Entry("inbound", "http", connection.remote, caller.spiffe_id, now())
            entry.server_name = name
            entry.status = status
            self._journal.bad_request(entry, reason, now())

        await serve_http(self._state, connection, MessageReader(stream, MESH_LIMITS), handle, bad)


class InboundRequest:
    """One request on its way in."""

    def __init__(
        self,
        state: EngineState,
        journal: Journal,
        downstream: Downstream,
        caller: Peer,
        server_name: str,
        remote: str,
    ) -> None:
        self._state = state
        self._journal = journal
        self._downstream = downstream
        self._peer = caller
        self._peers_turn = state.peers.turn
        self._caller = caller.spiffe_id
        self._entry = Entry("inbound", "http", remote, self._caller, now())
        self._entry.head = downstream.head
        self._entry.server_name = server_name

    def run(self) -> Awaitable[None]:
        """Return what answers the request, to be awaited.

        Raises:
            DownstreamGone, DownstreamBad: the peer is to blame. State: written down; close it.
        """
        return written_down(self._journal, self._downstream, self._entry, self._answered())

    async def _answered(self) -> None:
        entry, downstream, state = self._entry, self._downstream, self._state
        inbound = state.inbound(entry.server_name)
        if inbound is None:
            # The workload left while its peers still hold connections: they should ask elsewhere.
            downstream.keep_alive = False
            raise Refused(503, "UH", "registration_gone", "the workload is no longer here")
        entry.service = inbound.service
        entry.upstream_host = str(inbound.workload)
        head = downstream.head
        verdict = decide(inbound, self._caller, head.method, head.path)
        if not verdict.allow:
            deny(state, entry, verdict)
            await downstream.answer(403, "UAEX", "denied")
            return
        if head.method == "CONNECT":
            raise Refused(405, "DPE", "connect_inbound", "CONNECT is for proxies")
        if not may_go_on(head):
            entry.details = "max_forwards"
            await downstream.answer_as_last()
            return
        try:
            headers, trace = passed_headers(head, state.rng)
        except TooManyHops:
            raise Refused(508, "LR", "hop_limit", "the request went in a circle") from None
        entry.traceparent = trace.decode("latin-1") or None
        if head.method == "TRACE":  # it sends back what arrives: nothing of ours
            headers = [header for header in headers if header[0] != HOPS]
        else:
            headers.append(self._certificate_header(inbound))
        await self._forward(inbound, headers)

    def _certificate_header(self, inbound: InboundSection) -> tuple[bytes, bytes]:
        return CERTIFICATE, f"By={inbound.spiffe_id};URI={self._caller}".encode()

    async def _forward(self, inbound: InboundSection, headers: HeaderList) -> None:
        downstream, entry = self._downstream, self._entry
        if not downstream.body.finished:
            await downstream.body.read_small(downstream.head)
        head = write_request(downstream.head, headers, announced_trailers(downstream.head.trailer))
        while True:
            entry.attempts += 1
            end, reused = await self._one_try(inbound, head)
            again = reused and end.outcome is Outcome.RESET and not downstream.response_started
            if not again or entry.attempts >= _WORKLOAD_TRIES or not downstream.body.replayable:
                break
            if not is_idempotent(downstream.head.method):
                break
        entry.details = end.detail
        entry.flag(end.flag)
        if end.flag == "DC" or (end.flag and downstream.response_started):
            downstream.keep_alive = False
            raise DownstreamGone(end.detail)
        if not downstream.response_started:
            await downstream.answer(end.status, end.flag, _reason(end))

    async def _one_try(self, inbound: InboundSection, head: bytes) -> tuple[TryEnd, bool]:
        state = self._state
        try:
            connection = await workload_connection(
                state, inbound.registration, inbound.workload, self._caller, self._entry.began
            )
        except DialFailed as error:
            return TryEnd(error.outcome or Outcome.CANCELLED, 503, error.flag, error.detail), False
        reused = connection.used_count > 0
        connection.used_count += 1
        attempt = self._begun(connection)
        exchange = Exchange(self._downstream, connection, from_workload=True)
        kept = False
        try:
            end = await exchange.run(head)
            if self._downstream.status == 101 and not end.flag:
                await splice(state, self._downstream, connection)
            if attempt.stopped is not None:
                end = TryEnd(Outcome.CANCELLED, 0, "DC", self._entry.details or "downstream_disconnect")
            elif _may_go_on_with(end, exchange.response):
                kept = True
                if state.workloads.full:
                    state.counters.add("workload_connections_shed")
                state.workloads.give(connection, now(), limits.WORKLOAD_REST_NS if end.bodiless else 0)
        finally:
            state.attempts.finish(attempt)
            if not kept:
                connection.close()
        return end, reused

    def _begun(self, connection: PooledConnection) -> Attempt:
        """Return a try that ends early when the caller's engine has gone, or may not call any more."""
        attempt = Attempt(self._downstream, "", connection.key)
        attempt.connection = connection
        attempt.half_close_allowed = False
        attempt.allowed = self._still_allowed
        self._state.attempts.begin(attempt)
        return attempt

    def _still_allowed(self) -> bool:
        """Tell whether the snapshot that came meanwhile allows what is under way; write down if not."""
        peers = self._state.peers
        if peers.turn != self._peers_turn:
            self._peers_turn = peers.turn
            if peers.gone(self._peer):
                deny(self._state, self._entry, REVOKED)
                return False
        head, inbound = self._downstream.head, self._state.inbound(self._entry.server_name)
        if inbound is None:
            return True  # the workload leaves: what is in flight may finish
        verdict = decide(inbound, self._caller, head.method, head.path)
        if not verdict.allow:
            deny(self._state, self._entry, verdict)
        return verdict.allow


def _may_go_on_with(end: TryEnd, response: ResponseHead | None) -> bool:
    """Tell whether the connection to a workload may be used again after this.

    What is only said to have no body may get one yet: a workload that errs is not trusted with another
    request until it had time to show it, and not at all if it said how long it would be.
    """
    if not end.reusable or response is None:
        return False
    return not (end.bodiless and (response.chunked or response.content_length))


def _reason(end: TryEnd) -> str:
    """Return what a caller is told of a try that got it no answer."""
    if end.flag == "UPE":
        return f"the workload's answer is not HTTP: {end.detail.partition(': ')[2]}"
    return _REASONS.get(end.flag, "the workload did not answer")


_REASONS = {
    "UF": "no connection to the workload could be made",
    "UO": "this node lacks what a connection to the workload takes",
    "UC": "the workload ended the connection before it answered",
}
