"""Which updates ride on the next packet.

Rules:
1. One update per (kind, subject), a newer replacing the older: the queue is bounded by what is held,
   however fast it changes (consul#9927 is what happens otherwise).
2. What concerns the receiver goes first (Lifeguard IV.C, buddy), then each share has its guaranteed part
   of the room, and what a share leaves unused goes to the others (memberlist#299: user messages starve).
3. Within a share: least sent first, each sent lambda x ceil(log10(n + 1)) times.
Paper: SWIM section 4.1. Deviation: rules 1 and 2; the guarantee is kept over packets by credit (deficit
round robin, Shreedhar and Varghese 1995), because a record may be longer than its part of one packet.
"""

import math
from enum import IntEnum
from typing import Final, NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.model import limits
from gossipmesh.model.records import RecordKind

Key = tuple[int, bytes, bytes]
_MISSES_MAX: Final = 8  # a packet this many updates did not fit into is full; a storm's queue is long
POLICY_KIND: Final = -1
TRUST_KIND: Final = -2


class Share(IntEnum):
    """Who is guaranteed which part of a packet; see `PARTS_PERCENT`."""

    DOCUMENTS = 0
    ALIVE = 1
    DEATHS = 2
    SERVICES = 3
    REST = 4


PARTS_PERCENT: Final = (25, 25, 20, 20, 10)
_REST: Final = Share.REST
_SHARES: Final[dict[int, Share]] = {
    POLICY_KIND: Share.DOCUMENTS,
    TRUST_KIND: Share.DOCUMENTS,
    RecordKind.CREDENTIAL: Share.ALIVE,
    RecordKind.NODE_STATE: Share.ALIVE,
    RecordKind.SERVICE_SET: Share.SERVICES,
    RecordKind.VERDICT: Share.DEATHS,
}
# What is said of a subject before anything else when it is the receiver: its death, then its state.
_BUDDY_ORDER: Final = {Share.DEATHS: 0, Share.ALIVE: 1, Share.SERVICES: 2, Share.REST: 3, Share.DOCUMENTS: 4}


def share_of(kind: int) -> Share:
    """Return the share of an update: a record's kind, or `POLICY_KIND` or `TRUST_KIND`.

    A credential counts as `ALIVE`: without it nothing its owner signed can be believed.
    """
    return _SHARES.get(kind, _REST)


@kept.value("update")
class Update(NamedTuple):
    """An encoded message and the most times it may be sent."""

    message: bytes
    sends_max: int


@kept.value("lane")
class _Lane:
    """The updates of one share, grouped by how often they were sent; within a group oldest first."""

    __slots__ = ("credit_bytes", "levels")

    def __init__(self) -> None:
        self.levels: list[dict[Key, Update]] = []
        self.credit_bytes = 0

    def insert(self, key: Key, update: Update, level: int) -> None:
        while len(self.levels) <= level:
            self.levels.append({})
        self.levels[level][key] = update

    @property
    def empty(self) -> bool:
        return not any(self.levels)


_NO_UPDATES: Final[dict[Key, Update]] = {}


class _Filling:
    """One packet being filled."""

    __slots__ = ("count", "room_bytes", "taken")

    def __init__(self, room_bytes: int, count_max: int) -> None:
        self.room_bytes = room_bytes
        self.count = count_max
        self.taken: dict[Key, bytes] = {}

    def take(self, key: Key, message: bytes) -> None:
        self.taken[key] = message
        self.room_bytes -= len(message)
        self.count -= 1


