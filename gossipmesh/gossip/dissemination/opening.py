"""Whether this node answers calls yet: it is closed until it runs what the mesh runs, by its peers' word.

Who joins and knows no policy would let anybody call; who cannot verify the set in force would as well. So a
node that has confirmed no set on its disk is closed, and says so in its signed state.
Rules:
1. Confirmed is a word on the disk, synced with what it confirms; who has it is open at its start, whoever is
   there, and no claim of anybody closes a node that is open.
2. Another opens once enough members that are open by their own signed state, each proven by a packet that
   only it can have sealed, name our very documents: min(3, enrolled - 1) of them, and more than name others.
3. After a minute fewer are enough, one at least, and that is told loudly: the others may be gone.
4. The founder of a mesh opens at once, as the authority says who that is; so does the only node enrolled.
5. A hand opens always, and everybody sees that it did.
Paper: none; TUF 5.3 has each client alone before its repository. Deviation: members answer for the
repository, which may be gone.
"""

from collections.abc import Iterator
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import Opened, PersistKind
from gossipmesh.gossip.base.settings import OpeningView
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.base.writes import Continuations
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.facts import PingsDue, StateOutdated
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.own import OwnRecords
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.opening import (
    CLOSED,
    OPENED_BY_HAND,
    PEERS_MAX,
    PEERS_UNKNOWN,
    HowOpened,
    KeptOpening,
    Unconfirmed,
)
from gossipmesh.wire.codec import encode

FEWER_AFTER_NS: Final = 60 * SECOND_NS
_TICK_NS: Final = 100 * MILLISECOND_NS  # a join takes a few of them
_PATIENT_TICK_NS: Final = SECOND_NS
_PATIENT_AFTER_NS: Final = 10 * SECOND_NS
_ASKED_AT_ONCE: Final = 3
_HEARD_MAX: Final = 64  # members whose word is kept; of more the longest silent one makes way


