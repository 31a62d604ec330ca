"""Finds members that stopped: probes, suspicion, the question to the engine, and the way back.

Ends at claims: a claim is signed here and merged by the catalog like anyone's.
Rules:
1. A probe that overlapped a pause of our own proves nothing; suspicions wait as long as we slept.
2. A suspicion that runs out asks the member's engine; only then is it unattended or dead.
3. While nobody at all is heard, it is we who are cut off: nothing is declared for one more Max.
4. Dead members are pinged in turn with what is claimed of them, so any partition heals by itself.
Paper: SWIM sections 3 and 4; Lifeguard IV.A (local health, nack), IV.B (suspicion), IV.C (buddy).
Deviation: rules 2 to 4. A claim is also held back where its subject was heard moments ago, as
memberlist turns a dead from push-pull into a suspect.
"""

from collections.abc import Callable

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import ProbeEngine
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.local_health import LocalHealth
from gossipmesh.gossip.failure.probe import Probe, ProbeList, RelayedPing, RelayTable, is_probed
from gossipmesh.gossip.membership.catalog import Change, Checks
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.own import OwnRecords
from gossipmesh.model import limits
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address, MemberStatus, Order
from gossipmesh.model.records import SignedRecord, Vote
from gossipmesh.testing.swim.catalog import ClaimChange, SwimCatalog
from gossipmesh.testing.swim.claims import CLAIM, sign_claim
from gossipmesh.testing.swim.member import claimed
from gossipmesh.testing.swim.settings import LAN, SwimStatistics
from gossipmesh.testing.swim.suspicion import Suspicion, suspicion_min_ns
from gossipmesh.wire.datagram import (
    Ack,
    Check,
    Heartbeat,
    Nack,
    Ping,
    PingReq,
    RelayedAck,
    Seen,
    Unvote,
    VerdictId,
    encode_message,
)


class _EngineQuestion:
    """A `ProbeEngine` that is not answered yet."""

    __slots__ = ("node_id", "order")

    def __init__(self, node_id: bytes, order: Order) -> None:
        self.node_id = node_id
        self.order = order


