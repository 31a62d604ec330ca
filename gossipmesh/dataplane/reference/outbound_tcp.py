"""From a local caller to a TCP service of the mesh: explicit ports, and CONNECT on the proxy port.

Rule: the tunnel begins once an endpoint has proven who it is and has reached its workload; until then nothing
of the client's is sent, and other endpoints are tried.
"""

from collections.abc import Awaitable, Callable

import trio

from gossipmesh.dataplane.reference.body import MessageReader
from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.dialing import DialFailed, dial_endpoint
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.forward import Downstream, DownstreamGone
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.outbound import rested
from gossipmesh.dataplane.reference.state import EngineState, UpstreamState
from gossipmesh.dataplane.reference.tcp import TunnelEnd, tunnel
from gossipmesh.dataplane.reference.tries import OutboundAttempt
from gossipmesh.dataplane.reference.tunnel_status import ending_of, read_status_untrusted
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.snapshot import SnapshotEndpoint
from gossipmesh.net.byte_stream import ByteStream
from gossipmesh.net.tls import ALPN_TCP, ALPN_TCP_2, TlsStream
from gossipmesh.traffic import endings
from gossipmesh.traffic.actions import Action, Answer, Ask, Connect, Relay, Request, Wait
from gossipmesh.traffic.endings import Ending
from gossipmesh.traffic.exchange import Exchange
from gossipmesh.trust.peer_identity import Peer

ServeInside = Callable[[MessageReader, str], Awaitable[None]]

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class NoTunnel(Exception):
    """No endpoint took the connection, and why."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.detail)
        self.ending = ending


class OutboundTunnel:
    """One TCP connection on its way out; `open`, `carry`, and `end` whatever happened."""

    def __init__(self, state: EngineState, journal: Journal, entry: Entry, request: Request) -> None:
        self._state = state
        self._exchange = Exchange(state.ground, request)
        self._journal = journal
        self._entry = entry
        self._handed_over = False
        self._upstream: UpstreamState | None = None
        self._stream: TlsStream | None = None
        self._early = b""  # what the workload sent before the tunnel was open here
        self._revoked = False
        entry.protocol = "tcp"

    @property
    def service(self) -> str:
        """Return the service it goes to, once that is known."""
        return self._exchange.service

    async def open(self) -> None:
        """Connect to a workload of the service.

        Raises:
            NoTunnel: why not. State: nothing is held.
        """
        state, exchange = self._state, self._exchange
        action = exchange.begin(now())
        while not isinstance(action, Relay | Answer):
            state.heed()
            if isinstance(action, Connect):
                action = await self._one_try(action.endpoint)
            elif isinstance(action, Wait):
                action = await rested(exchange, action)
            else:
                assert isinstance(action, Ask)
                await state.demands.wait(action.service)
                action = exchange.routes_came(now())
        state.heed()
        self._note()
        if isinstance(action, Answer):
            raise NoTunnel(action.ending)
        self._journal.opened(self._entry)

    def _note(self) -> None:
        """Write down what has become known of the connection."""
        entry, exchange = self._entry, self._exchange
        entry.service, entry.upstream = exchange.service, exchange.upstream_name
        entry.route = "" if exchange.route is None else exchange.route.name
        entry.attempts = exchange.attempts
        entry.details = exchange.details
        for flag in exchange.flags:
            entry.flag(flag)

    async def _one_try(self, endpoint: SnapshotEndpoint) -> Action:
        entry, state, exchange = self._entry, self._state, self._exchange
        entry.upstream_host = str(endpoint.address)
        entry.callee, entry.server_name = endpoint.spiffe_id, endpoint.server_name
        upstream = self._upstream = state.connections(exchange)
        attempt = OutboundAttempt(state.attempts, exchange, None, endpoint.node)
        state.attempts.begin(attempt)
        failed = DialFailed(endings.CONNECT_FAILED, "stopped")
        try:
            with trio.CancelScope() as attempt.dialing:
                await self._dial(upstream, endpoint)
        except DialFailed as error:
            failed = error
        finally:
            state.attempts.finish(attempt)
        if self._stream is None:
            return exchange.unconnected(failed.ending, failed.more, now(), unreached=failed.unreached)
        carrying = exchange.connected(now())
        assert carrying is not None
        state.tunnels.add(self)
        return carrying

    async def _dial(self, upstream: UpstreamState, endpoint: SnapshotEndpoint) -> None:
        """Have a stream to a workload that took the connection.

        Raises:
            DialFailed: why not. State: nothing is held.
        """
        state = self._state
        stream = await dial_endpoint(state, upstream, endpoint, self._entry.caller, ALPN_TCP)
        opened = False
        try:
            self._early = await _await_workload(state, stream)
            if state.peers.gone(stream.peer):
                raise DialFailed(endings.ENDPOINT_REVOKED)
            opened = True
        finally:
            if not opened:
                stream.close()
                upstream.admission.release_connection()
        self._stream = stream

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
            self._entry.details = endings.ENDPOINT_REVOKED.detail
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
        self._exchange.close(now())
        self._state.heed()
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
        DialFailed: it has not, or will not. State: the stream is the caller's to close.
    """
    if stream.protocol != ALPN_TCP_2:
        return b""
    data = b""
    try:
        # The callee has as long for its own connection, and the way back is ours.
        with trio.move_on_after(2 * state.limits.connect_timeout_ns / SECOND_NS) as waited:
            data = await stream.receive()
    except OSError as error:
        raise DialFailed(endings.NO_STATUS, str(error)) from None
    if not data:
        in_time = not waited.cancelled_caught
        raise DialFailed(endings.CLOSED_BEFORE_STATUS if in_time else endings.NO_STATUS_IN_TIME)
    ending = ending_of(read_status_untrusted(data[0]))
    if ending is not None:
        raise DialFailed(ending)
    return data[1:]


async def serve_tcp(
    state: EngineState, journal: Journal, stream: ByteStream, entry: Entry, service: str
) -> None:
    """Serve one connection on an explicit TCP port."""
    outbound = OutboundTunnel(state, journal, entry, Request(service=service, uid=entry.uid))
    try:
        await outbound.open()
        await outbound.carry(stream, b"")
    except NoTunnel:
        pass  # written down, and there is no way to say more
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
    host = (head.authority or head.host).decode("latin-1")
    outbound = OutboundTunnel(state, journal, entry, Request(service=None, host=host, uid=entry.uid))
    try:
        await outbound.open()
        await _establish(downstream, entry)
        await outbound.carry(downstream.stream, downstream.reader.take_buffered())
    except NoTunnel as error:
        ending = error.ending
        if ending is endings.SERVICE_IS_HTTP:
            outbound.hand_over()  # each request inside is written down for itself
            entry.flags.clear()
            await _establish(downstream, entry)
            await serve_inside(downstream.reader, outbound.service)
            return
        entry.status = ending.status
        downstream.keep_alive = False  # what follows was meant for the tunnel
        await downstream.answer(ending.status, ",".join(entry.flags), ending.reason)
    except DownstreamGone:
        entry.flag("DC")
        raise
    finally:
        outbound.end()


async def _establish(downstream: Downstream, entry: Entry) -> None:
    entry.status = 200
    downstream.keep_alive = False
    await downstream.send(_ESTABLISHED)
