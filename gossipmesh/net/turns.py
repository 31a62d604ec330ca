"""Turns: how much a task may work off before it lets others run.

Bytes that have arrived already cost no waiting, so a loop over them runs until somebody stops it. Rules:

1. A turn lasts from one real yield to the next. Whoever takes a piece from a buffer, or reads or writes a
   socket, spends from it: the piece's bytes, and limits.TURN_CALL_BYTES for the call.
2. Before it takes the next piece it asks whether the turn is over, and if so rests. Asked before, not
   after: a rest that is cancelled then loses nothing.
3. What is spent is one number for the whole process. One task runs at a time, and a turn begins when a task
   has waited; so the number is never less than what the running task has done since others could run.

Ends at fairness between tasks; how many tasks one party may have is not decided here.
"""

import trio

from gossipmesh.model import limits


class Turn:
    """What has been worked off since a task waited or rested."""

    __slots__ = ("_spent_bytes_max", "rests_count", "spent_bytes")

    def __init__(self) -> None:
        self.spent_bytes = 0
        self.rests_count = 0
        self._spent_bytes_max = 0

    @property
    def spent_bytes_max(self) -> int:
        """Return the most any turn has spent; more than limits.TURN_BYTES_MAX by its last piece at most."""
        return max(self._spent_bytes_max, self.spent_bytes)

    def over(self) -> bool:
        """Tell whether others must run before more is done."""
        return self.spent_bytes >= limits.TURN_BYTES_MAX

    def spend(self, size_bytes: int) -> None:
        """Count one call and the bytes it moved."""
        self.spent_bytes += limits.TURN_CALL_BYTES + size_bytes

    def begin(self) -> None:
        """Begin a turn; for a task that has just waited, so that others ran."""
        if self.spent_bytes > self._spent_bytes_max:
            self._spent_bytes_max = self.spent_bytes
        self.spent_bytes = 0

    async def rest(self) -> None:
        """Let others run, once."""
        self.rests_count += 1
        self.begin()
        await trio.lowlevel.checkpoint()
        self.begin()


TURN = Turn()
"""The turn of the task that runs now."""
