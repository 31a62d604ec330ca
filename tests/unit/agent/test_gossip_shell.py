"""The shell performs effects in order, keeps the deadline, and says nothing that is not on disk."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from gossipmesh.agent.gossip_shell import GossipShell
from gossipmesh.agent.state.state_store import StateLost, StateStore
from gossipmesh.gossip.base.effects import (
    CloseStream,
    Effect,
    Event,
    Notify,
    OpenStream,
    Persist,
    PersistKind,
    ProbeEngine,
    SendDatagram,
    SendStream,
    StreamId,
    TrustChanged,
)
from gossipmesh.gossip.base.settings import GossipStatistics
from gossipmesh.gossip.base.timers import Timers, fire
from gossipmesh.gossip.repair.slices import Slices
from gossipmesh.model.instant import MILLISECOND_NS, NEVER, Instant
from gossipmesh.model.member import Address
from gossipmesh.net.clock import monotonic
from gossipmesh.net.engine_probe import EngineAnswer
from gossipmesh.net.streams import listen
from gossipmesh.net.udp import UdpSocket

ANY = Address("127.0.0.1", 0)


class ScriptedCore:
    """Writes down what it is fed; answers each kind of input with the effects it was given for it."""

    def __init__(self) -> None:
        self.deadline: Instant = NEVER
        self.fed: list[tuple[str, object]] = []
        self.answers: dict[str, list[Effect]] = {}
        self.moments: list[int] = []
        self._fed_more = trio.Event()

    def next_deadline(self) -> Instant:
        return self.deadline

    def note_lag(self, lag_ns: int, now: Instant) -> list[Effect]:
        return []

    def handle_deadline(self, now: Instant) -> list[Effect]:
        if now >= self.deadline:
            self.deadline = NEVER
            return self._feed("deadline", None, now)
        return []

    def receive_datagram(
        self, payload: bytes, sender: Address, now: Instant, arrived: Instant | None = None
    ) -> list[Effect]:
        assert arrived is not None
        assert arrived <= now
        return self._feed("datagram", payload, now)

    def port_refused(self, address: Address, now: Instant) -> list[Effect]:
        return self._feed("refused", address, now)

    def stream_accepted(self, stream: StreamId, peer: Address, now: Instant) -> list[Effect]:
        return self._feed("accepted", stream, now)

    def stream_opened(self, stream: StreamId, now: Instant) -> list[Effect]:
        return self._feed("opened", stream, now)

    def receive_stream(self, stream: StreamId, data: bytes, now: Instant) -> list[Effect]:
        return self._feed("bytes", (stream, data), now)

    def stream_closed(self, stream: StreamId, now: Instant) -> list[Effect]:
        return self._feed("closed", stream, now)

    def engine_probed(
        self, probe: int, answered: bool, now: Instant, *, refused: bool = False
    ) -> list[Effect]:
        return self._feed("probed", (probe, answered, refused), now)

    def persisted(self, ticket: int, now: Instant) -> list[Effect]:
        return self._feed("persisted", ticket, now)

    def adjust_wall_clock(self, wall_offset_s: int, now: Instant) -> None:
        raise AssertionError("the clock did not move")

    def _feed(self, what: str, value: object, now: Instant) -> list[Effect]:
        self.fed.append((what, value))
        self.moments.append(now)
        self._fed_more.set()
        return self.answers.pop(what, [])

    async def wait_fed(self, count: int) -> None:
        with trio.fail_after(5):
            while len(self.fed) < count:
                self._fed_more = trio.Event()
                await self._fed_more.wait()


class Rig:
    """A shell around a scripted core, on loopback."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.core = ScriptedCore()
        self.nursery = nursery
        self.udp = UdpSocket(ANY)
        self.peer = UdpSocket(ANY)
        self.listener = listen(ANY)
        self.store = StateStore(folder)
        self.events: list[Event] = []
        self.probed: list[tuple[Sequence[Address], str]] = []
        self.ticks: list[int] = []
        self.shell = GossipShell(
            self.core,
            self.udp,
            self.store,
            on_event=self.events.append,
            probe_engine=self._probe,
            nursery=nursery,
            each_second=self._tick,
        )

    async def _probe(self, addresses: Sequence[Address], spiffe_id: str) -> EngineAnswer:
        self.probed.append((addresses, spiffe_id))
        return EngineAnswer.ANSWERED

    def _tick(self) -> None:
        self.shell.step(lambda now: [])  # whoever does something each second may have something to say
        self.ticks.append(len(self.core.fed))

    def say(self, *payloads: bytes) -> None:
        for payload in payloads:
            assert self.peer.send_nowait(payload, self.udp.address)


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    async with trio.open_nursery() as nursery:
        made = Rig(folder, nursery)
        nursery.start_soon(made.shell.run, made.listener)
        try:
            yield made
        finally:
            nursery.cancel_scope.cancel()
    made.udp.close()
    made.peer.close()
    made.listener.close()
    made.store.close()


