"""The world: hosts, a virtual clock, one heap of events ordered by (time, sequence).

It is the shell of every core: it performs their effects in order, keeps their disks, and does to
them what scenarios ask. Whatever a core raises ends the run as a failure with the event's time.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from typing import Any

from gossipmesh.gossip.base.effects import (
    CloseStream,
    Effect,
    IdentityCopied,
    Notify,
    OpenStream,
    Persist,
    ProbeEngine,
    Revoked,
    SendDatagram,
    SendStream,
)
from gossipmesh.model.instant import NEVER, SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.testing.simulator.core import CoreFactory
from gossipmesh.testing.simulator.disk import Disk, DiskFull
from gossipmesh.testing.simulator.faults import Channel, FaultBook, Partition, Rule
from gossipmesh.testing.simulator.host import SOCKET_QUEUE_PACKETS, Host
from gossipmesh.testing.simulator.network import LinkSettings, Network
from gossipmesh.testing.simulator.streams import Streams
from gossipmesh.testing.simulator.trace import Trace, entry_line, event_line, place

TIMERS_IN_A_ROW_MAX = 1_000  # handle_deadline calls without time passing: more is a core that spins
TIMER_LATE_NS = 1_000_000  # a busy loop is late by up to this much
ENGINE_TIMEOUT_NS = SECOND_NS
ICMP_BYTES = 64
ENDINGS = (IdentityCopied, Revoked)  # what a shell ends its agent and its engine for

Step = Callable[[Any, Instant], list[Effect]]


class SimulationFailure(Exception):
    """An invariant broke, or a core raised. Our own fault. The run ends here."""


class Observer:
    """What a run tells whoever checks it; `Invariants` is the one that matters."""

    def started(self, world: "World", host: Host) -> None:
        """A core was built and started on `host`."""

    def stepped(self, world: "World", host: Host, effects: Sequence[Effect]) -> None:
        """A core took an input and its effects were performed."""

    def notified(self, world: "World", host: Host, effect: Notify) -> None:
        """A core told of an event."""

    def disturbed(self, world: "World", hosts: Sequence[str]) -> None:
        """Hosts were crashed, paused, restarted, cut off or joined again."""


class World:
    """Hosts by name, in the order they were added; `now_ns` is virtual time since the start."""

    def __init__(
        self,
        seed: int,
        make_core: CoreFactory,
        *,
        settings: LinkSettings | None = None,
        trace: Trace | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.seed = seed
        self.now_ns = 0
        self.hosts: dict[str, Host] = {}
        self.trace = trace or Trace()
        self.faults = FaultBook()
        self.network = Network(settings or LinkSettings(), random.Random(f"{seed}/network"), self.faults)
        self.events_count = 0
        self.datagrams_count = 0
        self.datagram_bytes = 0
        self.observer = observer or Observer()
        self._make_core = make_core
        self._rng = random.Random(f"{seed}/world")
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._by_address: dict[Address, Host] = {}
        self._streams = Streams(self)

    def reseed(self, name: str) -> None:
        """Draw anew from here on, so that forks of one world tell different stories."""
        self._rng.seed(f"{name}/world")
        self.network.reseed(f"{name}/network")

    # -- time -------------------------------------------------------------------------------

    def push(self, at_ns: int, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function` at a virtual time, after everything entered earlier for that time."""
        self._sequence += 1
        heapq.heappush(self._heap, (at_ns, self._sequence, function, arguments))

    def run_until(self, end_ns: int) -> None:
        """Take every event up to and including `end_ns`."""
        heap = self._heap
        while heap and heap[0][0] <= end_ns:
            at_ns, _, function, arguments = heapq.heappop(heap)
            self.now_ns = at_ns
            self.events_count += 1
            function(*arguments)
        self.now_ns = end_ns

    def run_for(self, duration_ns: int) -> None:
        """Let virtual time pass."""
        self.run_until(self.now_ns + duration_ns)

    def run_until_true(self, condition: Callable[[], bool], timeout_ns: int, every_ns: int) -> bool:
        """Let time pass until `condition` holds, looking every `every_ns`; False on timeout."""
        end_ns = self.now_ns + timeout_ns
        while not condition():
            if self.now_ns >= end_ns:
                return False
            self.run_for(every_ns)
        return True

    # -- hosts and what is done to them -----------------------------------------------------

    def add_host(self, name: str) -> Host:
        """Add a machine on which nothing runs yet."""
        return self._place(Host(len(self.hosts), name, str(self.seed)))

    def _place(self, host: Host) -> Host:
        self.hosts[host.name] = host
        self._by_address[host.address] = host
        self._by_address[host.mesh_address] = host
        return host

    def copy_host(self, original: Host) -> Host:
        """Add a machine with a copy of another's state folder as it is now; nothing runs there yet."""
        host = Host(len(self.hosts), f"{original.name}-copy", str(self.seed), original.identity)
        host.generation = original.generation
        host.disk = original.disk.copy()
        self.faults.fire("copy-state")
        return self._place(host)

    def host_at(self, address: Address) -> Host | None:
        """Return the host an address belongs to."""
        return self._by_address.get(address)

    def start(self, host: Host, seeds: Sequence[Address] = ()) -> None:
        """Boot what is down and start the agent; without `seeds` it rejoins from its disk."""
        assert host.core is None, host.name
        host.is_up = host.engine_is_up = True
        rng = host.begin_run()
        now = host.instant(self.now_ns)
        self.trace.record(self.now_ns, f"start {host.name} run {host.run}")
        host.core = self._make_core(host, rng, now, host.wall_offset_s())
        self.observer.started(self, host)
        self.feed(host, host.run, lambda core, at: core.start(seeds, at))

    def kill_agent(self, host: Host) -> None:
        """Kill the agent only: the machine refuses connections, the engine still answers."""
        self._end(host, "kill-agent")

    def kill_node(self, host: Host) -> None:
        """Cut the machine's power: silence, and a tail of unsynced writes is lost."""
        self._end(host, "kill-node")
        host.is_up = host.engine_is_up = False
        host.disk.lose_power(self._rng)

    def kill_processes(self, host: Host) -> None:
        """Kill agent and engine: the machine's kernel refuses whoever knocks, and nothing is lost."""
        self._end(host, "kill-processes")
        host.engine_is_up = False

    def kill_node_midway(self, host: Host, effects_count: int) -> None:
        """Cut the power after `effects_count` more effects, in the midst of a list as like as not."""
        self.faults.expect("kill-midway")
        host.crash_after_effects = effects_count

    def replace_disk(self, host: Host) -> None:
        """Give a stopped host an empty disk and, as its enrolment does, the next generation."""
        assert host.core is None, host.name
        self.faults.fire("replace-disk")
        host.disk.wipe()
        host.generation += 1

    def stop(self, host: Host) -> None:
        """End agent and engine in order, as an operator does; no fault."""
        self.trace.record(self.now_ns, f"stop {host.name}")
        self._streams.forget(host, is_silent=False)
        host.end_run()
        host.engine_is_up = False
        self.observer.disturbed(self, [host.name])

    def pause(self, host: Host) -> None:
        """Stop the process where it is (SIGSTOP); what arrives waits in its socket."""
        self.faults.fire("pause")
        self.trace.record(self.now_ns, f"pause {host.name}")
        host.is_paused = True
        host.paused_at_ns = self.now_ns
        self.observer.disturbed(self, [host.name])

    def resume(self, host: Host) -> None:
        """Let a paused process run on: what arrived first, then its timers."""
        if not host.is_paused:
            return
        self.trace.record(self.now_ns, f"resume {host.name}")
        host.is_paused = False
        self.observer.disturbed(self, [host.name])
        waiting, host.inbox = host.inbox, []
        for deliver in waiting:
            deliver()
        if host.core is not None:
            late_ns = self.now_ns - host.paused_at_ns
            self.feed(host, host.run, lambda core, now: core.note_lag(late_ns, now))

    def starve(self, host: Host, late_ns: tuple[int, int], *, is_stamped: bool) -> None:
        """Have a host's agent read everything late by a draw from a range, from now on."""
        self.faults.expect("starved-reader")
        host.read_late_ns = late_ns
        host.is_stamped = is_stamped

    def jump_clock(self, host: Host, by_s: int) -> None:
        """Set a host's civil clock forward or back; its monotonic one knows nothing of it."""
        self.faults.fire("clock-jump")
        self.trace.record(self.now_ns, f"clock {host.name} {by_s}")
        host.wall_skew_s += by_s
        if host.core is not None:
            core: Any = host.inputs
            core.adjust_wall_clock(host.wall_offset_s(), host.instant(self.now_ns))
            self._rearm(host)

    def corrupt_disk(self, host: Host) -> None:
        """Flip bytes on a stopped host's disk."""
        assert host.core is None, host.name
        if host.disk.corrupt(self._rng):
            self.faults.fire("corrupt-disk")

    def roll_back_disk(self, host: Host, older: Disk) -> None:
        """Put an older copy of its disk back on a stopped host."""
        assert host.core is None, host.name
        self.faults.fire("stale-disk")
        host.disk.restore(older)

    def give_address(self, host: Host, text: str) -> None:
        """Let a machine have one more address, which it sends from, from now on; its agent is not told."""
        self.faults.fire("new-address")
        self.trace.record(self.now_ns, f"address {host.name} {text}")
        host.take_address(text)
        self._by_address[host.address] = self._by_address[host.mesh_address] = host
        self.observer.disturbed(self, [host.name])

    def take_address_away(self, host: Host, text: str) -> None:
        """Take an address from a machine: what is under way there, and every stream by it, is lost."""
        self.faults.fire("lose-address")
        self.trace.record(self.now_ns, f"no address {host.name} {text}")
        for address in [address for address, at in self._by_address.items() if at is host]:
            if address.host == text:
                del self._by_address[address]
        host.has_address = self._by_address.get(host.address) is host
        self._streams.lose_address(host, text)
        self.observer.disturbed(self, [host.name])

    def cut(self, rule: Rule, hosts: Sequence[str]) -> None:
        """Put a rule of the network in force that hosts suffer from, until `heal`."""
        self.network.add_rule(rule)
        self.trace.record(self.now_ns, f"cut {rule.name}")
        self.observer.disturbed(self, hosts)

    def partition(
        self, name: str, left: Sequence[str], right: Sequence[str], *, one_way: bool = False
    ) -> Partition:
        """Cut all links from `left` to `right`, and back unless `one_way`."""
        rule = Partition(name, frozenset(left), frozenset(right), one_way=one_way)
        self.network.add_rule(rule)
        self.trace.record(self.now_ns, f"partition {name}")
        self.observer.disturbed(self, [*left, *right])
        return rule

    def heal(self, rule: Rule) -> None:
        """Join what a rule cut."""
        self.network.remove_rule(rule)
        self.trace.record(self.now_ns, f"heal {rule.name}")
        self.observer.disturbed(self, [name for name in self.hosts if rule.concerns(name)])

    def call(self, host: Host, step: Step) -> None:
        """Give a running core an input of its agent's; what it raises goes to the caller."""
        assert host.core is not None, host.name
        effects = step(host.inputs, host.instant(self.now_ns))
        self._after(host, effects)

    def record_ends(self) -> None:
        """Let the trace end with what every running core holds, by its state sums."""
        for host in self.hosts.values():
            if host.core is not None:
                sums = " ".join(state_sum.hex() for state_sum in host.core.state_sums())
                self.trace.record(self.now_ns, f"holds {host.name} {sums}")

    # -- the shell --------------------------------------------------------------------------

    def arrive(self, host: Host, run: int, step: Step) -> None:
        """Give a process something to read: now, or whenever its starved reader comes to it."""
        if host.read_late_ns is None:
            self.feed(host, run, step)
            return
        self.faults.fire("starved-reader")
        late_ns = self._rng.randint(*host.read_late_ns)
        host.last_read_ns = max(host.last_read_ns, self.now_ns + late_ns)
        self.push(host.last_read_ns, self.feed, host, run, step)

    def feed(self, host: Host, run: int, step: Step) -> None:
        """Give a core an input from outside, now or when its process runs on; void after its run."""
        if host.run != run or host.core is None:
            return
        if host.is_paused:
            host.inbox.append(lambda: self.feed(host, run, step))
            return
        self._step(host, step, host.inputs, host.instant(self.now_ns))

    def _step(self, host: Host, step: Callable[..., list[Effect]], *arguments: Any) -> None:
        """Give a core an input, and perform what it asks for."""
        try:
            effects = step(*arguments)
        except Exception as error:
            raise SimulationFailure(
                f"the core of {host.name} raised {type(error).__name__}: {error}"
            ) from error
        self._after(host, effects)

    def _after(self, host: Host, effects: list[Effect]) -> None:
        if effects:
            self._perform(host, effects)
        if host.written_ticket and host.core is not None:
            self.observer.stepped(self, host, effects)
            ticket, host.written_ticket = host.written_ticket, 0
            self._step(host, host.inputs.persisted, ticket, host.instant(self.now_ns))
        elif host.core is not None:
            self._rearm(host)
            self.observer.stepped(self, host, effects)
            if host.must_end:
                self.stop(host)

    def _perform(self, host: Host, effects: list[Effect]) -> None:
        for position, effect in enumerate(effects):
            if host.crash_after_effects is not None:
                host.crash_after_effects -= 1
                if host.crash_after_effects < 0:
                    self.faults.fire("kill-midway")
                    if position:
                        self.observer.stepped(self, host, effects[:position])
                    self.kill_node(host)
                    return
            if type(effect) is SendDatagram:
                self._send_datagram(host, effect)
            elif type(effect) is Persist:
                self.trace.record(self.now_ns, f"persist {host.name} {entry_line(effect)}")
                try:
                    self._write(host, effect)
                except DiskFull:
                    self._end(host, "disk-full")
                    return
            elif type(effect) is Notify:
                self.trace.record(self.now_ns, f"notify {host.name} {event_line(effect.event)}")
                self.observer.notified(self, host, effect)
                host.must_end = host.must_end or type(effect.event) in ENDINGS
            elif type(effect) is ProbeEngine:
                self._probe_engine(host, effect)
            elif type(effect) is OpenStream:
                self._streams.open(host, effect)
            elif type(effect) is SendStream:
                self._streams.send(host, effect)
            elif type(effect) is CloseStream:
                self._streams.close(host, effect)
            else:
                raise SimulationFailure(f"{host.name} asked for {type(effect).__name__}, unknown here")

    # -- the disk ---------------------------------------------------------------------------

    def _write(self, host: Host, entry: Persist) -> None:
        """Have a host's writer take an entry: at once, or after the one it is busy with."""
        if not host.disk.latency_ns:
            host.disk.write(entry)
            host.written_ticket = entry.ticket or host.written_ticket
            return
        self.faults.expect("slow-disk")
        host.unwritten.append(entry)
        if not host.is_writing:
            host.is_writing = True
            self.push(self.now_ns, self._begin_write, host, host.run)

    def _begin_write(self, host: Host, run: int) -> None:
        """Write all that waits; it takes the disk's time if any of it is durable."""
        if host.run != run or host.core is None:
            return
        entries, host.unwritten = host.unwritten, []
        host.is_writing = bool(entries)
        if not entries:
            return
        try:
            count = host.disk.begin(entries)
        except DiskFull:
            self._end(host, "disk-full")
            return
        is_durable = any(entry.durable for entry in entries)
        ticket = max(entry.ticket for entry in entries)
        end_ns = self.now_ns + (host.disk.latency_ns if is_durable else 0)
        self.push(end_ns, self._end_write, host, run, count if is_durable else 0, ticket)

    def _end_write(self, host: Host, run: int, count: int, ticket: int) -> None:
        """Note that entries are on disk, tell the core, and write what came meanwhile."""
        if host.run != run or host.core is None:
            return
        if count:
            self.faults.fire("slow-disk")
            host.disk.sync(count)
        if ticket:
            self.trace.record(self.now_ns, f"written {host.name} {ticket}")
            self.feed(host, run, lambda core, now: core.persisted(ticket, now))
        self._begin_write(host, run)

    def _send_datagram(self, host: Host, effect: SendDatagram) -> None:
        size_bytes = len(effect.payload)
        self.datagrams_count += 1
        self.datagram_bytes += size_bytes
        target = self._by_address.get(effect.destination)
        if target is None or effect.destination.port != target.address.port or not host.has_address:
            self.trace.record(self.now_ns, f"lost {host.name} {place(effect.destination)} {size_bytes}")
            return
        self.trace.record(self.now_ns, f"send {host.name} {target.name} {size_bytes}")
        for delay_ns in self.network.datagram_delays(host.name, target.name, size_bytes, self.now_ns):
            self.push(self.now_ns + delay_ns, self._datagram, host.name, host.address, effect, target)

    def _datagram(self, source: str, sender: Address, effect: SendDatagram, target: Host) -> None:
        payload = effect.payload
        if self._by_address.get(effect.destination) is not target:
            self.trace.record(self.now_ns, f"lost {source} {place(effect.destination)} {len(payload)}")
            return
        if target.core is None:
            self._refuse_port(source, target)
            return
        if target.is_paused and len(target.inbox) >= SOCKET_QUEUE_PACKETS:
            self.faults.fire("socket-overflow")
            return
        self.trace.record(self.now_ns, f"datagram {source} {target.name} {len(payload)} {payload[-8:].hex()}")
        now = target.instant(self.now_ns)
        arrived = now if target.is_stamped else None
        if target.read_late_ns is None and not target.is_paused:
            self._step(target, target.inputs.receive_datagram, payload, sender, now, arrived)
            return
        self.arrive(
            target, target.run, lambda core, now: core.receive_datagram(payload, sender, now, arrived)
        )

    def _refuse_port(self, source: str, target: Host) -> None:
        """Answer as the kernel of a machine does on whose port nobody listens."""
        sender = self.hosts[source]
        if not target.is_up or sender.core is None:
            return
        delays = self.network.datagram_delays(target.name, source, ICMP_BYTES, self.now_ns)
        for delay_ns in delays[:1]:
            self.push(self.now_ns + delay_ns, self._port_refused, sender, sender.run, target.address)

    def _port_refused(self, host: Host, run: int, address: Address) -> None:
        self.arrive(host, run, lambda core, now: core.port_refused(address, now))

    def _probe_engine(self, host: Host, effect: ProbeEngine) -> None:
        target = self._by_address.get(effect.addresses[0]) if effect.addresses and host.has_address else None
        there = back = None
        if target is not None and target.is_up and not target.engine_is_paused:
            there = self.network.stream_delay(host.name, target.name, Channel.ENGINE)
            back = self.network.stream_delay(target.name, host.name, Channel.ENGINE)
        answered = refused = False
        delay_ns = ENGINE_TIMEOUT_NS
        if target is not None and there is not None and back is not None:
            answered = target.engine_is_up and effect.spiffe_id.endswith(f"/node/{target.identity}")
            refused = not target.engine_is_up
            delay_ns = there + back
        self.trace.record(self.now_ns, f"probe-engine {host.name} {effect.spiffe_id} {answered}")
        self.push(
            self.now_ns + delay_ns, self._engine_answer, host, host.run, effect.probe, answered, refused
        )

    def _engine_answer(self, host: Host, run: int, probe: int, answered: bool, refused: bool) -> None:
        self.arrive(host, run, lambda core, now: core.engine_probed(probe, answered, now, refused=refused))

    def _rearm(self, host: Host) -> None:
        assert host.core is not None, host.name
        deadline = host.core.next_deadline()
        if deadline == NEVER:
            host.timer_at_ns = -1
            return
        at_ns = host.virtual(deadline)
        if at_ns > self.now_ns:
            host.timers_in_a_row_count = 0
        else:
            at_ns = self.now_ns
        if at_ns != host.timer_at_ns:
            host.timer_at_ns = at_ns
            late_ns = int(self._rng.random() * TIMER_LATE_NS)
            self.push(at_ns + late_ns, self._timer, host, host.run, at_ns)

    def _timer(self, host: Host, run: int, at_ns: int) -> None:
        if host.run != run or host.core is None or host.timer_at_ns != at_ns or host.is_paused:
            return
        host.timer_at_ns = -1
        host.timers_in_a_row_count += 1
        if host.timers_in_a_row_count > TIMERS_IN_A_ROW_MAX:
            raise SimulationFailure(f"{host.name} spins: its deadline never comes to lie ahead")
        self.trace.record(self.now_ns, f"timer {host.name}")
        self._step(host, host.inputs.handle_deadline, host.instant(self.now_ns))

    def _end(self, host: Host, fault: str) -> None:
        if host.core is None:
            return
        self.faults.fire(fault)
        self.trace.record(self.now_ns, f"{fault} {host.name}")
        self._streams.forget(host, is_silent=fault == "kill-node")
        host.end_run()
        self.observer.disturbed(self, [host.name])
