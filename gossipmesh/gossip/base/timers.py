"""All deadlines of a core in one heap, so that time is one pulled instant.

Rules:
1. A timer is a value: what kind it is and whom or what it is about. What is done then, one table says.
2. Setting a timer again replaces it, so late or repeated calls find nothing to do.
3. Equal instants fire in the order they were set.
Deviation: none from a paper; SWIM leaves timers to its implementer.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Final

from gossipmesh.model.instant import NEVER, Instant
from gossipmesh.model.member import Address

Subject = None | int | bytes | str | Address
Timer = tuple[str, Subject]
"""A kind and its subject: a member's id, a number, a scope, an address; None for the only one of its kind."""
Deadlines = Mapping[str, Callable[..., object]]
"""What is done when a timer of a kind is due: called with its subject, with nothing where that is None.

It returns a fact for the router, or None."""
_STALE_MIN: Final = 64


class Timers:
    """One-shot timers, at most one of each kind and subject."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._live: dict[Timer, tuple[int, int]] = {}
        self._sequence = 0
        # Asked for after every input, so it is kept until the timer that it belongs to is replaced or gone.
        self._next: Instant | None = None

    def __len__(self) -> int:
        return len(self._live)

    def set(self, timer: Timer, at: int) -> None:
        """Let a timer be due once when time reaches `at`, and not when it was."""
        number = self._sequence = self._sequence + 1
        heap, live = self._heap, self._live
        replaced = live.get(timer)
        if self._next is not None:
            if at <= self._next:
                self._next = Instant(at)
            elif replaced is not None and replaced[0] == self._next:
                self._next = None
        live[timer] = (at, number)
        heapq.heappush(heap, (at, number, timer))
        if len(heap) > _STALE_MIN + 2 * len(live):
            self._heap = [(when, number, one) for one, (when, number) in live.items()]
            heapq.heapify(self._heap)

    def cancel(self, timer: Timer) -> None:
        """Forget the timer, if it is set."""
        gone = self._live.pop(timer, None)
        if gone is not None and gone[0] == self._next:
            self._next = None

    def pending(self, timer: Timer) -> bool:
        """Tell whether the timer is set."""
        return timer in self._live

    def due_at(self, timer: Timer) -> Instant | None:
        """Return when the timer is due; None when it is not set."""
        entry = self._live.get(timer)
        return None if entry is None else Instant(entry[0])

    def pending_all(self) -> list[tuple[Timer, int]]:
        """Return every timer that is set and its instant, those of one instant in their order."""
        ordered = sorted(self._live.items(), key=itemgetter(1))
        return [(timer, at) for timer, (at, _) in ordered]

    def restore(self, pending: Iterable[tuple[Timer, int]]) -> None:
        """Set these timers and no others."""
        self._heap, self._live, self._next = [], {}, None
        for timer, at in pending:
            self.set(timer, at)

    def next_deadline(self) -> Instant:
        """Return the earliest instant, or NEVER."""
        if self._next is None:
            self._next = self._find_next()
        return self._next

    def _find_next(self) -> Instant:
        heap, live = self._heap, self._live
        while heap:
            at, number, timer = heap[0]
            entry = live.get(timer)
            if entry is not None and entry[1] == number:
                return Instant(at)
            heapq.heappop(heap)
        return NEVER

    def pop_due(self, now: Instant) -> Timer | None:
        """Take the earliest timer that is due and return it, or None."""
        if (self._next or self.next_deadline()) > now or not self._heap:
            return None
        _, _, timer = heapq.heappop(self._heap)
        self._next = None
        del self._live[timer]
        return timer

    def postpone(self, kind: str, by_ns: int) -> None:
        """Move every timer of a kind later."""
        for timer in [timer for timer in self._live if timer[0] == kind]:
            self.set(timer, self._live[timer][0] + by_ns)


def fire(deadlines: Deadlines, timer: Timer) -> object:
    """Do what a table says of a timer that is due; return the fact that came of it, if any."""
    kind, subject = timer
    return deadlines[kind]() if subject is None else deadlines[kind](subject)


def fire_due(timers: Timers, deadlines: Deadlines, now: Instant) -> Iterator[object]:
    """Do what is due, in order, at most as often as timers are set now; yield what comes of each."""
    for _ in range(len(timers)):
        timer = timers.pop_due(now)
        if timer is None:
            return
        yield fire(deadlines, timer)


def joined(*tables: Deadlines) -> dict[str, Callable[..., object]]:
    """Return one table of several; no kind is in two."""
    table: dict[str, Callable[..., object]] = {}
    for one in tables:
        assert not table.keys() & one.keys()
        table.update(one)
    return table
