"""Places: how many connections of a listener each party may hold, and whose goes when there are none left.

Sans-IO: ends at who is admitted and who is evicted; accepting, closing and telling are the shell's. Rules:

1. A place is *unfinished* (nothing proven, no request yet), *idle* (between requests) or *busy*. A busy one
   is never taken from its holder.
2. A party at its share takes the place of its own oldest unfinished connection, then of its oldest idle one.
   A newcomer to a room that is full takes anybody's in the same order: of the few that come first, one of
   whoever holds most. So a crowd of several parties takes its own, and nobody's who came alone.
3. Where none can be taken the newcomer may have one of a few spare places, on which it is only told that the
   room is full. Spare places are ruled alike, so that whoever fills a room does not silence it as well.
4. Every eviction and refusal is counted, with room and reason. Rooms share nothing.
"""

import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from itertools import chain, islice
from typing import Final

UID: Final = "uid"
SOURCE: Final = "source"
IDENTITY: Final = "identity"
NODE: Final = "node"
UNKNOWN: Final = "unknown"

# Of a room's places, what one party may hold: half, so that others find some whoever came first. All
# identities that come from one address together may hold a little more than one of them.
_SHARES: Final = {UID: 0.5, SOURCE: 0.5, IDENTITY: 0.5, NODE: 0.75}
_EVICTIONS_TRIED_MAX: Final = 8  # an idle connection whose next request is arriving is passed over
_MAPPED: Final = "::ffff:"
_PREFIX_BYTES: Final = 8  # one subscriber's IPv6 network is a /64 (RFC 6177)

Party = tuple[str, str]


class Stage(IntEnum):
    """How far a connection has come."""

    UNFINISHED = 0
    IDLE = 1
    BUSY = 2


# A member is found through its class each time; there are two changes of stage for each request.
_UNFINISHED: Final = Stage.UNFINISHED
_IDLE: Final = Stage.IDLE
_BUSY: Final = Stage.BUSY


class _Holding:
    """What the whole room, or one party of it, holds; those that may be evicted in the order they came."""

    __slots__ = ("count", "idle", "unfinished")

    def __init__(self) -> None:
        self.count = 0
        self.unfinished: OrderedDict[Place, None] = OrderedDict()
        self.idle: OrderedDict[Place, None] = OrderedDict()

    def evictable(self) -> Iterator["Place"]:
        """Yield those that may go, first the one that should."""
        return chain(self.unfinished, self.idle)

    def queue(self, place: "Place") -> None:
        """Put a place at the end of its stage's queue."""
        if place.stage is _UNFINISHED:
            self.unfinished[place] = None
        elif place.stage is _IDLE:
            self.idle[place] = None

    def unqueue(self, place: "Place") -> None:
        """Take a place out of its stage's queue."""
        if place.stage is _IDLE:
            del self.idle[place]
        elif place.stage is _UNFINISHED:
            del self.unfinished[place]


class Place:
    """One place, from `Room.admit` to `leave`. What is called after it was evicted changes nothing."""

    __slots__ = ("_evict", "_held", "_room", "parties", "stage", "told_full")

    def __init__(self, room: "Room", parties: Sequence[Party], evict: Callable[[], bool]) -> None:
        self._room = room
        self._evict = evict
        self._held: tuple[_Holding, ...] = ()
        self.parties = tuple(parties)
        self.stage = Stage.UNFINISHED
        self.told_full = False
        """Whether its holder is to be told that the room is full, and to go."""

    @property
    def held(self) -> bool:
        """Tell whether the place is still its holder's."""
        return bool(self._held)

    def begin(self) -> None:
        """Say that a request or a tunnel has begun: from now on nobody may have the place."""
        if self.stage is _IDLE:  # most requests are not their connection's first
            for holding in self._held:
                del holding.idle[self]
        else:
            for holding in self._held:
                holding.unqueue(self)
        self.stage = _BUSY

    def end(self) -> None:
        """Say that nothing is under way; the place may be had again, after all unfinished ones."""
        if self.stage is _BUSY:
            self.stage = _IDLE
            for holding in self._held:
                holding.idle[self] = None

    def prove(self, parties: Sequence[Party]) -> bool:
        """Say who the holder proved to be; False when they hold their share already, all of it busy.

        A holder that is told so keeps the place as who it was, to be told that there is none.
        """
        if not self._held:
            return False
        reason = self._room.make_way(parties)
        if reason is not None:
            self.told_full = True
            self._room.count(f"refused_{reason}")
            return False
        if not self._held:
            return False  # who proves a second time may have been the one that had to make way
        self._room.rename(self, parties)
        return not self.told_full

    def leave(self) -> None:
        """Give the place back. Safe to repeat."""
        if self._held:
            self._room.drop(self)

    def evict(self) -> bool:
        """End the connection; False when it cannot be: its next request is arriving."""
        return self._evict()

    def hold(self, held: tuple[_Holding, ...]) -> None:
        """Be counted in `held` and nowhere else."""
        for holding in self._held:
            holding.unqueue(self)
            holding.count -= 1
        self._held = held
        for holding in held:
            holding.count += 1
            holding.queue(self)


