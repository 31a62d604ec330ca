"""Frames of gossip streams: a 4-byte length, then at most 64 KB; and the messages inside them.

Ends at types and sizes. Frames before the handshake is over are plain `StreamHello`s; the rest are
sealed by `trust.seal` and hold one [type, payload] each. Spec: docs/GOSSIP.md, "Streams".
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Any, Final

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.records import SignedRecord
from gossipmesh.wire.codec import convert_untrusted, decode_untrusted, encode, unpack_untrusted
from gossipmesh.wire.datagram import Bytes16, Bytes32, Count, ScopeName

LENGTH_BYTES: Final = 4
BUCKETS_COUNT: Final = 256
BUCKET_BYTES: Final = 8
PAGE_BYTES: Final = 60_000  # leaves room for the tag and the message's own header in a 64 KB frame
ENTRIES_PER_FRAME: Final = 1_000  # an entry is at most 50 bytes


def encode_frame(payload: bytes) -> bytes:
    """Return `payload` behind its length."""
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


class FrameReader:
    """Cuts a byte stream, in any chunking, into frames; holds at most one frame and one chunk."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed_untrusted(self, data: bytes) -> list[bytes]:
        """Take bytes and return the frames they complete.

        Raises:
            MalformedInput: a length over `limits.FRAME_BYTES_MAX` or of zero. Remote's fault; the
                stream cannot be read on. State unchanged for frames already returned.
        """
        self._buffer += data
        frames: list[bytes] = []
        position = 0
        while len(self._buffer) - position >= LENGTH_BYTES:
            size = int.from_bytes(self._buffer[position : position + LENGTH_BYTES], "big")
            if not 0 < size <= limits.FRAME_BYTES_MAX:
                raise MalformedInput(f"a frame of {size} bytes")
            if len(self._buffer) - position - LENGTH_BYTES < size:
                break
            position += LENGTH_BYTES
            frames.append(bytes(self._buffer[position : position + size]))
            position += size
        del self._buffer[:position]
        return frames


class StreamHello(msgspec.Struct, frozen=True, array_like=True):
    """First frame of each side, plain; the acceptor's `proof` covers both nonces, the opener's its own."""

    version: int
    group_tag: Count
    run: Count
    nonce: Bytes16
    credential: SignedRecord
    state: SignedRecord
    proof: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


def decode_stream_hello_untrusted(frame: bytes) -> StreamHello:
    """Read the plain first frame of a stream.

    Raises:
        MalformedInput: not a hello. Remote's fault. State unchanged.
    """
    return decode_untrusted(frame, StreamHello, bytes_max=limits.FRAME_BYTES_MAX)


class FrameType(IntEnum):
    """First element of a sealed frame."""

    COMPARE = 1
    ENTRIES = 2
    REQUEST = 3
    RECORDS = 4
    DONE = 5
    TABLE = 6
    FETCH_POLICY = 7
    POLICY_PART = 8
    FETCH_TRUST = 9
    TRUST_PART = 10
    TURN = 11
    PACKET = 12
    FETCH_ROLL = 13
    ROLL_PIECE = 14
    SHUT_OUT = 15


class DocumentsSummary(msgspec.Struct, frozen=True, array_like=True):
    """What a node holds: its Trust version and (scope, version, manifest hash) by scope."""

    trust_version: Count
    scopes: Annotated[
        tuple[tuple[ScopeName, Count, Bytes32], ...], msgspec.Meta(max_length=limits.SCOPES_MAX)
    ]


class Compare(msgspec.Struct, frozen=True, array_like=True):
    """Opens a comparison: 256 bucket sums of 8 bytes each."""

    buckets: Annotated[
        bytes, msgspec.Meta(min_length=BUCKETS_COUNT * BUCKET_BYTES, max_length=BUCKETS_COUNT * BUCKET_BYTES)
    ]
    documents: DocumentsSummary


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What one side holds: a record's kind, subject, order, and a tie-break (a certificate: its status)."""

    kind: Annotated[int, msgspec.Meta(ge=1, le=255)]
    subject: Bytes16
    generation: Count
    epoch: Count
    sequence: Count
    tie: Annotated[bytes, msgspec.Meta(max_length=16)]


class Entries(msgspec.Struct, frozen=True, array_like=True):
    """One page of the differing buckets' contents; `documents` and `differing` stand in every page."""

    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=ENTRIES_PER_FRAME)]
    differing: Annotated[bytes, msgspec.Meta(max_length=BUCKETS_COUNT)]
    last: bool
    documents: DocumentsSummary


class Request(msgspec.Struct, frozen=True, array_like=True):
    """One page of what the opener lacks; the acceptor answers the last one with records and `Done`."""

    names: Annotated[
        tuple[tuple[Annotated[int, msgspec.Meta(ge=1, le=255)], Bytes16], ...],
        msgspec.Meta(max_length=ENTRIES_PER_FRAME),
    ]
    last: bool


