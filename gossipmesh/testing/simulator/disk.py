"""A disk per host: what was synced survives a power cut, the rest only perhaps.

Killing a process loses nothing that was written (the kernel has it); a dead host loses a random
tail of what was written since the last durable write, as an append-only log does. A slow disk takes its time
for each durable write: what was begun and did not end is such a tail.
"""

import random
from collections.abc import Iterable

from gossipmesh.gossip.base.effects import Persist, PersistKind


class DiskFull(Exception):
    """No write is possible. Nobody's fault. State unchanged."""


class Disk:
    """An append-only log of entries with a synced prefix."""

    def __init__(self) -> None:
        self._log: list[tuple[PersistKind, bytes, bytes | None]] = []
        self._synced_count = 0
        self._synced: dict[tuple[PersistKind, bytes], bytes | None] = {}
        self.full = False
        self.latency_ns = 0  # from the beginning of a durable write until it is on the disk
        self.is_damaged = False
        self.is_stale = False
        self.writes_count = 0
        self.syncs_count = 0

    def write(self, entry: Persist) -> None:
        """Append an entry, and sync all of the log when it is durable.

        Raises:
            DiskFull: the disk takes nothing. State unchanged.
        """
        if self.full:
            raise DiskFull
        self._log.append((entry.kind, entry.key, entry.value))
        self.writes_count += 1
        if entry.durable:
            self.sync(len(self._log))

    def begin(self, entries: Iterable[Persist]) -> int:
        """Append entries, as a process does that has yet to sync them; return how far `sync` has to go.

        Raises:
            DiskFull: the disk takes nothing. State unchanged.
        """
        if self.full:
            raise DiskFull
        for entry in entries:
            self._log.append((entry.kind, entry.key, entry.value))
            self.writes_count += 1
        return len(self._log)

    def sync(self, count: int) -> None:
        """Have the first `count` entries of the log survive a power cut."""
        for kind, key, value in self._log[self._synced_count : count]:
            self._synced[kind, key] = value
        self._synced_count = max(self._synced_count, count)
        self.syncs_count += 1
        self._compact()

    def synced(self, kind: PersistKind, key: bytes) -> bytes | None:
        """Return what a power cut would leave under (kind, key)."""
        return self._synced.get((kind, key))

    def lose_power(self, rng: random.Random) -> int:
        """Keep the synced prefix and a random part of the rest; return how many entries were lost."""
        unsynced_count = len(self._log) - self._synced_count
        lost_count = rng.choice((unsynced_count, rng.randint(0, unsynced_count)))
        if lost_count:
            del self._log[-lost_count:]
        self._reread()
        return lost_count

    def lose_unsynced(self) -> None:
        """Keep the synced prefix and nothing else, as a power cut may."""
        del self._log[self._synced_count :]

    def _reread(self) -> None:
        """Take all of the log for synced, as a machine does that boots."""
        self._synced_count = len(self._log)
        self._synced = {(kind, key): value for kind, key, value in self._log}

    def corrupt(self, rng: random.Random) -> int:
        """Flip bytes somewhere: what is read at the next start is the good prefix; return what is lost."""
        kept_count = rng.randrange(len(self._log)) if self._log else 0
        lost_count = len(self._log) - kept_count
        del self._log[kept_count:]
        self._reread()
        self.is_damaged = lost_count > 0
        return lost_count

    def copy(self) -> "Disk":
        """Return what a snapshot of the machine would hold."""
        twin = Disk()
        twin._log = list(self._log)
        twin._reread()
        return twin

    def restore(self, older: "Disk") -> None:
        """Put an older copy back, as a rolled back machine has; nothing on it says so."""
        self._log = list(older._log)
        self._reread()
        self.is_stale = True

    def wipe(self) -> None:
        """Forget everything, as a replaced disk does."""
        self._log.clear()
        self._reread()

    def entries(self, kind: PersistKind) -> list[tuple[bytes, bytes]]:
        """Return the latest (key, value) of a kind, in the order the keys were first written."""
        latest: dict[bytes, bytes | None] = {}
        for entry_kind, key, value in self._log:
            if entry_kind is kind:
                latest[key] = value
        return [(key, value) for key, value in latest.items() if value is not None]

    def _compact(self) -> None:
        """Fold the log when all of it is synced and it has grown long."""
        if len(self._log) < 4_096 or self._synced_count < len(self._log):
            return
        latest: dict[tuple[PersistKind, bytes], bytes | None] = {}
        for kind, key, value in self._log:
            latest[kind, key] = value
        self._log = [(kind, key, value) for (kind, key), value in latest.items() if value is not None]
        self._synced_count = len(self._log)