class Room:
    """The places of one kind of listener."""

    def __init__(
        self, name: str, count: Callable[[str], None], *, places_max: int, spare_places_max: int = 0
    ) -> None:
        """`count` is told the name of what happened, which begins with the room's."""
        self.name = name
        self._count = count
        self._places_max = places_max
        self._all = _Holding()
        self._parties: dict[Party, _Holding] = {}
        self._turned_away = False
        self._spare: Room | None = None
        if spare_places_max:
            self._spare = Room(f"{name}_spare", count, places_max=spare_places_max)

    @property
    def held_count(self) -> int:
        """Return how many places are held, spare ones included."""
        return self._all.count + (0 if self._spare is None else self._spare.held_count)

    def resize(self, places_max: int) -> None:
        """Have so many places from now on; nobody loses one for it."""
        self._places_max = places_max

    def held_by(self, party: Party) -> int:
        """Return how many places a party holds, without spare ones."""
        holding = self._parties.get(party)
        return 0 if holding is None else holding.count

    def take_full(self) -> bool:
        """Tell whether all is held by who may not be evicted, or somebody was turned away since asked."""
        turned_away, self._turned_away = self._turned_away, False
        return turned_away or (
            self._all.count >= self._places_max and next(self._all.evictable(), None) is None
        )

    def admit(self, parties: Sequence[Party], evict: Callable[[], bool]) -> Place | None:
        """Return a place for a newcomer, made free by an eviction if need be; None when there is none.

        Args:
            parties: who it is, as far as is known.
            evict: ends the newcomer's connection when the place is needed; False when that cannot be.
        """
        reason = self.make_way(parties)
        if reason is None and self._all.count >= self._places_max and not self._evict_of(self._all):
            reason = "full"
        if reason is None:
            place = Place(self, parties, evict)
            place.hold(self._holdings(parties))
            return place
        self._turned_away = True
        spare = None if self._spare is None else self._spare.admit(parties, evict)
        if spare is None:
            self.count(f"refused_{reason}")
        else:
            spare.told_full = True
            self.count(f"told_{reason}")
        return spare

    def make_way(self, parties: Sequence[Party]) -> str | None:
        """Have each of `parties` hold less than its share, by an eviction of its own; else return why not."""
        for party in parties:
            holding = self._parties.get(party)
            if holding is None or holding.count < self._share(party):
                continue
            if not self._evict_of(holding):
                return "share"
        return None

    def shed(self, count_max: int) -> int:
        """Evict up to `count_max`, unfinished ones first, when something else runs out; return how many."""
        shed_count = 0
        while shed_count < count_max and self._evict_of(self._all):
            shed_count += 1
        return shed_count

    def rename(self, place: Place, parties: Sequence[Party]) -> None:
        """Count a place under other parties."""
        before = place.parties
        place.hold(self._holdings(parties))
        place.parties = tuple(parties)
        self._forget_empty(before)

    def drop(self, place: Place) -> None:
        """Take a place back."""
        place.hold(())
        self._forget_empty(place.parties)

    def count(self, event: str) -> None:
        """Count what happened in this room."""
        self._count(f"{self.name}_{event}")

    def _holdings(self, parties: Sequence[Party]) -> tuple[_Holding, ...]:
        return (self._all, *(self._parties.setdefault(party, _Holding()) for party in parties))

    def _forget_empty(self, parties: Sequence[Party]) -> None:
        for party in parties:
            holding = self._parties.get(party)
            if holding is not None and not holding.count:
                del self._parties[party]

    def _evict_of(self, holding: _Holding) -> bool:
        first = islice(holding.evictable(), _EVICTIONS_TRIED_MAX)
        for place in sorted(first, key=lambda place: (place.stage, -self._crowd_of(place))):
            if place.evict():
                self.count("evicted_unfinished" if place.stage is Stage.UNFINISHED else "evicted_idle")
                self.drop(place)
                return True
        return False

    def _crowd_of(self, place: Place) -> int:
        """Return how many places the largest party of this one's holds."""
        return max((self.held_by(party) for party in place.parties), default=0)

    def _share(self, party: Party) -> int:
        return max(1, int(self._places_max * _SHARES[party[0]]))


def source_of(host: str) -> Party:
    """Return the party a peer's address is: an IPv4 address, or an IPv6 network of 64 bits."""
    if ":" not in host:
        return SOURCE, host
    if host.startswith(_MAPPED) and "." in host:
        return SOURCE, host.removeprefix(_MAPPED)
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return SOURCE, packed[:_PREFIX_BYTES].hex()


def uid_party(uid: int | None) -> Party:
    """Return the party a local user is; all whom nobody could tell are one."""
    return UID, UNKNOWN if uid is None else str(uid)
