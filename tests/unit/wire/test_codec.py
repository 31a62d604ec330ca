"""The codec's own refusals: what is msgpack and is still not ours."""

import msgpack
import msgspec
import pytest

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.records import SignedRecord
from gossipmesh.trust.envelope import decode_envelope_untrusted
from gossipmesh.wire.codec import decode_json_untrusted, decode_untrusted, unpack_untrusted
from gossipmesh.wire.datagram import (
    PacketType,
    decode_body_untrusted,
    decode_plain_untrusted,
    peek_order_untrusted,
)
from gossipmesh.wire.frames import decode_frame_message_untrusted, decode_stream_hello_untrusted

EMPTY = [
    b"\xc7\x00\x05",  # ext 8, no bytes, application type 5
    b"\xc8\x00\x00\x05",  # ext 16
    b"\xc9\x00\x00\x00\x00\x05",  # ext 32
    b"\xc7\x00\xff",  # a timestamp without bytes
    b"\xc7\x00\x80",  # type -128
]
FULL = [
    b"\xd4\x05\x00",  # fixext 1
    b"\xd6\xff\x00\x00\x00\x01",  # a timestamp
    msgpack.packb(msgpack.ExtType(7, b"xyz")),
]


@pytest.mark.parametrize("extension", EMPTY + FULL)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"\x91", b""),  # in a list
        (b"\x81\xa1k", b""),  # as a value
        (b"\x81", b"\x01"),  # as a key
        (b"\x92\x91\x91", b"\x01"),  # deeper
    ],
)
def test_an_extension_of_any_length_is_refused_anywhere(
    extension: bytes, before: bytes, after: bytes
) -> None:
    data = before + extension + after
    with pytest.raises(MalformedInput):
        unpack_untrusted(data, bytes_max=64)
    with pytest.raises(MalformedInput):
        decode_untrusted(data, SignedRecord, bytes_max=64)


@pytest.mark.parametrize("extension", EMPTY + FULL)
def test_every_reader_of_untrusted_bytes_refuses_extensions(extension: bytes) -> None:
    """Unknown fields at the end are skipped for mixed versions; an extension among them is not."""
    order = b"\xc4\x10" + b"n" * 16 + b"\x01\x02"
    for read in (
        lambda: decode_body_untrusted(b"\x91\x92\x00\x94\x01\x02\x03" + extension),  # SEEN
        lambda: decode_body_untrusted(b"\x91\x92\x7f\x91" + extension),  # a kind nobody knows
        lambda: decode_plain_untrusted(PacketType.COOKIE, b"\x92\xc4\x01c" + extension),
        lambda: peek_order_untrusted(b"\x94" + order + extension),
        lambda: decode_frame_message_untrusted(b"\x92\x7f" + extension),
        lambda: decode_stream_hello_untrusted(b"\x91" + extension),
        lambda: decode_envelope_untrusted(b"\x94\xa1t\xc4\x00\x90" + extension),
    ):
        with pytest.raises(MalformedInput):
            read()


def test_what_carries_no_extension_is_read_as_before() -> None:
    value = [None, True, -1, 2**63, 1.5, "t\u00fc", b"\xc7\x00\x05", [{"k": []}]]
    data = msgpack.packb(value)
    assert unpack_untrusted(data, bytes_max=limits.RECORD_BYTES_MAX) == value


class _Numbered(msgspec.Struct):
    number: int


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"number":"1"}',
        b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b',"number":1}',
        b'{"number":1,"unknown":"\\ud800"}',
        b"\xff",
    ],
)
def test_json_that_is_not_of_a_shape_is_refused_however_deep(data: bytes) -> None:
    with pytest.raises(MalformedInput, match=r"^not a number: "):
        decode_json_untrusted(data, _Numbered, "a number")
    assert decode_json_untrusted(b'{"number":1,"unknown":[[]]}', _Numbered, "a number").number == 1
