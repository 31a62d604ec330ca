"""How long one task at a time holds the agent's loop: everything else of the agent waits for that long.

A timer's lateness tells the same only when one happens to be due. Ends at counts; what is done about a
stall is its task's to find out. Cost: three clock reads, below a microsecond, for each step of a task.
"""

from typing import Final, NamedTuple

import trio

from gossipmesh.model.instant import MILLISECOND_NS
from gossipmesh.net.clock import monotonic, thread_busy_ns

STALL_NS: Final = 20 * MILLISECOND_NS


class Stalls(NamedTuple):
    """What one task (by its function's name) did to the loop: how often for too long, and the longest."""

    stalls_count: int
    longest_ns: int


class LoopWatch(trio.abc.Instrument):
    """The longest step, and how many were stalls: by the clock, and by the loop's own CPU time.

    Where the two differ, the machine was busy or a thread held the interpreter: no task is to blame.
    """

    def __init__(self) -> None:
        self.stalls_count = 0
        self.longest_ns = 0
        self.longest_busy_ns = 0
        self.longest_busy_task = ""
        self._short_ns = 0  # no step so short is a stall, or the longest in any way
        self.busy_stalls: dict[str, Stalls] = {}
        self._began = monotonic()
        self._began_busy_ns = thread_busy_ns()

    @property
    def busy_stalls_count(self) -> int:
        """Return how many steps used the CPU for too long."""
        return sum(stalls.stalls_count for stalls in self.busy_stalls.values())

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note when a task goes on."""
        self._began = monotonic()
        self._began_busy_ns = thread_busy_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note how long a turn of the loop went on."""
        spent_ns = monotonic() - self._began
        if spent_ns <= self._short_ns:
            return
        busy_ns = thread_busy_ns() - self._began_busy_ns
        self.stalls_count += spent_ns > STALL_NS
        self.longest_ns = max(self.longest_ns, spent_ns)
        if busy_ns > self.longest_busy_ns:
            self.longest_busy_ns, self.longest_busy_task = busy_ns, task.name
            self._short_ns = min(busy_ns, STALL_NS)
        if busy_ns > STALL_NS:
            count, longest_ns = self.busy_stalls.get(task.name, Stalls(0, 0))
            self.busy_stalls[task.name] = Stalls(count + 1, max(longest_ns, busy_ns))
