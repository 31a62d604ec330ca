"""Makes a file of what a flight recorder holds: sealed packets are opened and sealed for a throwaway key.

So a replay runs the real code over real bytes, and whoever has the file can open what is in it and nothing
that was ever on the wire. What does not open here did not open there either, and is left as it was.
Paper: none. Deviation: none.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import msgspec

from gossipmesh.gossip.replay.recorder import Peer, Tape
from gossipmesh.gossip.replay.recording import FORMAT, CoreState, Entry, Recording, Start
from gossipmesh.gossip.sessions.links import derive_pair_untrusted
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import NodeId
from gossipmesh.model.records import NodeCredential
from gossipmesh.trust.keys import ExchangeKey
from gossipmesh.trust.seal import Sealer, group_tag_of
from gossipmesh.wire.codec import decode_untrusted
from gossipmesh.wire.datagram import HEADER_BYTES, PacketType, decode_header_untrusted
from gossipmesh.wire.frames import (
    LENGTH_BYTES,
    FrameType,
    Packet,
    decode_frame_message_untrusted,
    decode_stream_hello_untrusted,
    encode_frame_message,
)

_DATAGRAM = "receive_datagram"
_STREAM = "receive_stream"
_PACKET_HEAD = bytes((0x92, FrameType.PACKET))  # an array of two, and the frame's type


class Own(NamedTuple):
    """Who recorded: `exchange` opens what was received, `throwaway_seed` is what the file is sealed for.

    `runs` are the ids that the node was known by since its start, the newest first.
    """

    name: str
    node_id: NodeId
    runs: tuple[int, ...]
    trust_domain: str
    exchange: ExchangeKey
    throwaway_seed: bytes
    signing_public: bytes


class _Swap(NamedTuple):
    """One direction under the key it came under and under the throwaway key."""

    opener: Sealer
    sealer: Sealer


class Rekeying:
    """Opens and seals again, packet by packet, with what the recorder knows of peers."""

    def __init__(self, own: Own, peers: dict[int, tuple[Peer, ...]]) -> None:
        self._own = own
        self._peers = peers
        self._throwaway = ExchangeKey(own.throwaway_seed)
        self._tag = group_tag_of(own.trust_domain)
        self._swaps: dict[tuple[bytes, int, int], _Swap] = {}

    def datagram(self, payload: bytes) -> bytes:
        """Return a packet for the throwaway key."""
        try:
            header = decode_header_untrusted(payload)
        except MalformedInput:
            return payload
        if header.type != PacketType.DATA:
            return payload
        front, sealed = payload[:HEADER_BYTES], payload[HEADER_BYTES:]
        for peer, own_run in product(self._peers.get(header.sender, ()), self._own.runs):
            try:
                swap = self._swap_of(peer, header.run, own_run)
                body = swap.opener.open_untrusted(header.counter, front, sealed)
            except MalformedInput:
                continue
            return front + swap.sealer.seal(header.counter, front, body)
        return payload

    def stream(self, data: bytes, own_nonce: bytes, *, opener: bool) -> bytes:
        """Return all that a peer sent on one stream, its frames sealed for the throwaway key."""
        out = bytearray(data)
        swaps: list[_Swap] = []
        number = 0
        for begin, end in _frames(data):
            frame = data[begin:end]
            try:
                if not swaps:
                    swaps = self._stream_swaps(frame, own_nonce, opener=opener)
                    continue
                swap, body = _opened(swaps, number, frame)
            except MalformedInput:
                break
            swaps = [swap]
            out[begin:end] = swap.sealer.seal(number, b"", self._carried(body))
            number += 1
        return bytes(out)

    def _carried(self, body: bytes) -> bytes:
        """Return a frame's content; the packet that it carries, if it does, is sealed anew as well."""
        message = decode_frame_message_untrusted(body) if body[:2] == _PACKET_HEAD else None
        if not isinstance(message, Packet):
            return body
        return encode_frame_message(Packet(self.datagram(message.packet)))

    def _swap_of(self, peer: Peer, run: int, own_run: int) -> _Swap:
        node_id, key = peer
        name = (key, run, own_run)
        if name not in self._swaps:
            ours = self._own.node_id + own_run.to_bytes(8, "big")
            theirs = node_id + run.to_bytes(8, "big")
            self._swaps[name] = self._derive(key, b"datagram", ours, theirs)
        return self._swaps[name]

    def _stream_swaps(self, frame: bytes, own_nonce: bytes, *, opener: bool) -> list[_Swap]:
        """Return what a stream may be sealed by, one for each of our runs."""
        hello = decode_stream_hello_untrusted(frame)
        body = hello.credential.body
        credential = decode_untrusted(body, NodeCredential, bytes_max=limits.RECORD_BYTES_MAX)
        nonces = own_nonce + hello.nonce if opener else hello.nonce + own_nonce
        ours = [self._own.node_id + run.to_bytes(8, "big") + nonces for run in self._own.runs]
        theirs = credential.node_id + hello.run.to_bytes(8, "big") + nonces
        return [self._derive(credential.exchange_key, b"stream", own, theirs) for own in ours]

    def _derive(self, key: bytes, purpose: bytes, ours: bytes, theirs: bytes) -> _Swap:
        _, opener = derive_pair_untrusted(self._own.exchange, key, self._tag, purpose, ours, theirs)
        _, sealer = derive_pair_untrusted(self._throwaway, key, self._tag, purpose, ours, theirs)
        return _Swap(opener, sealer)


