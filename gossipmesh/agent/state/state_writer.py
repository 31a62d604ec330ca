"""Puts the core's records on disk beside the loop, in their order, and tells when a durable one is there.

A disk may take as long as it likes for an fsync, and even a plain write waits when others write much: the
loop, whose beats prove that this node lives, waits for neither.
Rules:
1. All that waits is one batch: written by a thread, and synced if anything in it is durable. Then the core is
   told the newest ticket in it, which counts for those before.
2. Of one key only the newest value waits, in the place of the first: so what waits is at most what is kept,
   and no floor overtakes its set.
3. What waits has a limit all the same. Members' records are left out then, and counted: their peers hold them
   too. What somebody waits for is never left out.
4. A batch that fails ends the agent, and nobody is told of what was in it.
5. What nobody waits for lingers a little, so that many records cost one batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from gossipmesh.gossip.base.effects import Persist, PersistKind
from gossipmesh.model import limits
from gossipmesh.model.instant import Instant
from gossipmesh.net.clock import monotonic

_LINGER_S: Final = 0.05
_THREADS: Final = 1  # of our own: what else runs in threads must not keep a record waiting

Key = tuple[PersistKind, bytes]


@dataclass(slots=True)
class WriterStatistics:
    """What the writer did so far."""

    syncs_count: int = 0
    sync_ns_last: int = 0
    sync_ns_max: int = 0
    dropped_count: int = 0


class Records(Protocol):
    """What is written to: see `state_store.StateStore`."""

    order: trio.Lock

    def put_all(self, entries: Sequence[tuple[str, bytes, bytes | None]], *, durable: bool) -> None:
        """Keep each value; called in a thread."""


class StateWriter:
    """What waits for a state folder, and the task that writes it."""

    def __init__(self, store: Records) -> None:
        self.statistics = WriterStatistics()
        self._store = store
        self._waiting: dict[Key, bytes | None] = {}
        self._waiting_bytes = 0
        self._is_durable = False
        self._asked_ticket = 0
        self._told_ticket = 0
        self._began: Instant | None = None  # when the batch that is being written began
        self._told = trio.Event()
        self._put = trio.Event()
        self._hurried = trio.Event()
        self._limiter = trio.CapacityLimiter(_THREADS)

    @property
    def waiting_count(self) -> int:
        """Return how many records wait for the batch before them."""
        return len(self._waiting)

    @property
    def stuck_ns(self) -> int:
        """Return for how long the disk has been at what it writes now; 0 while it writes nothing."""
        return 0 if self._began is None else monotonic() - self._began

    def put_nowait(self, entry: Persist) -> None:
        """Let a record wait to be written; never blocks."""
        key = (entry.kind, entry.key)
        size_bytes = _size_of(entry.kind, entry.key, entry.value)
        if (
            entry.kind is PersistKind.MEMBER
            and key not in self._waiting
            and (
                len(self._waiting) >= limits.STATE_RECORDS_WAITING_MAX
                or self._waiting_bytes + size_bytes > limits.STATE_BYTES_WAITING_MAX
            )
        ):
            self.statistics.dropped_count += 1
            return
        if key in self._waiting:
            size_bytes -= _size_of(*key, self._waiting[key])
        self._waiting[key] = entry.value
        self._waiting_bytes += size_bytes
        self._asked_ticket = max(self._asked_ticket, entry.ticket)
        self._put.set()
        if entry.durable:
            self._is_durable = True
            self._hurried.set()

    async def next_written(self) -> int:
        """Write what waits, or comes; return the newest ticket that is on disk with it, 0 if it has none.

        Raises:
            StateLost: the disk does not take it. None of it was told; the files hold what they held before.
        """
        await self._put.wait()
        with trio.move_on_after(_LINGER_S):
            await self._hurried.wait()
        # What was taken is written, whoever ends us: only what still waits is left to `flush`.
        async with self._store.order:
            ticket = self._asked_ticket
            batch, is_durable = self._take()
            began = self._began = monotonic()
            try:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._write, batch, is_durable, limiter=self._limiter)
            finally:
                self._began = None
        if is_durable:
            took_ns = monotonic() - began
            self.statistics.syncs_count += 1
            self.statistics.sync_ns_last = took_ns
            self.statistics.sync_ns_max = max(self.statistics.sync_ns_max, took_ns)
        return ticket if ticket > self._told_ticket else 0

    def told(self, ticket: int) -> None:
        """Note that the core knows what is on disk."""
        self._told_ticket = ticket
        self._told.set()
        self._told = trio.Event()

    async def wait_told(self) -> None:
        """Return once all that is waited for now is on disk, and the core knows."""
        ticket = self._asked_ticket
        while self._told_ticket < ticket:
            await self._told.wait()

    def flush(self) -> None:
        """Write what still waits, in this thread; nobody is told any more.

        Raises:
            StateLost: the disk does not take it; the files hold what they held before.
        """
        if self._waiting:
            self._write(*self._take())

    def _take(self) -> tuple[dict[Key, bytes | None], bool]:
        batch, is_durable = self._waiting, self._is_durable
        self._waiting, self._waiting_bytes, self._is_durable = {}, 0, False
        self._put, self._hurried = trio.Event(), trio.Event()
        return batch, is_durable

    def _write(self, batch: dict[Key, bytes | None], is_durable: bool) -> None:
        self._store.put_all([(kind, key, value) for (kind, key), value in batch.items()], durable=is_durable)


def _size_of(kind: PersistKind, key: bytes, value: bytes | None) -> int:
    return len(kind) + len(key) + len(value or b"")
