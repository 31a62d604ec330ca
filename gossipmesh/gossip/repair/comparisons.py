"""Decides when to compare with whom, and leads the conversations on authenticated streams.

State sums in every ping say that something differs; what is said then is `conversation`'s, the first table of
a newcomer `joining`'s.
Rules:
1. Equal state sums are the only proof of agreement; a finished comparison is judged by them as well.
2. Unequal twice with one peer, or for 0.7 s with anybody, opens a stream. While our own state sum moves,
   news is still on its way and may settle it: then a little later, but not much.
3. A silent difference is looked into without waiting for another ping.
4. On a stream only its own kind of answer is taken, once, and a comparison ends only after its list: whoever
   says "done" out of place would leave a fetch unsettled, or a view whole that never was.
5. What came by the dozen goes on by streams: packets would take as many seconds. So whoever was given much
   by a comparison opens a few more, and halves of a mesh that meet again agree within as many rounds.
6. One peer that does not come to an end keeps us from comparing with others for seconds, no longer.
7. Whom Trust revokes is told so and may ask for Trust once, whatever it opened the stream for; a node that
   is told so asks, and believes what its own Trust leads to.
Paper: Demers et al. 1987 (anti-entropy). Deviation: triggered by state sums, not by a period alone.
"""

from collections.abc import Iterator
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import ViewRepaired
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.dissemination.documents import PolicySpreading
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.facts import PingsDue
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.repair.conversation import Conversation
from gossipmesh.gossip.repair.facts import PolicyFetched, RecordArrived, TrustFetched, ViewWhole
from gossipmesh.gossip.repair.haste import HASTY_GAP_NS, Haste
from gossipmesh.gossip.repair.joining import Joining, Next
from gossipmesh.gossip.sessions.session import Session
from gossipmesh.gossip.sessions.streams import Streams
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.wire.frames import (
    PAGE_BYTES,
    Compare,
    Done,
    Entries,
    FetchPolicy,
    FetchTrust,
    FrameMessage,
    Part,
    PolicyPart,
    Records,
    Request,
    ShutOut,
    Table,
    TrustPart,
    Turn,
)

_MANY_RECORDS: Final = 24  # about what ticks carry in a second
_QUESTIONS_MAX: Final = 4  # comparisons and fetches; pages are counted by `conversation`
_SETTLING_MS: Final = (150, 350, 550, 750, 950, 1_150, 1_350, 1_550)
_SETTLING_NS: Final = tuple(milliseconds * MILLISECOND_NS for milliseconds in _SETTLING_MS)
_SETTLING_PINGS: Final = 2
_MOVING_WAITS_MAX: Final = 1
_SYNC_ALONE_NS: Final = 5 * SECOND_NS  # an honest comparison takes less; then another peer is asked as well
_OPENING_ALONE_NS: Final = SECOND_NS  # a peer beyond a cut never opens, and must not outlast the cut
_SYNCS_MAX: Final = 4
_PATIENT_TRIES: Final = 32  # 250 that join by one seed need nine; then twice as long, up to some 5 s
_TRIES_DOUBLINGS_MAX: Final = 5
_ANSWERS: Final[dict[str, tuple[type, ...]]] = {"policy": (PolicyPart,), "trust": (TrustPart,), "ping": ()}
_MAY_ASK_WHY: Final = ("sync", "table", "trust")  # a stream for policy has to fail, or nobody else is asked
_TABLE_ANSWERS: Final = (Records, Entries, Turn, Done)
_SECOND_OPENER_NS: Final = 20 * MILLISECOND_NS  # so that of two nodes that differ mostly one opens


