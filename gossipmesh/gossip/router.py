"""The router: it alone knows all rooms, and hands what one of them tells to the next.

The life of a packet stands here from top to bottom: a datagram is taken (`receive`), opened by `sessions`
(`_receive_data_untrusted`), heard by `failure`, and each message goes to its room (`_dispatch`); records
go through `intake` to `membership`, and on. A stream's bytes become facts (`stream_bytes`), which are taken
one by one (`take`), like those that a timer brought.
Rules:
1. Nothing of a packet is believed before its link opened it; strangers get a cookie and no more.
2. Every packet that opened is told to the detector, with its kernel's arrival, before it is acted on.
3. A packet is a packet's work: one ping of it is answered, and records are wanted within a budget.
4. Whoever is not held alive is shown why, at most once a second, where it says that it is found.
5. Whoever is doubted or gone and speaks from elsewhere may have moved and not been heard: it gets a cookie
   there, as a stranger would, and its hello brings its state. A packet that somebody else sends on draws no
   more than that, and never as much as itself.
6. Rooms call those below them and return facts to this one; what a fact leads to is written here.
Paper: none; SWIM's packets are unauthenticated.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.budgets import KeyedBudgets
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import IdentityCopied, StreamId
from gossipmesh.gossip.dissemination.carriers import Carriers
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.dissemination.documents import PolicySpreading
from gossipmesh.gossip.dissemination.opening import Opening
from gossipmesh.gossip.dissemination.roll_spreading import RollSpreading, RollTaken
from gossipmesh.gossip.failure.detector import Detector
from gossipmesh.gossip.failure.facts import AnswerDue
from gossipmesh.gossip.intake import Intake
from gossipmesh.gossip.membership.catalog import Catalog, Checks
from gossipmesh.gossip.membership.facts import PingsDue, StateOutdated
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.own import OwnRecords
from gossipmesh.gossip.repair.comparisons import Repair
from gossipmesh.gossip.repair.facts import PolicyFetched, RecordArrived, TrustFetched, ViewWhole
from gossipmesh.gossip.sessions.entrance import Entrance
from gossipmesh.gossip.sessions.facts import (
    FrameReceived,
    LetIn,
    Outlived,
    PeerMet,
    PingDue,
    RevokedCame,
    StreamEnded,
    StreamReady,
    TooLong,
    Unrivalled,
)
from gossipmesh.gossip.sessions.handshake import Handshake
from gossipmesh.gossip.sessions.rivals import Rivals
from gossipmesh.gossip.sessions.session import CARRY, ROLL, Session
from gossipmesh.gossip.sessions.streams import Streams
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.records import NodeState, RecordKind, SignedRecord, Vote
from gossipmesh.wire.codec import decode_untrusted
from gossipmesh.wire.datagram import (
    DATA,
    HEADER_BYTES,
    Ack,
    Check,
    Cookie,
    Header,
    Heartbeat,
    Hello,
    Message,
    Nack,
    Ping,
    PingReq,
    PolicyAnnouncement,
    RelayedAck,
    Rival,
    Ruling,
    Seen,
    TrustAnnouncement,
    Unvote,
    VerdictId,
    Want,
    Welcome,
    decode_body_untrusted,
    decode_header_untrusted,
    decode_plain_untrusted,
)
from gossipmesh.wire.frames import FetchRoll, FrameMessage, Packet, RollPiece
from gossipmesh.wire.versions import WIRE_MAX, WIRE_MIN


class Rooms(NamedTuple):
    """The facades, from the bottom to the top."""

    catalog: Catalog
    own: OwnRecords
    handshake: Handshake
    rivals: Rivals
    entrance: Entrance
    streams: Streams
    carriers: Carriers
    courier: Courier
    spreading: PolicySpreading
    rolls: RollSpreading
    opening: Opening
    detector: Detector
    repair: Repair
    intake: Intake


@kept.part("router")
class Router:
    """What happens to a datagram, to bytes of a stream, and to each fact that a room tells."""

    def __init__(self, ctx: Context, rooms: Rooms) -> None:
        self._ctx = ctx
        self._catalog, self._own, self._handshake, self._rivals, self._entrance, self._streams = rooms[:6]
        self._carriers, self._courier, self._spreading, self._rolls, self._opening = rooms[6:11]
        self._detector, self._repair, self._intake = rooms[11:]
        detector, spreading = self._detector, self._spreading
        self._plain: dict[type[Any], Callable[[Member, Any], None]] = {
            Heartbeat: detector.receive_heartbeat,
            PingReq: detector.receive_ping_req,
            Nack: detector.receive_nack,
            RelayedAck: detector.receive_relayed_ack,
            Check: detector.receive_check,
            Unvote: detector.receive_unvote,
            VerdictId: detector.receive_verdict_id,
            PolicyAnnouncement: spreading.receive_policy,
            TrustAnnouncement: self._receive_trust,
            Want: self._receive_want,
        }
        self._budgets = KeyedBudgets(
            limits.PACKETS_PER_MEMBER_PER_S, limits.PACKETS_PER_MEMBER_BURST, keys_max=1_024
        )
        self._moved = KeyedBudgets(
            limits.COOKIES_PER_MEMBER_PER_S, limits.COOKIES_PER_MEMBER_BURST, keys_max=1_024
        )
        self._wants = KeyedBudgets(
            limits.WANTS_PER_MEMBER_PER_S, limits.WANTS_PER_MEMBER_BURST, keys_max=1_024
        )

    # A datagram

    def receive(self, payload: bytes, sender: Address, arrived: Instant) -> None:
        """Feed one packet; what cannot be used is counted and dropped."""
        self._ctx.statistics.datagrams_received += 1
        self._ctx.statistics.bytes_received += len(payload)
        try:
            self._receive_untrusted(payload, sender, arrived)
        except MalformedInput as error:
            self._ctx.dropped(type(error).__name__)

    def _receive_untrusted(self, payload: bytes, sender: Address, arrived: Instant) -> None:
        header = decode_header_untrusted(payload)
        if not WIRE_MIN <= header.version <= WIRE_MAX:
            self._ctx.dropped("version")
        elif header.group_tag != self._ctx.group_tag:
            self._ctx.dropped("foreign group")
        elif header.type != DATA:
            self._receive_plain_untrusted(header, payload, sender)
        elif self._rivals.is_asking:
            self._ctx.dropped("before our start")
        else:
            self._receive_data_untrusted(header, payload, sender, arrived)

    def _receive_plain_untrusted(self, header: Header, payload: bytes, sender: Address) -> None:
        """Take a packet of a stranger; who proves itself by a hello is met before it is welcomed."""
        message = decode_plain_untrusted(header.type, payload[HEADER_BYTES:])
        if isinstance(message, Rival):
            self.take(self._rivals.receive_rival_untrusted(header, message, sender))
        elif isinstance(message, Ruling):
            self.take(self._rivals.receive_ruling_untrusted(header, message))
        elif self._rivals.is_asking:
            self._receive_while_asking(header, message, len(payload), sender)
        elif isinstance(message, Hello):
            met = self._handshake.receive_hello_untrusted(header, message, len(payload), sender)
            if met is not None:
                newer = met.member.record(RecordKind.NODE_STATE) if self._is_overtaken(met) else None
                self.take(met)
                self._handshake.welcome(header, message.nonce, sender, newer)
        elif isinstance(message, Welcome):
            fact = self._handshake.receive_welcome_untrusted(header, message)
            self.take(fact)
            if isinstance(fact, PeerMet):
                self._let_in(fact.member)
        else:
            self.take(self._rivals.receive_cookie(header, message))
            self.take(self._handshake.receive_cookie(header, message, sender))

    def _receive_while_asking(
        self, header: Header, message: Hello | Cookie | Welcome, size_bytes: int, sender: Address
    ) -> None:
        """Take what shows whether we have a rival; nobody else hears more of us than a cookie."""
        if isinstance(message, Cookie):
            self.take(self._rivals.receive_cookie(header, message))
        elif isinstance(message, Hello):
            self._handshake.challenge(header, size_bytes, sender)

    def _receive_data_untrusted(
        self, header: Header, payload: bytes, sender: Address | None, arrived: Instant
    ) -> None:
        """Take a sealed packet; `sender` is None for one that came by a carrier."""
        member = self._catalog.by_short(header.sender)
        if member is None or member.run != header.run or member.node_id == self._catalog.own_id:
            self._ctx.dropped("unknown run")
            self._challenge(header, payload, sender)
            return
        link = self._courier.link_untrusted(member, header.run)
        if not link.fresh(header.counter):
            self._ctx.dropped("replayed")
            return
        try:
            body = link.open_untrusted(header.counter, payload[:HEADER_BYTES], payload[HEADER_BYTES:])
        except MalformedInput:
            self._ctx.dropped("does not open")
            self._challenge(header, payload, sender)
            return
        if sender is not None:
            member.datagram_at = self._carriers.datagram_at = arrived
        messages = decode_body_untrusted(body)
        first = messages[0] if messages else None
        is_doubted = self._detector.heard(member, arrived, first if type(first) is Seen else Seen(0))
        elsewhere: Address | None = None
        if is_doubted or member.verdict is not None:
            if sender is not None and not member.is_found_at(sender):
                elsewhere = sender
            else:
                self._tell_the_dead(member)
        # Whoever floods us is alive, and that is all we take from it.
        if not self._budgets.take_key(member.node_id, self._ctx.now):
            self._ctx.dropped("member over budget")
            return
        checks = Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX)
        is_pinged = False
        for message in messages:
            if type(message) is Ping:
                if is_pinged:
                    self._ctx.dropped("second ping in a packet")
                    continue
                is_pinged = True
            if type(message) is not Seen:  # the detector took it above
                self._dispatch(member, message, checks, arrived)
        if elsewhere is not None:
            self._look_for(member, header, len(payload), elsewhere)

    def _look_for(self, member: Member, header: Header, size_bytes: int, sender: Address) -> None:
        """Ask who speaks from an unpublished address for its state there, unless the packet brought it."""
        if not member.is_found_at(sender) and self._moved.take_key(member.node_id, self._ctx.now):
            self._ctx.statistics.cookies_elsewhere += 1
            self._handshake.challenge(header, size_bytes, sender)
        self._tell_the_dead(member)

    def _challenge(self, header: Header, payload: bytes, sender: Address | None) -> None:
        if sender is not None:
            self._handshake.challenge(header, len(payload), sender)

    def _dispatch(self, member: Member, message: Message, checks: Checks, arrived: Instant) -> None:
        # Types are compared, most frequent first: `isinstance` on a struct that is another costs 0.15 us.
        if type(message) is Ping:
            self._detector.receive_ping(member, message, arrived)
            self._compare(member, message.group_sum, message.documents_sum)
        elif type(message) is Ack:
            self._detector.receive_ack(member, message, arrived)
            self._compare(member, message.group_sum, message.documents_sum)
        elif type(message) is SignedRecord:
            self._intake.take(message, member, checks)
        elif type(message) is Vote:
            self._detector.receive_vote(member, message, arrived, checks)
        else:
            self._plain[type(message)](member, message)

    def _compare(self, member: Member, group_sum: bytes | None, documents_sum: bytes | None) -> None:
        """Take the sums of a ping or an ack; equal ones prove that we hold what a peer holds."""
        if group_sum is None or documents_sum is None:
            return
        if group_sum == self._catalog.ledger.state_sum:
            self._view_whole()
        self._opening.compared(member, documents_sum)
        self._repair.compared(member, group_sum, documents_sum)

    def _view_whole(self) -> None:
        self._detector.view_complete()
        self._opening.view_whole()

    def _receive_want(self, member: Member, want: Want) -> None:
        if not self._wants.take_key(member.node_id, self._ctx.now):
            self._ctx.dropped("want over budget")
            return
        subject = self._catalog.get(want.subject)
        message = None if subject is None else subject.messages.get(want.kind)
        if message is not None:
            self._courier.send(member, [message], fill=False)

    def _receive_trust(self, member: Member, announcement: TrustAnnouncement) -> None:
        self._spreading.receive_trust(member, announcement)
        self._rolls.announced(member, announcement.version)

    def _tell_the_dead(self, member: Member) -> None:
        verdict = member.verdict_message
        if verdict is None or member.status is MemberStatus.LEFT:
            return
        if member.told_at >= 0 and self._ctx.now - member.told_at < SECOND_NS:
            return
        member.told_at = self._ctx.now
        self._courier.send(member, [verdict], fill=False)

    # A stream

    def stream_bytes(self, stream: StreamId, data: bytes) -> None:
        """Take bytes of a connection; one that brings what it may not is closed."""
        for fact in self._streams.receive(stream, data):
            try:
                self.take(fact)
            except MalformedInput as error:
                self.take(self._streams.spoil(stream, error))
                return

    def _stream_ended(self, session: Session) -> None:
        self._carriers.ended(session)
        if session.purpose == ROLL:
            self._rolls.ended(session)
        else:
            self.take(self._repair.ended(session))

    def _begin(self, session: Session) -> None:
        """Use a stream that we opened for what it was opened for."""
        assert session.member is not None
        if session.purpose == CARRY:
            self._detector.carried(self._carriers.ready(session))
            return
        if session.purpose == ROLL:
            self._rolls.begin(session)
            return
        is_proof = session.purpose == "ping"
        self._repair.begin(session)
        if is_proof:
            self._detector.proved_by_stream(session.member)

    def _receive_frame_untrusted(self, session: Session, message: FrameMessage) -> object:
        """Take a message of a stream: a packet on its carrier, or a step of a conversation."""
        if not isinstance(message, Packet):
            if session.purpose == CARRY:
                raise Untrusted("a conversation on a carrier")
            if session.purpose == ROLL or isinstance(message, FetchRoll | RollPiece):
                return self._rolls.receive_untrusted(session, message)
            return self._repair.receive(session, message)
        header, member = decode_header_untrusted(message.packet), session.member
        own = header.group_tag == self._ctx.group_tag and WIRE_MIN <= header.version <= WIRE_MAX
        if member is None or header.type != DATA or header.sender != member.short_id or not own:
            raise Untrusted("a packet of somebody else on a carrier")
        if self._carriers.received(session):
            self._detector.carried(member)
        self._receive_data_untrusted(header, message.packet, None, self._ctx.now)
        return None

    def cut_off(self, node_id: bytes) -> None:
        """End every stream with a node that is a member no more."""
        for ended in self._streams.cut_off(node_id):
            self.take(ended)

    # What rooms tell

    def take_all(self, facts: object) -> None:
        """Take what a timer brought: nothing, a fact, or one fact after the other."""
        if facts is None:
            return
        if isinstance(facts, Iterator):
            for fact in facts:
                self.take(fact)
        else:
            self.take(facts)

    def take(self, fact: object) -> None:
        """Do what follows from a fact; None is none."""
        match fact:
            case None:
                return
            case PeerMet():
                self._meet(fact)
            case StreamReady():
                self._begin(fact.session)
            case FrameReceived():
                self.take(self._receive_frame_untrusted(fact.session, fact.message))
            case RevokedCame():
                self._repair.shut_out(fact.session)
            case StreamEnded():
                self._stream_ended(fact.session)
            case RecordArrived():
                self._take_record(fact)
            case PolicyFetched():
                self._spreading.fetched_policy(fact.member_id, fact.scope, fact.data)
            case TrustFetched():
                self._spreading.fetched_trust(fact.member_id, fact.data)
            case ViewWhole():
                self._view_whole()
            case StateOutdated():
                self._intake.follow(self._own.publish_state(), None)
            case AnswerDue():
                self._intake.take(fact.record, None, Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX))
            case _:
                self._take_wish(fact)

    def _take_wish(self, fact: object) -> None:
        """Do what a room asks for and another does."""
        match fact:
            case LetIn():
                self._let_in(fact.member)
            case Outlived():
                self._ctx.notify(IdentityCopied(fact.address))
            case Unrivalled():
                self._intake.outbid(fact.epoch, fact.address, was_followed=True, was_told=fact.was_told)
            case TooLong():
                self._streams.open_at(fact.address)
            case RollTaken():
                self._take_roll(fact)
            case PingDue():
                self._ping(fact.member)
            case PingsDue():
                for member in fact.members:
                    self._ping(member)
            case _:
                raise TypeError(f"a fact that nothing follows from: {type(fact).__name__}")

    def _take_record(self, arrived: RecordArrived) -> None:
        self._courier.muted = arrived.is_quiet
        try:
            self._intake.take(arrived.record, arrived.session.member, arrived.checks)
        finally:
            self._courier.muted = False

    def _take_roll(self, taken: RollTaken) -> None:
        """Follow what a page changed, quietly: everybody gets the roll."""
        self._courier.muted = True
        try:
            for change in taken.changes:
                self._intake.follow(change, None)
        finally:
            self._courier.muted = False

    def _meet(self, met: PeerMet) -> None:
        """Take a peer that proved itself: link, state, and what it may not know of itself."""
        member = met.member
        if met.was_asked:
            self._entrance.answered()
        if self._is_overtaken(met):
            return
        self._courier.link_untrusted(member, met.run)
        shown = [record.body for record in met.records]
        newcomer = member.state is None
        for record in met.records:
            self._intake.take(record, member, met.checks)
        member.run = met.run
        self._detector.heard(member, self._ctx.now, None)
        if member.state is None:
            return
        messages = [self._detector.fresh_ping(member)]
        if shown and member.records[RecordKind.NODE_STATE].body not in shown:
            messages.append(member.messages[RecordKind.NODE_STATE])
        if (verdict := member.verdict_message) is not None:
            messages.append(verdict)
        self._courier.send(member, messages)
        if newcomer:
            self._courier.enqueue(
                (RecordKind.CREDENTIAL, member.node_id, b""), member.messages[RecordKind.CREDENTIAL]
            )
        if self._entrance.asked_nobody:
            self._let_in(member)

    def _is_overtaken(self, met: PeerMet) -> bool:
        """Tell whether another run of who proved itself is held, of a newer state that is from other places.

        Perhaps another agent uses its keys: the link is that one's, until this one signs above it.
        """
        held = met.member.state
        if held is None or met.run == met.member.run or not met.records:
            return False
        shown = decode_untrusted(met.records[0].body, NodeState, bytes_max=limits.RECORD_BYTES_MAX)
        if met.sender is None:
            is_here = any(address in held.gossip_addresses for address in shown.gossip_addresses)
        else:
            is_here = met.member.is_found_at(met.sender)
        return not is_here and self._catalog.holds_later(met.member, met.records[0], shown.order)

    def _let_in(self, member: Member) -> None:
        """Take our first table from whoever answered us, not from newcomers who come to us meanwhile."""
        if not self._entrance.is_in:
            self._entrance.answered()
            self._repair.sync(member)

    def _ping(self, member: Member) -> None:
        self._courier.send(member, [self._detector.fresh_ping(member)], fill=False)
