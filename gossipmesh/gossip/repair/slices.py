"""Long work in small steps: one step of one job per deadline, so that no table of any size holds the loop.

A job is an iterator that yields None where it may be interrupted, after some 4 ms of work at most, and facts
for the router in between.
Rules:
1. One job at a time goes one step; jobs take turns, so many streams cost the loop no more than one.
2. The next step is a nanosecond away: a shell serves its sockets and other tasks in between.
Paper: none. Deviation: none.
"""

from collections.abc import Iterator

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context


@kept.part("slices")
class Slices:
    """Jobs by key, at most one per key."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._jobs: dict[int, Iterator[object]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, key: int) -> bool:
        return key in self._jobs

    def add(self, key: int, job: Iterator[object]) -> None:
        """Begin a job at the next deadline, after those that wait."""
        self._jobs[key] = job
        self._arm()

    def drop(self, key: int) -> None:
        """Do no more of a job."""
        self._jobs.pop(key, None)

    def _arm(self) -> None:
        if not self._ctx.timers.pending(("slice", None)):
            self._ctx.timers.set(("slice", None), self._ctx.now + 1)

    def step(self) -> Iterator[object]:
        """Do a step of one job (timer `slice`), and yield the facts it tells."""
        if not self._jobs:
            return
        key, job = next(iter(self._jobs.items()))
        del self._jobs[key]
        self._ctx.statistics.slices += 1
        for fact in job:
            if fact is None:
                self._jobs.setdefault(key, job)
                break
            yield fact
        if self._jobs:
            self._arm()