class Records(msgspec.Struct, frozen=True, array_like=True):
    """A page of records; `more`: the sender has others and waits for a `Turn`."""

    records: Annotated[tuple[SignedRecord, ...], msgspec.Meta(max_length=limits.FRAME_RECORDS_MAX)]
    more: bool = False


class Done(msgspec.Struct, frozen=True, array_like=True):
    """The acceptor has sent everything that was asked for; its state sums now."""

    group_sum: Bytes16
    documents_sum: Bytes16


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """The page sent was merged, or the page asked for is whole: the opener goes on.

    `after` is the last subject of a table's page, empty otherwise.
    """

    after: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class Table(msgspec.Struct, frozen=True, array_like=True):
    """Asks for one page of every record of the buckets `first` to before `until`, subjects above `after`.

    Answered by records, then `Turn` when there are more of them, else `Done`.
    """

    documents: DocumentsSummary
    first: Annotated[int, msgspec.Meta(ge=0, lt=BUCKETS_COUNT)] = 0
    until: Annotated[int, msgspec.Meta(gt=0, le=BUCKETS_COUNT)] = BUCKETS_COUNT
    after: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class FetchPolicy(msgspec.Struct, frozen=True, array_like=True):
    """Asks for the set in force of a scope."""

    scope: ScopeName


class Part(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a longer answer, in order; `total` is the whole answer's size, 0: it is not held."""

    total: Annotated[int, msgspec.Meta(ge=0, le=2 * limits.POLICY_SET_BYTES_MAX)]
    data: bytes


class PolicyPart(Part, frozen=True, array_like=True):
    """A piece of a policy set."""


class FetchTrust(msgspec.Struct, frozen=True, array_like=True):
    """Asks for the Trust envelopes above a version."""

    version: Count


class TrustPart(Part, frozen=True, array_like=True):
    """A piece of a msgpack array of Trust envelopes, oldest first."""


class FetchRoll(msgspec.Struct, frozen=True, array_like=True):
    """Asks for a piece of the roll by its SHA-256; see `trust.roll`."""

    piece: Bytes32


class RollPiece(msgspec.Struct, frozen=True, array_like=True):
    """Answers that; empty: it is not held."""

    data: Annotated[bytes, msgspec.Meta(max_length=limits.ROLL_PIECE_BYTES_MAX)]


class Packet(msgspec.Struct, frozen=True, array_like=True):
    """A sealed packet of its sender, as it would be sent by UDP; the frame itself is not answered."""

    packet: Annotated[bytes, msgspec.Meta(min_length=1, max_length=limits.DATAGRAM_BYTES_MAX)]


class ShutOut(msgspec.Struct, frozen=True, array_like=True):
    """The acceptor takes nothing from the opener, whom Trust revokes; it has that version, and gives it."""

    trust_version: Count


FrameMessage = (
    Compare
    | Entries
    | Request
    | Records
    | Done
    | Turn
    | Table
    | FetchPolicy
    | PolicyPart
    | FetchTrust
    | TrustPart
    | Packet
    | FetchRoll
    | RollPiece
    | ShutOut
)

_SHAPES: Final[dict[int, Any]] = {
    FrameType.COMPARE: Compare,
    FrameType.ENTRIES: Entries,
    FrameType.REQUEST: Request,
    FrameType.RECORDS: Records,
    FrameType.DONE: Done,
    FrameType.TABLE: Table,
    FrameType.FETCH_POLICY: FetchPolicy,
    FrameType.POLICY_PART: PolicyPart,
    FrameType.FETCH_TRUST: FetchTrust,
    FrameType.TRUST_PART: TrustPart,
    FrameType.TURN: Turn,
    FrameType.PACKET: Packet,
    FrameType.FETCH_ROLL: FetchRoll,
    FrameType.ROLL_PIECE: RollPiece,
    FrameType.SHUT_OUT: ShutOut,
}
_TYPES: Final[dict[type[Any], int]] = {shape: int(number) for number, shape in _SHAPES.items()}


def encode_frame_message(message: FrameMessage) -> bytes:
    """Return a sealed frame's plain content."""
    return encode([_TYPES[type(message)], message])


def encode_records_frame(records: Sequence[bytes], *, more: bool) -> bytes:
    """Return a `Records` frame's content from records as they are kept, without encoding them again."""
    count = len(records)
    prefix = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    head = bytes((0x92, FrameType.RECORDS, 0x92))
    return b"".join((head, prefix, *records, b"\xc3" if more else b"\xc2"))


def decode_frame_message_untrusted(data: bytes) -> FrameMessage | None:
    """Read a frame's content; None for a type this build does not know.

    Raises:
        MalformedInput: not a frame message. Remote's fault. State unchanged.
    """
    item = unpack_untrusted(data, bytes_max=limits.FRAME_BYTES_MAX)
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], int):
        raise MalformedInput("a frame that is no [type, payload]")
    shape = _SHAPES.get(item[0])
    if shape is None:
        return None
    message: FrameMessage = convert_untrusted(item[1], shape)
    return message