@kept.part("opening")
class Opening:
    """What closed members wait for, and the one way from closed to open."""

    def __init__(
        self, ctx: Context, catalog: Catalog, own: OwnRecords, unconfirmed: Unconfirmed | None
    ) -> None:
        """`unconfirmed`: what is known of a node that has confirmed nothing; None: it is open."""
        self._ctx = ctx
        self._catalog = catalog
        self._own = own
        self.is_closed = unconfirmed is not None
        self._is_founder = unconfirmed is not None and unconfirmed.is_founder
        self._needed_count = 0 if unconfirmed is None else peers_needed(unconfirmed.enrolled_count)
        self._is_whole = False  # we went through all that some member holds
        self._is_writing = False
        self._closed_at = ctx.now
        self._heard: dict[bytes, bytes] = {}  # the documents sum each member last showed, the latest last
        if self.is_closed:
            own.say(CLOSED)

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"opening": self._look}

    def continuations(self) -> Continuations:
        """Return what goes on here after a durable write, by its kind."""
        return {"opening": self._written}

    def start(self) -> None:
        """Begin to look for members that name what we run; the founder looks for none."""
        if not self.is_closed:
            return
        self._closed_at = self._ctx.now
        if self._is_founder:
            self._confirm(HowOpened.FOUNDER, 0)
        elif self._needed_count == 0:
            self._confirm(HowOpened.ALONE, 0)
        else:
            self._ctx.timers.set(("opening", None), self._ctx.now + _TICK_NS)

    def compared(self, member: Member, documents_sum: bytes) -> None:
        """Note which documents a member names, by a packet that nobody else can have sealed."""
        if not self.is_closed:
            return
        self._heard.pop(bytes(member.node_id), None)
        self._heard[bytes(member.node_id)] = documents_sum
        if len(self._heard) > _HEARD_MAX:
            del self._heard[next(iter(self._heard))]
        self._judge()

    def view_whole(self) -> None:
        """Note that we hold all that some member holds, whom it revoked included."""
        self._is_whole = True

    def open_by_hand(self) -> None:
        """Open on the operator's word; one that is open stays as it is."""
        if self.is_closed and not self._is_writing:
            self._confirm(HowOpened.BY_HAND, len(self._sides()[0]))

    def view(self) -> OpeningView:
        """Return how it stands, for people."""
        agreed, differing = self._sides() if self.is_closed else ([], [])
        return OpeningView(
            is_closed=self.is_closed,
            closed_ns=self._ctx.now - self._closed_at if self.is_closed else 0,
            needed_count=self._enough(),
            agreed=tuple(sorted(member.name for member in agreed)),
            differing=tuple(sorted(member.name for member in differing)),
            is_whole=self._is_whole,
        )

    def _sides(self) -> tuple[list[Member], list[Member]]:
        """Return the open members that name our documents, and those that name others."""
        agreed: list[Member] = []
        differing: list[Member] = []
        for node_id, documents_sum in self._heard.items():
            member = self._catalog.get(node_id)
            if member is not None and is_open(member):
                own_sum = self._catalog.sums.documents_for(member)
                (agreed if documents_sum == own_sum else differing).append(member)
        return agreed, differing

    def _enough(self) -> int:
        is_late = self._ctx.now - self._closed_at >= FEWER_AFTER_NS
        return min(1, self._needed_count) if is_late else self._needed_count

    def _judge(self) -> None:
        """Open if enough members name what we run, and more than name anything else."""
        if self._is_writing or not self._is_whole:
            return
        agreed, differing = self._sides()
        if len(agreed) >= self._enough() and len(agreed) > len(differing):
            is_fewer = len(agreed) < self._needed_count
            self._confirm(HowOpened.BY_FEWER if is_fewer else HowOpened.BY_PEERS, len(agreed))

    def _look(self) -> PingsDue | None:
        """Judge anew, for what we run may have changed; ask some that have not named it yet."""
        if not self.is_closed:
            return None
        self._judge()
        waited_ns = self._ctx.now - self._closed_at
        gap_ns = _TICK_NS if waited_ns < _PATIENT_AFTER_NS else _PATIENT_TICK_NS
        self._ctx.timers.set(("opening", None), self._ctx.now + gap_ns)
        sums = self._catalog.sums
        asked = [
            member
            for member in self._catalog.reachable
            if member.run
            and is_open(member)
            and self._heard.get(bytes(member.node_id)) != sums.documents_for(member)
        ]
        return PingsDue(self._ctx.rng.sample(asked, min(_ASKED_AT_ONCE, len(asked))))

    def _confirm(self, how: HowOpened, agreed_count: int) -> None:
        """Put on disk, after all that is there already, that what we run is what the mesh runs."""
        self._is_writing = True
        self._ctx.persist_durably(
            PersistKind.OPENING, b"", encode(KeptOpening(str(how))), ("opening", (str(how), agreed_count))
        )

    def _written(self, subject: tuple[str, int]) -> Iterator[StateOutdated]:
        """Be open: the disk says so."""
        how, agreed_count = HowOpened(subject[0]), subject[1]
        self.is_closed = self._is_writing = False
        self._ctx.timers.cancel(("opening", None))
        self._heard.clear()
        self._own.unsay(CLOSED)
        if how is HowOpened.BY_HAND:
            self._own.say(OPENED_BY_HAND)
        self._ctx.notify(Opened(str(how), agreed_count, self._needed_count))
        yield StateOutdated()


def peers_needed(enrolled_count: int) -> int:
    """Return how many members a joiner compares with, itself among `enrolled_count`; 0: that is not known."""
    return PEERS_UNKNOWN if enrolled_count <= 0 else min(PEERS_MAX, enrolled_count - 1)


def is_open(member: Member) -> bool:
    """Tell whether a member serves, by its own signed word; one of a build that has no such word does."""
    state = member.state
    if state is None or member.status is not MemberStatus.ALIVE:
        return False
    return CLOSED not in state.features