@kept.part("repair")
class Repair:
    """Both sides of every conversation, and when to begin one."""

    def __init__(
        self,
        ctx: Context,
        catalog: Catalog,
        own_id: bytes,
        streams: Streams,
        spreading: PolicySpreading,
        haste: Haste,
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._own_id = own_id
        self._streams = streams
        self._spreading = spreading
        self._haste = haste
        self._conversation = Conversation(ctx, catalog, streams, spreading)
        self._joining = Joining(ctx, catalog, streams, spreading)
        self._syncing: dict[bytes, int] = {}  # until when each comparison keeps us from one with others
        self._synced_at: int | None = None
        self._unequal_since: int | None = None
        self._unequal_with = b""
        self._state_sum = bytes(16)
        self._finished_sum = bytes(16)
        self._introducer: Member | None = None
        self._turned_away_by: Member | None = None
        self._tries = 0
        self._sum_moved_at = ctx.now
        self._moving_waits = 0
        self._repaired: dict[bytes, None] = {}
        self._fruitless_count = 0

    def start(self) -> None:
        """Begin the periodic full comparison at a random moment of its interval."""
        wait_ns = self._ctx.rng.randrange(self._ctx.settings.full_compare_interval_ns)
        self._ctx.timers.set(("full compare", None), self._ctx.now + wait_ns)

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here and for long work, and what each is for."""
        return {
            "full compare": self._full_compare,
            "unequal": self._still_unequal,
            "settle in": self._settle_round,
            "hasten": self._hasty_round,
            "try again": self._try_again,
            "slice": self._work,
        }

    def take_no_table(self) -> None:
        """Begin as one who has its first table already."""
        self._conversation.is_first = False

    def _full_compare(self) -> None:
        wait_ns = self._ctx.settings.full_compare_interval_ns
        self._ctx.timers.set(("full compare", None), self._ctx.now + wait_ns)
        members = [member for member in self._catalog.reachable if member.run]
        if members:
            self.sync(self._ctx.rng.choice(members))

    # When

    def compared(self, member: Member, group_sum: bytes, documents_sum: bytes) -> None:
        """Take a peer's state sums; open a comparison once they differ for good."""
        now = self._ctx.now
        if self._catalog.ledger.state_sum != self._state_sum:
            self._state_sum, self._sum_moved_at = self._catalog.ledger.state_sum, now
        if group_sum == self._state_sum:
            member.agreed_at = now
        documents_agree = documents_sum == self._catalog.sums.documents_for(member)
        if group_sum == self._state_sum and documents_agree:
            self._settled(member)
            self._agreed(member.node_id, False)
            return
        if not documents_agree:
            self._spreading.announce_to(member)
        member.unequal_count += 1
        self._unequal_with = member.node_id
        if self._unequal_since is None:
            self._unequal_since = now
            self._look_again(self._ctx.settings.repair_after_ns)
        # One handshake brings several pings, so only pings some time apart count as two.
        apart = now - self._unequal_since >= self._ctx.settings.repair_after_ns // 4
        if apart and member.unequal_count >= (2 if self._own_id < member.node_id else 3):
            self._open_if_rested(member, group_sum != self._state_sum)

    def _look_again(self, wait_ns: int) -> None:
        wait_ns += 0 if self._own_id < self._unequal_with else _SECOND_OPENER_NS
        self._ctx.timers.set(("unequal", None), self._ctx.now + wait_ns)

    def _still_unequal(self) -> None:
        """Compare, since nobody was found equal meanwhile; unless what we hold moved just now."""
        member = self._catalog.get(self._unequal_with)
        if self._unequal_since is None or member is None:
            self._unequal_since = None
            return
        wait_ns = self._ctx.settings.repair_after_ns
        moved = (
            self._catalog.ledger.state_sum != self._state_sum or self._ctx.now - self._sum_moved_at < wait_ns
        )
        if moved and self._moving_waits < _MOVING_WAITS_MAX:
            self._moving_waits += 1
        else:
            self._open_if_rested(member, True)
        self._look_again(wait_ns)

    def _open_if_rested(self, member: Member, records_differ: bool) -> None:
        # Records come to rest soon; documents one side refuses may differ for good, so ask ever less.
        doublings = min(self._fruitless_count, 2 if records_differ else 6)
        gap_ns = self._ctx.settings.repair_gap_ns << doublings
        if self._synced_at is None or self._ctx.now - self._synced_at >= gap_ns:
            self.sync(member)

    def _settled(self, member: Member | None) -> None:
        self._unequal_since = None
        self._moving_waits = 0
        self._fruitless_count = 0
        self._ctx.timers.cancel(("unequal", None))
        if member is not None:
            member.unequal_count = 0

    def _settle_in(self, introducer: Member | None) -> None:
        """After the first comparison look again soon, and again: others join in the same moment.

        Whoever let us in is asked first: it most likely let in the others too. Once we agreed with
        somebody, pings to a few tell whether others know more.
        """
        self._introducer = introducer
        for number, wait_ns in enumerate(_SETTLING_NS):
            jitter_ns = self._ctx.rng.randrange(_SETTLING_NS[0])
            self._ctx.timers.set(("settle in", number), self._ctx.now + wait_ns + jitter_ns)

    def _settle_round(self, _number: int) -> PingsDue | None:
        members = self._catalog.reachable
        if self._unequal_since is None and self._catalog.ledger.state_sum == self._finished_sum:
            return PingsDue(self._ctx.rng.sample(members, min(_SETTLING_PINGS, len(members))))
        if members:
            member = self._ctx.rng.choice(members)
            if self._introducer in members and len(members) <= self._ctx.settings.eager_many_members:
                member = self._introducer
            self._introducer = None
            self.sync(member)
        return None

    def _hasty_round(self) -> None:
        member = self._haste.next()
        if member is not None:
            self.sync(member)

    def sync(self, member: Member) -> None:
        """Open a comparison with a member, unless one runs, it asks us already, or we still join (rule 6)."""
        if self._is_busy(member) or self._streams.serves(member.node_id):
            return
        if self._streams.open_to(member, "sync"):
            self._syncing[member.node_id] = self._ctx.now + _OPENING_ALONE_NS
            self._synced_at = self._ctx.now
            self._ctx.statistics.repairs_started += 1

    def _is_busy(self, member: Member) -> bool:
        alone_until = self._syncing.values()
        if member.node_id in self._syncing or len(alone_until) >= _SYNCS_MAX:
            return True
        return self._joining.active or any(self._ctx.now < until for until in alone_until)

    def _try_again(self) -> None:
        """Ask again for what a first stream did not bring: a seed that many join by turns some away.

        Every other time somebody else: but newcomers who ask one another learn little.
        """
        members = [member for member in self._catalog.reachable if member.run]
        if not members:
            return
        self._tries += 1
        member = self._ctx.rng.choice(members)
        if self._tries % 2 and self._turned_away_by in members:
            member = self._turned_away_by
        self.sync(member)

    def _agreed(self, node_id: bytes, finished: bool) -> None:
        if node_id not in self._repaired:
            self._repaired[node_id] = None
            if len(self._repaired) > len(self._catalog):
                self._repaired = {held: None for held in self._repaired if self._catalog.get(held)}
        elif not finished:
            return
        self._ctx.notify(ViewRepaired(len(self._repaired)))

    # What is said

    def begin(self, session: Session) -> None:
        """Say what an opened stream is for."""
        if session.expected is not None and session.expected.node_id in self._syncing:
            self._syncing[session.expected.node_id] = self._ctx.now + _SYNC_ALONE_NS
        match session.purpose:
            case "policy":
                assert session.scope is not None
                self._streams.say(session, FetchPolicy(session.scope))
            case "trust":
                self._streams.say(session, FetchTrust(self._trust_version()))
            case "ping":
                session.completed = True
                self._close(session)
            case _ if self._joining.wanted:
                self._go_on(session, self._joining.begin(session))
            case _:
                self._conversation.compare(session)

    def _go_on(self, session: Session, then: Next) -> None:
        if then is Next.CLOSE:
            self._close(session)
        elif then is Next.COMPARE:
            self._conversation.compare(session)

    def _work(self) -> Iterator[object]:
        """Do a step of long work, and yield the facts it tells; note which records were news."""
        for fact in self._conversation.work():
            merged_before = self._ctx.statistics.records_merged
            yield fact
            if isinstance(fact, RecordArrived) and self._ctx.statistics.records_merged > merged_before:
                self._note_given(fact.session)

    def receive(self, session: Session, message: FrameMessage) -> PolicyFetched | TrustFetched | None:
        """Go on with a conversation; return what was fetched, once it is here.

        Raises:
            MalformedInput: a message out of place or beyond limits. Remote's fault; the stream ends.
        """
        if session.is_shut_out:
            self._answer_shut_out(session, message)
            return None
        if session.opener and isinstance(message, ShutOut):
            self._ask_why(session, message)
            return None
        if session.opener and not isinstance(message, _ANSWERS.get(session.purpose, _TABLE_ANSWERS)):
            raise MalformedInput("an answer to another question than the stream's")
        if isinstance(message, Records):
            self._conversation.take_records(session, message.records)
            if message.more and not session.opener:
                self._conversation.then(session, lambda: self._streams.say(session, Turn()))
        elif session.opener:
            return self._receive_answer(session, message)
        else:
            self._receive_question(session, message)
        return None

    def shut_out(self, session: Session) -> None:
        """Tell whoever opened a stream that Trust revokes it (rule 7)."""
        self._streams.say(session, ShutOut(self._trust_version()))

    def _answer_shut_out(self, session: Session, message: FrameMessage) -> None:
        """Give Trust to a revoked opener, once; what else it asks or brings is passed over."""
        if not isinstance(message, FetchTrust):
            return
        session.questions_count += 1
        if session.questions_count > 1:
            raise MalformedInput("more questions than one stream may ask")
        self._send_parts(session, TrustPart, self._spreading.answer_trust(message.version))

    def _ask_why(self, session: Session, told: ShutOut) -> None:
        """Use a stream whose acceptor shuts us out to fetch the Trust that says so, if we have not got it."""
        if told.trust_version <= self._trust_version():
            raise MalformedInput("shut out by a Trust that we hold, and that does not say so")
        if session.purpose not in _MAY_ASK_WHY:
            raise MalformedInput("shut out of what brings nothing")
        if session.purpose != "trust":
            session.purpose = "trust"
            self._streams.say(session, FetchTrust(self._trust_version()))

    def _trust_version(self) -> int:
        trust = self._ctx.documents.trust
        return 0 if trust is None else trust.version

    def _note_given(self, session: Session) -> None:
        """Hasten once when a comparison brings much (rule 5); who has just joined looks around anyway."""
        settles_in = self._ctx.timers.pending(("settle in", len(_SETTLING_NS) - 1))
        if session.purpose == "table" or self._conversation.is_first or settles_in:
            return
        session.news_count += 1
        if session.news_count == _MANY_RECORDS:
            self._haste.hasten()

    def _receive_question(self, session: Session, message: FrameMessage) -> None:
        member = session.member
        assert member is not None
        if isinstance(message, Compare | FetchPolicy | FetchTrust):
            session.questions_count += 1
            if session.questions_count > _QUESTIONS_MAX:
                raise MalformedInput("more questions than one stream may ask")
        match message:
            case Compare():
                self._conversation.answer_compare(session, message)
                self._spreading.consider(member, message.documents)
            case Table():
                self._conversation.answer_table(session, message)
                if session.pages_count == 1:
                    self._spreading.consider(member, message.documents)
            case Request():
                self._conversation.answer_request(session, message)
            case FetchPolicy():
                self._send_parts(session, PolicyPart, self._spreading.answer_policy(message.scope))
            case FetchTrust():
                self._send_parts(session, TrustPart, self._spreading.answer_trust(message.version))
            case _:
                raise MalformedInput("a stream message out of place")

    def _receive_answer(self, session: Session, message: FrameMessage) -> PolicyFetched | TrustFetched | None:
        match message:
            case Entries():
                self._conversation.receive_entries(session, message)
            case Turn() | Done() if session.purpose == "sync" and not session.listed:
                raise MalformedInput("the end of a comparison before its list")
            case Turn():
                self._conversation.then(session, lambda: self._on_turn(session, message.after))
            case Done():
                self._conversation.then(session, lambda: self._on_done(session, message))
            case PolicyPart() | TrustPart():
                return self._receive_part(session, message)
            case _:
                raise MalformedInput("a stream message out of place")
        return None

    def _on_turn(self, session: Session, after: bytes) -> None:
        if session.purpose == "table":
            self._go_on(session, self._joining.receive_turn(session, after))
        elif session.give or session.ask:
            self._conversation.go_on(session)
        else:
            self._close(session)

    def _on_done(self, session: Session, done: Done) -> Iterator[object]:
        if session.purpose == "table":
            then = self._joining.receive_done(session)
            if then is not Next.END:
                self._go_on(session, then)
                return
        session.completed = True
        yield ViewWhole()
        self._ctx.statistics.repairs_completed += 1
        self._fruitless_count += 1
        if self._conversation.is_first:
            self._conversation.is_first = False
            self._settle_in(session.member)
        if (done.group_sum, done.documents_sum) == self._catalog.sums.both_for(session.member):
            self._finished_sum = self._catalog.ledger.state_sum
            self._settled(session.member)
            self._agreed(session.peer_id, True)
        self._close(session)

    def _send_parts(self, session: Session, shape: type[PolicyPart] | type[TrustPart], data: bytes) -> None:
        for start in range(0, max(1, len(data)), PAGE_BYTES):
            self._streams.say(session, shape(len(data), data[start : start + PAGE_BYTES]))

    def _receive_part(self, session: Session, part: Part) -> PolicyFetched | TrustFetched | None:
        session.parts += part.data
        if len(session.parts) > part.total:
            raise MalformedInput("more bytes than were announced")
        if len(session.parts) < part.total:
            if session.purpose == "policy" and session.scope is not None:
                self._spreading.arriving(session.scope)
            return None
        session.completed = True
        data = bytes(session.parts)
        self._close(session)
        return _fetched(session, data or None)

    def _close(self, session: Session) -> None:
        if self._streams.close(session):
            self._tidy(session)

    def ended(self, session: Session) -> PolicyFetched | TrustFetched | None:
        """Clean up after a stream that others ended; return that it failed to fetch what it was for."""
        self._tidy(session)
        if session.opener and not session.completed:
            session.completed = True
            return _fetched(session, None)
        return None

    def _tidy(self, session: Session) -> None:
        self._conversation.forget(session)
        if session.opener and session.began == "sync" and session.expected is not None:
            self._syncing.pop(session.expected.node_id, None)
        if session.opener:
            self._joining.ended(session)
        if session.opener and not session.completed and self._conversation.is_first:
            wait_ns = HASTY_GAP_NS // 2 + self._ctx.rng.randrange(HASTY_GAP_NS)
            wait_ns <<= min(self._tries // _PATIENT_TRIES, _TRIES_DOUBLINGS_MAX)
            self._turned_away_by = session.expected
            self._ctx.timers.set(("try again", None), self._ctx.now + wait_ns)


def _fetched(session: Session, data: bytes | None) -> PolicyFetched | TrustFetched | None:
    peer_id = b"" if session.expected is None else session.expected.node_id
    if session.purpose == "policy" and session.scope is not None:
        return PolicyFetched(peer_id, session.scope, data)
    return TrustFetched(peer_id, data) if session.purpose == "trust" else None
