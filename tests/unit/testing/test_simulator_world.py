"""The simulator itself, driven by a core small enough to know by heart."""

import random
from collections.abc import Sequence

import pytest

from gossipmesh.gossip.base.effects import (
    CloseStream,
    Effect,
    OpenStream,
    Persist,
    PersistKind,
    SendDatagram,
    SendStream,
    StreamId,
)
from gossipmesh.model.instant import MILLISECOND_NS, NEVER, SECOND_NS, Instant, after
from gossipmesh.model.member import Address, NodePhase
from gossipmesh.model.records import NodeState
from gossipmesh.testing.simulator.disk import Disk
from gossipmesh.testing.simulator.faults import Deafness, EgressLoss, Loss, Spare
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.network import LinkSettings
from gossipmesh.testing.simulator.trace import Trace
from gossipmesh.testing.simulator.world import SimulationFailure, World


class EchoCore:
    """Pings its seeds each 100 ms, answers pings, and keeps a count of what came."""

    def __init__(self, host: Host, rng: random.Random, now: Instant) -> None:
        self.host = host
        self.rng = rng
        self.seeds: Sequence[Address] = ()
        self.deadline = NEVER
        self.datagrams: list[bytes] = []
        self.late_ns: list[int | None] = []
        self.refused: list[Address] = []
        self.lags_ns: list[int] = []
        self.stream = bytearray()
        self.closed: list[StreamId] = []
        self.epoch = len(host.disk.entries(PersistKind.EPOCH)) + host.run

    @property
    def own_state(self) -> NodeState:
        name = self.host.name
        return NodeState(name.encode(), 1, self.epoch, 0, name, (), (), NodePhase.SERVING, "", 1, 1, ())

    def start(self, seeds: Sequence[Address], now: Instant) -> list[Effect]:
        self.seeds = seeds
        self.deadline = after(now, 100 * MILLISECOND_NS)
        return [Persist(PersistKind.EPOCH, b"", b"%d" % self.epoch, durable=True)]

    def next_deadline(self) -> Instant:
        return self.deadline

    def handle_deadline(self, now: Instant) -> list[Effect]:
        assert now >= self.deadline
        self.deadline = after(now, 100 * MILLISECOND_NS)
        return [SendDatagram(seed, b"ping%d" % self.rng.getrandbits(32)) for seed in self.seeds]

    def receive_datagram(
        self, payload: bytes, sender: Address, now: Instant, arrived: Instant | None = None
    ) -> list[Effect]:
        self.datagrams.append(payload)
        self.late_ns.append(None if arrived is None else now - arrived)
        if payload == b"raise":
            raise ValueError("a bug")
        return [SendDatagram(sender, b"ack" + payload)] if payload.startswith(b"ping") else []

    def stream_accepted(self, stream: StreamId, peer: Address, now: Instant) -> list[Effect]:
        assert stream % 2
        return []

    def stream_opened(self, stream: StreamId, now: Instant) -> list[Effect]:
        return [SendStream(stream, bytes(range(256))), SendStream(stream, b"end"), CloseStream(stream)]

    def receive_stream(self, stream: StreamId, data: bytes, now: Instant) -> list[Effect]:
        self.stream += data
        return []

    def stream_closed(self, stream: StreamId, now: Instant) -> list[Effect]:
        self.closed.append(stream)
        return []

    def port_refused(self, address: Address, now: Instant) -> list[Effect]:
        self.refused.append(address)
        return []

    def note_lag(self, lag_ns: int, now: Instant) -> list[Effect]:
        self.lags_ns.append(lag_ns)
        return []

    def engine_probed(
        self, probe: int, answered: bool, now: Instant, *, refused: bool = False
    ) -> list[Effect]:
        return []

    def members(self) -> list[object]:
        return []

    def state_sums(self) -> tuple[bytes, bytes]:
        return b"", b""


def echo_world(seed: int = 1, trace: Trace | None = None, settings: LinkSettings | None = None) -> World:
    world = World(seed, lambda host, rng, now, wall: EchoCore(host, rng, now), trace=trace, settings=settings)
    first = world.add_host("n1")
    for number in (2, 3):
        world.start(world.add_host(f"n{number}"), [first.address])
    world.start(first)
    return world


def core_of(world: World, name: str) -> EchoCore:
    core = world.hosts[name].core
    assert isinstance(core, EchoCore)
    return core


def test_one_seed_is_one_story_and_two_seeds_are_two() -> None:
    digests = []
    for seed in (1, 1, 2):
        world = echo_world(seed, settings=LinkSettings(duplicate_ratio=0.1, reorder_ratio=0.1))
        world.network.add_rule(Loss("loss", 0.2))
        world.run_for(5 * SECOND_NS)
        digests.append(world.trace.digest())
    assert digests[0] == digests[1] != digests[2]


