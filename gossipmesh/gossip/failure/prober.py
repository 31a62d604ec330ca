"""Pings: the random probe of every round, probes on demand, pings for others, and answers.

It finds that a member did not answer; what that means is the case desk's to say. Rules:
1. Only an answer ends a probe: an ack, one relayed, or a stream handshake. Other packets prove life, not
   hearing.
2. A probe that overlapped a pause of ours, or ended while we lag or are isolated, proves nothing.
3. After a pause the newest ping of each sender is answered and no other: the rest are history.
4. A helper's word that a target answered ends a probe while we heard the target within a silence ourselves;
   beyond that a helper that lies would hide a death for ever, since nothing in it is signed by the target.
5. Probes of a round carry sums; pings of cases, of control rounds and for others do not: those come by the
   dozen just when the mesh has trouble enough, and rounds go on meanwhile.
6. A member that says it is late has that much longer to answer a round's probe: its heartbeats, which do not
   wait for its reader, tell its monitors of its death. What it takes is no round trip either.
7. Pings for others have a budget by requester and by target, message by message: a target that we were made
   to flood would drop our acks with the rest, and hold us deaf.
Paper: SWIM sections 3 and 4.3, Lifeguard IV.A (nack). Deviation: timeouts follow the measured round trip.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.peer_clocks import wall_offset_untrusted
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.local_health import LocalHealth
from gossipmesh.gossip.failure.probe import Probe, ProbeList, RelayedPing, RelayTable, is_probed
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.sessions.streams import Streams
from gossipmesh.model import limits
from gossipmesh.model.instant import MILLISECOND_NS, Instant
from gossipmesh.wire.datagram import Ack, Nack, Ping, PingReq, RelayedAck, encode_message

_ROUND_TRIPS_MAX: Final = 64
_ROUND_TRIPS_MIN: Final = 3  # too short a wait only opens a case; eight round trips take sixteen seconds
_INDIRECT_HELPERS: Final = 3
_Sums = tuple[bytes | None, bytes | None]
_NO_SUMS: Final[_Sums] = (None, None)


@kept.part("prober")
class Prober:
    """Rounds of probes, what is under way, and how long an answer may take."""

    def __init__(
        self,
        ctx: Context,
        catalog: Catalog,
        courier: Courier,
        streams: Streams,
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._streams = streams
        self.health = LocalHealth(ctx.settings.local_health_max)
        self._list = ProbeList(ctx.rng)
        self._sequence = 0
        self._pings: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self._probes: dict[int, Probe] = {}
        self._probed: dict[bytes, int] = {}
        self._relays = RelayTable()
        self._round_trips: deque[int] = deque(maxlen=_ROUND_TRIPS_MAX)
        self._late_pings: dict[bytes, tuple[Member, Ping]] = {}

    def start(self) -> None:
        """Begin the rounds at a random moment, so that nodes do not march."""
        first_ns = self._ctx.rng.randrange(self._ctx.settings.monitor.probe_interval_ns)
        self._ctx.timers.set(("probe", None), self._ctx.now + first_ns)

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {
            "probe": self._round,
            "probe late": self._ask_others,
            "nack": self._nack,
        }

    def next_sequence(self) -> int:
        """Return a fresh ping sequence."""
        self._sequence += 1
        return self._sequence

    def fresh_ping(self, member: Member) -> bytes:
        """Return an encoded ping for a member with our sums, of a sequence that nothing waits for."""
        sums = self._catalog.sums.both_for(member)
        return encode_message(Ping(self.next_sequence(), *sums, self._ctx.wall_s))

    def ping(self, member: Member, *, compares: bool = False, suspect: bool = False) -> int:
        """Ping a member and return the sequence its ack will carry; with our sums if it `compares`."""
        sequence = self._expect(member)
        sums: _Sums = self._catalog.sums.both_for(member) if compares else _NO_SUMS
        self._courier.send(member, [encode_message(Ping(sequence, *sums, self._ctx.wall_s, suspect))])
        return sequence

    def _expect(self, member: Member) -> int:
        """Return a fresh sequence, and wait for its ack."""
        sequence = self.next_sequence()
        self._pings[sequence] = (member.node_id, self._ctx.now)
        if len(self._pings) > limits.PROBES_PENDING_MAX:
            self._pings.popitem(last=False)
        return sequence

    def ping_by_datagram(self, member: Member) -> int:
        """Ping a member by a datagram alone, though it has a carrier; return the sequence its ack carries."""
        sequence = self._expect(member)
        message = encode_message(Ping(sequence, *_NO_SUMS, self._ctx.wall_s))
        self._courier.send(member, [message], fill=False, is_carried=False)
        return sequence

    def probe(self, member: Member, *, is_patient: bool = False) -> None:
        """Ping a member and see whether it answers, with help; one probe of each member at a time.

        `is_patient`: it may take as much longer as the member says it is late (rule 6).
        """
        running = self._probes.get(self._probed.get(member.node_id, 0))
        if running is not None and running.is_patient and not is_patient:
            self._end(running)
        elif running is not None or len(self._probes) >= limits.PROBES_PENDING_MAX:
            return
        self._ctx.statistics.probes += 1
        sequence = self.ping(member, compares=True)
        probe = Probe(member, sequence, self._ctx.now, is_patient=is_patient)
        self._probes[probe.sequence] = probe
        self._probed[member.node_id] = probe.sequence
        direct_ns = self.health.scale(self.direct_wait_ns())
        if is_patient:
            direct_ns += min(member.told_lag_ns, self._ctx.settings.monitor.tolerance_max_ns)
        all_ns = direct_ns + self.health.scale(self._ctx.settings.monitor.indirect_ns)
        self._ctx.timers.set(("probe late", probe.sequence), self._ctx.now + direct_ns)
        self._ctx.timers.set(("probe over", probe.sequence), self._ctx.now + all_ns)

    def direct_wait_ns(self) -> int:
        """Return how long a direct ack may take: four times the p99 round trip, within bounds."""
        settings = self._ctx.settings.monitor
        if len(self._round_trips) < _ROUND_TRIPS_MIN:
            return settings.probe_max_ns
        worst = sorted(self._round_trips)[-max(1, len(self._round_trips) // 100)]
        return min(max(4 * worst, settings.probe_min_ns), settings.probe_max_ns)

    def _round(self) -> None:
        interval_ns = self._ctx.settings.monitor.probe_interval_ns
        self._ctx.timers.set(("probe", None), self._ctx.on_beat(self._ctx.now + interval_ns))
        target = self._list.next(self._catalog)
        if target is not None:
            self.probe(target, is_patient=True)

    def _proves_nothing(self) -> bool:
        """Tell whether that nobody answers says something of us only: we lag, or are isolated."""
        return self._lags() or self._catalog.isolated_since >= 0

    def _lags(self) -> bool:
        return self._ctx.lag.current_ns(self._ctx.now) > self._ctx.settings.monitor.lag_gate_ns

    def _ask_others(self, sequence: int) -> None:
        probe = self._probes[sequence]
        if probe.answered or self._proves_nothing():
            return
        self._ctx.statistics.probes_indirect += 1
        helpers = self._courier.choose(_INDIRECT_HELPERS, probe.target.node_id)
        probe.helpers = [member.node_id for member in helpers]
        for member in helpers:
            self.ask_for(member, probe.sequence, probe.target)
        self.ping_by_stream(probe.target)

    def ping_by_stream(self, member: Member) -> None:
        """Try TCP: a handshake proves that a member lives, though packets do not come through."""
        self._streams.ping(member)

    def ask_for(self, helper: Member, sequence: int, target: Member) -> None:
        """Ask a member to ping another for us."""
        self._courier.send(helper, [encode_message(PingReq(sequence, target.node_id))])

    def _end(self, probe: Probe) -> None:
        self._probes.pop(probe.sequence, None)
        self._probed.pop(probe.target.node_id, None)
        self._ctx.timers.cancel(("probe late", probe.sequence))
        self._ctx.timers.cancel(("probe over", probe.sequence))

    def conclude(self, sequence: int) -> Member | None:
        """End a probe (timer `probe over`); return its target, unless that answered or nothing is proven."""
        probe = self._probes[sequence]
        self._end(probe)
        target = probe.target
        if probe.answered:
            return None
        if self._proves_nothing():
            self._ctx.statistics.probes_voided += 1
            return None
        if self._catalog.get(target.node_id) is not target or not is_probed(target, self._catalog.own_id):
            return None
        self._ctx.statistics.probes_failed += 1
        self.health.add(max(0, len(probe.helpers) - len(probe.nacks)))
        target.address_index += 1
        return target

    def _succeed(self, probe: Probe) -> None:
        if not probe.answered:
            probe.answered = True
            # A timer would only wake us, and we would find nobody to ask.
            self._ctx.timers.cancel(("probe late", probe.sequence))
            self.health.add(-1)

    def paused(self) -> None:
        """Void every probe under way."""
        for probe in list(self._probes.values()):
            self._ctx.statistics.probes_voided += 1
            self._end(probe)

    def proved(self, member: Member) -> None:
        """Take a stream handshake as an answer."""
        member.answered_at = self._ctx.now
        probe = self._probes.get(self._probed.get(member.node_id, 0))
        if probe is not None:
            self._succeed(probe)

    def receive_ping(self, member: Member, ping: Ping, arrived: Instant) -> bool:
        """Answer, and tell whether its sender suspected us and was answered in time.

        What lay unread for long is answered once, by its newest, when all is read.
        """
        _note_clock(member, ping.wall_s, arrived)
        if self._ctx.now - arrived <= self._ctx.settings.monitor.lag_gate_ns:
            self._answer(member, ping)
            return ping.suspect
        self._late_pings.pop(member.node_id, None)
        self._late_pings[member.node_id] = (member, ping)
        if not self._ctx.timers.pending(("late pings", None)):
            self._ctx.timers.set(("late pings", None), self._ctx.now + MILLISECOND_NS)
        return False

    def answer_late(self) -> Iterator[Member]:
        """Answer what lay unread (timer `late pings`); yield each member that suspected us."""
        pings, self._late_pings = self._late_pings, {}
        for member, ping in pings.values():
            self._answer(member, ping)
            if ping.suspect:
                yield member

    def _answer(self, member: Member, ping: Ping) -> None:
        sums: _Sums = _NO_SUMS if ping.group_sum is None else self._catalog.sums.both_for(member)
        self._courier.send(member, [encode_message(Ack(ping.sequence, *sums, self._ctx.wall_s))])

    def receive_ack(self, member: Member, ack: Ack, arrived: Instant) -> bool:
        """Take an ack: of a ping of ours (True: note round trip and clock), or one that another waits for."""
        # Sequences can be guessed: what another answers in its stead is not the answer we wait for.
        target_id, sent_at = self._pings.get(ack.sequence, (b"", 0))
        if target_id == member.node_id:
            del self._pings[ack.sequence]
            member.answered_at = max(member.answered_at, arrived)
            _note_clock(member, ack.wall_s, arrived)
            self._ctx.note_peer_clock(member.node_id, ack.wall_s, arrived)
            if member.lag_ms * MILLISECOND_NS <= self._ctx.settings.monitor.lag_gate_ns:
                self._round_trips.append(max(0, arrived - sent_at))
            probe = self._probes.get(ack.sequence)
            if probe is not None:
                self._succeed(probe)
            return True
        relayed = self._relays.get(ack.sequence)
        if relayed is not None and relayed.target_id == member.node_id:
            self._relays.take(ack.sequence)
            self._ctx.timers.cancel(("nack", ack.sequence))
            self._courier.send(relayed.requester, [encode_message(RelayedAck(relayed.requester_sequence))])
        return False

    def receive_ping_req(self, member: Member, request: PingReq) -> None:
        """Ping a member for another; say after 80 % of the wait that we try (Lifeguard IV.A)."""
        target = self._catalog.get(request.target)
        if target is None or target.address is None or target.node_id == self._catalog.own_id:
            return
        if not self._relays.admits(member.node_id, target.node_id, self._ctx.now):
            self._ctx.dropped("ping-req over budget")
            return
        sequence = self.next_sequence()
        self._relays.add(sequence, RelayedPing(member, request.sequence, target.node_id))
        self._courier.send(target, [encode_message(Ping(sequence, *_NO_SUMS, self._ctx.wall_s))])
        wait_ns = self._ctx.settings.monitor.indirect_ns * 4 // 5
        self._ctx.timers.set(("nack", sequence), self._ctx.now + wait_ns)

    def _nack(self, sequence: int) -> None:
        relayed = self._relays.get(sequence)
        if relayed is not None:
            self._courier.send(relayed.requester, [encode_message(Nack(relayed.requester_sequence))])

    def receive_nack(self, member: Member, nack: Nack) -> None:
        """Count a helper that is well."""
        probe = self._probes.get(nack.sequence)
        if probe is not None and member.node_id in probe.helpers and member.node_id not in probe.nacks:
            probe.nacks.append(member.node_id)

    def receive_relayed_ack(self, member: Member, ack: RelayedAck) -> None:
        """Take a helper's word that the target answered (rule 4)."""
        probe = self._probes.get(ack.sequence)
        if probe is None or member.node_id not in probe.helpers:
            return
        if self._ctx.now - probe.target.heard_at < self._ctx.settings.monitor.silence_ns:
            self._succeed(probe)

    def forget(self, member: Member) -> None:
        """Drop what is under way with a member that is no more."""
        probe = self._probes.get(self._probed.get(member.node_id, 0))
        if probe is not None:
            self._end(probe)
        self._late_pings.pop(member.node_id, None)
        self._ctx.clocks.forget(member.node_id)


def _note_clock(member: Member, wall_s: int, arrived: Instant) -> None:
    """Note a member's civil time beside our monotonic one, which is never set."""
    member.wall_offset_s = wall_offset_untrusted(wall_s, arrived)
