"""A witness of fairness: a task that is always ready to run, and how much others did between its runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Witness:
    """`gap_max` is the most pieces worked off while it had to wait. Counted, not timed."""

    def __init__(self) -> None:
        self.pieces_count = 0
        self.runs_count = 0
        self.gap_max = 0
        self._pieces_seen = 0

    def worked(self, pieces: int = 1) -> None:
        """Say that pieces were worked off."""
        self.pieces_count += pieces
        self.gap_max = max(self.gap_max, self.pieces_count - self._pieces_seen)

    async def watch(self) -> None:
        """Run whenever it may."""
        while True:
            await trio.lowlevel.checkpoint()
            self.runs_count += 1
            self._pieces_seen = self.pieces_count


@asynccontextmanager
async def watched() -> AsyncIterator[Witness]:
    """Yield a witness that runs as long as the block."""
    witness = Witness()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(witness.watch)
        await trio.lowlevel.checkpoint()
        yield witness
        nursery.cancel_scope.cancel()
