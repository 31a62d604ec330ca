"""Finds members that stopped, by fixed monitors that vote: nobody is declared gone by one member's word.

It composes the parts: `monitors` (who watches whom), `heartbeats`, `prober`, `case_desk` (cases and votes of
our own), `votes` (those of others), `verdicts` (quorums), `obituaries` (pings to the gone), `unattended`
(whose engine is asked), `quarantine`, `mass_death`. Rules:
1. Votes go to the target's other monitors only; verdicts go to everybody.
2. Whoever holds a quorum of fresh votes makes the verdict; it takes effect like anyone's.
3. A verdict older than what we heard of its target is not applied: the target is shown it and answers.
4. Who cannot judge what is held against the gone, for it joined later, has their monitors vote again.
Paper: SWIM sections 3 and 4; Lifeguard IV.A. Deviation: monitors are fixed and vote;
    docs/GOSSIP.md, "Failure detection", has the rules, docs/adr/0007 the reasons.
"""

from typing import Final

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import Isolated
from gossipmesh.gossip.base.lag import step_of
from gossipmesh.gossip.base.timers import Deadlines, joined
from gossipmesh.gossip.dissemination.carriers import Carriers
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.answering import Answering
from gossipmesh.gossip.failure.ballot import Ballot
from gossipmesh.gossip.failure.case_desk import CaseDesk
from gossipmesh.gossip.failure.engine_questions import Asker, EngineQuestions
from gossipmesh.gossip.failure.facts import AnswerDue
from gossipmesh.gossip.failure.hearing import Hearing
from gossipmesh.gossip.failure.heartbeats import Heartbeats
from gossipmesh.gossip.failure.isolation import Isolation
from gossipmesh.gossip.failure.life_first import LifeFirst
from gossipmesh.gossip.failure.merging import VerdictMerger
from gossipmesh.gossip.failure.monitors import Monitors
from gossipmesh.gossip.failure.obituaries import Obituaries
from gossipmesh.gossip.failure.prober import Prober
from gossipmesh.gossip.failure.renewals import Renewals
from gossipmesh.gossip.failure.retained_endpoints import RetainedEndpoints
from gossipmesh.gossip.failure.unattended import Unattended
from gossipmesh.gossip.failure.verdict_wants import VerdictWants
from gossipmesh.gossip.failure.verdicts import (
    VerdictJudge,
    brings_quarantine,
    record_of,
    voter_names,
)
from gossipmesh.gossip.failure.ways import Ways
from gossipmesh.gossip.membership.catalog import Catalog, Change, Checks, UnknownOwner, order_start
from gossipmesh.gossip.membership.facts import StateOutdated
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.own import OwnRecords
from gossipmesh.gossip.sessions.streams import Streams
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.records import Cause, RecordKind, SignedRecord, Vote
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

_LAG_GAP_NS: Final = 10 * SECOND_NS
_TOLD_GAP_NS: Final = SECOND_NS