def test_loss_and_duplication_do_what_they_say_and_count_it() -> None:
    world = echo_world(settings=LinkSettings(duplicate_ratio=0.5))
    world.network.add_rule(Loss("loss", 0.5))
    world.run_for(20 * SECOND_NS)
    sent, came = 398, len(core_of(world, "n1").datagrams)
    assert 0.5 * sent < came < sent
    counts = world.faults.counts()
    assert counts["loss"] > 100
    assert counts["duplicate"] > 100


def test_a_partition_cuts_both_ways_or_one_and_heals() -> None:
    world = echo_world()
    both = world.partition("both", ["n1"], ["n2"])
    deaf = world.partition("deaf", ["n1"], ["n3"], one_way=True)
    world.run_for(2 * SECOND_NS)
    assert not core_of(world, "n2").datagrams
    assert not core_of(world, "n3").datagrams
    came = len(core_of(world, "n1").datagrams)
    assert came > 15
    world.heal(both)
    world.heal(deaf)
    world.run_for(2 * SECOND_NS)
    assert core_of(world, "n2").datagrams
    assert core_of(world, "n3").datagrams


def test_a_rule_that_delivers_overrules_the_ones_behind_it() -> None:
    world = echo_world()
    world.network.add_rule(Spare("spare", frozenset(("n1", "n2"))))
    world.network.add_rule(Loss("loss", 1.0))
    world.run_for(2 * SECOND_NS)
    assert core_of(world, "n2").datagrams
    assert not core_of(world, "n3").datagrams
    assert world.faults.idle() == []


def test_a_fault_that_never_fired_is_named() -> None:
    world = echo_world()
    world.network.add_rule(Loss("loss", 0.0))
    world.partition("far", ["n1"], ["nowhere"])
    world.run_for(SECOND_NS)
    assert world.faults.idle() == ["loss", "far"]


def test_streams_arrive_whole_in_order_and_end() -> None:
    world = echo_world()
    world.network.add_rule(Loss("loss", 0.3))
    target = world.hosts["n1"].address
    world.call(world.hosts["n2"], lambda core, now: [OpenStream(StreamId(2), target)])
    world.run_for(5 * SECOND_NS)
    receiver = core_of(world, "n1")
    assert bytes(receiver.stream) == bytes(range(256)) + b"end"
    assert receiver.closed == [1]
    assert core_of(world, "n2").closed == []


@pytest.mark.parametrize(("harm", "within_ms"), [("agent", 100), ("node", 5_000), ("cut", 5_000)])
def test_streams_to_nobody_end(harm: str, within_ms: int) -> None:
    world = echo_world()
    target = world.hosts["n1"]
    if harm == "agent":
        world.kill_agent(target)
    elif harm == "node":
        world.kill_node(target)
    else:
        world.partition("cut", ["n1"], ["n2"], one_way=True)
    world.call(world.hosts["n2"], lambda core, now: [OpenStream(StreamId(2), target.address)])
    world.run_for(within_ms * MILLISECOND_NS)
    assert core_of(world, "n2").closed == [2]


def test_a_paused_process_gets_what_waited_when_it_runs_on() -> None:
    world = echo_world()
    world.run_for(SECOND_NS)
    world.pause(world.hosts["n1"])
    before = len(core_of(world, "n1").datagrams)
    world.run_for(3 * SECOND_NS)
    assert len(core_of(world, "n1").datagrams) == before
    world.resume(world.hosts["n1"])
    core = core_of(world, "n1")
    assert len(core.datagrams) > before + 40
    assert core.lags_ns == [3 * SECOND_NS]
    assert max(late or 0 for late in core.late_ns) > 2.8 * SECOND_NS


def test_a_killed_process_hears_nothing_of_its_earlier_run() -> None:
    world = echo_world()
    world.run_for(SECOND_NS)
    world.kill_agent(world.hosts["n2"])
    world.start(world.hosts["n2"])
    world.run_for(SECOND_NS)
    assert core_of(world, "n2").datagrams == []
    assert world.hosts["n2"].run == 2


def test_what_a_core_raises_ends_the_run() -> None:
    world = echo_world()
    target = world.hosts["n1"].address
    world.call(world.hosts["n2"], lambda core, now: [SendDatagram(target, b"raise")])
    with pytest.raises(SimulationFailure, match="n1 raised ValueError: a bug"):
        world.run_for(SECOND_NS)


def test_a_core_whose_deadline_stays_past_is_found() -> None:
    world = echo_world()
    core = core_of(world, "n1")
    core.handle_deadline = lambda now: []  # type: ignore[method-assign]
    with pytest.raises(SimulationFailure, match="n1 spins"):
        world.run_for(5 * SECOND_NS)


