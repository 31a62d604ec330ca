"""Who is next: parties take turns, and so do the members of a party; nobody's crowd delays another.

Sans-IO. Two levels, sources of connections and what each asks for (a node's name, a token), because many
nodes may come from one address. A party waits with at most so many; the rest are turned away.
Of a member's own the oldest is next, or the newest: where more come than can ever be served, only those who
have not waited long are there still.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Waiting things by (party, member), taken in turns."""

    def __init__(self, *, per_party_max: int, all_max: int, newest_first: bool = False) -> None:
        self._newest_first = newest_first
        self._per_party_max = per_party_max
        self._all_max = all_max
        self._parties: OrderedDict[Hashable, OrderedDict[Hashable, deque[T]]] = OrderedDict()
        self._counts: dict[Hashable, int] = {}
        self.count = 0
        self.refused_count = 0

    def put(self, party: Hashable, member: Hashable, thing: T) -> bool:
        """Have a thing wait; False when its party, or everybody together, waits with enough."""
        held = self._counts.get(party, 0)
        if held >= self._per_party_max or self.count >= self._all_max:
            self.refused_count += 1
            return False
        self._parties.setdefault(party, OrderedDict()).setdefault(member, deque()).append(thing)
        self._counts[party] = held + 1
        self.count += 1
        return True

    def take(self) -> T | None:
        """Return the next thing; None when nothing waits. Cost: O(1)."""
        if not self._parties:
            return None
        party, members = self._parties.popitem(last=False)
        member, things = members.popitem(last=False)
        thing = things.pop() if self._newest_first else things.popleft()
        if things:
            members[member] = things
        if members:
            self._parties[party] = members
        self.count -= 1
        self._counts[party] -= 1
        if not self._counts[party]:
            del self._counts[party]
        return thing
