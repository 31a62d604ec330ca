"""From the mesh to a local TCP workload: one authorized connection, both ways, until either side ends it.

Rules: authorization is asked when the connection begins and again whenever the snapshot changes; a caller
that speaks `gm-tcp/2` is told how it went before the first byte.
"""

import trio

from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.dialing import DialFailed, dial_workload
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.state import EngineState
from gossipmesh.dataplane.reference.tcp import tunnel
from gossipmesh.dataplane.reference.tries import InboundAttempt
from gossipmesh.dataplane.reference.tunnel_status import TunnelStatus, status_of
from gossipmesh.model.snapshot import InboundSection
from gossipmesh.net.tls import ALPN_TCP_2, TlsStream
from gossipmesh.traffic.actions import Action, Answer, ConnectWorkload, Request
from gossipmesh.traffic.inbound import InboundExchange
from gossipmesh.trust.peer_identity import Peer


class InboundTunnel:
    """One TCP connection on its way in."""

    def __init__(
        self, state: EngineState, journal: Journal, remote: str, caller: Peer, inbound: InboundSection
    ) -> None:
        self._state = state
        self._journal = journal
        self._peer = caller
        name = inbound.server_name
        self._exchange = InboundExchange(state.ground, Request(service=None), caller.spiffe_id, name)
        self._entry = Entry("inbound", "tcp", remote, caller.spiffe_id, now())
        self._entry.service = inbound.service
        self._entry.server_name = inbound.server_name
        self._entry.upstream_host = str(inbound.workload)

    async def serve(self, stream: TlsStream) -> None:
        """Carry `stream` to the workload if its caller may; the caller of this closes it."""
        entry, exchange, attempts = self._entry, self._exchange, self._state.attempts
        attempt = InboundAttempt(exchange, None, self._peer)
        try:
            action = exchange.begin()
            if isinstance(action, ConnectWorkload):
                attempts.begin(attempt)
                with trio.CancelScope() as attempt.dialing:
                    action = await self._connected(stream, action)
            self._state.heed()
            if isinstance(action, Answer):
                await say(stream, status_of(action.ending))
        finally:
            attempts.finish(attempt)
            exchange.close()
            self._state.heed()
            entry.details = entry.details or exchange.details
            for flag in exchange.flags:
                entry.flag(flag)
            self._journal.end(entry, now())

    async def _connected(self, stream: TlsStream, action: ConnectWorkload) -> Action:
        """Carry bytes to the workload; return what follows where there is no connection to it."""
        try:
            workload = await dial_workload(self._state, action.address)
        except DialFailed as error:
            return self._exchange.unconnected(error.ending, error.more)
        carrying = self._exchange.connected(reused=False)
        self._journal.opened(self._entry)
        try:
            await say(stream, TunnelStatus.CONNECTED)
            idle_timeout_s = self._state.idle_timeout_tcp_s
            end = await tunnel(stream, workload, idle_timeout_s=idle_timeout_s, end=self._entry.moved)
            self._entry.flag(end.flag)
        finally:
            workload.close()
        assert carrying is not None
        return carrying


async def say(stream: TlsStream, status: TunnelStatus) -> None:
    """Send the status byte, to a caller whose protocol has one.

    Raises:
        OSError: the caller has gone. State: close it.
    """
    if stream.protocol == ALPN_TCP_2:
        await stream.send_all(bytes((status,)))
