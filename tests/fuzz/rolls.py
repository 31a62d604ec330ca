"""Targets that read the roll: its pieces as bytes, and a core that awaits it."""

import hashlib

import msgspec

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.records import RecordKind, SignedRecord
from gossipmesh.trust.roll import decode_roll_index_untrusted, decode_roll_page_untrusted, make_roll
from gossipmesh.wire.codec import encode
from tests.fuzz.decoders import DOMAIN, Target

NODES = 5
ITEMS_MAX = 1_024


def roll_targets() -> list[Target]:
    """Return every target of this module."""
    records = [DOMAIN.node(f"n{number}").credential for number in range(NODES)]
    other = SignedRecord(int(RecordKind.NODE_STATE), b"", b"")
    roll = make_roll(DOMAIN.trust_domain, records)

    def feed_index(data: bytes) -> tuple[int, int]:
        pages = decode_roll_index_untrusted(data, DOMAIN.trust_domain)
        assert len(set(pages)) == len(pages)
        assert all(len(page) == hashlib.sha256().digest_size for page in pages)
        return 0, len(pages)

    def feed_page(data: bytes) -> tuple[int, int]:
        held = decode_roll_page_untrusted(data)
        assert all(record.kind == RecordKind.CREDENTIAL for record in held)
        return 0, len(held)

    def feed_either(data: bytes) -> tuple[int, int]:
        """Whatever one of the two takes, the other refuses: no piece can be both."""
        try:
            pages = decode_roll_index_untrusted(data, DOMAIN.trust_domain)
        except MalformedInput:
            return 0, len(decode_roll_page_untrusted(data))
        return 0, len(pages)

    indexes = [roll.head, make_roll(DOMAIN.trust_domain, []).head, encode([1, DOMAIN.trust_domain, []])]
    pages = [*roll.pages, encode([]), encode([*records, msgspec.structs.replace(other, body=b"x")])]
    return [
        Target("roll-index", 8, "mixed", indexes, feed_index, 0, ITEMS_MAX),
        Target("roll-page", 8, "mixed", pages, feed_page, 0, ITEMS_MAX),
        Target("roll-piece", 8, "bytes", [*indexes, *pages], feed_either, 0, ITEMS_MAX),
    ]
