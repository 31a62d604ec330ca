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
from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.connections import Connection
from gossipmesh.dataplane.reference.dialing import DialFailed, workload_connection
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.forward import Downstream, DownstreamCut, Forwarding, StreamEnd
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
from gossipmesh.dataplane.reference.request_life import written_down
from gossipmesh.dataplane.reference.service import serve_http
from gossipmesh.dataplane.reference.state import EngineState
from gossipmesh.dataplane.reference.tries import InboundAttempt
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
from gossipmesh.traffic import endings
from gossipmesh.traffic.actions import Action, Answer, ConnectWorkload, Cut, Finish, Request, TakeBody
from gossipmesh.traffic.inbound import InboundExchange
from gossipmesh.trust.peer_identity import Peer

HANDSHAKE_TIMEOUT_S = 5.0
_TCP = (ALPN_TCP_2, ALPN_TCP)


class MeshListener:
    """Takes connections from other nodes' engines."""

    def __init__(self, state: EngineState, journal: Journal, handshakes: Handshakes) -> None:
        self._state = state
        self._journal = journal
        self._handshakes = handshakes
        self._front: ssl.SSLContext | None = None
        self._callers: dict[Connection, Peer] = {}

    def end_gone(self) -> None:
        """End the connections of callers whose nodes are what they were no more.

        What is under way has been written down by then (`EngineState.end_gone`).
        Cost: O(connections from other nodes), when credentials have changed.
        """
        for connection, caller in list(self._callers.items()):
            if self._state.peers.gone(caller):
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
        inbound = applied.tables.inbounds.get(server_name)
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
            await InboundTunnel(self._state, self._journal, connection.remote, caller, inbound).serve(stream)
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
        self._caller = caller.spiffe_id
        self._raw = b""
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
        request, headers = self._asked()
        exchange = InboundExchange(self._state.ground, request, self._caller, self._entry.server_name or "")
        try:
            action = exchange.begin()
            while True:
                if isinstance(action, ConnectWorkload):
                    action = await self._try(exchange, action, headers)
                elif isinstance(action, Finish):
                    return
                elif isinstance(action, Answer):
                    await self._answer(exchange, action)
                    return
                elif isinstance(action, Cut):
                    self._downstream.keep_alive = False
                    raise DownstreamCut(exchange.details)
                else:
                    assert isinstance(action, TakeBody)
                    await self._downstream.body.read_small(self._downstream.head)
                    action = exchange.body_taken()
        finally:
            exchange.close()
            self._state.heed()
            self._note(exchange)

    def _asked(self) -> tuple[Request, HeaderList]:
        """Return what is asked, and the headers that go on."""
        head = self._downstream.head
        goes_on, looped = may_go_on(head), False
        headers: HeaderList = []
        try:
            headers, trace = passed_headers(head, self._state.rng)
            self._entry.traceparent = trace.decode("latin-1") or None
        except TooManyHops:
            looped = True
        request = Request(
            service=None,
            path=head.path,
            method=head.method,
            waits_for_body=not self._downstream.body.finished,
            looped=looped,
            last_stop=not goes_on,
        )
        return request, headers

    def _added(self, headers: HeaderList, inbound: InboundSection) -> HeaderList:
        if self._downstream.head.method == "TRACE":  # it sends back what arrives: nothing of ours
            return [header for header in headers if header[0] != HOPS]
        certificate = f"By={inbound.spiffe_id};URI={self._caller}".encode()
        return [*headers, (CERTIFICATE, certificate)]

    async def _try(self, exchange: InboundExchange, action: ConnectWorkload, headers: HeaderList) -> Action:
        state, head = self._state, self._downstream.head
        if not self._raw:
            assert exchange.inbound is not None
            added = self._added(headers, exchange.inbound)
            self._raw = write_request(head, added, announced_trailers(head.trailer))
        try:
            connection = await workload_connection(
                state, action.registration, action.address, self._caller, self._entry.began
            )
        except DialFailed as error:
            return exchange.unconnected(error.ending, error.more)
        exchange.connected(reused=connection.used_count > 0)
        connection.used_count += 1
        attempt = InboundAttempt(exchange, self._downstream, self._peer)
        attempt.connection = connection
        state.attempts.begin(attempt)
        forwarding = Forwarding(self._downstream, connection, attempt, from_workload=True)
        kept = False
        try:
            end = await forwarding.run(self._raw)
            if self._downstream.status == 101 and not end.ending.flag:
                await splice(state, self._downstream, connection)
            elif exchange.stopped is None and _may_go_on_with(end, forwarding.response):
                kept = True
                if state.workloads.full:
                    state.counters.add("workload_connections_shed")
                state.workloads.give(connection, now(), limits.WORKLOAD_REST_NS if end.bodiless else 0)
        finally:
            state.attempts.finish(attempt)
            if not kept:
                connection.close()
        return exchange.ended(end.ending, end.more)

    async def _answer(self, exchange: InboundExchange, action: Answer) -> None:
        ending, downstream = action.ending, self._downstream
        if ending is endings.MAX_FORWARDS:
            await downstream.answer_as_last()
            return
        if ending is endings.REGISTRATION_GONE:
            downstream.keep_alive = False
        await downstream.answer(ending.status, ",".join(exchange.flags), action.reason)

    def _note(self, exchange: InboundExchange) -> None:
        """Write down what has become known of the request."""
        entry = self._entry
        if exchange.inbound is not None:
            entry.service = exchange.inbound.service
            entry.upstream_host = str(exchange.inbound.workload)
        entry.attempts = exchange.attempts
        entry.details = exchange.details
        entry.flags[:] = exchange.flags


def _may_go_on_with(end: StreamEnd, response: ResponseHead | None) -> bool:
    """Tell whether the connection to a workload may be used again after this.

    What is only said to have no body may get one yet: a workload that errs is not trusted with another
    request until it had time to show it, and not at all if it said how long it would be.
    """
    if not end.reusable or response is None:
        return False
    return not (end.bodiless and (response.chunked or response.content_length))
