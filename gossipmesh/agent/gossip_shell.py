"""The trio shell of the gossip core: feeds it, performs its effects, keeps its deadline.

Rules:
1. Every call into the core goes through `step`: its effects are performed synchronously, in order.
2. The disk is written beside the loop, in the order of the effects. The core is told by `persisted` when what
   it waits for is there; where that fails the agent ends and the core is not stepped again.
3. Before a deadline is judged the socket is drained, so that a packet in time is never late for our sake.
4. `now` never goes back, but for a deadline's; when the kernel had a datagram is told beside it, so that our
   own lag is no one's silence.
5. A deadline is judged at its own instant, so that what came due while the core worked waits for the next
   step, behind the other tasks; one that is long past is judged at the present, with all since then. The
   core's own present never goes back, and is never far behind.
6. What is done every second is done when the loop is awake for a deadline: at rest waking is what costs.
"""

import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVarTuple

import trio

from gossipmesh.agent.loop_watch import LoopWatch
from gossipmesh.agent.state import state_writer
from gossipmesh.agent.state.state_store import StateLost
from gossipmesh.agent.state.state_writer import StateWriter
from gossipmesh.gossip.base.effects import (
    CloseStream,
    Effect,
    Event,
    Notify,
    OpenStream,
    Persist,
    ProbeEngine,
    SendDatagram,
    SendStream,
    StreamId,
)
from gossipmesh.model import limits
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.net.alarm import Alarm
from gossipmesh.net.clock import monotonic, wall_offset_s
from gossipmesh.net.engine_probe import EngineAnswer
from gossipmesh.net.streams import StreamPool
from gossipmesh.net.udp import Datagram, UdpSocket

log = logging.getLogger("gossipmesh.agent.gossip")

_WALL_CLOCK_STEP_S_MIN: Final = 2
_SLICE_NS: Final = 5 * MILLISECOND_NS  # no single piece of work may hold the loop for longer
_STALL_NS: Final = 20_000_000  # a timer later than this: something held the loop, or the machine is busy
# A timer later than this is judged at the present, and so told how late it is. One that is later than a slice
# is judged in a core that knows the present; less does no harm: what is sent seems sent that much sooner.
_LATE_NS: Final = 50 * MILLISECOND_NS
_NOT_SET: Final = Instant(-1)
Given = TypeVarTuple("Given")


class GossipCore(Protocol):
    """What this shell needs of `gossip.node.GossipNode`."""

    def next_deadline(self) -> Instant:
        """Return when `handle_deadline` is due."""

    def handle_deadline(self, now: Instant) -> list[Effect]:
        """Do what is due by `now`, which may lie before what was told already."""

    def note_lag(self, lag_ns: int, now: Instant) -> list[Effect]:
        """Note how late the loop ran, and what time it is."""

    def receive_datagram(
        self, payload: bytes, sender: Address, now: Instant, arrived: Instant | None = None
    ) -> list[Effect]:
        """Take one datagram, and when the kernel had it."""

    def port_refused(self, address: Address, now: Instant) -> list[Effect]:
        """Learn that a packet of ours met a port where nobody listens."""

    def stream_accepted(self, stream: StreamId, peer: Address, now: Instant) -> list[Effect]:
        """Take a stream a peer opened."""

    def stream_opened(self, stream: StreamId, now: Instant) -> list[Effect]:
        """Learn that our stream is connected."""

    def receive_stream(self, stream: StreamId, data: bytes, now: Instant) -> list[Effect]:
        """Take bytes of a stream."""

    def stream_closed(self, stream: StreamId, now: Instant) -> list[Effect]:
        """Learn that a stream is gone."""

    def engine_probed(self, probe: int, answered: bool, now: Instant, refused: bool = False) -> list[Effect]:
        """Learn what a `ProbeEngine` found."""

    def persisted(self, ticket: int, now: Instant) -> list[Effect]:
        """Learn that a durable `Persist` is on disk, and all before it."""

    def adjust_wall_clock(self, wall_offset_s: int, now: Instant) -> None:
        """Learn that civil time moved."""


class Records(state_writer.Records, Protocol):
    """What this shell needs of `state_store.StateStore`."""

    @property
    def rotation_due(self) -> bool:
        """Tell whether the log holds more history than content."""

    async def rotate(self) -> None:
        """Write a snapshot of the records."""


EngineProbe = Callable[[Sequence[Address], str], Awaitable[EngineAnswer]]
"""Handshake with a node's mesh port: (addresses, SPIFFE ID) -> what it met."""


