"""By which way a member is reached: datagrams, or streams alone, because something drops its UDP.

Two streams in a row that prove a member whom pings did not reach, with no datagram of it between them, begin
a doubt: a few pings by datagram alone. Where all are lost, packets to it go by a carrier as well
(`dissemination.carriers`), and it answers by that; pings by datagram alone go on, to see when the way is open
again. Rules:
1. A try counts if it was answered and datagrams of the member came meanwhile: so the way is open both ways.
   Both ends try, so both see that.
2. A carrier stays until most tries of the last eight seconds counted: a way that comes and goes, and one that
   loses much, changes little.
3. Only whom no datagram reached at all for eight tries is called TCP only: a lossy way is none such.
4. Where that holds of most others, or of somebody while datagrams come from nobody, it is this node whose UDP
   is dropped.
5. A member's streams prove its life as its packets do: each is authentic and of its present run.
Paper: none; SWIM section 3 knows one kind of packet. Deviation: that.
"""

from collections import deque
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import DatagramsLost, WayChanged
from gossipmesh.gossip.base.own_loss import DATAGRAMS_QUIET_NS, is_own_loss
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.dissemination.carriers import Carriers
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.prober import Prober
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model import limits
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import MemberStatus

_PROOFS_APART_NS: Final = 10 * SECOND_NS  # monitors prove a silent target every 2.25 s
_PROOFS: Final = 2  # one of the two ends hears no datagram of the other between them
_PROOFS_OF_THE_DEAF: Final = 4  # and should it be kept from opening streams, the other finds out more slowly
_PROOFS_MAX: Final = 64
_DOUBTS: Final = 3
_TRY_NS: Final = 500 * MILLISECOND_NS
_TRIES_MAX: Final = 16  # eight seconds
_TRIES_ENOUGH: Final = 12
_SURE: Final = 8
_UNSURE: Final = 3
_SURE_OPEN: Final = 6
_OPENINGS_MAX: Final = 8  # tries in a row without a carrier: then it is no stream that is missing


@kept.value("way")
class Way:
    """What is known of the way to one member; `tries`: 1 for each that counted."""

    __slots__ = ("acked", "openings", "sent_at", "sequence", "tries")

    def __init__(self) -> None:
        self.tries: deque[int] = deque(maxlen=_TRIES_MAX)
        self.sequence = 0
        self.sent_at = -1
        self.acked = False
        self.openings = 0

    def last(self, count: int) -> int:
        """Return how many of the last tries counted."""
        return sum(list(self.tries)[-count:])


