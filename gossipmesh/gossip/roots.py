"""State roots: two 16-byte sums that are equal exactly when two nodes hold the same.

Each item adds a BLAKE2b keyed with the group tag to a sum modulo 2^128; sums are kept as items change,
in 256 buckets by the first byte of the subject, so that a difference can be found by halves.
Paper: incremental hashing as AdHash (Bellare, Micciancio 1997). Deviation: a plain sum resists
accidents, not forgers; only signed records are ever counted, so a forger has nothing to choose.
"""

import hashlib
from typing import Final, NamedTuple

BUCKETS_COUNT: Final = 256
_MASK: Final = (1 << 128) - 1


class Rank(NamedTuple):
    """Which of two records of one name is newer; `tie` settles equal orders by content."""

    generation: int
    epoch: int
    sequence: int
    tie: bytes


class Item(NamedTuple):
    """What is counted of one record."""

    rank: Rank
    digest: int


class RootLedger:
    """The counted items of one root; names are (kind, subject)."""

    def __init__(self, group_tag: int) -> None:
        self._key = group_tag.to_bytes(4, "big")
        self._sums = [0] * BUCKETS_COUNT
        self._names: list[dict[tuple[int, bytes], Item]] = [{} for _ in range(BUCKETS_COUNT)]
        self._total = 0
        self._root = bytes(16)

    def digest(self, content: bytes) -> bytes:
        """Return the keyed hash of an item's content, 16 bytes."""
        return hashlib.blake2b(content, digest_size=16, key=self._key).digest()

    def put(self, kind: int, subject: bytes, item: Item | None) -> None:
        """Count `item` under its name instead of what stood there; None counts nothing."""
        bucket = subject[0] if subject else 0
        names = self._names[bucket]
        old = names.pop((kind, subject), None)
        delta = 0 if old is None else -old.digest
        if item is not None:
            names[(kind, subject)] = item
            delta += item.digest
        self._sums[bucket] = (self._sums[bucket] + delta) & _MASK
        self._total = (self._total + delta) & _MASK
        self._root = self._total.to_bytes(16, "big")

    def get(self, kind: int, subject: bytes) -> Item | None:
        """Return what is counted under a name."""
        return self._names[subject[0] if subject else 0].get((kind, subject))

    @property
    def root(self) -> bytes:
        """Return the sum of everything, 16 bytes."""
        return self._root

    def bucket_hashes(self) -> bytes:
        """Return the 256 sums, 8 bytes each (their low halves: sums differ there as likely)."""
        return b"".join((value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big") for value in self._sums)

    def bucket(self, number: int) -> list[tuple[int, bytes, Rank]]:
        """Return (kind, subject, rank) of one bucket, sorted by name."""
        return [(kind, subject, item.rank) for (kind, subject), item in sorted(self._names[number].items())]
