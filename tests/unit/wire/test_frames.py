"""Frames of a stream, in any chunking."""

import random

import pytest

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.records import SignedRecord
from gossipmesh.wire.codec import encode
from gossipmesh.wire.frames import (
    Compare,
    DocumentsSummary,
    Done,
    Entries,
    Entry,
    FetchPolicy,
    FetchTrust,
    FrameReader,
    PolicyPart,
    Records,
    Request,
    ShutOut,
    Table,
    TrustPart,
    decode_frame_message_untrusted,
    decode_stream_hello_untrusted,
    encode_frame,
    encode_frame_message,
)

SUMMARY = DocumentsSummary(1, (("mesh", 3, bytes(32)),))
MESSAGES = [
    Compare(bytes(2048), SUMMARY),
    Entries((Entry(1, bytes(16), 1, 2, 3, b"t"),), b"\x01\xff", True, SUMMARY),
    Request(((1, bytes(16)),), False),
    Records((SignedRecord(2, b"body", bytes(64), b""),)),
    Done(bytes(16), bytes(16)),
    Table(SUMMARY),
    FetchPolicy("mesh"),
    PolicyPart(5, b"abc"),
    FetchTrust(4),
    TrustPart(0, b""),
    ShutOut(7),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back(message: object) -> None:
    assert decode_frame_message_untrusted(encode_frame_message(message)) == message


def test_an_unknown_message_is_none() -> None:
    assert decode_frame_message_untrusted(encode([200, ["later"]])) is None


@pytest.mark.parametrize("seed", range(5))
def test_frames_survive_any_chunking(seed: int) -> None:
    rng = random.Random(seed)
    frames = [rng.randbytes(rng.randrange(1, 3_000)) for _ in range(20)]
    stream = b"".join(encode_frame(frame) for frame in frames)
    reader, read = FrameReader(), []
    while stream:
        cut = rng.randrange(1, 1_000)
        read += reader.feed_untrusted(stream[:cut])
        stream = stream[cut:]
    assert read == frames


@pytest.mark.parametrize("size", [0, limits.FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_an_impossible_length_is_refused_at_its_fourth_byte(size: int) -> None:
    reader = FrameReader()
    header = size.to_bytes(4, "big")
    assert reader.feed_untrusted(header[:3]) == []
    with pytest.raises(MalformedInput):
        reader.feed_untrusted(header[3:])


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", encode(1), encode([1]), encode(["x", 1]), encode([5, [b"x", b"y"]])]
)
def test_a_wrong_message_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        decode_frame_message_untrusted(data)
    with pytest.raises(MalformedInput):
        decode_stream_hello_untrusted(data)
