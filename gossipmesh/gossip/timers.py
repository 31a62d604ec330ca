"""All deadlines of a core in one heap, so that time is one pulled instant.

Rules:
1. A timer has a key; setting it again replaces it, so late or repeated calls find nothing to do.
2. Equal instants fire in the order they were set.
Deviation: none from a paper; SWIM leaves timers to its implementer.
"""

import heapq
from collections.abc import Callable
from typing import Final

from gossipmesh.model.instant import NEVER, Instant

Key = tuple[str, object]
_STALE_MIN: Final = 64


class Timers:
    """Keyed one-shot timers; at most one per key."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Key]] = []
        self._live: dict[Key, tuple[int, int, Callable[[], None]]] = {}
        self._sequence = 0
        # Asked for after every input, so it is kept until the timer that it belongs to is replaced or gone.
        self._next: Instant | None = None

    def __len__(self) -> int:
        return len(self._live)

    def set(self, key: Key, at: int, action: Callable[[], None]) -> None:
        """Call `action` once when time reaches `at`, instead of whatever `key` stood for."""
        self._sequence += 1
        self._forget_next(self._live.get(key), at)
        self._live[key] = (at, self._sequence, action)
        heapq.heappush(self._heap, (at, self._sequence, key))
        if len(self._heap) > _STALE_MIN + 2 * len(self._live):
            self._heap = [(when, number, name) for name, (when, number, _) in self._live.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: Key) -> None:
        """Forget the timer, if there is one."""
        self._forget_next(self._live.pop(key, None))

    def _forget_next(self, replaced: tuple[int, int, Callable[[], None]] | None, at: int = NEVER) -> None:
        if self._next is not None and (
            at < self._next or (replaced is not None and replaced[0] == self._next)
        ):
            self._next = None

    def pending(self, key: Key) -> bool:
        """Tell whether the timer is set."""
        return key in self._live

    def due_at(self, key: Key) -> Instant | None:
        """Return when the timer is due; None when it is not set."""
        entry = self._live.get(key)
        return None if entry is None else Instant(entry[0])

    def next_deadline(self) -> Instant:
        """Return the earliest instant, or NEVER."""
        if self._next is None:
            self._next = self._find_next()
        return self._next

    def _find_next(self) -> Instant:
        heap, live = self._heap, self._live
        while heap:
            at, number, key = heap[0]
            entry = live.get(key)
            if entry is not None and entry[1] == number:
                return Instant(at)
            heapq.heappop(heap)
        return NEVER

    def pop_due(self, now: Instant) -> Callable[[], None] | None:
        """Take the earliest timer that is due and return its action, or None."""
        if self.next_deadline() > now or not self._heap:
            return None
        _, _, key = heapq.heappop(self._heap)
        self._next = None
        return self._live.pop(key)[2]

    def postpone(self, name: str, by_ns: int) -> None:
        """Move every timer whose key begins with `name` later."""
        for key in [key for key in self._live if key[0] == name]:
            at, _, action = self._live[key]
            self.set(key, at + by_ns, action)
