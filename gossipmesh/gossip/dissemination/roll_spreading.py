"""Fetches the roll piece by piece, gives it to others, and says which Trust and roll this node has.

Ends where `membership.resigning` takes a record. Rules:
1. Each piece is proven by its hash, so it does not matter who gives it: one member is asked at a time,
   whoever brought the Trust first, then one that announces that Trust, then any. Who is slow is not waited
   for.
2. A page is taken as it comes, in a step of its own. When the last is here, members that a dropped key signed
   and no page names are gone, and Trust is announced again: whoever awaits the roll learns where it is.
3. A node that is not on the roll is no member any more, and is told so.
Paper: none. Deviation: none.
"""

from typing import Final, NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import Revoked
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.membership.catalog import Catalog, Change
from gossipmesh.gossip.membership.facts import StateOutdated
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.own import OwnRecords, tell_successor
from gossipmesh.gossip.membership.resigning import has_dropped_signer, take_listed_untrusted
from gossipmesh.gossip.sessions.session import ROLL, Session
from gossipmesh.gossip.sessions.streams import Streams
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.instant import MILLISECOND_NS
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.wire.datagram import TrustAnnouncement, encode_message
from gossipmesh.wire.frames import FetchRoll, FrameMessage, RollPiece
from gossipmesh.wire.versions import HOLDS_TRUST, LACKS_ROLL, ROLLS, TRUST_FIELDS

_AGAIN_NS: Final = 100 * MILLISECOND_NS
_SLOW_NS: Final = 500 * MILLISECOND_NS  # without a piece: then another is asked as well
_AGAIN_DOUBLINGS_MAX: Final = 4  # up to 1.6 s, and as much again by lot
_PATIENT_TRIES: Final = 8  # in a mesh of thousands the roll has doubled as often by then
_DRAWN: Final = 8  # of so many drawn by lot the first that reads rolls is asked


class RollTaken(NamedTuple):
    """What a page of the roll changed of members."""

    changes: list[Change]


