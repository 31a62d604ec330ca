"""Which updates ride on the next packet.

Paper: SWIM section 4.1: least-sent first, each sent lambda x log(n + 1) times. Deviation: keyed by
(kind, subject), a newer update replacing the older, so the queue is bounded by members and documents
however fast they change (consul#9927 is what happens otherwise).
"""

import math
from typing import NamedTuple

Key = tuple[int, bytes, bytes]
_MISSES_MAX = 8  # a packet this many updates did not fit into is full; a storm's queue is long


class Update(NamedTuple):
    """An encoded message and the most times it may be sent."""

    message: bytes
    sends_max: int


class UpdateQueue:
    """Updates by key, grouped by how often they were sent; within a group oldest first."""

    def __init__(self) -> None:
        self._levels: list[dict[Key, Update]] = []
        self._level_of: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._level_of)

    def put(self, key: Key, message: bytes, sends_max: int) -> None:
        """Queue an update afresh, instead of any other of that key."""
        self.drop(key)
        self._insert(key, Update(message, sends_max), 0)

    def drop(self, key: Key) -> None:
        """Forget an update, because it was overtaken."""
        level = self._level_of.pop(key, None)
        if level is not None:
            del self._levels[level][key]

    def drop_subject(self, kind: int, subject: bytes) -> None:
        """Forget every update of a kind about one subject."""
        for key in [key for key in self._level_of if key[0] == kind and key[1] == subject]:
            self.drop(key)

    def fill(self, room_bytes: int, count_max: int) -> list[bytes]:
        """Take messages that fit, least sent first, and count each as sent once more."""
        taken: list[tuple[Key, Update, int]] = []
        misses = 0
        for level, updates in enumerate(self._levels):
            for key, update in updates.items():
                if len(taken) == count_max or misses == _MISSES_MAX:
                    break
                if len(update.message) <= room_bytes:
                    room_bytes -= len(update.message)
                    taken.append((key, update, level))
                else:
                    misses += 1
            if len(taken) == count_max or misses == _MISSES_MAX:
                break
        for key, update, level in taken:
            del self._levels[level][key]
            del self._level_of[key]
            if level + 1 < update.sends_max:
                self._insert(key, update, level + 1)
        return [update.message for _, update, _ in taken]

    def _insert(self, key: Key, update: Update, level: int) -> None:
        while len(self._levels) <= level:
            self._levels.append({})
        self._levels[level][key] = update
        self._level_of[key] = level


def sends_max(mult: int, members_count: int) -> int:
    """Return how often an update is sent: lambda x ceil(log10(n + 1)), as memberlist computes it."""
    return mult * max(1, math.ceil(math.log10(members_count + 1)))
