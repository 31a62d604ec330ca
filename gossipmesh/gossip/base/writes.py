"""Durable writes under way, and what goes on when each is on disk.

A disk may take as long as it likes, and a core that waited for it would miss its beats. So what a write is to
keep is neither believed nor told before it is on disk: what goes on then is kept here as a value.
Rules:
1. What goes on is a kind and whom or what it is about, as a timer's; what is done then, one table says.
2. Writes end in the order they began: the word that one is on disk counts for all that began before it.
3. The same word twice finds nothing to do.
Deviation: SWIM has no disk.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gossipmesh.gossip.base import kept

Continuation = tuple[str, Any]
"""A kind and what it is about: plain values, which a checkpoint holds; None for the only one of its kind."""
Continuations = Mapping[str, Callable[..., object]]
"""What is done when a write of a kind is on disk: called with its subject, with nothing where that is None.

It returns a fact for the router, facts one by one, or None."""


@kept.part("writes")
class Writes:
    """What goes on after each durable write that is not on disk yet, oldest first."""

    def __init__(self) -> None:
        self._begun_count = 0
        self._waiting: list[tuple[int, Continuation]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, continuation: Continuation) -> int:
        """Keep what goes on after a write that begins now; return its ticket, greater than any before."""
        self._begun_count += 1
        self._waiting.append((self._begun_count, continuation))
        return self._begun_count

    def end(self, ticket: int) -> list[Continuation]:
        """Return what goes on now that a write is on disk, and all that began before it, oldest first."""
        count = sum(waiting <= ticket for waiting, _ in self._waiting)
        ended = self._waiting[:count]
        del self._waiting[:count]
        return [continuation for _, continuation in ended]