@kept.part("ways")
class Ways:
    """The members whose way is in doubt, or is a stream's."""

    def __init__(
        self, ctx: Context, catalog: Catalog, courier: Courier, prober: Prober, carriers: Carriers
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._prober = prober
        self._carriers = carriers
        self._ways: dict[bytes, Way] = {}
        self._proofs: dict[bytes, tuple[int, int]] = {}
        self._is_own = False

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"way": self._due}

    def proved(self, member: Member) -> None:
        """Doubt the way to a member that streams alone prove alive, time after time."""
        if member.node_id in self._ways:
            return
        last, count = self._proofs.pop(member.node_id, (-_PROOFS_APART_NS, 0))
        count = count + 1 if self._ctx.now - last < _PROOFS_APART_NS else 1
        enough = _PROOFS if member.datagram_at < last else _PROOFS_OF_THE_DEAF
        if count < enough:
            self._proofs[member.node_id] = (self._ctx.now, count)
            if len(self._proofs) > _PROOFS_MAX:
                del self._proofs[next(iter(self._proofs))]
        elif self._begin(member) is not None:
            self._try(member)

    def carried(self, member: Member) -> None:
        """Note that a member has a carrier, whichever end opened it."""
        way = self._ways.get(member.node_id) or self._begin(member)
        if way is None:
            self._carriers.drop(member)
            return
        way.openings = 0
        if member.carried_since < 0:
            self._carry(member)
            self._try(member)

    def acked(self, member: Member, sequence: int) -> None:
        """Take a direct ack."""
        self._proofs.pop(member.node_id, None)
        way = self._ways.get(member.node_id)
        if way is not None and way.sequence == sequence:
            way.acked = True

    def forget(self, member: Member) -> None:
        """Drop what is known of the way to a member."""
        self._proofs.pop(member.node_id, None)
        if self._ways.pop(member.node_id, None) is None:
            return
        self._ctx.timers.cancel(("way", member.node_id))
        self._carriers.drop(member)
        member.carried_since = -1
        self._mark(member, is_tcp_only=False)

    def _begin(self, member: Member) -> Way | None:
        if len(self._ways) >= limits.CARRIERS_MAX:
            self._ctx.dropped("way over limit")
            return None
        way = self._ways[member.node_id] = Way()
        return way

    def _carry(self, member: Member) -> None:
        member.carried_since = self._ctx.now
        self._carriers.keep(member)

    def _try(self, member: Member) -> None:
        """Ping a member by datagram alone; whether that counts is judged when the next is due."""
        way = self._ways[member.node_id]
        way.sequence, way.sent_at, way.acked = self._prober.ping_by_datagram(member), self._ctx.now, False
        wait_ns = self._prober.direct_wait_ns() if member.carried_since < 0 else _TRY_NS
        self._ctx.timers.set(("way", member.node_id), self._ctx.now + wait_ns)

    def _due(self, node_id: bytes) -> None:
        """Judge the last try, and what follows from all of them (timer `way`)."""
        way, member = self._ways[node_id], self._catalog.get(node_id)
        if member is None:
            del self._ways[node_id]
            return
        if member.status in (MemberStatus.DEAD, MemberStatus.LEFT):
            self.forget(member)
            return
        came = member.datagram_at >= way.sent_at - _TRY_NS
        way.tries.append(int(way.acked and came))
        if member.carried_since >= 0:
            self._go_on(member, way)
        elif way.last(_DOUBTS):
            self.forget(member)
        elif len(way.tries) >= _DOUBTS:
            self._carry(member)
        if node_id in self._ways:
            self._try(member)

    def _go_on(self, member: Member, way: Way) -> None:
        """Keep the carrier while it is needed; what is held is compared by it, as by any packet."""
        stands = self._carriers.stands(member)
        way.openings = 0 if stands else way.openings + 1
        # Of the two ends one finds first that the way is open; the other does not open a carrier anew.
        is_open = way.last(_TRIES_MAX) >= _TRIES_ENOUGH or (not stands and way.last(_SURE) >= _SURE_OPEN)
        if is_open or way.openings > _OPENINGS_MAX:
            self.forget(member)
            return
        self._carriers.keep(member)
        self._courier.send(member, [self._prober.fresh_ping(member)])
        if len(way.tries) >= _SURE and not way.last(_SURE):
            self._mark(member, is_tcp_only=self._carriers.stands(member))
        elif way.last(_SURE) >= _UNSURE:
            self._mark(member, is_tcp_only=False)

    def _mark(self, member: Member, *, is_tcp_only: bool) -> None:
        if member.is_tcp_only is not is_tcp_only:
            member.is_tcp_only = is_tcp_only
            what = "tcp-only" if is_tcp_only else "datagrams-again"
            health = self._prober.health.score
            self._ctx.history.note(
                self._ctx.now, member.node_id, what, self._catalog.own_node_id, "", "", health
            )
            self._ctx.notify(WayChanged(member.node_id, member.name, is_tcp_only))
        self._judge_own()

    def _judge_own(self) -> None:
        """Tell when it is our own datagrams that are lost (rule 4), and when that is over."""
        members = map(self._catalog.get, self._ways)
        count = sum(member is not None and member.is_tcp_only for member in members)
        self._ctx.statistics.tcp_only = count
        is_quiet = self._ctx.now - self._carriers.datagram_at >= DATAGRAMS_QUIET_NS
        is_own = is_own_loss(count, len(self._catalog.reachable), is_quiet=is_quiet)
        if is_own is not self._is_own:
            self._is_own = is_own
            self._ctx.notify(DatagramsLost(is_own))