@kept.part("roll spreading")
class RollSpreading:
    """Where the roll is got from; `is_whole_news` until what follows from its last page is seen to."""

    def __init__(
        self, ctx: Context, catalog: Catalog, courier: Courier, own: OwnRecords, streams: Streams
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._own = own
        self._streams = streams
        self._roll = catalog.credentials.roll
        self._asked: bytes | None = None  # who is being asked
        self._tries = 0
        self.is_whole_news = False

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"roll": self._ask_anybody}

    # What we have

    def restore(self, pieces: tuple[bytes, ...]) -> None:
        """Take back the pieces on our disk, the index among them wherever it stands, and what they say."""
        is_behind = any(has_dropped_signer(self._catalog, member) for member in self._catalog)
        for piece in sorted(pieces, key=self._roll.is_index, reverse=True):
            try:
                records = self._roll.take_untrusted(piece, is_kept=True)
            except MalformedInput:
                self._ctx.refused("restored piece of the roll")
            else:
                self._take_records(records if is_behind else ())
        self._say_what_we_have()

    def start(self) -> None:
        """Ask for what is missing of the roll that our Trust names, and see whether we are on it."""
        self._look_for_ourselves()
        if self._roll.is_awaited:
            self._again()

    def follow_trust(self, origin_id: bytes) -> StateOutdated | None:
        """Ask for the roll that a newer Trust names; return that our state says something else now."""
        if self._roll.follow_trust():
            self._tries = 0
        if self._roll.is_awaited and self._asked is None and not self._ask(origin_id):
            self._again()
        return StateOutdated() if self._say_what_we_have() else None

    def _say_what_we_have(self) -> bool:
        """Put our Trust, and whether its roll is missing, among our words; tell whether that is another."""
        if TRUST_FIELDS not in self._own.state.features:
            return False
        trust = self._ctx.documents.trust
        words = {f"{HOLDS_TRUST}{0 if trust is None else trust.version}"}
        words |= {LACKS_ROLL} if self._roll.is_awaited else set()
        said = {word for word in self._own.words if word.startswith(HOLDS_TRUST) or word == LACKS_ROLL}
        for word in sorted(said - words):
            self._own.unsay(word)
        for word in sorted(words - said):
            self._own.say(word)
        return words != said

    # Fetching

    def announced(self, member: Member, version: int) -> None:
        """Ask a member that announces our Trust for the roll: it has got it, or soon will have."""
        trust = self._ctx.documents.trust
        if self._roll.is_awaited and self._asked is None and trust is not None and trust.version <= version:
            self._ask(member.node_id)

    def _ask(self, member_id: bytes) -> bool:
        member = self._catalog.get(member_id)
        if member is None or member_id == self._catalog.own_id or not _reads_rolls(member):
            return False
        if not self._streams.open_to(member, ROLL):
            return False
        self._asked = bytes(member_id)
        self._ctx.timers.set(("roll", None), self._ctx.now + _SLOW_NS)
        return True

    def _ask_anybody(self) -> None:
        """Ask a member drawn by lot for what is missing; one that is slow to answer is not waited for."""
        if not self._roll.is_awaited:
            return
        members = self._catalog.reachable
        drawn = self._ctx.rng.sample(members, min(_DRAWN, len(members)))
        if not any(self._ask(member.node_id) for member in drawn):
            self._again()

    def _again(self) -> None:
        wait_ns = _AGAIN_NS << min(_AGAIN_DOUBLINGS_MAX, self._tries // _PATIENT_TRIES)
        self._tries += 1
        self._ctx.timers.set(("roll", None), self._ctx.now + wait_ns + self._ctx.rng.randrange(wait_ns))

    def begin(self, session: Session) -> None:
        """Say on an opened stream which piece is wanted first."""
        self._go_on(session)

    def _go_on(self, session: Session) -> None:
        missing = self._roll.next_missing()
        if missing is not None:
            self._streams.say(session, FetchRoll(missing))
            return
        session.completed = True
        self._close(session)

    def _close(self, session: Session) -> None:
        if self._streams.close(session):
            self.ended(session)

    def ended(self, session: Session) -> None:
        """Ask somebody else if the stream ended before all was here."""
        if session.expected is not None and session.expected.node_id == self._asked:
            self._asked = None
            if self._roll.is_awaited:
                self._again()

    def receive_untrusted(self, session: Session, message: FrameMessage) -> RollTaken | None:
        """Answer a question for a piece, or take the answer to ours and ask on.

        Raises:
            MalformedInput: a message out of place, or a piece of another roll. Remote's fault; the stream
                ends. State unchanged.
        """
        if isinstance(message, FetchRoll):
            self._answer_untrusted(session, message)
            return None
        if not isinstance(message, RollPiece) or not session.opener or session.purpose != ROLL:
            raise Untrusted("a piece of the roll that nobody asked for, or something else in its place")
        if not message.data:
            self._close(session)
            return None
        taken = self.offer_untrusted(message.data)
        if self._roll.is_awaited:
            self._ctx.timers.set(("roll", None), self._ctx.now + _SLOW_NS)
        self._go_on(session)
        return taken

    def _answer_untrusted(self, session: Session, question: FetchRoll) -> None:
        session.pages_count += 1
        if session.opener or session.pages_count > limits.ROLL_PAGES_MAX + 1:
            raise Untrusted("a question for the roll out of place, or more than there are pages")
        self._streams.say(session, RollPiece(self._roll.piece(question.piece)))

    # Taking

    def offer_untrusted(self, data: bytes) -> RollTaken:
        """Take a piece; one that is held already changes nothing.

        Raises:
            MalformedInput: no piece of the roll that our Trust names. Whoever made it is at fault. State
                unchanged.
        """
        was_awaited = self._roll.is_awaited
        changes = self._take_records(self._roll.take_untrusted(data))
        self._tries = 0
        if was_awaited and not self._roll.is_awaited:
            self._whole()
        return RollTaken(changes)

    def _take_records(self, records: tuple[SignedRecord, ...]) -> list[Change]:
        changes: list[Change] = []
        for record in records:
            try:
                credential = self._catalog.credentials.open_listed_untrusted(record)
                if credential.node_id == self._catalog.own_id:
                    self._take_own(credential, record)
                else:
                    change = take_listed_untrusted(self._catalog, credential, record)
                    changes += [] if change is None else [change]
            except MalformedInput as error:
                self._ctx.refused(f"on the roll: {type(error).__name__}")
        return changes

    def _take_own(self, credential: NodeCredential, record: SignedRecord) -> None:
        """Go on by our own credential as the roll has it, unless one that counts is ours already."""
        own = self._catalog.get(self._catalog.own_id)
        assert own is not None
        held = own.credential
        if (credential.generation, credential.signing_key, credential.exchange_key) != (
            held.generation,
            held.signing_key,
            held.exchange_key,
        ):
            tell_successor(self._ctx, self._catalog, credential)
        elif has_dropped_signer(self._catalog, own):
            self._own.go_on_by(credential, record)

    def _whole(self) -> None:
        """See to what follows once nothing is missing, and tell others where the roll is."""
        self.is_whole_news = True
        self._ctx.timers.cancel(("roll", None))
        trust = self._ctx.documents.trust
        assert trust is not None
        self._courier.push([encode_message(TrustAnnouncement(trust.version))], b"")

    def settle(self) -> StateOutdated | None:
        """Note that who is on no page is seen to; return that our state says something else now."""
        self.is_whole_news = False
        self._look_for_ourselves()
        return StateOutdated() if self._say_what_we_have() else None

    def _look_for_ourselves(self) -> None:
        """Tell the shell if the roll is here and we are not on it (rule 3)."""
        own = self._catalog.get(self._catalog.own_id)
        assert own is not None
        if self._roll.name and not self._catalog.credentials.counts(own.signer):
            self._ctx.notify(Revoked(own.credential.generation))


def _reads_rolls(member: Member) -> bool:
    state = member.state
    return state is not None and ROLLS in state.features
