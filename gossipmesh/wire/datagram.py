"""Gossip packets as bytes: the 30-byte header, and bodies made of typed messages.

Ends at types and sizes; who sent a packet and what it means is said by `trust.seal` and `gossip`.
Rules:
1. The header is never secret and always authenticated as associated data of what follows.
2. A body is one msgpack array of [type, payload]; trailing bytes are an error, unknown types are skipped.
3. Messages are encoded once and joined as bytes, so that a queued record is never encoded again.
Spec: docs/GOSSIP.md, "Packets".
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Any, Final, NamedTuple

import msgpack
import msgspec

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.records import SignedRecord, Vote
from gossipmesh.wire.codec import Flat, convert_untrusted, encode, refuse_extension, unpack_untrusted
from gossipmesh.wire.versions import WIRE_MAX

_HEADER: Final = struct.Struct("!BBIQQQ")
HEADER_BYTES: Final = _HEADER.size
TYPE_AT: Final = 1  # of the header: which byte is the packet's type
TAG_BYTES: Final = 16

Bytes8 = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Sum = Bytes16 | None
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
ScopeName = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.SCOPE_BYTES_MAX)]


class PacketType(IntEnum):
    """Second byte of a packet; only DATA is sealed."""

    DATA = 1
    HELLO = 2
    COOKIE = 3
    WELCOME = 4
    RIVAL = 5
    RULING = 6


DATA: Final = int(PacketType.DATA)  # a member read through its enum costs 0.2 us in Python 3.11, this 0.02


class Header(NamedTuple):
    """What stands before the body; `sender` is the short id, `run` is fresh at each start."""

    version: int
    type: int
    group_tag: int
    sender: int
    run: int
    counter: int


_as_header: Final = tuple.__new__  # `Header._make` without its count, which the format has made already


def encode_header(header: Header) -> bytes:
    """Return the 30 header bytes."""
    return _HEADER.pack(*header)


def encode_data_header(group_tag: int, sender: int, run: int, counter: int) -> bytes:
    """Return the header of a sealed packet; every packet of a mesh at rest has one."""
    return _HEADER.pack(WIRE_MAX, DATA, group_tag, sender, run, counter)


def decode_header_untrusted(payload: bytes) -> Header:
    """Read a packet's header.

    Raises:
        MalformedInput: shorter than a header or longer than a packet may be. Remote's fault.
            State unchanged.
    """
    if not HEADER_BYTES <= len(payload) <= limits.DATAGRAM_BYTES_MAX:
        raise MalformedInput(f"a packet of {len(payload)} bytes")
    return _as_header(Header, _HEADER.unpack_from(payload))


class MessageType(IntEnum):
    """First element of each message in a body."""

    SEEN = 0
    PING = 1
    ACK = 2
    PING_REQ = 3
    NACK = 4
    RELAYED_ACK = 5
    RECORD = 6
    POLICY = 7
    TRUST = 8
    WANT = 9
    HEARTBEAT = 10
    CHECK = 11
    VOTE = 12
    UNVOTE = 13
    VERDICT_ID = 14


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """The highest counter received from the addressee in its current run; 0 when none.

    `beat` counts the sender's quarter seconds since its start, the same for all addressees; `lag_ms` is
    how late it acts just now.
    """

    counter: Count
    beat: Count = 0
    lag_ms: Count = 0


class Ping(msgspec.Struct, frozen=True, array_like=True):
    """Asks for an `Ack`; carries the sender's two state sums and its wall clock.

    Without sums (None) it is asked for an answer only. `suspect`: the sender has a case open against the
    addressee, which should show all its monitors life.
    """

    sequence: Count
    group_sum: Sum
    documents_sum: Sum
    wall_s: int
    suspect: bool = False


class Ack(msgspec.Struct, frozen=True, array_like=True):
    """Answers the ping of that sequence; with state sums when that had any."""

    sequence: Count
    group_sum: Sum
    documents_sum: Sum
    wall_s: int


class PingReq(msgspec.Struct, frozen=True, array_like=True):
    """Asks the addressee to ping `target`, and to relay its ack."""

    sequence: Count
    target: Bytes16


class Nack(msgspec.Struct, frozen=True, array_like=True):
    """The helper is well, its own ping of the target is not answered yet (Lifeguard IV.A)."""

    sequence: Count


class RelayedAck(msgspec.Struct, frozen=True, array_like=True):
    """The target of that ping-req answered the helper."""

    sequence: Count


class PolicyAnnouncement(msgspec.Struct, frozen=True, array_like=True):
    """The sender runs this manifest of a scope."""

    scope: ScopeName
    version: Count
    manifest_hash: Bytes32


class TrustAnnouncement(msgspec.Struct, frozen=True, array_like=True):
    """The sender holds Trust up to this version."""

    version: Count


class Want(msgspec.Struct, frozen=True, array_like=True):
    """Asks for the addressee's record of that kind and subject."""

    kind: Annotated[int, msgspec.Meta(ge=1, le=255)]
    subject: Bytes16


