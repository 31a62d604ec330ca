"""Which pieces of the roll are here, and whether it is awaited (`trust.roll` says what it is).

Ends at records that were proven by their hash: `resigning` takes them, `dissemination.roll_spreading` fetches
pieces. Rules:
1. Only the roll that the newest Trust names counts; pieces of a former one are let go.
2. While it is awaited, credentials that a key dropped from Trust signed stand as they are held, and none of
   them is taken anew. Once it is whole, only those that a key in Trust signed count.
Paper: none. Deviation: none.
"""

import hashlib

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.records import SignedRecord
from gossipmesh.trust.roll import decode_roll_index_untrusted, decode_roll_page_untrusted


@kept.part("roll")
class Roll:
    """The pieces held, by their SHA-256; `name` is what Trust called the roll when it was last looked at."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.name = self._named()
        self._pages: tuple[bytes, ...] | None = None
        self._pieces: dict[bytes, bytes] = {}

    def _named(self) -> str:
        trust = self._ctx.documents.trust
        return "" if trust is None else trust.roll

    @property
    def is_awaited(self) -> bool:
        """Tell whether Trust names a roll of which something is missing."""
        named = self._named()
        is_here = named == self.name and self._pages is not None and len(self._pieces) > len(self._pages)
        return bool(named) and not is_here

    def follow_trust(self) -> bool:
        """Let go of a roll that Trust names no more; tell whether it names another than before."""
        named = self._named()
        if named == self.name:
            return False
        for piece in self._pieces:
            self._ctx.persist(PersistKind.ROLL, piece, None)
        self.name, self._pages, self._pieces = named, None, {}
        return True

    def is_index(self, data: bytes) -> bool:
        """Tell whether a piece is the index of the roll that Trust names."""
        return hashlib.sha256(data).hexdigest() == self.name

    def next_missing(self) -> bytes | None:
        """Return the SHA-256 of a piece to ask for, None when nothing is missing."""
        if not self.is_awaited:
            return None
        if self._pages is None:
            return bytes.fromhex(self.name)
        return next(page for page in self._pages if page not in self._pieces)

    def missing_count(self) -> int | None:
        """Return how many pages are missing, None while that is not known."""
        if self._pages is None:
            return None if self.name else 0
        return len(self._pages) + 1 - len(self._pieces)

    def take_untrusted(self, data: bytes, *, is_kept: bool = False) -> tuple[SignedRecord, ...]:
        """Keep a piece that is wanted, and return the records on it; none of one that is held already.

        `is_kept`: it comes from our disk, so that it need not go there.

        Raises:
            MalformedInput: no piece of the roll that Trust names, or not readable. Remote's fault. State
                unchanged.
        """
        digest = hashlib.sha256(data).digest()
        if digest in self._pieces:
            return ()
        records: tuple[SignedRecord, ...] = ()
        if self._pages is None:
            if digest.hex() != self.name:
                raise Untrusted("no index of the roll that Trust names")
            self._pages = decode_roll_index_untrusted(data, self._ctx.trust_domain)
        else:
            if digest not in self._pages:
                raise Untrusted("no page of the roll that Trust names")
            records = decode_roll_page_untrusted(data)
        self._pieces[digest] = data
        if not is_kept:
            self._ctx.persist(PersistKind.ROLL, digest, data)
        return records

    def piece(self, digest: bytes) -> bytes:
        """Return a piece by its SHA-256 for a peer; empty when it is not held."""
        return self._pieces.get(digest, b"")
