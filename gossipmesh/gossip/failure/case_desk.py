"""A monitor's open cases: gathers evidence, judges at each tick, votes to the other monitors.

`cases` says which move follows from what; this does it. Rules:
1. Cases are opened by a missed heartbeat and its probe, a failed probe, an alarm, another monitor's vote or
   a refusal; only against members we are a monitor of, only while our view is whole and we hear somebody.
2. A tick pings the target with the suspect flag; others and TCP are tried only once it is silent for 900 ms,
   TCP also where it sends and answers nothing.
3. A refused port makes us ask the engine, twice; so does silence, so that a hung agent is no dead node, and
   so do answers that fail to come.
4. A condemned target's case is opened only to renew what is held (`renewals`), and ends by itself.
5. Who stays unheard and uncondemned is `unreachable` here, for routing only, until any packet.
Paper: SWIM section 4.2 (suspicion before death). Deviation: see `cases`.
"""

from collections.abc import Iterator
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.ballot import Ballot
from gossipmesh.gossip.failure.cases import CAUSES, Act, Case, CaseInput, CaseState, Circumstances, judge
from gossipmesh.gossip.failure.control_rounds import ControlRounds
from gossipmesh.gossip.failure.engine_questions import Asker, EngineQuestions
from gossipmesh.gossip.failure.prober import Prober
from gossipmesh.gossip.membership.catalog import Catalog, order_start
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import SignedRecord

_QUIET_NS: Final = 900 * MILLISECOND_NS
_LIVELY_NS: Final = 600 * MILLISECOND_NS
_HINT_PING_GAP_NS: Final = 100 * MILLISECOND_NS
_LOOK_NS_MIN: Final = 5 * MILLISECOND_NS
_UNREACHABLE_NS_MAX: Final = 5 * SECOND_NS
_WATCHABLE: Final = (MemberStatus.ALIVE, MemberStatus.UNATTENDED)


