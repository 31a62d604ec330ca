"""The engine: everything above put together. Read this file first."""

import signal
import socket
from pathlib import Path
from typing import Final

import trio

from gossipmesh.dataplane.protocol import REQUESTS_FEATURE, EngineEvent
from gossipmesh.dataplane.reference.access_log import AccessLog
from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.connections import Connections
from gossipmesh.dataplane.reference.contact import ContactWatch
from gossipmesh.dataplane.reference.control import Attachment, ControlServer
from gossipmesh.dataplane.reference.handshakes import Handshakes
from gossipmesh.dataplane.reference.identities import Identities
from gossipmesh.dataplane.reference.inbound import MeshListener
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.listeners import Listeners
from gossipmesh.dataplane.reference.local import LocalPorts
from gossipmesh.dataplane.reference.readiness import Readiness
from gossipmesh.dataplane.reference.reports import Reports
from gossipmesh.dataplane.reference.rooms import LOCAL, MESH, PROXY, READINESS, Rooms
from gossipmesh.dataplane.reference.state import EngineState
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.net.collector import Leavings, give_back
from gossipmesh.net.descriptors import DescriptorReserve
from gossipmesh.net.entropy import seeded_random
from gossipmesh.net.lost_addresses import LostAddresses
from gossipmesh.net.slow_readers import SlowReaders
from gossipmesh.net.socket_owner import SocketOwners
from gossipmesh.net.turns import TURN
from gossipmesh.traffic.sections import Snapshot

TICK_S: Final = 1.0
FLUSH_TIMEOUT_S: Final = 1.0
_BACKLOG_MAX: Final = 64
_OUTBOUND_DRAIN_S: Final = 5.0  # what applications here still ask for when no more time was left for it


