"""Packets as bytes."""

import random

import pytest

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import NodeId
from gossipmesh.model.records import SignedRecord, Vote
from gossipmesh.testing.mutator import Mutator
from gossipmesh.wire import datagram
from gossipmesh.wire.codec import encode
from gossipmesh.wire.datagram import (
    HEADER_BYTES,
    Ack,
    Check,
    Cookie,
    Header,
    Heartbeat,
    Hello,
    Message,
    Nack,
    PacketType,
    Ping,
    PingReq,
    PolicyAnnouncement,
    RelayedAck,
    Seen,
    TrustAnnouncement,
    Unvote,
    VerdictId,
    Want,
    decode_body_untrusted,
    decode_header_untrusted,
    decode_plain_untrusted,
    encode_body,
    encode_header,
    encode_hello_padded,
    encode_message,
    peek_order_untrusted,
)

MESSAGES = [
    Seen(3),
    Ping(1, bytes(16), bytes(16), 17),
    Ack(1, bytes(16), bytes(16), 17),
    SignedRecord(2, b"body", bytes(64), b""),
    PolicyAnnouncement("mesh", 4, bytes(32)),
    Want(1, bytes(16)),
]


EVERY_MESSAGE: list[Message] = [
    *MESSAGES,
    Seen(300, 70_000, 2**40),
    Ping(2**33, bytes(16), bytes(16), -17, True),
    Ping(3, None, None, 17),
    PingReq(5, bytes(16)),
    Nack(6),
    RelayedAck(7),
    TrustAnnouncement(8),
    Heartbeat(),
    Check(bytes(16), 1, 2),
    Vote(NodeId(bytes(16)), 1, 2, 3, NodeId(bytes(16)), 4, 5, bytes(64)),
    Unvote(bytes(16), 9),
    VerdictId(bytes(16), 1, 2, 3),
]


def test_a_header_is_thirty_bytes_and_comes_back() -> None:
    header = Header(1, PacketType.DATA, 2**32 - 1, 2**64 - 1, 2**64 - 1, 2**64 - 1)
    assert len(encode_header(header)) == HEADER_BYTES == 30
    assert decode_header_untrusted(encode_header(header)) == header


@pytest.mark.parametrize("size", [0, 29, limits.DATAGRAM_BYTES_MAX + 1])
def test_a_packet_of_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(MalformedInput):
        decode_header_untrusted(bytes(size))


def test_a_body_comes_back_in_order() -> None:
    body = encode_body([encode_message(message) for message in MESSAGES * 4])
    assert decode_body_untrusted(body) == MESSAGES * 4


def test_unknown_messages_are_skipped_and_trailing_bytes_are_not() -> None:
    body = encode_body([encode([77, {"new": 1}]), encode_message(Seen(3))])
    assert decode_body_untrusted(body) == [Seen(3)]
    with pytest.raises(MalformedInput):
        decode_body_untrusted(body + b"\x00")


@pytest.mark.parametrize(
    "value",
    [
        7,
        [[1]],
        [["x", 1]],
        [[1, [1, b"short", bytes(16), 1]]],
        [[0, [-1]]],
        [[9, [0, bytes(16)]]],
        [[1, 2, 3]],
    ],
)
def test_a_wrong_message_is_refused(value: object) -> None:
    with pytest.raises(MalformedInput):
        decode_body_untrusted(encode(value))


def test_messages_per_packet_are_bounded() -> None:
    record = encode_message(SignedRecord(2, b"", b"", b""))
    decode_body_untrusted(encode_body([record] * limits.DATAGRAM_MESSAGES_MAX))
    with pytest.raises(MalformedInput):
        decode_body_untrusted(encode_body([record] * (limits.DATAGRAM_MESSAGES_MAX + 1)))


@pytest.mark.parametrize("size", [0, 10, 200, 240, 900])
def test_a_hello_is_padded_to_a_full_packet(size: int) -> None:
    hello = Hello(b"", 0, b"", SignedRecord(1, bytes(size), bytes(64), bytes(8)), None, b"", b"")
    body = encode_hello_padded(hello)
    assert body is not None
    assert limits.DATAGRAM_BYTES_MAX - 2 <= HEADER_BYTES + len(body) <= limits.DATAGRAM_BYTES_MAX
    decoded = decode_plain_untrusted(PacketType.HELLO, body)
    assert isinstance(decoded, Hello)
    assert decoded.credential == hello.credential


def test_a_hello_that_does_not_fit_is_not_made() -> None:
    assert encode_hello_padded(Hello(b"", 0, b"", SignedRecord(1, bytes(1200), b""), None, b"", b"")) is None


@pytest.mark.parametrize("kind", [0, 1, 7, 9, 255])
def test_only_five_packet_types_are_plain(kind: int) -> None:
    with pytest.raises(MalformedInput):
        decode_plain_untrusted(kind, encode(Cookie(b"x")))


def test_the_order_of_a_record_of_any_kind_can_be_read() -> None:
    assert peek_order_untrusted(encode([b"n" * 16, 1, 2, 3, {"more": [1]}])) == (b"n" * 16, 1, 2, 3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        encode([b"n" * 16, 1, 2]),
        encode([b"short", 1, 2, 3]),
        encode([b"n" * 16, -1, 2, 3]),
        encode([b"n" * 16, 1, 2**62, 3]),
        encode([b"n" * 16, True, 2, 3]),
        encode("text"),
        bytes(limits.RECORD_BYTES_MAX + 1),
    ],
)
def test_a_body_without_an_order_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedInput):
        peek_order_untrusted(body)


def test_messages_with_all_their_fields_are_read_in_one_pass() -> None:
    messages = [encode_message(message) for message in EVERY_MESSAGE]
    assert datagram._decode_body_in_full(encode_body(messages)) == EVERY_MESSAGE
    assert {type(message) for message in EVERY_MESSAGE} == set(datagram._TYPES)


@pytest.mark.parametrize("seed", range(4))
def test_one_pass_reads_nothing_that_the_rules_refuse(seed: int) -> None:
    """Whatever is read in one pass is read so by the general decoder as well, which measures depth first."""
    mutator = Mutator(random.Random(seed))
    corpus = [encode_body([encode_message(message)]) for message in EVERY_MESSAGE]
    read = 0
    for number in range(5_000):
        body = mutator.mutate_mixed(corpus[number % len(corpus)], corpus)
        try:
            messages = datagram._decode_body_in_full(body)
        except Exception:  # judged by the rules alone, as `decode_body_untrusted` does
            continue
        assert datagram._decode_body_leniently_untrusted(body) == messages
        read += 1
    assert read > 100


@pytest.mark.parametrize("seed", range(5))
def test_mutated_bodies_raise_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    body = encode_body([encode_message(message) for message in MESSAGES])
    read = 0
    for _ in range(1_000):
        mutated = bytearray(body)
        for _ in range(rng.randrange(1, 6)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        try:
            read += len(decode_body_untrusted(bytes(mutated)))
            peek_order_untrusted(bytes(mutated))
        except MalformedInput:
            continue
    assert read > 0
