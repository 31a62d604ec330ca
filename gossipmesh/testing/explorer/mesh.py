"""A few real cores on a network whose every packet of interest waits until the search delivers or drops it.

Packets that carry nothing of interest, and streams, arrive at once. Virtual time passes only when told to.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from gossipmesh.gossip.base.effects import (
    CloseStream,
    Effect,
    Notify,
    OpenStream,
    Persist,
    PolicyApplied,
    ProbeEngine,
    SendDatagram,
    SendStream,
)
from gossipmesh.gossip.base.settings import GossipSettings
from gossipmesh.gossip.inspection import Held, held
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.sessions.links import Link
from gossipmesh.model.instant import MILLISECOND_NS, NEVER, SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import RecordKind
from gossipmesh.testing.builders import TrustDomainBuilder
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.node import NodeFactory
from gossipmesh.trust.keys import Verifier
from gossipmesh.wire.datagram import MessageType

JOIN_MAX_NS: Final = 30 * SECOND_NS
DELIVERIES_PER_STEP_MAX: Final = 20_000
_RECORD_NAMES: Final = {
    RecordKind.CREDENTIAL: "credential",
    RecordKind.NODE_STATE: "state",
    RecordKind.SERVICE_SET: "services",
    RecordKind.KEY_SET: "keys",
}


class Violation(Exception):
    """What must always hold does not. Our own fault. The search ends here."""


class Parcel(NamedTuple):
    """A packet under way; `kinds` are what it carries of interest, `content` names that for fingerprints."""

    payload: bytes
    kinds: tuple[str, ...]
    content: tuple[bytes, ...]
    messages: tuple[bytes, ...]


class _Sealed:
    """What lies in each packet that was sealed lately, by its bytes: the search may look inside."""

    def __init__(self) -> None:
        self._messages: dict[bytes, tuple[bytes, ...]] = {}

    def note(self, packet: bytes, messages: Sequence[bytes]) -> None:
        self._messages[packet] = tuple(messages)

    def take(self, packet: bytes) -> tuple[bytes, ...]:
        return self._messages.pop(packet, ())


_SEALED: Final = _Sealed()
_seal_packet = Link.packet


def _noting_packet(link: Link, *arguments: Any, **named: Any) -> bytes:
    packet = _seal_packet(link, *arguments, **named)
    _SEALED.note(packet, arguments[3])
    return packet


def kind_of(message: bytes) -> str:
    """Return the name of an encoded message: its type, for a record its kind."""
    number = message[1]
    if number != MessageType.RECORD:
        return MessageType(number).name.lower()
    kind = message[3]
    return _RECORD_NAMES.get(RecordKind(kind), "verdict") if kind in tuple(RecordKind) else "opaque"


class Mesh:
    """`hold` names the kinds that wait, `lost` those that never arrive; the rest arrives when it is sent."""

    def __init__(self, names: Sequence[str], settings: GossipSettings | None = None) -> None:
        setattr(Link, "packet", _noting_packet)  # noqa: B010
        self.domain = TrustDomainBuilder()
        self.factory = NodeFactory(self.domain, Verifier(500_000), settings)
        self.hosts = {name: Host(number, name, "explorer") for number, name in enumerate(names)}
        self.now_ns = SECOND_NS
        self.hold: frozenset[str] = frozenset()
        self.lost: frozenset[str] = frozenset()
        self.held: dict[tuple[str, str], list[Parcel]] = {}
        self.cut: set[tuple[str, str]] = set()
        self.heard_ns: dict[tuple[str, str], int] = {}
        self.applied: list[tuple[str, PolicyApplied]] = []
        self.sent: Callable[[str, str, bytes], None] = lambda source, target, message: None
        self.arrived: Callable[[str, str, bytes], None] = lambda source, target, message: None
        self.ids = {name: bytes(self.domain.node(name).node_id) for name in names}
        self.names = {node_id: name for name, node_id in self.ids.items()}
        self._by_address = {host.address: host for host in self.hosts.values()}
        self._by_address |= {host.mesh_address: host for host in self.hosts.values()}
        self._waiting: deque[Callable[[], None]] = deque()
        self._streams: dict[tuple[str, int, int], tuple[str, int, int]] = {}

    # -- doing ------------------------------------------------------------------------------

    def core(self, name: str) -> GossipNode:
        """Return the core that runs on a host."""
        core = self.hosts[name].core
        assert isinstance(core, GossipNode), name
        return core

    @property
    def running(self) -> list[str]:
        """Return the names of hosts whose agents run."""
        return [name for name, host in self.hosts.items() if host.core is not None]

    def start(self, name: str, seeds: Sequence[str] = ()) -> None:
        """Start an agent from its disk."""
        host = self.hosts[name]
        rng = host.begin_run()
        now = host.instant(self.now_ns)
        host.core = self.factory(host, rng, now, host.wall_offset_s())
        addresses = [self.hosts[seed].address for seed in seeds]
        self.step(name, lambda core, at: core.start(addresses, at))

    def restart(self, name: str) -> None:
        """Cut a machine's power, lose every write that was not synced, and start it with its seeds."""
        host = self.hosts[name]
        for here in [key for key in self._streams if key[0] == name]:
            self._break(self._streams.pop(here))
        host.end_run()
        host.disk.lose_unsynced()
        self.start(name, [other for other in self.hosts if other != name])

    def step(self, name: str, act: Callable[[Any, Instant], list[Effect]]) -> None:
        """Give one core an input, perform its effects, and let what needs no decision arrive."""
        host = self.hosts[name]
        assert host.core is not None
        self._perform(host, act(host.core, host.instant(self.now_ns)))
        self._settle()

    def tick(self, duration_ns: int) -> None:
        """Let virtual time pass; every deadline in between is met."""
        end_ns = self.now_ns + duration_ns
        while True:
            due = [
                (host.virtual(host.core.next_deadline()), host.index, host.name)
                for host in self.hosts.values()
                if host.core is not None and host.core.next_deadline() != NEVER
            ]
            at_ns, _, name = min(due, default=(end_ns + 1, 0, ""))
            if at_ns > end_ns:
                break
            self.now_ns = max(self.now_ns, at_ns)
            self.step(name, lambda core, now: core.handle_deadline(now))
        self.now_ns = end_ns

    def deliver(self, link: tuple[str, str]) -> None:
        """Deliver what waits on a link, in the order it was sent."""
        for parcel in self.held.pop(link, []):
            self._arrive(link, parcel.payload, parcel.messages)
        self._settle()

    def drop(self, link: tuple[str, str]) -> None:
        """Lose what waits on a link."""
        del self.held[link]

    def release(self) -> None:
        """Let everything arrive from now on, what waits first."""
        self.hold = self.lost = frozenset()
        self.cut.clear()
        while self.held:
            self.deliver(next(iter(self.held)))

    def tick_until(self, condition: Callable[[], bool], limit_ns: int, step_ns: int) -> bool:
        """Let time pass until a condition holds; False when it never did."""
        end_ns = self.now_ns + limit_ns
        while not condition():
            if self.now_ns >= end_ns:
                return False
            self.tick(step_ns)
        return True

    def join(self) -> None:
        """Start everyone and wait until all know all and hold the same."""
        first, *others = self.hosts
        self.start(first)
        for name in others:
            self.start(name, [first])
        joined = self.tick_until(lambda: self.whole and self.sums_equal, JOIN_MAX_NS, 100 * MILLISECOND_NS)
        if not joined:
            raise Violation("the nodes do not find one another")

    # -- reading ----------------------------------------------------------------------------

    @property
    def sums_equal(self) -> bool:
        """Tell whether all running nodes hold the same."""
        return len({self.core(name).state_sums() for name in self.running}) == 1

    @property
    def whole(self) -> bool:
        """Tell whether everyone running is alive on everyone running."""
        names = sorted(self.running)
        return all(
            sorted(v.name for v in self.core(name).members() if v.status is MemberStatus.ALIVE) == names
            for name in names
        )

    def member(self, at: str, of: str) -> Held | None:
        """Return how one node holds another; None before they joined."""
        return held(self.core(at), self.ids[of])

    # -- inside -----------------------------------------------------------------------------

    def _settle(self) -> None:
        for _ in range(DELIVERIES_PER_STEP_MAX):
            if not self._waiting:
                return
            self._waiting.popleft()()
        raise Violation("the nodes never stop answering one another")

    def _feed(self, name: str, run: int, act: Callable[[Any, Instant], list[Effect]]) -> None:
        host = self.hosts[name]

        def arrive() -> None:
            if host.core is not None and host.run == run:
                self._perform(host, act(host.core, host.instant(self.now_ns)))

        self._waiting.append(arrive)

    def _arrive(self, link: tuple[str, str], payload: bytes, messages: tuple[bytes, ...]) -> None:
        source, target = self.hosts[link[0]], self.hosts[link[1]]

        def receive(core: Any, at: Instant) -> list[Effect]:
            self.heard_ns[link] = self.now_ns
            for message in messages:
                self.arrived(source.name, target.name, message)
            effects: list[Effect] = core.receive_datagram(payload, source.address, at)
            return effects

        self._feed(target.name, target.run, receive)

    def _perform(self, host: Host, effects: list[Effect]) -> None:
        ticket = 0
        for effect in effects:
            if isinstance(effect, SendDatagram):
                self._send(host, effect)
            elif isinstance(effect, Persist):
                host.disk.write(effect)
                ticket = effect.ticket or ticket
            elif isinstance(effect, Notify):
                if isinstance(effect.event, PolicyApplied):
                    self.applied.append((host.name, effect.event))
            elif isinstance(effect, ProbeEngine):
                self._probe_engine(host, effect.probe)
            elif isinstance(effect, OpenStream):
                self._open(host, effect)
            elif isinstance(effect, SendStream):
                self._send_stream(host, effect)
            elif isinstance(effect, CloseStream):
                self._close(host, effect.stream)
        if ticket:
            core: Any = host.core
            self._perform(host, core.persisted(ticket, host.instant(self.now_ns)))

    def _probe_engine(self, host: Host, probe: int) -> None:
        """Answer at once that no engine answers: what is silent may be dead."""
        self._feed(host.name, host.run, lambda core, at: core.engine_probed(probe, False, at))

    def _break(self, end: tuple[str, int, int]) -> None:
        self._streams.pop(end, None)
        self._feed(end[0], end[1], lambda core, at: core.stream_closed(end[2], at))

    def _send(self, host: Host, effect: SendDatagram) -> None:
        messages = _SEALED.take(effect.payload)
        target = self._by_address.get(effect.destination)
        if target is None:
            return
        for message in messages:
            self.sent(host.name, target.name, message)
        link = (host.name, target.name)
        if link in self.cut or any(kind_of(message) in self.lost for message in messages):
            return
        of_interest = [message for message in messages if kind_of(message) in self.hold]
        if not of_interest:
            self._arrive(link, effect.payload, messages)
            return
        kinds = tuple(kind_of(message) for message in of_interest)
        parcel = Parcel(effect.payload, kinds, tuple(_digest(message) for message in of_interest), messages)
        self.held.setdefault(link, []).append(parcel)

    def _open(self, host: Host, effect: OpenStream) -> None:
        target = self._by_address.get(effect.destination)
        stream = effect.stream
        links = None if target is None else {(host.name, target.name), (target.name, host.name)}
        if target is None or target.core is None or links is None or links & self.cut:
            self._feed(host.name, host.run, lambda core, at: core.stream_closed(stream, at))
            return
        here, there = (host.name, host.run, stream), (target.name, target.run, target.next_accepted_stream())
        self._streams[here], self._streams[there] = there, here
        self._feed(there[0], there[1], lambda core, at: core.stream_accepted(there[2], host.address, at))
        self._feed(host.name, host.run, lambda core, at: core.stream_opened(stream, at))

    def _send_stream(self, host: Host, effect: SendStream) -> None:
        there = self._streams.get((host.name, host.run, effect.stream))
        if there is not None and (host.name, there[0]) not in self.cut:
            data = effect.payload
            self._feed(there[0], there[1], lambda core, at: core.receive_stream(there[2], data, at))

    def _close(self, host: Host, stream: int) -> None:
        there = self._streams.pop((host.name, host.run, stream), None)
        if there is not None:
            self._break(there)


def _digest(message: bytes) -> bytes:
    """Return what a message says, without what only numbers it; see `fingerprint`."""
    kind = kind_of(message)
    if kind in ("vote", "unvote"):
        return kind.encode()
    return kind.encode() + hashlib.blake2b(message, digest_size=6).digest()
