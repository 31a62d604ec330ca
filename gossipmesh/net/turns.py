"""Turns: how much a task may work off before it lets others run.

Bytes that have arrived already cost no waiting, so a loop over them runs until somebody stops it. Rules:

1. A turn lasts from one real yield to the next. Whoever takes a piece from a buffer, or reads or writes a
   socket, spends from it: the piece's bytes, and limits.TURN_CALL_BYTES for the call.
2. Before it takes the next piece it asks whether the turn is over, and if so rests. Asked before, not
   after: a rest that is cancelled then loses nothing.
3. What is spent is one number for the whole process. One task runs at a time, and a turn begins when a task
   has waited; so the number is never less than what the running task has done since others could run.
4. Many tasks with much to do must not add up: a loop runs each that is ready before it looks at its sockets
   again. One at a time goes on after a rest, in the order they came. Once a turn's worth has been worked off
   since the last did, whoever comes from waiting gets a short turn: enough for a usual request, which thus
   never queues behind a flood.

Ends at fairness between tasks; how many tasks one party may have is not decided here.
"""

import trio

from gossipmesh.model import limits


class Turn:
    """What has been worked off since a task waited or rested."""

    __slots__ = ("_others_bytes", "_queue", "_resting", "_spent_bytes_max", "rests_count", "spent_bytes")

    def __init__(self) -> None:
        self.spent_bytes = 0
        self.rests_count = 0
        self._spent_bytes_max = 0
        self._others_bytes = 0  # in turns before this one, since somebody last went on after a rest
        self._queue = trio.lowlevel.ParkingLot()
        self._resting = False  # somebody goes on next, and wakes the first of the queue

    @property
    def spent_bytes_max(self) -> int:
        """Return the most any turn has spent; more than limits.TURN_BYTES_MAX by its last piece at most."""
        return max(self._spent_bytes_max, self.spent_bytes)

    def over(self) -> bool:
        """Tell whether others must run before more is done."""
        spent = self.spent_bytes
        if spent < limits.TURN_SHORT_BYTES:
            return False
        return spent >= limits.TURN_BYTES_MAX or self._others_bytes + spent >= limits.TURN_BYTES_MAX

    def spend(self, size_bytes: int) -> None:
        """Count one call and the bytes it moved."""
        self.spent_bytes += limits.TURN_CALL_BYTES + size_bytes

    def begin(self) -> None:
        """Begin a turn; for a task that has just waited, so that others ran."""
        if self.spent_bytes > self._spent_bytes_max:
            self._spent_bytes_max = self.spent_bytes
        self._others_bytes += self.spent_bytes
        self.spent_bytes = 0

    async def rest(self) -> None:
        """Let others run: all that are ready once, and those that rest already before this task."""
        self.rests_count += 1
        self.begin()
        if self._resting:
            await self._queue.park()
            self._wake_next()
        else:
            self._resting = True
            try:
                await trio.lowlevel.checkpoint()
            finally:
                self._wake_next()
        self.begin()
        self._others_bytes = 0

    def _wake_next(self) -> None:
        self._resting = bool(self._queue)
        self._queue.unpark()


TURN = Turn()
"""The turn of the task that runs now."""