class SwimDetector:
    """SWIM with Lifeguard; `declared` takes each claim of ours, `stream_ping` tries TCP."""

    def __init__(
        self,
        ctx: Context,
        catalog: SwimCatalog,
        courier: Courier,
        own: OwnRecords,
        counts: SwimStatistics,
        *,
        sums: Callable[[], tuple[bytes, bytes]],
        declared: Callable[[ClaimChange], None],
        stream_ping: Callable[[Member], None],
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._own = own
        self._counts = counts
        self._sums = sums
        self._declared = declared
        self._stream_ping = stream_ping
        self.health = LocalHealth(ctx.settings.local_health_max)
        self._list = ProbeList(ctx.rng)
        self._probe: Probe | None = None
        self._relays = RelayTable()
        self._sequence = 0
        self._suspicions: dict[bytes, Suspicion] = {}
        self._questions: dict[int, _EngineQuestion] = {}
        self._question_number = 0
        self._engine_failures: dict[bytes, int] = {}
        self._obituary_turn = 0
        catalog.says_nothing = self._knows

    def start(self) -> None:
        """Begin probing; the first round starts at a random moment, so that nodes do not march."""
        first_ns = self._ctx.rng.randrange(LAN.probe_interval_ns)
        self._ctx.timers.set(("probe", None), self._ctx.now + first_ns)
        self._ctx.timers.set(("obituary", None), self._ctx.now + self._ctx.settings.obituary_interval_ns)

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {
            "probe": self._round,
            "probe late": self._ask_others,
            "obituary": self._obituary,
            "suspicion": self._expired,
            "engine": self._engine_due,
            "question": self.engine_probed,
            "nack": self._nack,
        }

    def fresh_ping(self, member: Member) -> bytes:
        """Return an encoded ping for a member with our sums, of a sequence that nothing waits for."""
        return self.ping_message(self.next_sequence())

    def ping_message(self, sequence: int) -> bytes:
        """Return an encoded ping with our state sums."""
        return encode_message(Ping(sequence, *self._sums(), self._ctx.wall_s))

    def next_sequence(self) -> int:
        """Return a fresh ping sequence."""
        self._sequence += 1
        return self._sequence

    def _round(self) -> None:
        self._conclude()
        self._ctx.timers.set(("probe", None), self._ctx.now + self.health.scale(LAN.probe_interval_ns))
        target = self._list.next(self._catalog)
        if target is None:
            return
        self._ctx.statistics.probes += 1
        self._probe = Probe(target, self.next_sequence(), self._ctx.now)
        messages = [self.ping_message(self._probe.sequence)]
        if target.status is MemberStatus.SUSPECT:
            messages.append(target.messages[CLAIM])
        self._courier.send(target, messages)
        late_ns = self.health.scale(LAN.probe_timeout_ns)
        self._ctx.timers.set(("probe late", None), self._ctx.now + late_ns)

    def _ask_others(self) -> None:
        probe = self._probe
        if probe is None or probe.answered:
            return
        self._ctx.statistics.probes_indirect += 1
        helpers = [
            member
            for member in self._courier.choose(LAN.indirect_probes + 1, probe.target.node_id)
            if member.status is MemberStatus.ALIVE
        ][: LAN.indirect_probes]
        probe.helpers = [member.node_id for member in helpers]
        for member in helpers:
            self._courier.send(member, [encode_message(PingReq(probe.sequence, probe.target.node_id))])
        self._stream_ping(probe.target)

    def _conclude(self) -> None:
        probe, self._probe = self._probe, None
        self._ctx.timers.cancel(("probe late", None))
        if probe is None or probe.answered:
            return
        target = probe.target
        if self._catalog.get(target.node_id) is not target or not is_probed(target, self._own.node_id):
            return
        self._ctx.statistics.probes_failed += 1
        missed = len(probe.helpers) - len(probe.nacks)
        self.health.add(missed if probe.helpers else 1)
        target.address_index += 1
        self._claim(target, target.order, MemberStatus.SUSPECT)

    def _claim(self, member: Member, order: Order, status: MemberStatus) -> None:
        key, own_id = self._ctx.keys.signing, self._own.node_id
        claim, record = sign_claim(self._ctx.trust_domain, key, own_id, member.node_id, order, status)
        if status is MemberStatus.SUSPECT and member.status is MemberStatus.SUSPECT:
            suspicion = self._suspicions.get(member.node_id)
            if suspicion is None or not suspicion.confirm(claim.accuser):
                return
            self._arm(member, suspicion)
            message = encode_message(record)
            self._declared(ClaimChange(member, CLAIM, message, member.status, False, claim=claim))
            return
        change = self._catalog.merge_held(claimed(member), claim, record)
        if change is None:
            return
        if status is MemberStatus.DEAD:
            self._counts.deaths_declared += 1
        elif status is MemberStatus.UNATTENDED:
            self._counts.unattended_declared += 1
        self._declared(change)

    def status_changed(self, member: Member, accuser: bytes | None = None) -> None:
        """Bring suspicion and engine questions in line with a member's status."""
        claim = claimed(member).claim
        if member.status is MemberStatus.SUSPECT and claim is not None:
            suspicion = self._suspicions.get(member.node_id)
            if suspicion is None or suspicion.order != claim.order:
                self._counts.suspicions += 1
                suspicion = Suspicion(claim.order, claim.accuser, self._ctx.now)
                self._suspicions[member.node_id] = suspicion
                # The suspect should hear of it first, while it can still answer (Lifeguard IV.C).
                self._courier.send(member, [self.ping_message(self.next_sequence()), member.messages[CLAIM]])
            elif accuser is not None:
                suspicion.confirm(accuser)
            self._arm(member, suspicion)
        else:
            self._suspicions.pop(member.node_id, None)
            self._ctx.timers.cancel(("suspicion", member.node_id))
        if member.status is MemberStatus.UNATTENDED:
            if not self._ctx.timers.pending(("engine", member.node_id)):
                self._engine_failures.pop(member.node_id, None)
                self._arm_engine(member)
        else:
            self._ctx.timers.cancel(("engine", member.node_id))

    def confirm(self, member: Member, accuser: bytes) -> bool:
        """Count an independent accuser of a running suspicion; False when that is nothing new."""
        suspicion = self._suspicions.get(member.node_id)
        if suspicion is None or not suspicion.confirm(accuser):
            return False
        self._arm(member, suspicion)
        return True

    def _knows(self, member: Member, accuser: bytes) -> bool:
        """Tell whether an accuser's word against a suspect is counted, or is one more than counts.

        Our own is among them: come back by way of others it is not sent anew.
        """
        suspicion = self._suspicions.get(member.node_id)
        return suspicion is None or suspicion.knows(accuser)

    def _arm(self, member: Member, suspicion: Suspicion) -> None:
        at = suspicion.deadline(LAN, self._catalog.serving_count)
        self._ctx.timers.set(("suspicion", member.node_id), at)

    def _expired(self, node_id: bytes) -> None:
        suspicion, member = self._suspicions.get(node_id), self._catalog.get(node_id)
        if suspicion is None or member is None or member.status is not MemberStatus.SUSPECT:
            return
        shortest_ns = suspicion_min_ns(LAN, self._catalog.serving_count)
        if member.heard_at > suspicion.started:
            self._restart(member, suspicion, member.heard_at)
        elif suspicion.postponed_count < 1 and self._cut_off(member, self._ctx.now - shortest_ns):
            suspicion.postponed_count += 1
            self._restart(member, suspicion, self._ctx.now)
            suspicion.accusers = suspicion.accusers[:1]
            self._arm(member, suspicion)
        else:
            self._ask_engine(member, suspicion.order)

    def _restart(self, member: Member, suspicion: Suspicion, at: int) -> None:
        self._counts.suspicions_postponed += 1
        suspicion.started = type(self._ctx.now)(at)
        self._arm(member, suspicion)

    def _cut_off(self, member: Member, since: int) -> bool:
        """Tell whether nobody was heard since then, though there is somebody else to be heard."""
        others = [
            other for other in self._catalog if other is not member and is_probed(other, self._own.node_id)
        ]
        return bool(others) and all(other.heard_at < since for other in others)

    def _ask_engine(self, member: Member, order: Order) -> None:
        if member.state is None:
            return
        if len(self._questions) >= limits.ENGINE_PROBES_MAX:
            wait_ns = LAN.probe_timeout_ns
            kind = "suspicion" if member.status is MemberStatus.SUSPECT else "engine"
            self._ctx.timers.set((kind, member.node_id), self._ctx.now + wait_ns)
            return
        self._question_number += 1
        number = self._question_number
        self._questions[number] = _EngineQuestion(member.node_id, order)
        self._ctx.statistics.engine_probes += 1
        self._ctx.emit(ProbeEngine(number, member.state.mesh_addresses, member.credential.spiffe_id))
        self._ctx.timers.set(("question", number), self._ctx.now + self._ctx.settings.engine_timeout_ns)

    def engine_probed(self, number: int, answered: bool = False, refused: bool = False) -> None:
        """Take the engine's answer, or that there was none; why not makes no difference here."""
        question = self._questions.pop(number, None)
        self._ctx.timers.cancel(("question", number))
        if question is None:
            return
        member = self._catalog.get(question.node_id)
        claim = None if member is None else claimed(member).claim
        if member is None or claim is None or claim.order != question.order:
            return
        if member.status is MemberStatus.SUSPECT:
            suspicion = self._suspicions.get(member.node_id)
            if suspicion is not None and member.heard_at > suspicion.started:
                self._restart(member, suspicion, member.heard_at)
                return
            verdict = MemberStatus.UNATTENDED if answered else MemberStatus.DEAD
            self._claim(member, question.order, verdict)
        elif member.status is MemberStatus.UNATTENDED:
            failures = 0 if answered else self._engine_failures.get(member.node_id, 0) + 1
            self._engine_failures[member.node_id] = failures
            if failures >= 2:
                del self._engine_failures[member.node_id]
                self._claim(member, question.order, MemberStatus.DEAD)
            else:
                self._arm_engine(member)

    def _arm_engine(self, member: Member) -> None:
        """Ask again so that all members together ask about once an interval; soon, after a failure."""
        settings = self._ctx.settings
        if self._engine_failures.get(member.node_id, 0):
            wait_ns = LAN.probe_interval_ns
        else:
            # Independent askers with exponential waits ask about once an interval together.
            mean_ns = settings.engine_interval_ns * max(1, self._catalog.serving_count - 1)
            wait_ns = min(int(self._ctx.rng.expovariate(1 / mean_ns)), 4 * mean_ns)
        self._ctx.timers.set(("engine", member.node_id), self._ctx.now + wait_ns)

    def _engine_due(self, node_id: bytes) -> None:
        member = self._catalog.get(node_id)
        claim = None if member is None else claimed(member).claim
        if member is not None and claim is not None and member.status is MemberStatus.UNATTENDED:
            self._ask_engine(member, claim.order)

    def _obituary(self) -> None:
        """Ping one dead or unattended member with its claim; who hears it refutes (rule 4)."""
        settings = self._ctx.settings
        self._ctx.timers.set(("obituary", None), self._ctx.now + settings.obituary_interval_ns)
        gone = [
            member
            for member in self._catalog
            if member.status in (MemberStatus.DEAD, MemberStatus.UNATTENDED)
            and claimed(member).claim is not None
        ]
        if not gone:
            return
        self._obituary_turn = (self._obituary_turn + 1) % len(gone)
        member = gone[self._obituary_turn]
        self._ctx.statistics.obituaries += 1
        messages = [self.ping_message(self.next_sequence()), member.messages[CLAIM]]
        self._courier.send(member, messages, fill=False)

    def forget(self, member: Member) -> None:
        """Drop everything that waits for a member that is no more."""
        self._suspicions.pop(member.node_id, None)
        self._engine_failures.pop(member.node_id, None)
        for name in ("suspicion", "engine", "held claim"):
            self._ctx.timers.cancel((name, member.node_id))

    def heard(self, member: Member, arrived: Instant, seen: Seen | None) -> bool:
        """Note that an authentic packet of the member arrived: proof of life."""
        member.heard_at = max(member.heard_at, arrived)
        probe = self._probe
        if probe is not None and probe.target is member and not probe.answered:
            probe.answered = True
            self.health.add(-1)
        return member.status is not MemberStatus.ALIVE

    def proved_by_stream(self, member: Member) -> None:
        """Nothing: SWIM has one kind of packet."""

    def carried(self, member: Member) -> None:
        """Nothing, likewise."""

    def receive_ping(self, member: Member, ping: Ping, arrived: Instant) -> None:
        """Answer a ping."""
        self._courier.send(member, [encode_message(Ack(ping.sequence, *self._sums(), self._ctx.wall_s))])

    def receive_ack(self, member: Member, ack: Ack, arrived: Instant) -> None:
        """Note the peer's clock; pass an ack on, if its ping was made for another member."""
        self._ctx.note_peer_clock(member.node_id, ack.wall_s, arrived)
        relayed = self._relays.get(ack.sequence)
        if relayed is None or relayed.target_id != member.node_id:
            return
        self._relays.take(ack.sequence)
        self._ctx.timers.cancel(("nack", ack.sequence))
        self._courier.send(relayed.requester, [encode_message(RelayedAck(relayed.requester_sequence))])

    def receive_ping_req(self, member: Member, request: PingReq) -> None:
        """Ping a member for another; say after 80 % of the timeout that we try (Lifeguard IV.A)."""
        target = self._catalog.get(request.target)
        if target is None or target.address is None or target.node_id == self._own.node_id:
            return
        sequence = self.next_sequence()
        self._relays.add(sequence, RelayedPing(member, request.sequence, target.node_id))
        self._courier.send(target, [self.ping_message(sequence)])
        wait_ns = LAN.probe_timeout_ns * 4 // 5
        self._ctx.timers.set(("nack", sequence), self._ctx.now + wait_ns)

    def _nack(self, sequence: int) -> None:
        relayed = self._relays.get(sequence)
        if relayed is not None:
            self._courier.send(relayed.requester, [encode_message(Nack(relayed.requester_sequence))])

    def receive_nack(self, member: Member, nack: Nack) -> None:
        """Count a helper that is well."""
        probe = self._probe
        if (
            probe is not None
            and probe.sequence == nack.sequence
            and member.node_id in probe.helpers
            and member.node_id not in probe.nacks
        ):
            probe.nacks.append(member.node_id)

    def receive_relayed_ack(self, member: Member, ack: RelayedAck) -> None:
        """Take a helper's word that the target answered."""
        probe = self._probe
        if (
            probe is not None
            and probe.sequence == ack.sequence
            and member.node_id in probe.helpers
            and not probe.answered
        ):
            probe.answered = True
            self.health.add(-1)

    def paused(self, late_ns: int) -> None:
        """Void what a pause of our own made look like silence."""
        self._ctx.statistics.pauses += 1
        self.health.add(1)
        if self._probe is not None:
            self._ctx.statistics.probes_voided += 1
            self._probe = None
            self._ctx.timers.cancel(("probe late", None))
        self._ctx.timers.postpone("suspicion", late_ns)
        for suspicion in self._suspicions.values():
            suspicion.started = type(self._ctx.now)(suspicion.started + late_ns)

    # What only voting monitors say; a group runs one detector, so these come from a stray build.

    def receive_heartbeat(self, member: Member, heartbeat: Heartbeat) -> None:
        """Ignore it; that a packet came was noted."""

    def receive_check(self, member: Member, check: Check) -> None:
        """Ignore it."""

    def receive_vote(self, member: Member, vote: Vote, arrived: Instant, checks: Checks) -> None:
        """Ignore it, and count."""
        self._ctx.statistics.votes_refused += 1

    def receive_unvote(self, member: Member, unvote: Unvote) -> None:
        """Ignore it."""

    def receive_verdict_id(self, member: Member, held: VerdictId) -> None:
        """Ignore it."""

    def merge_verdict_untrusted(self, record: SignedRecord, checks: Checks) -> Change | None:
        """Have the catalog refuse it: there are no verdicts here.

        Raises:
            MalformedInput: always. State unchanged.
        """
        return self._catalog.merge_untrusted(record, checks)

    def verdict_merged(self, change: Change, sender: Member | None) -> None:
        """Nothing: verdicts are refused here."""

    def answers_later(self, change: Change) -> bool:
        """Nothing: there are no verdicts."""
        return False

    def port_refused(self, address: Address) -> None:
        """Count it; SWIM waits for silence."""
        self._ctx.statistics.ports_refused += 1

    def lag_noted(self) -> bool:
        """Nothing: Lifeguard's local health stands for lag."""
        return False

    def view_complete(self) -> None:
        """Nothing: one accuser suffices, however little is known."""

    def release_mass_death(self) -> None:
        """Nothing is held."""