def _opened(swaps: list[_Swap], number: int, frame: bytes) -> tuple[_Swap, bytes]:
    for swap in swaps:
        try:
            return swap, swap.opener.open_untrusted(number, b"", frame)
        except MalformedInput:
            continue
    raise MalformedInput("a frame that none of our runs opens")


def _frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each whole frame's content begins and ends."""
    position = 0
    while position + LENGTH_BYTES <= len(data):
        size = int.from_bytes(data[position : position + LENGTH_BYTES], "big")
        position += LENGTH_BYTES
        if size == 0 or position + size > len(data):
            return
        yield position, position + size
        position += size


def make_recording(tape: Tape, own: Own, *, build: str, wall_offset_s: int, ending: CoreState) -> bytes:
    """Return a file of everything held. Cost: 20 us an entry; it may run in a thread."""
    rekeying = Rekeying(own, tape.peers)
    entries = [msgspec.msgpack.decode(packed, type=Entry) for packed in tape.entries]
    streams = _streams_of(entries, rekeying)
    recording = Recording(
        format=FORMAT,
        build=build,
        node=own.name,
        signing_public=own.signing_public,
        exchange_seed=own.throwaway_seed,
        began=tape.began,
        ended=tape.ended,
        wall_offset_s=wall_offset_s,
        dropped_count=tape.dropped_count,
        start=tape.beginning if isinstance(tape.beginning, Start) else None,
        checkpoint=tape.beginning if isinstance(tape.beginning, bytes) else None,
        entries=tuple(_rekeyed(entry, rekeying, streams) for entry in entries),
        ending=ending,
    )
    return msgspec.msgpack.encode(recording)


def _streams_of(entries: list[Entry], rekeying: Rekeying) -> dict[int, bytearray]:
    """Return for each stream what its peer sent, sealed anew, to be taken chunk by chunk."""
    received: dict[int, bytearray] = {}
    nonces: dict[int, bytes] = {}
    for entry in entries:
        nonces.update(entry.nonces)
        if entry.method == _STREAM:
            stream, data, *_ = msgspec.msgpack.decode(entry.arguments)
            received.setdefault(stream, bytearray()).extend(data)
    return {
        # The core numbers the streams it opens evenly.
        stream: bytearray(rekeying.stream(bytes(data), nonces[stream], opener=stream % 2 == 0))
        if stream in nonces
        else data
        for stream, data in received.items()
    }


def _rekeyed(entry: Entry, rekeying: Rekeying, streams: dict[int, bytearray]) -> Entry:
    if entry.method not in (_DATAGRAM, _STREAM):
        return entry
    arguments = msgspec.msgpack.decode(entry.arguments)
    if entry.method == _DATAGRAM:
        arguments[0] = rekeying.datagram(arguments[0])
    else:
        left = streams[arguments[0]]
        size = len(arguments[1])
        arguments[1] = bytes(left[:size])
        del left[:size]
    packed = msgspec.Raw(msgspec.msgpack.encode(arguments))
    return msgspec.structs.replace(entry, arguments=packed)