class MonitorDetector:
    """The detector of voting monitors."""

    def __init__(
        self,
        ctx: Context,
        catalog: Catalog,
        courier: Courier,
        own: OwnRecords,
        streams: Streams,
        carriers: Carriers,
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._own = own
        self.monitors = Monitors(catalog.eligible)
        self.judge = VerdictJudge(ctx, self.monitors, catalog)
        self.prober = Prober(ctx, catalog, courier, streams)
        self.health = self.prober.health
        self._ways = Ways(ctx, catalog, courier, self.prober, carriers)
        self.heartbeats = Heartbeats(ctx, catalog, courier, self.monitors)
        self._unattended = Unattended(ctx, catalog, self.monitors)
        self._obituaries = Obituaries(ctx, catalog, courier, self.prober)
        self._engines = EngineQuestions(ctx)
        self._wants = VerdictWants(ctx, catalog, courier)
        self._renewals = Renewals()
        self._life = LifeFirst(ctx, courier, self.prober)
        self._hearing = Hearing(ctx.settings.monitor.silence_ns)
        self._isolation = Isolation(ctx, catalog, courier, self.prober, self.heartbeats, self._hearing)
        self._answering = Answering(ctx, courier, self.judge, self.prober, self._hearing)
        self.ballot = Ballot(ctx, catalog, courier, own, self.judge, self.health)
        self.votes = self.ballot.votes
        self.desk = CaseDesk(ctx, catalog, courier, self.prober, self._engines, self.ballot)
        self._retained = RetainedEndpoints(ctx, catalog)
        self._checked_at: dict[bytes, int] = {}
        self._lag_published_at = -_LAG_GAP_NS
        self._merger = VerdictMerger(ctx, catalog, self.judge, self._life)
        catalog.note_eligible()

    def start(self) -> None:
        """Begin probing, beating and pinging the gone."""
        self.prober.start()
        self.heartbeats.start()
        self._obituaries.start()
        self._set_lag_timer()

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here and in the parts, and what each is for."""
        own: Deadlines = {
            "heartbeat": self._beat,
            "isolation": self._isolation_due,
            "question": self.engine_probed,
            "engine": self._look,
            "lag": self._lag_round,
            "held": self._held_is_due,
            "watch": self._watch_due,
            "case": self._case_tick,
            "control": self._control_over,
            "probe over": self._probe_over,
            "late pings": self._answer_late,
            "answer": self._answer_is_due,
        }
        watching = (self.prober, self._ways, self.desk, self._obituaries)
        verdicts = (self._wants, self._retained)
        return joined(own, *(part.deadlines() for part in watching + verdicts))

    def restore(self, records: list[SignedRecord]) -> None:
        """Take back verdicts of the last run."""
        self._merger.restore(records)

    def fresh_ping(self, member: Member) -> bytes:
        """Return an encoded ping for a member with our sums, of a sequence that nothing waits for."""
        return self.prober.fresh_ping(member)

    # What we hear

    def heard(self, member: Member, arrived: Instant, seen: Seen | None) -> bool:
        """Take an authentic packet: life, the target's beat, its lag; tell whether a case is open."""
        # Each packet comes by here, so what hardly ever holds is asked before anything is called.
        self._hearing.heard(arrived)
        if self._catalog.isolated_since >= 0:
            self._end_isolation()
        if arrived > member.heard_at:
            member.heard_at = arrived
        if member.beat_run != member.run:
            member.beat_run, member.beat, member.lag_ms = member.run, 0, 0
        if seen is None:
            self.prober.proved(member)
        else:
            beat = seen.beat
            if beat > member.beat:
                member.beat = beat
            member.lag_ms = seen.lag_ms
        if member.unreachable:
            self.desk.reached(member)
        return self.desk.heard(member, arrived, None if seen is None else seen.counter)

    def receive_ping(self, member: Member, ping: Ping, arrived: Instant) -> None:
        """Answer."""
        if self.prober.receive_ping(member, ping, arrived):
            self.heartbeats.show_life()
            self._answering.answered(member.node_id)

    def _answer_late(self) -> None:
        for _ in self.prober.answer_late():
            self.heartbeats.show_life()

    def receive_ack(self, member: Member, ack: Ack, arrived: Instant) -> None:
        """Take an answer."""
        if self.prober.receive_ack(member, ack, arrived):
            self.desk.answered(member, ack.sequence, arrived)
            self._answering.acked(ack.sequence)
            self._ways.acked(member, ack.sequence)

    def proved_by_stream(self, member: Member) -> None:
        """Note that a stream was answered whose opener had no answer by datagram."""
        self._ways.proved(member)

    def carried(self, member: Member) -> None:
        """Note that a member's packets come by a carrier."""
        self._ways.carried(member)

    def receive_ping_req(self, member: Member, request: PingReq) -> None:
        """Ping for another."""
        self.prober.receive_ping_req(member, request)

    def receive_nack(self, member: Member, nack: Nack) -> None:
        """Note that a helper is well: it said that it had asked, and that the target did not answer."""
        self.prober.receive_nack(member, nack)

    def receive_relayed_ack(self, member: Member, ack: RelayedAck) -> None:
        """Take a helper's word."""
        self.prober.receive_relayed_ack(member, ack)

    def receive_heartbeat(self, member: Member, heartbeat: Heartbeat) -> None:
        """Watch whoever counts on us."""
        self.heartbeats.received(member)

    def paused(self, late_ns: int) -> None:
        """Void probes, restart every clock: what we did not hear we could not hear."""
        self._ctx.statistics.pauses += 1
        self.health.add(1)
        self._ctx.lag.note(late_ns, self._ctx.now)
        self._isolation.contact()
        self._catalog.credentials.succession.note_pause(late_ns)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.prober.paused()
        self.heartbeats.paused()
        self._answering.paused()
        self.desk.slept()

    # Ourselves

    def _beat(self) -> None:
        self.heartbeats.beat()
        self._isolation.look()

    def _isolation_due(self) -> None:
        if self._isolation.due():
            self._ctx.statistics.isolations += 1
            self.desk.isolated()
            self._ctx.notify(Isolated(True))
        if self._isolation.began:
            self._catalog.credentials.succession.note_absence()  # who refuses us first is no contact

    def _end_isolation(self) -> None:
        """Judge others again, from now on: somebody was heard."""
        if self._isolation.began:
            self._isolation.end()
            self._begin_anew()
            self._ctx.notify(Isolated(False))

    # Doubt

    def _watch_due(self, node_id: bytes) -> None:
        """Probe whoever missed its turn, unless we lag or a case is open."""
        member = self.heartbeats.due(node_id)
        if member is None:
            return
        lags = self._ctx.lag.current_ns(self._ctx.now) > self._ctx.settings.monitor.lag_gate_ns
        if not lags and not self._isolation.began and self.desk.get(member.node_id) is None:
            self.prober.probe(member)

    def _probe_over(self, sequence: int) -> None:
        member = self.prober.conclude(sequence)
        if member is not None:
            self._alarm(member)
            self.desk.open(member, "probe failed")

    def _alarm(self, member: Member) -> None:
        """Have the other monitors of a member look, at most once a second."""
        checked_at = self._checked_at.get(member.node_id, -SECOND_NS)
        if member.state is None or self._ctx.now - checked_at < self._ctx.settings.monitor.check_gap_ns:
            return
        self._checked_at[member.node_id] = self._ctx.now
        message = encode_message(Check(member.node_id, *order_start(member.state.order)))
        for other in self.ballot.monitors_of(member):
            self._ctx.statistics.checks_sent += 1
            self._courier.send(other, [message])

    def receive_check(self, member: Member, check: Check) -> None:
        """Open a case against a target of ours; whoever asks about the gone is shown why."""
        target = self._catalog.get(check.target)
        if target is None or target.state is None or target.node_id == self._own.node_id:
            return
        if order_start(target.state.order) != (check.generation, check.epoch):
            return
        if not self.judge.accusations.admits_check(member.node_id, target.node_id, self._ctx.now):
            self._ctx.dropped("check over budget")
            return
        shown = self._show_verdict(target, member)
        renews_until = self._renewed_until(target)
        if not shown or renews_until or target.status is MemberStatus.UNATTENDED:
            self.desk.open(target, f"alarm of {member.name}", renews_until=renews_until)

    def _renewed_until(self, target: Member) -> Instant | None:
        """Return until when what we hold against a member is voted on anew, if it is (rule 4)."""
        verdict = target.verdict
        if verdict is None:
            return None
        convinces = self.judge.is_valid(verdict)
        return self._renewals.asked(target.node_id, self._ctx.now, convinces=convinces)

    def _show_verdict(self, target: Member, to: Member) -> bool:
        """Send a member what is held against another, now and then; False when nothing is."""
        if target.verdict is None:
            return False
        if to.shown_at < 0 or self._ctx.now - to.shown_at >= _TOLD_GAP_NS:
            to.shown_at = self._ctx.now
            self._courier.send(to, [target.messages[RecordKind.VERDICT]], fill=False)
        return True

    def port_refused(self, address: Address) -> None:
        """Note that a gossip port refused a packet of ours: its engine is asked (anyone can forge it)."""
        self._ctx.statistics.ports_refused += 1
        self._isolation.contact()
        self._end_isolation()
        host = address.host.encode()
        for member in self._catalog.reachable:
            if member.may_be_at(host) and member.address == address:
                self._alarm(member)
                self._take_verdict(self.desk.port_refused(member))
                return

    def engine_probed(self, number: int, answered: bool = False, refused: bool = False) -> None:
        """Take an engine's answer, or that it is silent."""
        question = self._engines.take(number)
        if question is None:
            return
        if answered or refused:
            self._isolation.contact()
        if question.asker is Asker.CASE:
            self._take_verdict(self.desk.engine_said(question.node_id, answered, refused))
        else:
            self._looked(question.node_id, answered)

    # Votes

    def receive_vote(self, member: Member, vote: Vote, arrived: Instant, checks: Checks) -> None:
        """Take a vote from its voter; a new quorum makes a verdict."""
        target = self._catalog.get(vote.node_id)
        if target is None or target.state is None or target.node_id == self._own.node_id:
            return
        if (vote.generation, vote.epoch) != order_start(target.state.order):
            self._ctx.statistics.votes_refused += 1
            return
        settled = target.status is MemberStatus.DEAD or vote.cause == Cause.AGENT_GONE
        settled = self._show_verdict(target, member) and settled
        if not self.votes.is_new(vote):
            return
        if not self.judge.accusations.admits_vote(member.node_id, target.node_id, self._ctx.now):
            self._ctx.dropped("vote over budget")
            return
        renews_until = self._renewed_until(target) if settled else None
        if settled and not renews_until:
            return
        try:
            self._require_vote_untrusted(member, vote, checks)
        except MalformedInput as error:
            self._ctx.statistics.votes_refused += 1
            self._ctx.refused(type(error).__name__)
            return
        fresh = self.votes.fresh(target.node_id, order_start(target.state.order), self._ctx.now)
        if all(held.voter != vote.voter or held.cause != vote.cause for held in fresh):
            detail = f"last beat {vote.beat}"
            self._note(target, "vote-received", member.node_id, Cause(vote.cause).label, detail)
        if self.votes.put(vote, arrived):
            self._ctx.statistics.votes_received += 1
            self.desk.open(target, f"vote of {member.name}", renews_until=renews_until)
            self._take_verdict(self.ballot.count(target))

    def _require_vote_untrusted(self, member: Member, vote: Vote, checks: Checks) -> None:
        if vote.voter != member.node_id or vote.cause not in tuple(Cause):
            raise MalformedInput("a vote of somebody else, or of an unknown cause")
        self.judge.require_monitor_untrusted(vote.node_id, vote.voter)
        self.judge.require_signed_untrusted(vote, checks)

    def receive_unvote(self, member: Member, unvote: Unvote) -> None:
        """Take a vote back."""
        target = self._catalog.get(unvote.target)
        if self.votes.withdraw(unvote.target, member.node_id, unvote.sequence, self._ctx.now) and target:
            self._note(target, "unvote", member.node_id)

    # Verdicts

    def merge_verdict_untrusted(self, record: SignedRecord, checks: Checks) -> Change | None:
        """Judge a verdict from outside and have it kept if it holds; None when it says nothing new.

        Raises:
            MalformedInput: it does not hold, or is about somebody unknown. Remote's fault. State unchanged.
        """
        return self._merger.merge_untrusted(record, checks)

    def _take_verdict(self, record: SignedRecord | None) -> None:
        """Take a verdict about another that was made, or waited, here, if there is one."""
        if record is None:
            return
        try:
            change = self._merger.merge_untrusted(record, Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX))
        except UnknownOwner:
            self._ctx.refused("unknown owner")
        except MalformedInput as error:
            self._ctx.refused(type(error).__name__)
        else:
            if change is not None:
                self.verdict_merged(change, None)

    def verdict_merged(self, change: Change, sender: Member | None) -> None:
        """Follow a verdict about another: ask its target first, or let it take effect."""
        if change.held:
            self._ask_first(change, sender)
        else:
            self._applied(change, b"" if sender is None else sender.node_id)
            self.status_changed(change.member)

    def _ask_first(self, change: Change, sender: Member | None) -> None:
        self._ctx.statistics.verdicts_deferred += 1
        self._note(change.member, "beaten-by-life", b"" if sender is None else sender.node_id)
        self._life.ask(change, sender)

    def _held_is_due(self, node_id: bytes) -> None:
        self._take_verdict(self._life.release(node_id))

    def _case_tick(self, node_id: bytes) -> None:
        for verdict in self.desk.tick(node_id):
            self._take_verdict(verdict)

    def _control_over(self) -> None:
        for verdict in self.desk.round_over():
            self._take_verdict(verdict)

    def _answer_is_due(self) -> AnswerDue | None:
        record = self._answering.due()
        return None if record is None else AnswerDue(record)

    def answers_later(self, change: Change) -> bool:
        """Tell whether a verdict against ourselves is answered later than now.

        While it keeps us out we hold it like everybody, so that our state sum is theirs.
        """
        member, verdict = change.member, change.verdict
        assert verdict is not None
        assert change.record is not None
        is_later = self._answering.is_later(verdict, change.record)
        if is_later and self._answering.out_until is not None and member.verdict is None:
            self._catalog.install_verdict(member, verdict, record_of(verdict))
            self._note_quarantine(member, self._answering.out_until)
        return is_later

    def _applied(self, change: Change, origin_id: bytes) -> None:
        """Follow a verdict that took effect here: its name is pushed on, and who lacks it asks."""
        member, verdict = change.member, change.verdict
        assert verdict is not None
        self._ctx.statistics.verdicts_applied += 1
        self._life.settle(member)
        names = voter_names(verdict, self._catalog)
        self._note(member, "applied", self._own.node_id, MemberStatus(verdict.status).label, names)
        if brings_quarantine(verdict):
            until = Instant(self._ctx.now + self._ctx.settings.monitor.quarantine_ns)
            self._note_quarantine(member, until)
        message = VerdictId(member.node_id, verdict.generation, verdict.epoch, verdict.status)
        name = encode_message(message)
        self._courier.enqueue((RecordKind.VERDICT, member.node_id, b""), name)
        fanout = self._ctx.settings.eager_fanout
        # About half a dozen had the votes, and each of them makes the verdict at that moment.
        self._courier.push_name(name, change.message, origin_id, fanout if origin_id else fanout // 2)

    def _note_quarantine(self, member: Member, until: Instant) -> None:
        """Show people until when a member stays out; it is over when the member answers, and not before."""
        member.quarantine_until = until
        self._ctx.statistics.quarantines += 1
        self._note(member, "quarantine", self._own.node_id)

    def receive_verdict_id(self, member: Member, held: VerdictId) -> None:
        """Ask for a verdict we lack, once we judge any."""
        if self.judge.view_is_whole:
            self._wants.named(member, held)

    # Status

    def status_changed(self, member: Member) -> None:
        """Bring cases, votes and holds in line with a member's status."""
        node_id = member.node_id
        if node_id == self._own.node_id:
            return
        if member.status in (MemberStatus.DEAD, MemberStatus.LEFT):
            self.desk.settle(member, member.status.label)
            self.ballot.settle(node_id)
            self.heartbeats.forget(member)
        if member.status is not MemberStatus.ALIVE and member.unreachable:
            member.unreachable = False
        if member.status in (MemberStatus.DEAD, MemberStatus.UNATTENDED):
            for gone in self._retained.died(member):
                self._note(gone, "held-mass-death", self._own.node_id)
        else:
            self._retained.returned(member)
        if member.status is MemberStatus.UNATTENDED:
            self.desk.settle(member, "unattended")
            self._unattended.arm(member)
        else:
            self._unattended.forget(node_id)

    def release_mass_death(self) -> None:
        """Let go the endpoints of those who died together."""
        self._retained.release()

    def _look(self, node_id: bytes) -> None:
        member = self._unattended.due(node_id)
        if member is not None and self.ballot.may_watch(member) and self.desk.get(node_id) is None:
            self._engines.ask(member, Asker.LOOK)

    def _looked(self, node_id: bytes, answered: bool) -> None:
        member = self._unattended.held(node_id)
        if member is not None and not answered:
            self._alarm(member)
            self.desk.open(member, "its engine does not answer either")

    def view_complete(self) -> None:
        """Judge verdicts and watch others from now on."""
        self.judge.view_is_whole = True
        self._retained.view_complete()

    # Around

    def lag_noted(self) -> bool:
        """Take our lag into our state when its step changed, at most every ten seconds; False otherwise."""
        step = step_of(self._ctx.lag.current_ns(self._ctx.now), self._own.lag_ms)
        if step == self._own.lag_ms or self._ctx.now - self._lag_published_at < _LAG_GAP_NS:
            return False
        self._own.lag_ms = step
        self._lag_published_at = self._ctx.now
        return True

    def _set_lag_timer(self) -> None:
        self._ctx.timers.set(("lag", None), self._ctx.on_beat(self._ctx.now + _LAG_GAP_NS))

    def _lag_round(self) -> StateOutdated | None:
        self._set_lag_timer()
        return StateOutdated() if self.lag_noted() else None

    def _note(self, member: Member, kind: str, by: bytes, cause: str = "", detail: str = "") -> None:
        self._ctx.history.note(
            self._ctx.now, member.node_id, kind, NodeId(by), cause, detail, self.health.score
        )

    def forget(self, member: Member) -> None:
        """Drop everything that waits for a member that is no more."""
        self.prober.forget(member)
        self._ways.forget(member)
        self.heartbeats.forget(member)
        self.desk.forget(member)
        self.ballot.settle(member.node_id)
        self._wants.forget(member.node_id)
        self._life.forget(member)
        self._retained.forget(member.node_id)
        self._renewals.forget(member.node_id)
        self._checked_at.pop(member.node_id, None)
        self._unattended.forget(member.node_id)