@dataclass(slots=True)
class ShellStatistics:
    """What the shell did so far, in plain counts."""

    steps_count: int = 0
    steps_over_5_ms_count: int = 0
    deadline_lag_ns_max: int = 0
    stalls_count: int = 0
    engine_probes_count: int = 0
    engine_probes_dropped_count: int = 0


class GossipShell:
    """One core, its sockets and its disk."""

    def __init__(
        self,
        core: GossipCore,
        udp: UdpSocket,
        store: Records,
        *,
        on_event: Callable[[Event], None],
        probe_engine: EngineProbe,
        nursery: trio.Nursery,
        each_second: Callable[[], None] = lambda: None,
        clock: Callable[[], Instant] = monotonic,
    ) -> None:
        """Nothing runs before `run`; streams and engine probes live in `nursery`.

        `on_event` is called within a step: it may read the core and must not step it. `each_second` is called
        about every second, between steps, and must take no time.
        """
        self.core = core
        self.udp = udp
        self.statistics = ShellStatistics()
        self.loop = LoopWatch()
        self.streams = StreamPool(self, nursery)
        self.writer = StateWriter(store)
        self._store = store
        self._on_event = on_event
        self._probe_engine = probe_engine
        self._nursery = nursery
        self._clock = clock
        self._now = clock()
        self._each_second = each_second
        self._tick_at = self._now
        self._wall_offset_s = wall_offset_s()
        self._alarm: Alarm | None = None
        self._alarm_at = _NOT_SET
        self._step_ended = self._now
        self._probes_pending = 0
        self._probes_limiter = trio.CapacityLimiter(limits.ENGINE_PROBES_MAX)
        self._stepping = False
        self._lost: StateLost | None = None
        self._inbox: deque[Datagram] = deque()

    def now(self) -> Instant:
        """Return the present, never less than at any earlier step."""
        self._now = max(self._now, self._clock())
        return self._now

    def step(self, call: Callable[[*Given, Instant], list[Effect]], *given: *Given) -> None:
        """Call into the core, what is given first and the present last, and perform what it asks.

        Raises:
            StateLost: a record could not be written before. State unchanged.
            MalformedInput: what `call` raises for input of our own that it refuses.
        """
        assert not self._stepping, "an effect stepped the core it came from"
        if self._lost is not None:
            raise self._lost
        self._stepping = True
        now = self._now = max(self._now, self._clock())
        try:
            self.statistics.steps_count += 1
            for effect in call(*given, now):
                self._perform(effect)
        finally:
            self._stepping = False
            self._step_ended = self._clock()
            self.statistics.steps_over_5_ms_count += self._step_ended - now > _SLICE_NS
            deadline = self.core.next_deadline()
            if deadline != self._alarm_at and self._alarm is not None:  # most steps do not move it
                self._set_alarm(self._alarm, deadline)

    async def run(self, listener: socket.socket) -> None:
        """Feed the core until cancelled; `listener` takes its TCP streams.

        Raises:
            StateLost: the disk is full or broken; the agent must end.
        """
        trio.lowlevel.add_instrument(self.loop)
        self._alarm = Alarm()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_datagrams)
                nursery.start_soon(self._keep_deadline, self._alarm, nursery)
                nursery.start_soon(self._keep_records)
                nursery.start_soon(self.streams.serve, listener)
        finally:
            self._alarm.close()
            self._alarm = None
            trio.lowlevel.remove_instrument(self.loop)
            self._flush()

    async def _keep_records(self) -> None:
        """Write what the core wants kept, and tell it what is on disk."""
        try:
            while True:
                if ticket := await self.writer.next_written():
                    self.step(self.core.persisted, ticket)
                    self.writer.told(ticket)
        except StateLost as error:
            self._lost = error
            raise

    def _flush(self) -> None:
        """Write what waits at the end; what others were to hear of waits for nobody any more."""
        if self._lost is None:
            try:
                self.writer.flush()
            except StateLost as error:
                log.warning("the last records were not kept: %s", error)

    def stream_accepted(self, stream: int, peer: Address) -> None:
        """Feed a stream a peer opened."""
        self.step(lambda now: self.core.stream_accepted(StreamId(stream), peer, now))

    def stream_opened(self, stream: int) -> None:
        """Feed that our connect succeeded."""
        self.step(lambda now: self.core.stream_opened(StreamId(stream), now))

    def receive_stream(self, stream: int, data: bytes) -> None:
        """Feed bytes of a stream."""
        self.step(lambda now: self.core.receive_stream(StreamId(stream), data, now))

    def stream_closed(self, stream: int) -> None:
        """Feed that a stream is gone."""
        self.step(lambda now: self.core.stream_closed(StreamId(stream), now))

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, SendDatagram):
            self.udp.send_nowait(effect.payload, effect.destination)
        elif isinstance(effect, Notify):
            self._on_event(effect.event)
        elif isinstance(effect, Persist):
            self.writer.put_nowait(effect)
        elif isinstance(effect, SendStream):
            self.streams.send_nowait(effect.stream, effect.payload)
        elif isinstance(effect, OpenStream):
            self.streams.open_nowait(effect.stream, effect.destination)
        elif isinstance(effect, CloseStream):
            self.streams.close_nowait(effect.stream)
        else:
            self._start_engine_probe(effect)

    def _start_engine_probe(self, effect: ProbeEngine) -> None:
        if self._probes_pending >= limits.ENGINE_PROBES_PENDING_MAX:
            # Unanswered is not refused: a verdict of ours for want of room would be a false death.
            self.statistics.engine_probes_dropped_count += 1
            return
        self._probes_pending += 1
        self.statistics.engine_probes_count += 1
        self._nursery.start_soon(self._run_engine_probe, effect)

    async def _run_engine_probe(self, effect: ProbeEngine) -> None:
        try:
            async with self._probes_limiter:
                answer = await self._probe_engine(effect.addresses, effect.spiffe_id)
        finally:
            self._probes_pending -= 1
        answered, refused = answer is EngineAnswer.ANSWERED, answer is EngineAnswer.REFUSED
        self.step(lambda now: self.core.engine_probed(effect.probe, answered, now, refused=refused))

    async def _read_datagrams(self) -> None:
        while True:
            await self.udp.wait_readable()
            self._inbox.extend(self.udp.receive_nowait())
            await self._feed()

    async def _feed(self) -> None:
        """Feed what was read, oldest first; other tasks run in between, whichever of us goes on then."""
        began = self._clock()
        while self._inbox:
            self.step(self._take, *self._inbox.popleft())
            if self._step_ended - began > _SLICE_NS:
                await trio.lowlevel.checkpoint()
                began = self._clock()
        if self.udp.refused_pending:
            for address in self.udp.take_refused():
                self.step(self.core.port_refused, address)

    def _take(self, payload: bytes, sender: Address, arrival: Instant, now: Instant) -> list[Effect]:
        return self.core.receive_datagram(payload, sender, now, arrival)

    async def _keep_deadline(self, alarm: Alarm, nursery: trio.Nursery) -> None:
        self._set_alarm(alarm, self.core.next_deadline())
        while True:
            await alarm.wait()
            self._alarm_at = _NOT_SET  # so that the step sets it, even to the same instant
            deadline = self.core.next_deadline()
            await self._drain(deadline)
            now = self.now()
            if now >= deadline:
                lag_ns = now - deadline
                self.statistics.deadline_lag_ns_max = max(self.statistics.deadline_lag_ns_max, lag_ns)
                self.statistics.stalls_count += lag_ns > _STALL_NS
            self.step(self._judge, deadline)
            if now >= self._tick_at:
                self._tick_at = Instant(now + SECOND_NS)
                self._keep_house(nursery)
                self._each_second()

    def _judge(self, deadline: Instant, now: Instant) -> list[Effect]:
        late_ns = now - deadline
        if late_ns > _LATE_NS:
            return self.core.handle_deadline(now)
        # Long work sets its next piece right after its present: one that lags behind ours would have all
        # pieces come before any other timer. So little is no lag to speak of, only the time.
        told = self.core.note_lag(0, now) if late_ns > _SLICE_NS else []
        return told + self.core.handle_deadline(min(deadline, now))

    def _set_alarm(self, alarm: Alarm, deadline: Instant) -> None:
        self._alarm_at = deadline
        alarm.set(deadline - self._clock())

    async def _drain(self, deadline: Instant) -> None:
        """Feed everything that arrived before `deadline`, in slices that let other tasks run."""
        while True:
            batch = self.udp.receive_nowait()
            if batch or self._inbox or self.udp.refused_pending:
                self._inbox.extend(batch)
                await self._feed()
            if len(batch) < limits.DATAGRAMS_PER_WAKEUP_MAX or batch[-1].arrival >= deadline:
                return
            await trio.lowlevel.checkpoint()

    def _keep_house(self, nursery: trio.Nursery) -> None:
        """See whether civil time was set, and whether the state on disk has grown long."""
        if self._store.rotation_due:
            nursery.start_soon(self._store.rotate)
        told, offset_s = self._wall_offset_s, wall_offset_s()
        # Rounding moves the offset by one second; a step of the clock moves it by more.
        if abs(offset_s - told) >= _WALL_CLOCK_STEP_S_MIN:
            log.warning("civil time moved by %d s", offset_s - told)
            self._wall_offset_s = offset_s
            self.core.adjust_wall_clock(offset_s, self.now())
