"""The roll: every credential that counts after a credential key was dropped, as one document in pieces.

Trust names the SHA-256 of its index, and the index those of its pages, so each piece proves itself by its
hash alone: it may come from anybody, in any order that begins with the index. A page holds credentials and
tombstones as they travel, sorted by node id.
Rules:
1. What a credential says is signed anew as it stood: equal bodies count alike in the state sums, so that who
   has the roll and who waits for it hold equal views.
2. A piece fits a frame of a stream; nothing of another trust domain, of a later format or beyond the limits
   is read.
Ends at bytes and records; which of them are taken is `gossip.membership`'s.
Spec: TUF section 6 (content addressed by hash below a signed root). Deviation: no signature of its own.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, NamedTuple

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.records import RecordKind, SignedRecord
from gossipmesh.wire.codec import decode_untrusted, encode

FORMAT: Final = 1
HASH_BYTES: Final = 32
_RECORD_ROOM_BYTES: Final = 16  # of the array around the records of a page


class RollIndex(msgspec.Struct, frozen=True, array_like=True):
    """The first piece: which pages there are, by their SHA-256, in their order, none twice."""

    format: int
    trust_domain: str
    pages: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)], ...],
        msgspec.Meta(max_length=limits.ROLL_PAGES_MAX),
    ]


class Roll(NamedTuple):
    """A whole roll: the index's bytes and those of each page, in the order it names them."""

    head: bytes
    pages: tuple[bytes, ...]

    @property
    def name(self) -> str:
        """Return what Trust calls it: the SHA-256 of its index in hex."""
        return hashlib.sha256(self.head).hexdigest()

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """Return all of it, the index first."""
        return (self.head, *self.pages)


class RollTooLarge(ValueError):
    """More credentials than a roll has room for."""


def make_roll(trust_domain: str, records: Iterable[SignedRecord]) -> Roll:
    """Return the roll of these records, which are sorted by node id and are one for each node.

    Raises:
        RollTooLarge: they take more than `limits.ROLL_PAGES_MAX` pages. Local fault. State unchanged.
    """
    pages: list[bytes] = []
    page: list[SignedRecord] = []
    room_bytes = 0
    for record in records:
        size = len(encode(record))
        if page and (room_bytes < size or len(page) >= limits.ROLL_RECORDS_PER_PAGE_MAX):
            pages.append(encode(page))
            page = []
        if not page:
            room_bytes = limits.ROLL_PIECE_BYTES_MAX - _RECORD_ROOM_BYTES
        page.append(record)
        room_bytes -= size
    if page:
        pages.append(encode(page))
    if len(pages) > limits.ROLL_PAGES_MAX:
        raise RollTooLarge(f"{len(pages)} pages of credentials, a roll has {limits.ROLL_PAGES_MAX} at most")
    hashes = tuple(hashlib.sha256(data).digest() for data in pages)
    return Roll(encode(RollIndex(FORMAT, trust_domain, hashes)), tuple(pages))


def decode_roll_index_untrusted(data: bytes, trust_domain: str) -> tuple[bytes, ...]:
    """Return the hashes of a roll's pages.

    Raises:
        MalformedInput: not an index that this build reads, or another trust domain's. Whoever made it is at
            fault. State unchanged.
    """
    index = decode_untrusted(data, RollIndex, bytes_max=limits.ROLL_PIECE_BYTES_MAX)
    if index.format != FORMAT:
        raise MalformedInput(f"a roll of format {index.format}, this build reads {FORMAT}")
    if index.trust_domain != trust_domain:
        raise MalformedInput(f"a roll of {index.trust_domain[:80]!r}, not of {trust_domain!r}")
    if len(set(index.pages)) != len(index.pages):
        raise MalformedInput("a roll that names a page twice")
    return index.pages


def decode_roll_page_untrusted(data: bytes) -> tuple[SignedRecord, ...]:
    """Return the records of a page.

    Raises:
        MalformedInput: not a page within limits, or of other records than credentials. Whoever made it is at
            fault. State unchanged.
    """
    records = decode_untrusted(data, tuple[SignedRecord, ...], bytes_max=limits.ROLL_PIECE_BYTES_MAX)
    if len(records) > limits.ROLL_RECORDS_PER_PAGE_MAX:
        raise MalformedInput(f"{len(records)} records on a page of a roll")
    if any(record.kind != RecordKind.CREDENTIAL for record in records):
        raise MalformedInput("a roll with another record than a credential")
    return records


def roll_of_pieces_untrusted(pieces: Sequence[bytes], trust_domain: str) -> Roll:
    """Return the roll that these pieces are, the index first, each as its hash says.

    Raises:
        MalformedInput: a piece is missing, another, or in another place. State unchanged.
    """
    if not pieces:
        raise MalformedInput("a roll without an index")
    pages = decode_roll_index_untrusted(pieces[0], trust_domain)
    if tuple(hashlib.sha256(piece).digest() for piece in pieces[1:]) != pages:
        raise MalformedInput("a roll whose pages are not those its index names")
    return Roll(pieces[0], tuple(pieces[1:]))
