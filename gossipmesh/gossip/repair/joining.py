"""The first table of a newcomer: page by page, and from several peers at once when it is long.

Rules:
1. The first page comes from whoever let us in. If there are more, what is left is cut into ranges of
   buckets that up to four peers serve; a peer that fails leaves its range to another.
2. When all ranges are here, one comparison finds what moved meanwhile, and is the proof.
Paper: none; memberlist's push/pull sends the whole table at once. Deviation: that.
"""

from collections import deque
from enum import Enum
from itertools import pairwise
from typing import Final, NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import StreamId
from gossipmesh.gossip.dissemination.documents import PolicySpreading
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.sessions.session import Session
from gossipmesh.gossip.sessions.streams import Streams
from gossipmesh.wire.frames import BUCKETS_COUNT, Table

_PEERS_MAX: Final = 4
_RANGES_COUNT: Final = 16


@kept.value("range")
class Range(NamedTuple):
    """Buckets still to come: `first` to before `until`, subjects above `after`."""

    first: int
    until: int
    after: bytes


class Next(Enum):
    """What is to be done with a stream next."""

    WAIT = "wait for what was asked for"
    COMPARE = "compare with its peer"
    CLOSE = "close it"
    END = "take it for ended: it brought all there is"


@kept.part("joining")
class Joining:
    """Which ranges are here, and who is asked for which."""

    def __init__(self, ctx: Context, catalog: Catalog, streams: Streams, spreading: PolicySpreading) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._streams = streams
        self._spreading = spreading
        self._ranges: deque[Range] = deque([Range(0, BUCKETS_COUNT, b"")])
        self._active: dict[StreamId, Range] = {}
        self._peers: dict[StreamId, bytes] = {}
        self._opening: set[bytes] = set()
        self._split = False
        self.done = False

    def begin(self, session: Session) -> Next:
        """Ask a peer for the next range; when none is left, compare with it."""
        session.purpose = "table"
        if session.expected is not None:
            self._opening.discard(session.expected.node_id)
        if not self._ranges:
            return self._finish_with(session)
        self._active[session.stream] = self._ranges.popleft()
        self._peers[session.stream] = session.peer_id
        self._ask(session)
        self._recruit()
        return Next.WAIT

    def _ask(self, session: Session) -> None:
        self._streams.say(session, Table(self._spreading.summary(), *self._active[session.stream]))

    def receive_turn(self, session: Session, after: bytes) -> Next:
        """Go on after a page that was not the last of its range."""
        held = self._active.get(session.stream)
        if held is None or not after or after <= held.after:
            return Next.CLOSE
        rest = Range(max(held.first, after[0]), held.until, after)
        if not self._split:
            self._split = True
            rest = self._cut(rest)
        self._active[session.stream] = rest
        self._ask(session)
        self._recruit()
        return Next.WAIT

    def _cut(self, rest: Range) -> Range:
        """Cut what is left into ranges; return the first, which goes on where the page ended."""
        step = max(1, (rest.until - rest.first) // _RANGES_COUNT)
        edges = [*range(rest.first, rest.until, step), rest.until]
        pieces = [Range(first, until, b"") for first, until in pairwise(edges)]
        self._ranges.extend(pieces[1:])
        return pieces[0]._replace(after=rest.after)

    def _recruit(self) -> None:
        """Ask further members that we know by now to serve ranges as well."""
        if not self._split:
            return
        streams = len(self._active) + len(self._opening)
        if streams >= min(_PEERS_MAX, len(self._active) + len(self._ranges)):
            return
        members = [member for member in self._catalog.reachable if member.run]
        for member in self._ctx.rng.sample(members, min(_PEERS_MAX, len(members))):
            if streams >= _PEERS_MAX:
                return
            asked = member.node_id in self._opening or member.node_id in self._peers.values()
            if not asked and self._streams.open_to(member, "table"):
                self._opening.add(member.node_id)
                streams += 1

    def receive_done(self, session: Session) -> Next:
        """Take the end of a range; END when that was the end of a whole table that one peer sent."""
        self._active.pop(session.stream, None)
        if not self._split and not self._ranges:
            self.done = True
            return Next.END
        return self.begin(session) if self._ranges else self._finish_with(session)

    def _finish_with(self, session: Session) -> Next:
        """Compare with the last peer at work; the others are not needed any more."""
        if self._active or self.done:
            session.completed = True
            return Next.CLOSE
        self.done = True
        session.purpose = "sync"
        return Next.COMPARE

    def ended(self, session: Session) -> None:
        """Leave the range of a stream that ended early to another."""
        if session.expected is not None:
            self._opening.discard(session.expected.node_id)
        self._peers.pop(session.stream, None)
        held = self._active.pop(session.stream, None)
        if held is not None:
            self._ranges.append(held)
            self._recruit()

    @property
    def wanted(self) -> bool:
        """Tell whether a stream should bring (a part of) a first table: we know nobody, or it has begun."""
        if not self._split and not self._active and len(self._catalog) > 2:
            self.done = True
        return not self.done

    @property
    def active(self) -> bool:
        """Tell whether some peer is being asked."""
        return bool(self._active or self._opening)
