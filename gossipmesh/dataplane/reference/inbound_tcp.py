"""From the mesh to a local TCP workload: one authorized connection, both ways, until either side ends it.

Rules: authorization is asked when the connection begins and again whenever the snapshot changes; a caller
that speaks `gm-tcp/2` is told how it went before the first byte.
"""

import trio

from gossipmesh.dataplane.reference.denials import REVOKED, deny
from gossipmesh.dataplane.reference.dialing import DialFailed, dial_workload
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.state import EngineState, now
from gossipmesh.dataplane.reference.tcp import tunnel
from gossipmesh.dataplane.reference.tunnel_status import TunnelStatus
from gossipmesh.model.snapshot import InboundSection
from gossipmesh.net.byte_stream import ByteStream
from gossipmesh.net.tls import ALPN_TCP_2, TlsStream
from gossipmesh.traffic.authorization import decide


class InboundTunnel:
    """One TCP connection on its way in."""

    def __init__(
        self, state: EngineState, journal: Journal, remote: str, caller: str, inbound: InboundSection
    ) -> None:
        self._state = state
        self._journal = journal
        self._caller = caller
        self._inbound = inbound
        self._entry = Entry("inbound", "tcp", remote, caller, now())
        self._entry.service = inbound.service
        self._entry.server_name = inbound.server_name
        self._entry.upstream_host = str(inbound.workload)

    async def serve(self, stream: TlsStream) -> None:
        """Carry `stream` to the workload if its caller may; the caller of this closes it."""
        entry = self._entry
        try:
            verdict = decide(self._inbound, self._caller, None, None)
            if not verdict.allow:
                deny(self._state, entry, verdict)
                await say(stream, TunnelStatus.DENIED)
                return
            workload = await dial_workload(self._state, self._inbound.workload)
            self._journal.opened(entry)
            try:
                await say(stream, TunnelStatus.CONNECTED)
                await self._carry(stream, workload)
            finally:
                workload.close()
        except DialFailed as error:
            entry.flag(error.flag)
            entry.details = error.detail
            overloaded = error.flag == "UO"
            await say(stream, TunnelStatus.OVERLOADED if overloaded else TunnelStatus.REFUSED)
        finally:
            self._journal.end(entry, now())

    def revoke(self) -> None:
        """Write down that the caller is what it was no more; whoever says so ends the connection."""
        deny(self._state, self._entry, REVOKED)

    async def _carry(self, stream: TlsStream, workload: ByteStream) -> None:
        entry, idle_timeout_s = self._entry, self._state.idle_timeout_tcp_s
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            end = await tunnel(stream, workload, idle_timeout_s=idle_timeout_s, end=entry.moved)
            entry.flag(end.flag)
            nursery.cancel_scope.cancel()

    async def _watch(self, scope: trio.CancelScope) -> None:
        """End a connection that a new snapshot no longer allows."""
        while True:
            changed, inbound = self._state.changed, self._state.inbound(self._inbound.server_name)
            # A workload that leaves ends its connections itself.
            verdict = None if inbound is None else decide(inbound, self._caller, None, None)
            if verdict is not None and not verdict.allow:
                deny(self._state, self._entry, verdict)
                scope.cancel()
                return
            await changed.wait()


async def say(stream: TlsStream, status: TunnelStatus) -> None:
    """Send the status byte, to a caller whose protocol has one.

    Raises:
        OSError: the caller has gone. State: close it.
    """
    if stream.protocol == ALPN_TCP_2:
        await stream.send_all(bytes((status,)))