class Heartbeat(msgspec.Struct, frozen=True, array_like=True):
    """The sender lives; what there is to say stands in `Seen`."""


class Check(msgspec.Struct, frozen=True, array_like=True):
    """A probe of this incarnation failed; the addressee, a monitor of it, should look."""

    target: Bytes16
    generation: Count
    epoch: Count


class Unvote(msgspec.Struct, frozen=True, array_like=True):
    """Withdraws the sender's votes about a target up to that sequence."""

    target: Bytes16
    sequence: Count


class VerdictId(msgspec.Struct, frozen=True, array_like=True):
    """The sender holds a verdict of that status against that incarnation; ask with `Want`."""

    target: Bytes16
    generation: Count
    epoch: Count
    status: Annotated[int, msgspec.Meta(ge=0, le=255)]


Message = (
    Seen
    | Ping
    | Ack
    | PingReq
    | Nack
    | RelayedAck
    | SignedRecord
    | PolicyAnnouncement
    | TrustAnnouncement
    | Want
    | Heartbeat
    | Check
    | Vote
    | Unvote
    | VerdictId
)

_SHAPES: Final[dict[int, Any]] = {
    MessageType.SEEN: Seen,
    MessageType.PING: Ping,
    MessageType.ACK: Ack,
    MessageType.PING_REQ: PingReq,
    MessageType.NACK: Nack,
    MessageType.RELAYED_ACK: RelayedAck,
    MessageType.RECORD: SignedRecord,
    MessageType.POLICY: PolicyAnnouncement,
    MessageType.TRUST: TrustAnnouncement,
    MessageType.WANT: Want,
    MessageType.HEARTBEAT: Heartbeat,
    MessageType.CHECK: Check,
    MessageType.VOTE: Vote,
    MessageType.UNVOTE: Unvote,
    MessageType.VERDICT_ID: VerdictId,
}
_TYPES: Final[dict[type[Any], int]] = {shape: int(number) for number, shape in _SHAPES.items()}
_BODY: Final = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]])
_FLAT: Final[dict[int, Flat[Any]]] = {int(number): Flat(shape) for number, shape in _SHAPES.items()}
_RECORD: Final = msgspec.msgpack.Decoder(tuple[int, SignedRecord])
_SHORT_PREFIXES: Final = [bytes((0x90 | count,)) for count in range(16)]


def encode_message(message: Message) -> bytes:
    """Return one message as it stands in a body."""
    return encode((_TYPES[type(message)], message))


def decode_record(message: bytes) -> SignedRecord:
    """Return the record of a message that `encode_message` made."""
    return _RECORD.decode(message)[1]


def encode_body(messages: Sequence[bytes]) -> bytes:
    """Join encoded messages, at most 65,535, into a body."""
    count = len(messages)
    prefix = _SHORT_PREFIXES[count] if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return prefix + b"".join(messages)


def decode_body_untrusted(body: bytes) -> list[Message]:
    """Read a body; messages of unknown type are left out, order is kept.

    Raises:
        MalformedInput: not such an array, a known type with a wrong payload, or more known messages
            than `limits.DATAGRAM_MESSAGES_MAX`. Remote's fault. State unchanged.
    """
    try:
        return _decode_body_in_full(body)
    except Exception:  # what fits no shape in one pass is judged below, by the rules alone
        return _decode_body_leniently_untrusted(body)


def _decode_body_in_full(body: bytes) -> list[Message]:
    """Read a body in one pass; raises for anything but known messages with just the fields we know."""
    messages: list[Message] = [_FLAT[number].decode(payload) for number, payload in _BODY.decode(body)]
    if len(body) > limits.DATAGRAM_BYTES_MAX or len(messages) > limits.DATAGRAM_MESSAGES_MAX:
        raise ValueError("more than usual")
    return messages


