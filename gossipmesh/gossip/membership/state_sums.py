"""State sums: two 16-byte sums that are equal exactly when two nodes hold the same.

Each item adds a BLAKE2b keyed with the group tag to a sum modulo 2^128; sums are kept as items change,
in 256 buckets by the first byte of the subject, so that a difference can be found by halves.
Paper: incremental hashing as AdHash (Bellare, Micciancio 1997). Deviation: a plain sum resists
accidents, not forgers; only signed records are ever counted, so a forger has nothing to choose.
"""

import hashlib
import struct
from typing import Final, NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.membership.member import Member
from gossipmesh.wire.versions import TRUST_FIELDS

BUCKETS_COUNT: Final = 256
_MASK: Final = (1 << 128) - 1
_ITEM: Final = struct.Struct("!BQQQ16sB")
_ITEM_BYTES: Final = _ITEM.size
_TIE_IS_DIGEST: Final = 255  # in place of a tie-break's length


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


@kept.part("state_sum ledger")
class SumLedger:
    """The counted items of one state sum; names are (kind, subject).

    Kept packed, 42 bytes an item and one object a subject: kind, order, digest, and the tie-break where it is
    not the digest.
    """

    def __init__(self, group_tag: int) -> None:
        self._key = group_tag.to_bytes(4, "big")
        self._sums = [0] * BUCKETS_COUNT
        self._subjects: list[dict[bytes, bytes]] = [{} for _ in range(BUCKETS_COUNT)]
        self._total = 0
        self._state_sum = bytes(16)

    def digest(self, content: bytes) -> bytes:
        """Return the keyed hash of an item's content, 16 bytes."""
        return hashlib.blake2b(content, digest_size=16, key=self._key).digest()

    def put(self, kind: int, subject: bytes, item: Item | None) -> None:
        """Count `item` under its name instead of what stood there; None counts nothing."""
        bucket = subject[0] if subject else 0
        subjects = self._subjects[bucket]
        kept: list[bytes] = []
        delta = 0
        for packed in _items(subjects.get(subject, b"")):
            if packed[0] == kind:
                delta -= _digest_of(packed)
            else:
                kept.append(packed)
        if item is not None:
            kept.append(_pack(kind, item))
            delta += item.digest
        if kept:
            subjects[subject] = b"".join(sorted(kept))
        else:
            subjects.pop(subject, None)
        self._sums[bucket] = (self._sums[bucket] + delta) & _MASK
        self._total = (self._total + delta) & _MASK
        self._state_sum = self._total.to_bytes(16, "big")

    def get(self, kind: int, subject: bytes) -> Item | None:
        """Return what is counted under a name."""
        held = self._subjects[subject[0] if subject else 0].get(subject, b"")
        start = 0
        while start < len(held):  # every record that comes asks for one, so only that one is cut out
            size = held[start + _ITEM_BYTES - 1]
            end = start + _ITEM_BYTES + (0 if size == _TIE_IS_DIGEST else size)
            if held[start] == kind:
                packed = held[start:end]
                return Item(_rank_of(packed), _digest_of(packed))
            start = end
        return None

    @property
    def state_sum(self) -> bytes:
        """Return the sum of everything, 16 bytes."""
        return self._state_sum

    def bucket_hashes(self) -> bytes:
        """Return the 256 sums, 8 bytes each (their low halves: sums differ there as likely)."""
        return b"".join((value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big") for value in self._sums)

    def subjects(self, number: int) -> list[bytes]:
        """Return the subjects of one bucket, sorted."""
        return sorted(self._subjects[number])

    def bucket(self, number: int) -> list[tuple[int, bytes, Rank]]:
        """Return (kind, subject, rank) of one bucket, sorted by name."""
        return sorted(
            (packed[0], subject, _rank_of(packed))
            for subject, held in self._subjects[number].items()
            for packed in _items(held)
        )


@kept.part("state sums")
class StateSums:
    """The two sums that stand in pings and acks: of the records, by their ledger, and of the documents.

    `documents` counts what is signed. Builds before `trust-2` count the envelope that Trust came in, which
    whoever passes it on may change: `documents_before` is what they are told, and they alone.
    """

    __slots__ = ("_ledger", "documents", "documents_before")

    def __init__(self, ledger: SumLedger) -> None:
        self._ledger = ledger
        self.documents = self.documents_before = bytes(16)

    def both(self) -> tuple[bytes, bytes]:
        """Return the sum of the records and that of the documents, 16 bytes each."""
        return self._ledger.state_sum, self.documents

    def both_for(self, member: Member | None) -> tuple[bytes, bytes]:
        """Return both sums as a member counts them."""
        return self._ledger.state_sum, self.documents_for(member)

    def documents_for(self, member: Member | None) -> bytes:
        """Return the sum of the documents as a member counts them; None: as one of whom nothing is known.

        How it counts stands in its signed state, so that whoever says "as before" harms itself alone.
        """
        if self.documents == self.documents_before:
            return self.documents
        state = None if member is None else member.state
        counts_signed = state is not None and TRUST_FIELDS in state.features
        return self.documents if counts_signed else self.documents_before


def _pack(kind: int, item: Item) -> bytes:
    rank = item.rank
    digest = item.digest.to_bytes(16, "big")
    size, tie = (_TIE_IS_DIGEST, b"") if rank.tie == digest else (len(rank.tie), rank.tie)
    return _ITEM.pack(kind, rank.generation, rank.epoch, rank.sequence, digest, size) + tie


def _items(held: bytes) -> list[bytes]:
    """Return the items of a subject, one by one."""
    items = []
    start = 0
    while start < len(held):
        size = held[start + _ITEM_BYTES - 1]
        end = start + _ITEM_BYTES + (0 if size == _TIE_IS_DIGEST else size)
        items.append(held[start:end])
        start = end
    return items


def _digest_of(packed: bytes) -> int:
    return int.from_bytes(packed[_ITEM_BYTES - 17 : _ITEM_BYTES - 1], "big")


def _rank_of(packed: bytes) -> Rank:
    _, generation, epoch, sequence, digest, size = _ITEM.unpack_from(packed)
    return Rank(generation, epoch, sequence, digest if size == _TIE_IS_DIGEST else packed[_ITEM_BYTES:])