class ReferenceEngine:
    """One engine process's life: `run` until drained, stopped or cancelled."""

    def __init__(
        self, socket_path: Path, access_log: AccessLogSettings, counters: Counters | None = None
    ) -> None:
        """Open the control socket and the access log; `counters` may count other things of the process.

        Raises:
            OperatorError: the control socket cannot be made. State unchanged.
            OSError: the access log cannot be opened. State unchanged.
        """
        self._counters = counters or Counters()
        self._reserve = DescriptorReserve()
        self._control = ControlServer(socket_path, self, self._counters, self._reserve)
        try:
            self._log = AccessLog(access_log, self._counters)
        except OSError:
            self._control.close()
            raise
        self._owners = SocketOwners()
        self._state = EngineState(self._counters, seeded_random(), self._emit)
        journal = self._journal = Journal(self._log, self._counters)
        handshakes = Handshakes(self._counters)
        self._mesh = MeshListener(self._state, journal, handshakes)
        self._local = LocalPorts(self._state, journal)
        self._rooms = Rooms(self._counters, self._owners)
        self._readiness = Readiness(self.problem, self._full)
        self._connections = Connections(
            self._counters, Reports().report, self._rooms, self._reserve, handshakes.has_room
        )
        self._listeners: Listeners | None = None
        self._nursery: trio.Nursery | None = None
        self._finished = trio.Event()
        self._drained: list[trio.Event] = []

    async def run(self, *, handle_signals: bool = False) -> None:
        """Serve until drained or cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._listeners = Listeners(
                    self._connections,
                    self._rooms,
                    nursery,
                    {
                        MESH: self._mesh.accept,
                        PROXY: self._local.accept_proxy,
                        READINESS: self._readiness.accept,
                    },
                )
                self._connections.start(nursery)
                self._log.maintain()
                nursery.start_soon(self._control.run)
                nursery.start_soon(self._tick, nursery)
                nursery.start_soon(self._state.attempts.run)
                nursery.start_soon(self._state.dials.run)
                nursery.start_soon(ContactWatch(self._state).run)
                nursery.start_soon(SlowReaders().run)
                nursery.start_soon(LostAddresses().run)
                if handle_signals:
                    nursery.start_soon(self._signals)
                await self._finished.wait()
                nursery.cancel_scope.cancel()
        finally:
            if self._listeners is not None:
                self._listeners.close()
            self._control.close()
            self._state.close()
            self._owners.close()
            self._journal.write_down()
            self._log.close()
            self._reserve.close()

    async def _give_back(self) -> None:
        """Give pages back beside the loop, which would stand still for some milliseconds."""
        try:
            await trio.to_thread.run_sync(give_back, abandon_on_cancel=True)
        except RuntimeError:  # no thread could be started; there is a next time
            self._counters.add("own_shortages")

    async def _tick(self, nursery: trio.Nursery) -> None:
        leavings = Leavings()
        while True:
            await trio.sleep(TICK_S)
            if leavings.due(self._connections.count):
                nursery.start_soon(self._give_back)
            self._state.maintain(self._owners.holds_other_end)
            if self._state.peers.absence_counts(now()):
                self._state.end_gone()
                self._state.review()
                self._mesh.end_gone()
            self._reserve.refill()
            self._rooms.tell()
            self._journal.write_down()
            self._log.maintain()
            self._counters.gauges["turn_bytes_max"] = TURN.spent_bytes_max
            applied = self._state.applied
            if applied is not None:
                self._connections.sweep(applied.limits.idle_timeout_http_ns / SECOND_NS)
            attached = self._control.attached
            if attached is not None and attached.backlog < _BACKLOG_MAX:
                self._tell_statistics(attached, int(TICK_S * 1000))

    def _tell_statistics(self, attached: Attachment, passed_ms: int) -> None:
        self._journal.count_moved()
        before = REQUESTS_FEATURE not in attached.features
        due = self._counters.take_due(passed_ms, before=before)
        if due is not None:
            attached.emit(due)

    async def _signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            async for number in received:
                if number == signal.SIGHUP:
                    self._log.reopen()
                elif self._state.draining.is_set():
                    self._finished.set()
                else:
                    applied = self._state.applied
                    drain_ns = 0 if applied is None else applied.limits.drain_timeout_ns
                    self.start_drain(drain_ns / SECOND_NS, trio.Event())

    def _emit(self, event: EngineEvent) -> None:
        attached = self._control.attached
        if attached is None:
            self._counters.add("events_dropped")
        else:
            attached.emit(event)

    def _full(self) -> list[str]:
        """Return which rooms are full, as last measured."""
        return [name for name in (LOCAL, MESH) if self._counters.gauges.get(f"{name}_full")]

    def problem(self) -> str | None:
        """Return why the engine is not ready, None when it is."""
        applied = self._state.applied
        if self._state.draining.is_set():
            return "draining"
        if applied is None:
            return "no snapshot applied"
        if applied.closed:  # why that is so is why there may be no identities either
            return f"closed: {applied.closed}"
        if self._state.identities is None:
            return "no identities"
        for name in (MESH, PROXY, *sorted(applied.listeners)):
            if self._listeners is None or not self._listeners.accepting(name):
                return f"listener {name} is not up"
        return None

    @property
    def snapshot(self) -> Snapshot | None:
        """Return the snapshot in force."""
        return None if self._state.applied is None else self._state.applied.snapshot

    @property
    def listener_sockets(self) -> dict[str, socket.socket]:
        """Return the listening sockets held, by name."""
        return {} if self._listeners is None else self._listeners.sockets

    def attend(self, *, attached: bool) -> None:
        """Take note of whether an agent is attached."""
        self._state.peers.attend(attached)

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Serve `snapshot` from the next request on.

        Raises:
            MalformedInput: it cannot be executed. Remote's fault. State unchanged.
        """
        applied = self._state.prepare(snapshot)
        self._rooms.resize(applied.limits.downstream_connections)
        peers_changed = self._state.apply(applied, now())
        if peers_changed:
            self._mesh.end_gone()
        if self._listeners is not None:
            self._listeners.apply(applied, self._local.upstream_acceptor)

    def apply_identities(self, identities: Identities) -> None:
        """Use new SVIDs and roots from the next connection on."""
        self._state.set_identities(identities)
        self._mesh.identities_changed()

    def give_listeners(self, sockets: dict[str, socket.socket]) -> None:
        """Take listening sockets over."""
        if self._listeners is not None:
            self._listeners.give(sockets, self._local.upstream_acceptor)

    def service_unknown(self, service: str) -> None:
        """Answer at once what asks for a service nobody vouches for."""
        self._state.demands.unknown(service)

    @property
    def draining(self) -> bool:
        """Tell whether this engine has been told to end."""
        return self._state.draining.is_set()

    def start_drain(self, timeout_s: float, drained: trio.Event, *, succeeded: bool = False) -> None:
        """Refuse other nodes, finish what is in flight within `timeout_s`, set `drained`, exit.

        Asked again, it goes on as it was; `drained` is set with the first one's. With `succeeded` nobody is
        refused: another engine accepts on the same sockets.
        """
        if self._nursery is not None:
            self._drained.append(drained)
            if not self._state.draining.is_set():
                self._state.draining.set()
                self._nursery.start_soon(self._drain, timeout_s, succeeded)

    async def _drain(self, timeout_s: float, succeeded: bool) -> None:
        if self._listeners is not None:
            await (self._finish if succeeded else self._refuse)(self._listeners, timeout_s)
        if self._control.attached is not None:  # what was cut is counted too
            self._tell_statistics(self._control.attached, 0)
        for drained in self._drained:
            drained.set()
        with trio.move_on_after(FLUSH_TIMEOUT_S):
            await trio.lowlevel.checkpoint()  # whoever waited for `drained` queues its answer first
            attached = self._control.attached
            if attached is not None:
                await attached.flushed.wait()
            self._journal.write_down()
            await self._log.flush()
        self._finished.set()

    async def _refuse(self, listeners: Listeners, timeout_s: float) -> None:
        """Serve this node's applications until other nodes' requests have ended, then theirs to the end."""
        deadline = trio.current_time() + timeout_s
        listeners.stop(MESH)
        await self._connections.drain(self._rooms.mesh, timeout_s)
        listeners.stop(LOCAL)
        rest_s = max(deadline - trio.current_time(), min(timeout_s, _OUTBOUND_DRAIN_S))
        await self._connections.drain(self._rooms.local, rest_s)

    async def _finish(self, listeners: Listeners, timeout_s: float) -> None:
        """Accept nothing more, and serve what was accepted: a successor holds the same sockets."""
        listeners.hand_on()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._connections.drain, self._rooms.mesh, timeout_s)
            nursery.start_soon(self._connections.drain, self._rooms.local, timeout_s)
