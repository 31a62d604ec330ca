"""Carriers: streams on which packets travel to members whom datagrams do not reach, or who do not reach us.

A packet goes by UDP as ever and by the carrier too, sealed as it is; the replay window drops whichever comes
second. So whatever is said in packets (beats, pings, votes, announcements) is said at their pace. Who needs a
carrier is `failure`'s to find (`ways`). Rules:
1. A carrier carries packets of its two ends alone, and nothing else is asked on it.
2. Of two that both ends opened, that of the lesser id stays; before one ends by its age another is opened.
3. So many members have one; who is beyond that is counted.
4. A peer of the first builds passes over such frames: it loses nothing, for every packet went by UDP as well.
Paper: none; memberlist falls back on TCP for one ping alone. Deviation: none.
"""

from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.sessions.session import CARRY, Session
from gossipmesh.gossip.sessions.streams import Streams
from gossipmesh.model import limits
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.wire.frames import Packet

_RENEWED_NS: Final = 5 * SECOND_NS  # before its end: longer than a stream may take to open


@kept.part("carriers")
class Carriers:
    """The carrier of each member that has one; `datagram_at` is when the last datagram of anybody came."""

    def __init__(self, ctx: Context, own_id: bytes, streams: Streams) -> None:
        self._ctx = ctx
        self._own_id = own_id
        self._streams = streams
        self._sessions: dict[bytes, Session] = {}
        self.datagram_at = -1

    def stands(self, member: Member) -> bool:
        """Tell whether a member has a carrier."""
        return member.node_id in self._sessions

    def others(self, chosen: list[Member], except_id: bytes) -> list[Member]:
        """Return the members with a carrier that are not among the chosen: random ones may not reach them."""
        if not self._sessions:
            return []
        named = {member.node_id for member in chosen} | {except_id}
        carried = [session.member for node_id, session in self._sessions.items() if node_id not in named]
        return [member for member in carried if member is not None]

    def keep(self, member: Member) -> bool:
        """See that a member has a carrier that lasts; False when that cannot be tried."""
        session = self._sessions.get(member.node_id)
        if session is not None:
            is_old = session.opener and session.ends_at - self._ctx.now < _RENEWED_NS
            return not is_old or self._open(member)
        if len(self._sessions) >= limits.CARRIERS_MAX:
            self._ctx.dropped("carrier over limit")
            return False
        return self._open(member)

    def _open(self, member: Member) -> bool:
        return self._streams.opens(member, CARRY) or self._streams.open_to(member, CARRY)

    def ready(self, session: Session) -> Member:
        """Take a carrier that we opened; the one before it has served."""
        member = session.member
        assert member is not None
        session.completed = True
        before = self._sessions.get(member.node_id)
        if before is not None and not before.opener and self._own_id > member.node_id:
            self._streams.close(session)
            return member
        self._sessions[member.node_id] = session
        if before is not None:
            self._streams.close(before)
        return member

    def received(self, session: Session) -> bool:
        """Take a packet's frame of a stream; True when with it a member has a carrier that had none.

        Raises:
            Untrusted: on a stream opened for something else, or one member more than may have a carrier.
                Remote's fault; the stream ends.
        """
        if session.purpose == CARRY:
            return False
        if session.opener or session.purpose != "serve" or session.questions_count or session.pages_count:
            raise Untrusted("a packet on a stream of another purpose")
        held = self._sessions.get(session.peer_id)
        if held is None and len(self._sessions) >= limits.CARRIERS_MAX:
            self._ctx.dropped("carrier over limit")
            raise Untrusted("one carrier more than there may be")
        session.purpose = CARRY
        if held is not None and held.opener and self._own_id < session.peer_id:
            return False  # ours stays, and the peer will close its own
        self._sessions[session.peer_id] = session
        if held is not None:
            self._streams.close(held)
        return held is None

    def ended(self, session: Session) -> None:
        """Forget a carrier that is no more."""
        if self._sessions.get(session.peer_id) is session:
            del self._sessions[session.peer_id]

    def carry(self, member: Member, packet: bytes) -> None:
        """Send a sealed packet by the member's carrier, if it has one."""
        session = self._sessions.get(member.node_id)
        if session is not None:
            self._ctx.statistics.packets_carried += 1
            self._streams.say(session, Packet(packet))

    def drop(self, member: Member) -> None:
        """Close a member's carrier."""
        session = self._sessions.pop(member.node_id, None)
        if session is not None:
            self._streams.close(session)
