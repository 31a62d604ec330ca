"""One attachment to one engine: brings it to what is wanted, hears it, and tells whether it answers.

Ends with the attachment; which engine serves this node is `engine_supervisor`'s.
Rules:
1. What is wanted is pushed when it differs: identities, then the snapshot, then listeners.
2. A snapshot an engine refused is not offered to it again. One that has nothing to serve yet and refuses what
   is wanted gets what an engine last took.
3. What an engine could not read is not offered to it: what is wanted is written anew for what it names.
4. A successor is given listeners once it serves what is wanted, and not before: it accepts as soon as it has
   them. An engine that drains is given none, and everything else as before.
"""

import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import trio

from gossipmesh.agent.engine.engine_process import EngineProcess
from gossipmesh.agent.engine.engine_wanted import Wanted, WantedIdentities
from gossipmesh.agent.logs import fields
from gossipmesh.dataplane.client import EngineClient, EngineGone, EngineRefused, SnapshotRefused
from gossipmesh.dataplane.protocol import PINS_FEATURE, EngineEvent, Identity, Statistics
from gossipmesh.model import limits
from gossipmesh.model.engine_features import SECTION_FEATURES
from gossipmesh.traffic.sections import Snapshot, required_by

log = logging.getLogger("gossipmesh.agent.engine")

_STUCK_PINGS: Final = 5  # of up to a second each, each after a probe of as much: some 10 s
_PING_TIMEOUT_S: Final = 1.0
_TAKES_MAX: Final = 10
_TAKE_AGAIN_S: Final = 0.5
_PROBE_INTERVAL_S: Final = 10.0
_PROBE_INTERVAL_SILENT_S: Final = 2.0
_SPEAKS_S: Final = 2.5  # its statistics come every second, or every two when nothing moved
_PROBE_RETRY_S: Final = 0.1
_PROBE_FALL: Final = 2
_ROOMS: Final = ("local", "mesh")
_CUT: Final = "connections_cut"


class Observer(Protocol):
    """Who is told of what an engine says and does."""

    def heard(self, session: "EngineSession", event: EngineEvent) -> None:
        """Take an event."""

    def answers(self, session: "EngineSession") -> None:
        """Called when it took a snapshot, or answers at its mesh port, or no more."""

    def shows(self, session: "EngineSession") -> None:
        """Called when it has confirmed other identities, or keys."""