def _decode_body_leniently_untrusted(body: bytes) -> list[Message]:
    items = unpack_untrusted(body, bytes_max=limits.DATAGRAM_BYTES_MAX)
    if not isinstance(items, list):
        raise MalformedInput("a body that is no array")
    messages: list[Message] = []
    for item in items:
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], int):
            raise MalformedInput("a message that is no [type, payload]")
        shape = _SHAPES.get(item[0])
        if shape is None:
            continue
        if len(messages) >= limits.DATAGRAM_MESSAGES_MAX:
            raise MalformedInput(f"more than {limits.DATAGRAM_MESSAGES_MAX} messages in a packet")
        messages.append(convert_untrusted(item[1], shape))
    return messages


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Plain body of HELLO. Without a cookie: empty records, asks for one. Padded to a full packet.

    `proof` is the sender's signature over the cookie, both run ids and `nonce`.
    """

    cookie: Annotated[bytes, msgspec.Meta(max_length=32)]
    peer_run: Count
    nonce: Annotated[bytes, msgspec.Meta(max_length=16)]
    credential: SignedRecord | None
    state: SignedRecord | None
    proof: Annotated[bytes, msgspec.Meta(max_length=64)]
    padding: bytes


class Cookie(msgspec.Struct, frozen=True, array_like=True):
    """Plain body of COOKIE: what the sender must show to be heard."""

    cookie: Annotated[bytes, msgspec.Meta(min_length=1, max_length=32)]


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """Plain body of WELCOME; `proof` covers the hello's nonce.

    Without records: they do not fit a packet, a stream has to be used.
    """

    nonce: Bytes16
    credential: SignedRecord | None
    state: SignedRecord | None
    proof: Annotated[bytes, msgspec.Meta(max_length=64)]


class Rival(msgspec.Struct, frozen=True, array_like=True):
    """Plain body of RIVAL: the sender runs under the addressee's own keys, and asks which of the two goes on.

    `held_ms`: for how long the sender has been the node; 0, as is `epoch`, when it has not said so to anybody
    yet. `proof` is its signature over the cookie, both run ids, `nonce`, `held_ms` and `epoch`.
    """

    cookie: Annotated[bytes, msgspec.Meta(max_length=32)]
    peer_run: Count
    nonce: Bytes16
    held_ms: Count
    epoch: Count
    proof: Annotated[bytes, msgspec.Meta(max_length=64)]


class Ruling(msgspec.Struct, frozen=True, array_like=True):
    """Plain body of RULING: whether the addressee, whose RIVAL had that nonce, goes on, or the sender.

    `epoch` is the sender's, as in its RIVAL.
    """

    nonce: Bytes16
    goes_on: bool
    epoch: Count
    proof: Annotated[bytes, msgspec.Meta(max_length=64)]


Plain = Hello | Cookie | Welcome | Rival | Ruling
_PLAIN: Final[dict[int, Any]] = {
    PacketType.HELLO: Hello,
    PacketType.COOKIE: Cookie,
    PacketType.WELCOME: Welcome,
    PacketType.RIVAL: Rival,
    PacketType.RULING: Ruling,
}


def decode_plain_untrusted(packet_type: int, body: bytes) -> Plain:
    """Read the body of a packet that is not sealed.

    Raises:
        MalformedInput: an unknown packet type or not its body. Remote's fault. State unchanged.
    """
    shape = _PLAIN.get(packet_type)
    if shape is None:
        raise MalformedInput(f"a packet of the unknown type {packet_type}")
    value: Plain = convert_untrusted(unpack_untrusted(body, bytes_max=limits.DATAGRAM_BYTES_MAX), shape)
    return value


def encode_hello_padded(hello: Hello) -> bytes | None:
    """Return the body filled up so that header and body are a full packet; None: it does not fit.

    Strangers must send as much as they could be answered with, so that nobody's address can be
    flooded through us.
    """
    room_bytes = limits.DATAGRAM_BYTES_MAX - HEADER_BYTES
    bare = encode(msgspec.structs.replace(hello, padding=b""))
    missing_bytes = room_bytes - len(bare)
    if missing_bytes < 0:
        return None
    # A msgpack bin header grows from 2 to 3 bytes at 256; one byte short of full is full enough.
    padding = b"\0" * max(0, missing_bytes - (1 if missing_bytes > 256 else 0))
    return encode(msgspec.structs.replace(hello, padding=padding))


class _Order(msgspec.Struct, array_like=True):
    """What every owner-signed body begins with; whatever follows is passed over."""

    node_id: Bytes16
    generation: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    epoch: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    sequence: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


_ORDER: Final = msgspec.msgpack.Decoder(_Order)


def peek_order_untrusted(body: bytes) -> tuple[bytes, int, int, int]:
    """Return (node_id, generation, epoch, sequence), which every owner-signed body begins with.

    Raises:
        MalformedInput: the body does not begin so. Remote's fault. State unchanged.
    """
    if len(body) > limits.RECORD_BYTES_MAX:
        raise MalformedInput(f"a record of {len(body)} bytes")
    try:
        head = _ORDER.decode(body)
    except Exception:  # what has no such beginning, or more than msgspec reads, is judged below
        return _peek_order_leniently_untrusted(body)
    return head.node_id, head.generation, head.epoch, head.sequence


def _peek_order_leniently_untrusted(body: bytes) -> tuple[bytes, int, int, int]:
    try:
        reader = msgpack.Unpacker(
            raw=False, max_buffer_size=limits.RECORD_BYTES_MAX, max_ext_len=0, ext_hook=refuse_extension
        )
        reader.feed(body)
        count = reader.read_array_header()
        fields: list[Any] = [reader.unpack() for _ in range(4)] if count >= 4 else [b""] * 4
    except Exception as error:  # msgpack raises six types, ValueError among them
        raise MalformedInput(f"not an owner's record: {type(error).__name__}") from None
    node_id, generation, epoch, sequence = fields
    if not isinstance(node_id, bytes) or len(node_id) != 16:
        raise MalformedInput("a record without a node id")
    for number in (generation, epoch, sequence):
        if type(number) is not int or not 0 <= number < 2**62:
            raise MalformedInput("a record without an order")
    return node_id, generation, epoch, sequence
