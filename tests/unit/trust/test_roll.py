"""The roll as bytes: pieces that prove themselves by their hash, each within a frame."""

import hashlib

import pytest

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.records import RecordKind, SignedRecord
from gossipmesh.trust.roll import (
    Roll,
    RollIndex,
    RollTooLarge,
    decode_roll_index_untrusted,
    decode_roll_page_untrusted,
    make_roll,
    roll_of_pieces_untrusted,
)
from gossipmesh.wire.codec import encode
from gossipmesh.wire.frames import RollPiece, decode_frame_message_untrusted, encode_frame_message

DOMAIN = "mesh.example"


def record(number: int, size: int = 260) -> SignedRecord:
    body = number.to_bytes(4, "big") * (size // 4)
    return SignedRecord(int(RecordKind.CREDENTIAL), body, b"\x01" * 64, b"\x02" * 8)


def index(*pages: bytes, format: int = 1, domain: str = DOMAIN) -> bytes:
    return encode(RollIndex(format, domain, pages))


def test_ten_thousand_nodes_fit_in_pages_that_fit_a_frame() -> None:
    roll = make_roll(DOMAIN, [record(number) for number in range(limits.MEMBERS_MAX)])
    assert len(roll.pages) > 1
    for piece in roll.pieces:
        frame = encode_frame_message(RollPiece(piece))
        assert len(frame) < limits.FRAME_BYTES_MAX
        assert decode_frame_message_untrusted(frame) == RollPiece(piece)
    pages = decode_roll_index_untrusted(roll.head, DOMAIN)
    assert pages == tuple(hashlib.sha256(page).digest() for page in roll.pages)
    held = [one for page in roll.pages for one in decode_roll_page_untrusted(page)]
    assert held == [record(number) for number in range(limits.MEMBERS_MAX)]
    assert roll.name == hashlib.sha256(roll.head).hexdigest()


def test_the_longest_credentials_fit_three_to_a_page() -> None:
    longest = [record(number, limits.RECORD_BYTES_MAX - 200) for number in range(7)]
    roll = make_roll(DOMAIN, longest)
    assert [len(decode_roll_page_untrusted(page)) for page in roll.pages] == [3, 3, 1]


def test_a_roll_of_nobody_is_an_index_without_pages() -> None:
    roll = make_roll(DOMAIN, [])
    assert roll.pages == ()
    assert decode_roll_index_untrusted(roll.head, DOMAIN) == ()


def test_more_than_a_roll_holds_is_said() -> None:
    one = record(1, limits.RECORD_BYTES_MAX)
    with pytest.raises(RollTooLarge, match="pages of credentials"):
        make_roll(DOMAIN, [one] * (3 * limits.ROLL_PAGES_MAX))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not msgpack"),
        (index(format=2), "format 2"),
        (index(domain="other.example"), "not of 'mesh.example'"),
        (index(b"\x01" * 32, b"\x01" * 32), "a page twice"),
        (encode([1, DOMAIN, [b"\x01" * 31]]), "not a RollIndex"),
        (encode([1, DOMAIN, [number.to_bytes(32, "big") for number in range(1_025)]]), "not a RollIndex"),
    ],
)
def test_an_index_that_is_none_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(MalformedInput, match=why):
        decode_roll_index_untrusted(data, DOMAIN)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xc1", "not msgpack"),
        (encode([SignedRecord(2, b"", b"")]), "another record than a credential"),
        (encode([record(1, 4)] * 257), "257 records"),
        (b"\x00" * (limits.ROLL_PIECE_BYTES_MAX + 1), "allowed"),
    ],
)
def test_a_page_that_is_none_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(MalformedInput, match=why):
        decode_roll_page_untrusted(data)


def test_pieces_are_a_roll_only_whole_and_in_order() -> None:
    roll = make_roll(DOMAIN, [record(number) for number in range(1_000)])
    assert roll_of_pieces_untrusted(roll.pieces, DOMAIN) == roll
    first, *others = roll.pieces
    for wrong in ([], others, [first, *reversed(others)], [first, *others[1:]], [first, *others, others[0]]):
        with pytest.raises(MalformedInput):
            roll_of_pieces_untrusted(wrong, DOMAIN)
    assert isinstance(roll, Roll)