def test_a_power_cut_loses_only_what_was_not_synced() -> None:
    lost = set()
    for seed in range(40):
        disk = Disk()
        disk.write(Persist(PersistKind.MEMBER, b"a", b"1", durable=False))
        disk.write(Persist(PersistKind.EPOCH, b"", b"2", durable=True))
        disk.write(Persist(PersistKind.MEMBER, b"a", b"3", durable=False))
        disk.write(Persist(PersistKind.MEMBER, b"b", b"4", durable=False))
        lost.add(disk.lose_power(random.Random(seed)))
        assert disk.entries(PersistKind.EPOCH) == [(b"", b"2")]
        assert disk.entries(PersistKind.MEMBER)[0][1] in (b"1", b"3")
    assert lost == {0, 1, 2}


def test_a_crash_in_the_midst_of_a_step_performs_only_its_beginning() -> None:
    world = echo_world()
    host = world.hosts["n2"]
    target = world.hosts["n3"].address
    world.kill_node_midway(host, 1)
    world.call(host, lambda core, now: [SendDatagram(target, b"one"), SendDatagram(target, b"two")])
    world.run_for(SECOND_NS)
    assert host.core is None
    assert core_of(world, "n3").datagrams[0] == b"one"
    assert b"two" not in core_of(world, "n3").datagrams


def test_a_full_disk_stops_the_agent_before_the_rest_of_its_step() -> None:
    world = echo_world()
    host = world.hosts["n2"]
    host.disk.full = True
    target = world.hosts["n3"].address
    entry = Persist(PersistKind.FLOOR, b"mesh", b"1", durable=True)
    world.call(host, lambda core, now: [entry, SendDatagram(target, b"after")])
    world.run_for(SECOND_NS)
    assert host.core is None
    assert b"after" not in core_of(world, "n3").datagrams


@pytest.mark.parametrize("is_stamped", [True, False])
def test_a_starved_reader_reads_late_and_in_order_and_its_timers_are_on_time(is_stamped: bool) -> None:
    world = echo_world()
    host = world.hosts["n1"]
    world.starve(host, (500 * MILLISECOND_NS, 2_500 * MILLISECOND_NS), is_stamped=is_stamped)
    world.run_for(20 * SECOND_NS)
    core = core_of(world, "n1")
    assert len(core.late_ns) > 300
    if is_stamped:
        assert all(late is not None and late >= 500 * MILLISECOND_NS for late in core.late_ns)
    else:
        assert set(core.late_ns) == {None}
    assert all(late == 0 for late in core_of(world, "n2").late_ns)
    assert world.faults.counts()["starved-reader"] > 300


def test_links_that_are_ill_one_way_count_what_they_drop() -> None:
    world = echo_world()
    deaf = Deafness("deaf", frozenset(("n1",)))
    world.cut(deaf, ["n1"])
    world.run_for(2 * SECOND_NS)
    assert not core_of(world, "n1").datagrams
    deaf.is_on = False
    world.run_for(2 * SECOND_NS)
    came = len(core_of(world, "n1").datagrams)
    assert came > 30
    assert core_of(world, "n2").datagrams
    world.heal(deaf)
    world.cut(EgressLoss("mute", 0.8, frozenset(("n2", "n3"))), ["n2", "n3"])
    world.run_for(10 * SECOND_NS)
    assert 10 < len(core_of(world, "n1").datagrams) - came < 90
    assert world.faults.counts()["deaf"] > 30


def test_a_narrow_wire_delays_and_drops() -> None:
    world = echo_world()
    world.network.limit_bandwidth("n2", 100)
    world.run_for(20 * SECOND_NS)
    wide, narrow = (len(core_of(world, name).datagrams) for name in ("n3", "n2"))
    assert narrow < wide / 1.2
    assert world.faults.counts()["bandwidth"] > 50


def test_a_port_nobody_listens_on_is_refused_by_a_machine_that_is_up() -> None:
    world = echo_world()
    target = world.hosts["n1"]
    world.kill_processes(target)
    world.run_for(SECOND_NS)
    assert set(core_of(world, "n2").refused) == {target.address}
    count = len(core_of(world, "n2").refused)
    target.is_up = False
    world.run_for(SECOND_NS)
    assert len(core_of(world, "n2").refused) <= count + 1


def test_a_disk_keeps_a_good_prefix_or_goes_back() -> None:
    disk = Disk()
    for number in range(50):
        disk.write(Persist(PersistKind.MEMBER, b"%d" % number, b"1", durable=True))
    older = disk.copy()
    disk.write(Persist(PersistKind.EPOCH, b"", b"2", durable=True))
    assert disk.corrupt(random.Random(1)) > 0
    assert disk.is_damaged
    assert disk.entries(PersistKind.EPOCH) == []
    assert 0 < len(disk.entries(PersistKind.MEMBER)) < 50
    disk.restore(older)
    assert disk.is_stale
    assert len(disk.entries(PersistKind.MEMBER)) == 50
