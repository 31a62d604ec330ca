"""Who serves, whom packets go to, and who died lately; kept as members change, never counted anew.

A table of ten thousand members that is joined in one go would otherwise be walked ten thousand times.
Rules:
1. Reachable are those who serve and are attended, without ourselves: probes, ticks and pushes go to them.
2. Those who left are only counted: nothing is ever sent to them, nor to ourselves when we are held dead.
Paper: memberlist's GossipToTheDead for the recently dead. Deviation: none.
"""

from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.member import MemberStatus

_UNCOUNTED: Final = -1


@kept.part("standing")
class Standing:
    """Members by what is done with them; the order of `reachable` is that of arrival until one goes."""

    def __init__(self, own_id: bytes) -> None:
        self._own_id = own_id
        self._served_aside: set[bytes] = set()  # in use, and no packets go there
        self.reachable: list[Member] = []
        self._dead: dict[bytes, Member] = {}
        self._counts = [0] * len(MemberStatus)

    @property
    def serving_count(self) -> int:
        """Return how many members are neither dead nor left, ourselves included."""
        return len(self.reachable) + len(self._served_aside)

    @property
    def by_status(self) -> dict[MemberStatus, int]:
        """Return how many members with a state there are of each status, ourselves included."""
        return {status: self._counts[status] for status in MemberStatus}

    def note(self, member: Member) -> None:
        """Take a member's status as it is now."""
        node_id = member.node_id
        self._count(member, _UNCOUNTED if member.messages.state is None else int(member.status))
        reachable = (
            member.serving and member.status is not MemberStatus.UNATTENDED and node_id != self._own_id
        )
        if member.serving and not reachable:
            self._served_aside.add(node_id)
        else:
            self._served_aside.discard(node_id)
        if reachable and member.place < 0:
            member.place = len(self.reachable)
            self.reachable.append(member)
        elif not reachable:
            self._unplace(member)
        if member.status is not MemberStatus.DEAD or node_id == self._own_id:
            self._dead.pop(node_id, None)
        elif node_id not in self._dead:
            self._dead[node_id] = member

    def drop(self, member: Member) -> None:
        """Forget a member."""
        self._served_aside.discard(member.node_id)
        self._count(member, _UNCOUNTED)
        self._unplace(member)
        self._dead.pop(member.node_id, None)

    def recently_dead(self, since: int) -> list[Member]:
        """Return who died after `since`, the last first."""
        recent: list[Member] = []
        for member in reversed(self._dead.values()):
            if member.changed_at < since:
                break
            recent.append(member)
        return recent

    def _count(self, member: Member, status: int) -> None:
        if member.counted_as != _UNCOUNTED:
            self._counts[member.counted_as] -= 1
        if status != _UNCOUNTED:
            self._counts[status] += 1
        member.counted_as = status

    def _unplace(self, member: Member) -> None:
        if member.place < 0:
            return
        last = self.reachable.pop()
        if last is not member:
            self.reachable[member.place] = last
            last.place = member.place
        member.place = -1
