"""The node's own ports: the shared proxy port and explicit upstream ports, and who is calling on them."""

import socket
from collections.abc import Awaitable
from typing import Final

import trio

from gossipmesh.dataplane.reference.body import MessageReader
from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.connections import Acceptor, Connection
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.forward import Downstream
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.outbound import OutboundRequest
from gossipmesh.dataplane.reference.outbound_tcp import serve_connect, serve_tcp
from gossipmesh.dataplane.reference.service import Handler, OnBad, serve_http
from gossipmesh.dataplane.reference.state import EngineState
from gossipmesh.model.service import Protocol
from gossipmesh.model.snapshot import UpstreamListener
from gossipmesh.net.byte_stream import PlainStream

_UNREGISTERED: Final = (
    "this process belongs to no service registered on this node, and this mesh gives such no identity; "
    "run it as the user of a registered service"
)
UNSERVED_WAIT_S: Final = 1.0  # as long as a request for an unknown service waits


class LocalPorts:
    """Acceptors for connections from workloads on this node."""

    def __init__(self, state: EngineState, journal: Journal) -> None:
        self._state = state
        self._journal = journal

    async def accept_proxy(self, connection: Connection, client: socket.socket) -> None:
        """Serve the shared port: by Host, absolute-form and CONNECT, as whoever holds the other end."""
        uid, applied = connection.uid, self._state.applied
        caller = None if uid is None or applied is None else applied.caller_of(uid)
        stream = PlainStream(client)

        async def serve_inside(reader: MessageReader, service: str) -> None:
            bad = self._bad(connection, caller or "")
            handler = self._requests_to(connection, caller or "", service)
            await serve_http(self._state, connection, reader, handler, bad)

        def handle(downstream: Downstream) -> Awaitable[None]:
            entry = _entry(connection, "http", caller or "")
            if caller is None:
                return self._refuse(downstream, entry)
            if not caller:
                return self._refuse_unregistered(downstream, entry)
            if downstream.head.method == "CONNECT":
                return serve_connect(self._state, self._journal, downstream, entry, serve_inside)
            return OutboundRequest(self._state, self._journal, downstream, entry, None).run()

        try:
            await serve_http(self._state, connection, stream, handle, self._bad(connection, caller or ""))
        finally:
            stream.close()

    def _bad(self, connection: Connection, caller: str) -> OnBad:
        def write(status: int, reason: str) -> None:
            entry = Entry("outbound", "http", connection.remote, caller, now())
            entry.status = status
            self._journal.bad_request(entry, reason, now())

        return write

    def upstream_acceptor(self, name: str) -> Acceptor | None:
        """Return the acceptor of an explicit port; what it serves is looked up per connection."""
        applied = self._state.applied
        if applied is None or name not in applied.listeners:
            return None

        async def accept(connection: Connection, client: socket.socket) -> None:
            current = self._state.applied
            listener = None if current is None else current.listeners.get(name)
            if listener is not None:
                await self._accept_upstream(connection, client, listener)

        return accept

    async def _accept_upstream(
        self, connection: Connection, client: socket.socket, listener: UpstreamListener
    ) -> None:
        allowed = connection.uid == listener.uid
        stream = PlainStream(client)
        try:
            if listener.protocol == Protocol.TCP:
                entry = _entry(connection, "tcp", listener.spiffe_id)
                if connection.full:
                    return
                connection.carry(stream)
                connection.begin_request()
                if allowed:
                    await serve_tcp(self._state, self._journal, stream, entry, listener.service)
                else:
                    self._write_refusal(entry, listener.service)
                return

            reader = MessageReader(stream)
            if not await self._looks_like_http(connection, reader, listener):
                return
            caller = listener.spiffe_id if allowed else ""
            handle = self._requests_to(connection, caller, listener.service)
            await serve_http(self._state, connection, reader, handle, self._bad(connection, caller))
        finally:
            stream.close()

    def _requests_to(self, connection: Connection, caller: str, service: str) -> Handler:
        """Return what serves requests to one service, as `caller`; empty: as nobody we know."""

        def handle(downstream: Downstream) -> Awaitable[None]:
            entry = _entry(connection, "http", caller)
            if not caller:
                entry.service = service
                return self._refuse(downstream, entry)
            if downstream.head.method == "CONNECT":
                return self._refuse_tunnel(downstream, entry, service)
            return OutboundRequest(self._state, self._journal, downstream, entry, service).run()

        return handle

    async def _looks_like_http(
        self, connection: Connection, reader: MessageReader, listener: UpstreamListener
    ) -> bool:
        """Tell whether a client of a service that nobody serves now is to be answered in HTTP.

        Nobody knows what such a service speaks: who sends something else, or waits for a greeting, is hung up
        on like a client of any TCP service that nobody serves.
        """
        applied = self._state.applied
        router = None if applied is None else applied.tables.routes.router(listener.service)
        if applied is not None and router is not None and applied.tables.is_served(router):
            return True
        try:
            with trio.move_on_after(UNSERVED_WAIT_S):
                if await reader.fill() and reader.buffer[:1].isalpha():
                    return True
        except OSError:
            return False
        entry = Entry("outbound", "tcp", connection.remote, listener.spiffe_id, now())
        entry.service = listener.service
        entry.flag("UH")
        entry.details = "no_healthy_upstream"
        self._journal.end(entry, now())
        return False

    async def _refuse(self, downstream: Downstream, entry: Entry) -> None:
        entry.head = downstream.head
        downstream.keep_alive = False
        entry.status = 403
        self._write_refusal(entry, entry.service)
        await downstream.answer(403, "UAEX", "this process may not use this port")

    async def _refuse_unregistered(self, downstream: Downstream, entry: Entry) -> None:
        """Refuse a process of no registered service, which a MeshPolicy gives no identity."""
        entry.head = downstream.head
        downstream.keep_alive = False
        entry.status = 403
        entry.flag("UAEX")
        entry.details = "unregistered_caller"
        self._state.counters.add("unregistered_refusals")
        self._journal.end(entry, now())
        await downstream.answer(403, "UAEX", _UNREGISTERED)

    async def _refuse_tunnel(self, downstream: Downstream, entry: Entry, service: str) -> None:
        entry.head = downstream.head
        entry.service = service
        entry.status = 405
        entry.flag("DPE")
        entry.details = "connect_inside"
        self._journal.end(entry, now())
        reason = "CONNECT is for the proxy port; here requests go to one service already"
        await downstream.answer(405, "DPE", reason)

    def _write_refusal(self, entry: Entry, service: str) -> None:
        entry.service = service
        entry.caller = ""  # nobody we know
        entry.flag("UAEX")
        entry.details = "socket_owner_refused"
        self._state.counters.add("owner_refusals")
        self._journal.end(entry, now())


def _entry(connection: Connection, protocol: str, caller: str) -> Entry:
    entry = Entry("outbound", protocol, connection.remote, caller, now())
    entry.uid = connection.uid
    return entry
