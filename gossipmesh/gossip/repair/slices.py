"""Long work in small steps: one step of one job per deadline, so that no table of any size holds the loop.

A job is an iterator that yields where it may be interrupted, after some 4 ms of work at most.
Rules:
1. One job at a time goes one step; jobs take turns, so many streams cost the loop no more than one.
2. The next step is a nanosecond away: a shell serves its sockets and other tasks in between.
Paper: none. Deviation: none.
"""

from collections.abc import Iterator

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.timers import Deadlines


class Slices:
    """Jobs by key, at most one per key."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._jobs: dict[int, Iterator[None]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, key: int) -> bool:
        return key in self._jobs

    def add(self, key: int, job: Iterator[None]) -> None:
        """Begin a job at the next deadline, after those that wait."""
        self._jobs[key] = job
        self._arm()

    def drop(self, key: int) -> None:
        """Do no more of a job."""
        self._jobs.pop(key, None)

    def _arm(self) -> None:
        if not self._ctx.timers.pending(("slice", None)):
            self._ctx.timers.set(("slice", None), self._ctx.now + 1)

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"slice": self._step}

    def _step(self) -> None:
        if not self._jobs:
            return
        key, job = next(iter(self._jobs.items()))
        del self._jobs[key]
        self._ctx.statistics.slices += 1
        try:
            next(job)
        except StopIteration:
            pass
        else:
            self._jobs.setdefault(key, job)
        if self._jobs:
            self._arm()