@kept.part("update queue")
class UpdateQueue:
    """Updates by key, in one lane for each share."""

    def __init__(self) -> None:
        self._lanes = tuple(_Lane() for _ in Share)
        self._level_of: dict[Key, int] = {}
        self._about: dict[bytes, dict[Key, None]] = {}

    def __len__(self) -> int:
        return len(self._level_of)

    def length_of(self, share: Share) -> int:
        """Return how many updates of one share wait."""
        return sum(len(level) for level in self._lanes[share].levels)

    def put(self, key: Key, message: bytes, sends_max: int) -> None:
        """Queue an update afresh, instead of any other of that key."""
        self.drop(key)
        self._lanes[share_of(key[0])].insert(key, Update(message, sends_max), 0)
        self._level_of[key] = 0
        self._about.setdefault(key[1], {})[key] = None

    def drop(self, key: Key) -> None:
        """Forget an update, because it was overtaken."""
        level = self._level_of.pop(key, None)
        if level is not None:
            del self._lanes[share_of(key[0])].levels[level][key]
            about = self._about[key[1]]
            del about[key]
            if not about:
                del self._about[key[1]]

    def drop_subject(self, kind: int | None, subject: bytes) -> None:
        """Forget every update about one subject, of one kind or (None) of all."""
        for key in list(self._about.get(subject, ())):
            if kind is None or key[0] == kind:
                self.drop(key)

    def fill(self, room_bytes: int, count_max: int, receiver: bytes = b"") -> list[bytes]:
        """Take messages that fit, by rules 2 and 3, and count each as sent once more.

        Args:
            room_bytes: what the packet has left.
            count_max: at most so many.
            receiver: node id of whom the packet is for.
        """
        filling = _Filling(room_bytes, count_max)
        if receiver in self._about:
            self._fill_about(filling, receiver)
        waiting = [
            (lane, part) for lane, part in zip(self._lanes, PARTS_PERCENT, strict=True) if not lane.empty
        ]
        for lane, part in waiting:
            credit = lane.credit_bytes + room_bytes * part // 100
            lane.credit_bytes = min(credit, limits.DATAGRAM_BYTES_MAX)
        waiting.sort(key=lambda pair: -pair[0].credit_bytes)
        for lane, _ in waiting:
            before = filling.room_bytes
            self._fill_from(filling, [lane], lane.credit_bytes)
            lane.credit_bytes -= before - filling.room_bytes
        self._fill_from(filling, [lane for lane, _ in waiting], filling.room_bytes)
        for key in filling.taken:
            self._sent(key)
        for lane in self._lanes:
            if lane.empty:
                lane.credit_bytes = 0
        return list(filling.taken.values())

    def _fill_about(self, filling: _Filling, receiver: bytes) -> None:
        for key in sorted(self._about[receiver], key=lambda key: _BUDDY_ORDER[share_of(key[0])]):
            update = self._lanes[share_of(key[0])].levels[self._level_of[key]][key]
            if filling.count > 0 and len(update.message) <= filling.room_bytes:
                filling.take(key, update.message)

    def _fill_from(self, filling: _Filling, lanes: list[_Lane], credit_bytes: int) -> None:
        misses = 0
        taken = filling.taken
        for level in range(max((len(lane.levels) for lane in lanes), default=0)):
            for lane in lanes:
                updates = lane.levels[level] if level < len(lane.levels) else _NO_UPDATES
                for key, update in updates.items():
                    if filling.count <= 0 or misses == _MISSES_MAX:
                        return
                    if key in taken:
                        continue
                    size = len(update.message)
                    if size > filling.room_bytes:
                        misses += 1
                        continue
                    if size > credit_bytes:
                        return  # it saves for its turn, so nothing behind it may spend that
                    filling.take(key, update.message)
                    credit_bytes -= size

    def _sent(self, key: Key) -> None:
        level = self._level_of[key]
        lane = self._lanes[share_of(key[0])]
        update = lane.levels[level][key]
        if level + 1 >= update.sends_max:
            self.drop(key)
            return
        del lane.levels[level][key]
        lane.insert(key, update, level + 1)
        self._level_of[key] = level + 1
        about = self._about[key[1]]
        del about[key]  # it goes behind what else is said of that subject, as if it were queued anew
        about[key] = None


def sends_max(mult: int, members_count: int) -> int:
    """Return how often an update is sent: lambda x ceil(log10(n + 1)), as memberlist computes it."""
    return mult * max(1, math.ceil(math.log10(members_count + 1)))