@kept.part("case desk")
class CaseDesk:
    """All open cases of this node; what is judged may return the verdict that our vote completes."""

    def __init__(
        self,
        ctx: Context,
        catalog: Catalog,
        courier: Courier,
        prober: Prober,
        engines: EngineQuestions,
        ballot: Ballot,
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._prober = prober
        self._engines = engines
        self._ballot = ballot
        self._cases: dict[bytes, Case] = {}
        self.control = ControlRounds(ctx, courier, prober)

    def __len__(self) -> int:
        return len(self._cases)

    def get(self, node_id: bytes) -> Case | None:
        """Return the open case against a member."""
        return self._cases.get(node_id)

    def _first(self) -> bytes | None:
        return next(iter(self._cases), None)

    def open(self, member: Member, why: str, *, renews_until: Instant | None = None) -> Case | None:
        """Open a case against a target of ours, unless one is open; None when it is none of ours.

        `renews_until`: it is condemned, and looked at again until then.
        """
        case = self._cases.get(member.node_id)
        if case is not None:
            case.renews_until = renews_until or case.renews_until
            return case
        if self._catalog.isolated_since >= 0:
            return None
        watchable = renews_until is not None or member.status in _WATCHABLE
        if member.state is None or not watchable or not self._ballot.may_watch(member):
            return None
        sent_count = 0 if member.link is None else member.link.sent_count
        case = Case(self._ctx.now, order_start(member.state.order), sent_count)
        case.renews_until = renews_until or case.renews_until
        self._cases[member.node_id] = case
        self._ctx.statistics.cases_opened += 1
        self._ctx.statistics.cases_open = len(self._cases)
        self._note(member, "case-opened", detail=why)
        self.control.begin(next(iter(self._cases)))
        self._press(member, case)
        return case

    def _note(self, member: Member, kind: str, cause: str = "", detail: str = "") -> None:
        self._ctx.history.note(
            self._ctx.now,
            member.node_id,
            kind,
            self._catalog.own_node_id,
            cause,
            detail,
            self._prober.health.score,
        )

    # Inputs

    def heard(self, member: Member, arrived: Instant, counter: int | None) -> bool:
        """Take a packet, and tell whether there was a case against its sender.

        `counter` is what that had heard of us, None when it was heard just now.
        """
        case = self._cases.get(member.node_id)
        if case is None:
            return False
        is_recent = counter is None or counter > case.sent_before
        if case.evidence.lived(arrived, self._ctx.settings.monitor, is_recent=is_recent):
            self._act(member, case, case.take(CaseInput.LIFE), "heard")
        return True

    def answered(self, member: Member, sequence: int, arrived: Instant) -> None:
        """Take a direct ack; one that lay in a carrier for long answers nothing."""
        self.control.acked(sequence)
        case = self._cases.get(member.node_id)
        within_ns = self._patience_ns(member) if member.carried_since >= 0 else None
        if case is None or not case.evidence.answered(sequence, arrived, within_ns):
            return
        enough = case.evidence.answers_in_a_row >= self._ctx.settings.monitor.answers_to_close
        what = CaseInput.ANSWERED if enough else CaseInput.ANSWER
        self._act(member, case, case.take(what), "answered")

    def port_refused(self, member: Member) -> SignedRecord | None:
        """Take a hint that the agent is gone: the engine knows better."""
        case = self.open(member, "port refused")
        if case is None:
            return None
        case.evidence.port_refusals.append(self._ctx.now)
        del case.evidence.port_refusals[1:-1]
        if self._ctx.now - case.pinged_at >= _HINT_PING_GAP_NS:
            # A living target answers before the next hint counts, so forged ones never add up.
            self._ping(member, case)
        if not case.evidence.engine_refusals and case.evidence.engine_answered_at < 0:
            self._ask_engine(member)
        return self._judge(member, case)

    def slept(self) -> None:
        """Restart every case after a pause of our own."""
        self.control.restart(self._first())
        for node_id in list(self._cases):
            case, member = self._cases[node_id], self._catalog.get(node_id)
            if member is not None:
                self._act(member, case, case.take(CaseInput.SLEPT), "we were stopped")

    def isolated(self) -> None:
        """Close every case: it is we who are cut off."""
        for node_id in list(self._cases):
            case, member = self._cases[node_id], self._catalog.get(node_id)
            if member is not None:
                self._act(member, case, case.take(CaseInput.CUT_OFF), "we hear nobody")
                self._act(member, case, case.take(CaseInput.SETTLED), "we hear nobody")
        self.control.go_on(None)

    def settle(self, member: Member, why: str) -> None:
        """Close a case that is settled otherwise."""
        case = self._cases.get(member.node_id)
        if case is not None:
            self._act(member, case, case.take(CaseInput.SETTLED), why)

    # Ticks

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here and for control rounds, and what each is for."""
        return {
            "again": self._again,
            **self.control.deadlines(),
        }

    def tick(self, node_id: bytes) -> Iterator[SignedRecord]:
        """Judge a case and press its target (timer `case`); yield the verdict that our vote completes."""
        case, member = self._cases.get(node_id), self._catalog.get(node_id)
        if case is None or member is None:
            return
        verdict = self._judge(member, case)
        if verdict is not None:
            yield verdict
        if self._cases.get(member.node_id) is case:
            self._press(member, case)

    def _judge(self, member: Member, case: Case) -> SignedRecord | None:
        state = member.state
        known = self._catalog.get(member.node_id) is member and state is not None
        if not known or state is None or order_start(state.order) != case.incarnation:
            # This holds between two ticks as well: what one life refused says nothing of the next.
            self.settle(member, "another incarnation")
            return None
        renews = case.renews_until > self._ctx.now
        if not (renews or member.status in _WATCHABLE) or not self._ballot.may_watch(member):
            self.settle(member, "not ours any more")
            return None
        if self.control.failed:
            self._cut_off()
            return None
        evidence, settings = case.evidence, self._ctx.settings.monitor
        lag_ns = self._ctx.lag.current_ns(self._ctx.now)
        what = judge(
            evidence,
            settings,
            Circumstances(
                at=self._ctx.now - lag_ns,
                tolerance_ns=self._tolerance_ns(member),
                control_passed=self.control.passed,
                restarting=member.restarting_until > self._ctx.now,
                usual_percent=self.control.answered_percent,
            ),
        )
        known = what is CaseInput.FOUND_AGENT_GONE and member.status is MemberStatus.UNATTENDED
        if known and not renews:
            what = CaseInput.SETTLED
        return self._act(member, case, case.take(what), "nothing found")

    def _cut_off(self) -> None:
        self.control.restart(self._first())
        for node_id in list(self._cases):
            case, member = self._cases[node_id], self._catalog.get(node_id)
            if member is not None:
                self._act(member, case, case.take(CaseInput.CUT_OFF), "we hear too few others")

    def _press(self, member: Member, case: Case) -> None:
        """Ping the target, and by other ways once it is silent; look again soon."""
        evidence, now = case.evidence, self._ctx.now
        case.ticks_count += 1
        first = case.ticks_count == 1
        sequence = self._ping(member, case)
        quiet = now - evidence.silent_since >= _QUIET_NS
        unheard = quiet or evidence.is_unheeded(now)
        if (first or quiet) and case.ticks_count % 2:
            for helper in self._courier.choose(1, member.node_id):
                self._prober.ask_for(helper, sequence, member)
        if unheard and case.ticks_count % 4 == 2:
            self._prober.ping_by_stream(member)
        if unheard and now - case.engine_asked_at >= SECOND_NS:
            self._ask_engine(member)
        self._mark_unreachable(member, case)
        tick_ns = self._ctx.settings.monitor.case_tick_ns
        lively = not first and now - evidence.silent_since < _LIVELY_NS
        wait_ns = 2 * tick_ns if lively else tick_ns
        # Silence is judged at now - lag: a tick just when it is full would find it not quite full.
        lag_ns = self._ctx.lag.current_ns(now)
        full_ns = evidence.silent_since - now + self._patience_ns(member) + lag_ns
        if full_ns > 0:
            wait_ns = min(wait_ns, max(full_ns, _LOOK_NS_MIN))
        self._ctx.timers.set(("case", member.node_id), now + wait_ns)

    def _tolerance_ns(self, member: Member) -> int:
        most_ns = self._ctx.settings.monitor.tolerance_max_ns
        if member.restarting_until > self._ctx.now:
            # Only its engine can speak for it now; how late that is nobody knows, so the most is assumed.
            return most_ns
        return min(most_ns, member.told_lag_ns)

    def _patience_ns(self, member: Member) -> int:
        return self._ctx.settings.monitor.silence_ns + self._tolerance_ns(member)

    def round_over(self) -> Iterator[SignedRecord]:
        """End a control round (timer `control`) and begin the next; yield the verdicts our votes complete.

        What waited for the round is judged at once, so that it does not wait for the next tick as well.
        """
        began = self.control.began
        if not self.control.end():
            return
        for node_id in list(self._cases):
            case, member = self._cases.get(node_id), self._catalog.get(node_id)
            if case is not None and member is not None and case.state is CaseState.WATCHING:
                verdict = self._judge(member, case)
                if verdict is not None:
                    yield verdict
        if self.control.began == began:
            self.control.go_on(self._first())

    def _ping(self, member: Member, case: Case) -> int:
        case.pinged_at = self._ctx.now
        sequence = self._prober.ping(member, suspect=True)
        case.evidence.pinged(sequence, self._ctx.now)
        return sequence

    def _ask_engine(self, member: Member) -> None:
        case = self._cases.get(member.node_id)
        if case is not None and self._engines.ask(member, Asker.CASE):
            case.engine_asked_at = self._ctx.now

    def engine_said(self, node_id: bytes, answered: bool, refused: bool) -> SignedRecord | None:
        """Take an engine's answer to a case's question, which is dropped together with its case."""
        case, member = self._cases.get(node_id), self._catalog.get(node_id)
        if case is None or member is None:
            return None
        evidence, now = case.evidence, self._ctx.now
        evidence.engine_said(answered, refused, now)
        if (answered or refused) and evidence.port_refusals:
            again_ns = self._ctx.settings.monitor.refusal_ns
            self._ctx.timers.set(("again", member.node_id), now + again_ns)
        return self._judge(member, case)

    def _again(self, node_id: bytes) -> None:
        """Make sure of a refusal: port and engine are asked once more."""
        case, member = self._cases.get(node_id), self._catalog.get(node_id)
        if case is not None and member is not None and case.evidence.port_refusals:
            self._ping(member, case)
            if len(case.evidence.engine_refusals) < 2:
                self._ask_engine(member)

    # What follows

    def _vote(self, member: Member, case: Case) -> SignedRecord | None:
        """Cast our vote: at once when its class is new, else at the pace of ticks.

        Other monitors may be gone as well; a vote for each of their kernels' refusals would feed on itself.
        """
        is_soon = self._ctx.now - case.voted_at < self._ctx.settings.monitor.case_tick_ns // 2
        if case.voted_in is case.state and case.voted_at >= 0 and is_soon:
            return None
        case.voted_at, case.voted_in = self._ctx.now, case.state
        return self._ballot.cast(member, CAUSES[case.state])

    def _act(self, member: Member, case: Case, act: Act, why: str) -> SignedRecord | None:
        if act is Act.VOTE:
            return self._vote(member, case)
        if act in (Act.UNVOTE, Act.UNVOTE_AND_RESTART, Act.UNVOTE_AND_CLOSE):
            case.voted_at = -1
            self._note(member, "unvote", detail=why)
            self._ballot.withdraw(member)
        if act in (Act.RESTART, Act.UNVOTE_AND_RESTART):
            case.evidence.restart(self._ctx.now)
        if case.state is CaseState.CLOSED and self._cases.pop(member.node_id, None) is not None:
            self._ctx.statistics.cases_open = len(self._cases)
            self._note(member, "case-closed", detail=why)
            self._drop_timers(member)
        return None

    def _drop_timers(self, member: Member) -> None:
        for name in ("case", "again"):
            self._ctx.timers.cancel((name, member.node_id))
        self._engines.forget(member.node_id)

    def _mark_unreachable(self, member: Member, case: Case) -> None:
        settings = self._ctx.settings.monitor
        limit_ns = min(settings.silence_ns + settings.unreachable_after_ns, _UNREACHABLE_NS_MAX)
        since = max(case.evidence.first_opened, member.heard_at)
        if member.unreachable or self._ctx.now - since < limit_ns or member.status is not MemberStatus.ALIVE:
            return
        member.unreachable = True
        self._ctx.statistics.unreachable += 1
        self._note(member, "unreachable")
        self._tell(member)

    def reached(self, member: Member) -> None:
        """End the `unreachable` of a member that was: a packet came."""
        member.unreachable = False
        self._note(member, "reachable")
        self._tell(member)

    def _tell(self, member: Member) -> None:
        self._catalog.telling.member(member, member.status, member.status)
        self._catalog.telling.services(member)

    def forget(self, member: Member) -> None:
        """Drop the case against a member that is no more."""
        if self._cases.pop(member.node_id, None) is not None:
            self._ctx.statistics.cases_open = len(self._cases)
        self._drop_timers(member)