class EngineSession:
    """One engine as long as this agent is attached to it."""

    def __init__(
        self,
        client: EngineClient,
        process: EngineProcess,
        wanted: Wanted,
        observer: Observer,
        probe: Callable[[], Awaitable[bool]],
        *,
        is_successor: bool = False,
    ) -> None:
        """`probe` handshakes with this node's own mesh port as a peer would.

        `is_successor`: another engine accepts on the mesh port still, so that its answers prove nothing.
        """
        self.client = client
        self.process = process
        self.began_at = self._heard_at = trio.current_time()
        self.acked = client.hello.snapshot_version
        self.refused: tuple[str | None, str] = (None, "")
        self.answering = False
        self.full: tuple[str, ...] = ()
        self.shown: tuple[Identity, ...] = ()
        self.taken: dict[str, socket.socket] = {}
        self.took = trio.Event()
        self.ended = trio.Event()
        self.end_reason = ""
        self.cut_count = 0
        self.open_count = 0
        self.drains_until: float | None = None
        self._wanted = wanted
        self._observer = observer
        self._probe = probe
        self._is_successor = is_successor
        self._given: dict[str, socket.socket] = {}
        self._unknown: list[str] = []
        self._round = trio.Event()
        self._acked_first = trio.Event()
        self._in_office = trio.Event()
        if not is_successor:
            self._in_office.set()
        self._rest_until = 0.0
        self._resting = trio.CancelScope()

    @property
    def takes_pins(self) -> bool:
        """Tell whether it judges by key sets."""
        return PINS_FEATURE in self.client.hello.features

    @property
    def serves(self) -> bool:
        """Tell whether it has acked a snapshot and its mesh port answers."""
        return self.acked is not None and self.answering and not self.ended.is_set()

    async def run(self, *, takes_listeners: bool = False) -> None:
        """Serve the attachment until it ends.

        `takes_listeners`: the engine ran before; duplicates of what it listens on are `taken`, and nothing is
        pushed before it is said what is wanted.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.client.run, self.hear)
                if takes_listeners:
                    await self._take_listeners()
                    self.took.set()
                    await self._wanted.given.wait()
                nursery.start_soon(self.watch_health)
                await self._push()
        except* EngineGone as gone:
            self.end_reason = str(gone.exceptions[0])
        finally:
            self.answering, self.full, self.shown = False, (), ()
            self.took.set()
            self.ended.set()
            self._tell_round()

    def tell_unknown(self, service: str) -> None:
        """Have it answer at once what asks for a service nobody vouches for."""
        if len(self._unknown) < limits.DEMANDS_WAITING_MAX:
            self._unknown.append(service)

    def take_office(self, *, answering: bool) -> None:
        """Be the engine of this node from now on; the one before was `answering`."""
        self.answering = answering
        self._in_office.set()

    def leave_office(self, drains_until: float) -> None:
        """Be one that ends: it is given no listeners any more, and answers for the mesh port no longer."""
        self.drains_until = drains_until
        self.answering = False

    async def wait_ready(self, timeout_s: float) -> str | None:
        """Wait until a successor has all that is wanted; return why it has not, None when it has."""
        with trio.move_on_after(timeout_s):
            while True:
                if self.ended.is_set():
                    return f"it ended: {self.end_reason}"
                if self.refused[0] is not None:
                    return f"it refused the snapshot: {self.refused[1]}"
                if self._has_all():
                    return None
                await self._round.wait()
        return f"it did not take what it must have within {timeout_s:g} s"

    def _has_all(self) -> bool:
        wanted = self._wanted
        has_snapshot = wanted.snapshot is not None and wanted.snapshot.version == self.acked
        return has_snapshot and bool(self.shown) and self._given.keys() >= wanted.listeners.keys()

    async def _take_listeners(self) -> None:
        """Take duplicates of what a running engine listens on."""
        for _ in range(_TAKES_MAX):
            try:
                self.taken = await self.client.take_listeners()
                self._given = dict(self.taken)
                return
            except EngineRefused as error:  # it is short of descriptors, and ends what it can
                log.warning("the engine: %s", error)
                await trio.sleep(_TAKE_AGAIN_S)

    async def _push(self) -> None:
        """Bring the engine to what is wanted, again and again."""
        identities: object = None
        while True:
            wanted, changed = self._wanted, self._wanted.changed
            if wanted.identities is not None and identities is not wanted.identities:
                identities = wanted.identities
                await self._push_identities(wanted.identities)
            if wanted.snapshot is not None:
                await self._push_snapshot(wanted.snapshot)
            await self._push_listeners(wanted.listeners)
            unknown, self._unknown = self._unknown, []
            for service in unknown:
                await self.client.unknown_service(service)
            self._tell_round()
            await changed.wait()

    def _tell_round(self) -> None:
        self._round.set()
        self._round = trio.Event()

    async def _push_identities(self, wanted: WantedIdentities) -> None:
        given = wanted if self.takes_pins else wanted.certified_only()
        if not given.identities:
            return  # nobody to be yet
        try:
            await self.client.apply_identities(*given)
        except EngineRefused as error:
            log.error("the engine refused the node's identities: %s", error)
        else:
            self.shown = given.identities
            self._observer.shows(self)

    async def _push_listeners(self, wanted: Mapping[str, socket.socket]) -> None:
        waits = self._is_successor and not self._in_office.is_set() and not self._runs_wanted()
        if self.drains_until is not None or waits:
            return
        new = {name: sock for name, sock in wanted.items() if self._given.get(name) is not sock}
        if not new:
            return
        try:
            await self.client.give_listeners(new)
        except EngineRefused as error:
            log.error("the engine refused listeners: %s", error)
        self._given |= new

    def _runs_wanted(self) -> bool:
        return self._wanted.snapshot is not None and self._wanted.snapshot.version == self.acked

    async def _push_snapshot(self, snapshot: Snapshot) -> None:
        if snapshot.version == self.acked:
            self.refused = (None, "")  # what it refused is wanted no more
            return
        if snapshot.version == self.refused[0] or not self._can_execute(snapshot):
            return
        if await self.offer(snapshot):
            self.refused = (None, "")
        elif self.acked is None and self._wanted.taken_last is not None and self._in_office.is_set():
            await self.offer(self._wanted.taken_last)

    def _can_execute(self, snapshot: Snapshot) -> bool:
        """Tell whether this engine names all that a snapshot requires; else one is written for it soon."""
        named = self.client.hello.features
        return SECTION_FEATURES.issubset(named) or required_by(snapshot).issubset(named)

    async def offer(self, snapshot: Snapshot) -> bool:
        """Offer a snapshot; tell whether the engine took it, and remember which."""
        try:
            await self.client.apply_snapshot(snapshot)
        except SnapshotRefused as error:
            if snapshot is self._wanted.snapshot:
                self.refused = (snapshot.version, str(error))
            told = fields(version=snapshot.version, pid=self.process.pid)
            log.error("the engine refused a snapshot: %s", error, extra=told)
            return False
        self.acked, self._wanted.taken_last = snapshot.version, snapshot
        self._acked_first.set()
        return True

    async def watch_health(self) -> None:
        """Probe the mesh port as a peer would; one failure may be a stall of ours.

        Only an engine that does not answer on its own socket, `_STUCK_PINGS` times in a row, is ended: its
        connection closes with it and a successor is started. One that is full, or whose certificates ran
        out, answers there. Pings are counted, not seconds, so that a pause of this agent does not count
        against the engine.
        """
        if self.acked is None:
            await self._acked_first.wait()
        await self._in_office.wait()
        failed_count = stuck_count = 0
        while True:
            answered = await self._probe()
            if self.drains_until is not None:
                return  # it refuses other nodes by now, as it should
            failed_count = 0 if answered else failed_count + 1
            if answered or failed_count >= _PROBE_FALL:
                self.answering = answered
                self._observer.answers(self)
            stuck_count = 0 if answered or await self.client.ping(_PING_TIMEOUT_S) else stuck_count + 1
            if stuck_count >= _STUCK_PINGS:
                log.error("the engine does not answer and is ended", extra=fields(pid=self.process.pid))
                self.process.end(signal.SIGKILL)
            if answered:
                await self._rest()
            else:
                await trio.sleep(_PROBE_RETRY_S)

    async def _rest(self) -> None:
        """Wait until the next probe: a while, for a handshake costs both ends; less when it falls silent."""
        now = trio.current_time()
        self._rest_until = now + _PROBE_INTERVAL_S
        silent_at = max(self._heard_at + _SPEAKS_S, now + _PROBE_INTERVAL_SILENT_S)
        with trio.CancelScope(deadline=min(self._rest_until, silent_at)) as self._resting:
            await trio.sleep_forever()

    def hear(self, event: EngineEvent) -> None:
        """Take an event of the engine."""
        self._heard_at = trio.current_time()
        self._resting.deadline = min(self._rest_until, self._heard_at + _SPEAKS_S)
        if isinstance(event, Statistics):
            self.cut_count += event.counters.get(_CUT, 0)
            self.open_count = sum(event.gauges.get(f"{room}_connections", 0) for room in _ROOMS)
            self._note_full(event.gauges)
        self._observer.heard(self, event)

    def _note_full(self, gauges: Mapping[str, int]) -> None:
        full = tuple(room for room in _ROOMS if gauges.get(f"{room}_full"))
        if full != self.full:
            self.full = full
            if full:
                log.warning("the engine has no place left for more connections", extra=fields(full=full))
            else:
                log.info("the engine has places for connections again")