async def test_effects_are_performed_in_order_and_answers_come_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        address = Address("127.0.0.1", made.listener.getsockname()[1])
        made.core.answers["datagram"] = [
            SendDatagram(made.peer.address, b"ack"),
            Notify(TrustChanged(2)),
            OpenStream(StreamId(2), address),
            SendStream(StreamId(2), b"frame"),
            ProbeEngine(9, (address,), "spiffe://mesh.test/node/b"),
        ]
        made.core.answers["bytes"] = [CloseStream(StreamId(1))]
        made.say(b"ping")
        await made.core.wait_fed(6)
        assert made.events == [TrustChanged(2)]
        with trio.fail_after(5):
            await made.peer.wait_readable()
        assert made.peer.receive_nowait()[0].payload == b"ack"
        assert made.core.fed[0] == ("datagram", b"ping")
        assert sorted(map(repr, made.core.fed[1:])) == sorted(
            map(
                repr,
                [
                    ("opened", 2),
                    ("accepted", 1),
                    ("bytes", (1, b"frame")),
                    ("closed", 2),
                    ("probed", (9, True, False)),
                ],
            )
        )
        assert made.core.moments == sorted(made.core.moments)


async def test_a_deadline_moved_nearer_by_a_step_is_kept(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await trio.testing.wait_all_tasks_blocked()
        due = Instant(monotonic() + 20 * MILLISECOND_NS)

        def reschedule(now: Instant) -> list[Effect]:
            made.core.deadline = due
            return []

        made.shell.step(reschedule)
        await made.core.wait_fed(1)
        assert made.core.fed == [("deadline", None)]
        assert made.core.moments[0] >= due


async def test_deadlines_that_passed_meanwhile_are_judged_one_by_one_each_at_its_own_instant(
    tmp_path: Path,
) -> None:
    """Else the work of all of them is one step of the loop, which nothing else can get in between."""
    async with rig(tmp_path) as made:
        await trio.testing.wait_all_tasks_blocked()
        began = monotonic()
        due = [Instant(began - 3), Instant(began - 2), Instant(began - 1)]
        made.shell._clock = lambda: Instant(began)  # the agent's own, which stands still meanwhile

        def judge(now: Instant) -> list[Effect]:
            made.core.deadline = due.pop(0) if due else NEVER
            return made.core._feed("deadline", len(due), now)

        made.core.handle_deadline = judge  # type: ignore[method-assign]
        passed = list(due)
        made.core.deadline = due.pop(0)
        made.shell.step(lambda now: [])
        await made.core.wait_fed(3)
        assert made.core.moments == passed


async def test_a_deadline_long_past_is_judged_at_the_present(tmp_path: Path) -> None:
    """The core learns from it that it was stopped, and that what it did not hear proves nothing."""
    async with rig(tmp_path) as made:
        await trio.testing.wait_all_tasks_blocked()
        began = monotonic()
        made.shell._clock = lambda: Instant(began)
        made.core.deadline = Instant(began - 600 * MILLISECOND_NS)
        made.shell.step(lambda now: [])
        await made.core.wait_fed(1)
        assert made.core.moments == [began]


class WorkingCore(ScriptedCore):
    """Fifty pieces of long work, 4 ms each, and a beat every 20 ms; its clock goes on by the work alone.

    Nearly: a look at it takes a microsecond, or what is due a nanosecond later would never be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.began = self.clock = self.now = monotonic()
        self.timers = Timers()
        self.statistics = GossipStatistics()
        self.late_ns: list[int] = []
        self.done = trio.Event()
        self._slices = Slices(cast(Any, self))
        self._slices.add(1, self._work())
        self._set_beat()

    def read_clock(self) -> Instant:
        self.clock = Instant(self.clock + 1_000)
        return self.clock

    def _work(self) -> Iterator[None]:
        for _ in range(50):
            self.clock = Instant(self.clock + 4 * MILLISECOND_NS)
            yield
        self.done.set()

    def _set_beat(self) -> None:
        self._due = self.began + (len(self.late_ns) + 1) * 20 * MILLISECOND_NS
        self.timers.set(("beat", None), self._due)

    def _slice(self) -> None:
        assert not list(self._slices.step())

    def _beat(self) -> None:
        self.late_ns.append(self.clock - self._due)
        self._set_beat()

    def next_deadline(self) -> Instant:
        return self.timers.next_deadline()

    def note_lag(self, lag_ns: int, now: Instant) -> list[Effect]:
        self.now = max(self.now, now)
        return []

    def handle_deadline(self, now: Instant) -> list[Effect]:
        self.now = max(self.now, now)
        while (timer := self.timers.pop_due(now)) is not None:
            fire({"beat": self._beat, "slice": self._slice}, timer)
        return []


async def test_long_work_of_the_core_does_not_keep_its_timers_waiting(tmp_path: Path) -> None:
    """A piece is due right after the one before: by a present that stood still it would always come first."""
    async with rig(tmp_path) as made:
        await trio.testing.wait_all_tasks_blocked()
        core = WorkingCore()
        made.shell.core = core
        made.shell._clock = core.read_clock
        made.shell.step(lambda now: [])
        with trio.fail_after(5):
            await core.done.wait()
        assert len(core.late_ns) >= 9
        assert max(core.late_ns) <= 10 * MILLISECOND_NS
        assert made.shell.statistics.stalls_count == 0
        assert made.shell.statistics.steps_over_5_ms_count == 0


async def test_what_is_done_each_second_waits_for_a_deadline_and_a_second(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await trio.testing.wait_all_tasks_blocked()
        began = monotonic()
        for count, after_ms in enumerate((0, 999, 1_000, 1_500, 2_300), 1):
            now = Instant(began + after_ms * MILLISECOND_NS)
            made.shell._clock = lambda now=now: now  # type: ignore[misc]
            made.core.deadline = now
            made.shell.step(lambda now: [])
            await made.core.wait_fed(count)
            await trio.testing.wait_all_tasks_blocked()
        assert made.ticks == [1, 3, 5]


async def test_what_arrived_before_a_deadline_is_fed_before_it_is_judged(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        count = 150
        made.say(*(b"%d" % number for number in range(count)))
        made.core.deadline = monotonic()
        # The loop was busy until now: the datagrams wait in the socket, and the deadline has passed.
        await made.core.wait_fed(count + 1)
        assert made.core.fed[-1] == ("deadline", None)
        assert [value for what, value in made.core.fed[:-1]] == [b"%d" % number for number in range(count)]


async def test_nothing_is_said_when_the_disk_does_not_take_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trio.open_nursery() as nursery:
        made = Rig(tmp_path, nursery)

        def full(entries: object, *, durable: bool) -> None:
            raise StateLost("no space")

        monkeypatch.setattr(made.store, "put_all", full)
        made.core.answers["datagram"] = [Persist(PersistKind.FLOOR, b"mesh", b"2", durable=True, ticket=1)]
        made.core.answers["persisted"] = [SendDatagram(made.peer.address, b"announce")]
        made.say(b"manifest")
        with trio.fail_after(5), pytest.RaisesGroup(pytest.RaisesExc(StateLost, match="no space")):
            await made.shell.run(made.listener)
        # Whoever still runs must not have the core speak, nor is it ever told.
        fed_count = len(made.core.fed)
        with pytest.raises(StateLost, match="no space"):
            made.shell.stream_closed(StreamId(2))
        assert len(made.core.fed) == fed_count
    assert made.udp.statistics.sent_count == 0
    made.udp.close()
    made.peer.close()
    made.listener.close()
    made.store.close()


async def test_a_flood_is_worked_off_in_slices_and_all_of_it_before_a_verdict(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        # A clock of our own, ahead of the arrivals that the kernel stamps.
        took_ns, now = 3 * MILLISECOND_NS, Instant(monotonic() + 1_000 * MILLISECOND_NS)
        receive = made.core.receive_datagram

        def slow(
            payload: bytes, sender: Address, at: Instant, arrived: Instant | None = None
        ) -> list[Effect]:
            nonlocal now
            now = Instant(now + took_ns)
            return receive(payload, sender, at, arrived)

        made.core.receive_datagram = slow  # type: ignore[method-assign]
        made.shell._clock = lambda: now
        turns = 0

        async def somebody_else() -> None:
            nonlocal turns
            while len(made.core.fed) < 40:
                turns += 1
                await trio.lowlevel.checkpoint()

        made.say(*(bytes((number,)) for number in range(40)))
        made.core.deadline = Instant(now + 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(somebody_else)
            await made.core.wait_fed(40)
        assert [value for what, value in made.core.fed if what == "datagram"] == [
            bytes((number,)) for number in range(40)
        ]
        # 40 packets of 3 ms, no more than 6 ms in one go.
        assert turns >= 10
        assert made.shell.statistics.steps_over_5_ms_count == 0
