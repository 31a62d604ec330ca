"""Targets that are whole gossip cores: strangers' bytes, and what a hostile member seals.

Two real nodes meet in the simulator; then the victim alone is fed, on the hostile member's keys.
"""

import random
from typing import Any

import msgspec

from gossipmesh.gossip.base.effects import OpenStream, PersistKind, SendDatagram, SendStream, StreamId
from gossipmesh.gossip.base.settings import RestoredState
from gossipmesh.gossip.sessions.handshake import proof_bytes
from gossipmesh.gossip.sessions.links import derive_pair_untrusted
from gossipmesh.model import limits
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.records import IdentityPins, KeySet, NodeState, RecordKind, ServiceSet, SignedRecord
from gossipmesh.testing.builders import http_route, service_entry
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.node import NodeFactory
from gossipmesh.testing.simulator.world import Observer, World
from gossipmesh.testing.swim.claims import CLAIM, Claim
from gossipmesh.trust.keys import Verifier
from gossipmesh.trust.records import signed_bytes
from gossipmesh.trust.seal import Sealer
from gossipmesh.wire import datagram, frames
from gossipmesh.wire.codec import encode
from gossipmesh.wire.versions import WIRE_MAX
from tests.fuzz.decoders import DOMAIN, Target, frame_messages, packet_messages, signed_records
from tests.fuzz.signers import credential_bodies

STEP_NS = MILLISECOND_NS // 10


class Recorder(Observer):
    """Keeps what crosses the wire while two nodes meet: the corpus of strangers' bytes."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.streams: list[bytes] = []

    def stepped(self, world: World, host: Host, effects: Any) -> None:
        for effect in effects:
            if type(effect) is SendDatagram:
                self.datagrams.append(effect.payload)
            elif type(effect) is SendStream:
                self.streams.append(effect.payload)


class Pair:
    """A victim and a hostile member that know each other, taken out of their world."""

    def __init__(self) -> None:
        self.verifier = Verifier(512)
        self.recorder = Recorder()
        self.factory = NodeFactory(DOMAIN, self.verifier)
        world = World(1, self.factory, observer=self.recorder)
        self.victim_host, self.hostile_host = world.add_host("n1"), world.add_host("n2")
        world.start(self.victim_host)
        world.start(self.hostile_host, [self.victim_host.address])
        world.run_for(SECOND_NS)
        for host in (self.victim_host, self.hostile_host):
            world.call(host, lambda core, now: core.publish_services([service_entry()], now))
        policy = DOMAIN.policy_set(1, [http_route("r")])
        world.call(self.hostile_host, lambda core, now: core.offer_policy(policy, now))
        world.run_for(4 * SECOND_NS)
        self.victim: Any = self.victim_host.core
        self.hostile: Any = self.hostile_host.core
        assert len(self.victim.members()) == 2
        self.now = self.victim_host.instant(world.now_ns)
        self.link = self.hostile._catalog.get(self.victim.own_node_id).link
        self._next_stream = 1_000_001

    def tick(self) -> Instant:
        """Let a little of the victim's time pass, its deadlines included."""
        self.now = Instant(self.now + STEP_NS)
        if self.victim.next_deadline() <= self.now:
            self.victim.handle_deadline(self.now)
        return self.now

    def packet(self, body: bytes) -> bytes:
        """Seal any body as the hostile member's next packet."""
        ctx, short = self.hostile._ctx, self.hostile._courier._own_short
        self.link._sent += 1
        header = datagram.encode_header(
            datagram.Header(
                WIRE_MAX, datagram.PacketType.DATA, ctx.group_tag, short, ctx.run_id, self.link._sent
            )
        )
        return header + self.link._sealer.seal(self.link._sent, header, body)

    def accept(self, now: Instant) -> StreamId:
        """Open a connection to the victim; return the id its shell gave it."""
        self._next_stream += 2
        stream = StreamId(self._next_stream)
        # From a new address each time: what one prefix may open is bounded, and is not what is mutated here.
        number = self._next_stream // 2
        peer = Address(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 7948)
        assert not self.victim.stream_accepted(stream, peer, now)
        return stream

    def stream_hello(self, role: bytes, peer_run: int, fresh_before: bytes) -> tuple[bytes, bytes]:
        """Return the hostile member's valid first frame, and its nonce."""
        ctx, own = self.hostile._ctx, self.hostile._own_member()
        nonce = ctx.rng.randbytes(16)
        proof = proof_bytes(ctx.group_tag, role, own.node_id, ctx.run_id, peer_run, fresh_before + nonce)
        hello = frames.StreamHello(
            WIRE_MAX,
            ctx.group_tag,
            ctx.run_id,
            nonce,
            own.records[RecordKind.CREDENTIAL],
            own.records[RecordKind.NODE_STATE],
            ctx.keys.signing.sign(proof),
        )
        return encode(hello), nonce

    def stream_sealer(self, nonces: bytes) -> Sealer:
        """Return the hostile member's half of a stream's keys."""
        ctx, victim = self.hostile._ctx, self.victim._own_member()
        return derive_pair_untrusted(
            ctx.keys.exchange,
            victim.credential.exchange_key,
            ctx.group_tag,
            b"stream",
            self.hostile.own_node_id + ctx.run_id.to_bytes(8, "big") + nonces,
            victim.node_id + self.victim._ctx.run_id.to_bytes(8, "big") + nonces,
        )[0]

    @staticmethod
    def sent(effects: list[Any]) -> bytes:
        """Return what was sent on a stream in these effects."""
        return b"".join(effect.payload for effect in effects if type(effect) is SendStream)

    def answer_stream(self, opened: StreamId, message: bytes) -> list[Any]:
        """Answer a stream that the victim opens as the hostile member does, and say one thing on it."""
        asked = self.sent(self.victim.stream_opened(opened, self.now))
        opener = frames.decode_stream_hello_untrusted(asked[frames.LENGTH_BYTES :])
        hello, nonce = self.stream_hello(b"stream acceptor", opener.run, opener.nonce)
        self.victim.receive_stream(opened, frames.encode_frame(hello), self.now)
        return self.say(opened, message, opener.nonce + nonce)

    def say(self, stream: StreamId, message: bytes, nonces: bytes) -> list[Any]:
        """Say one thing on a stream as the hostile member, let the victim work on it, and end the stream."""
        framed = frames.encode_frame(self.stream_sealer(nonces).seal(0, b"", message))
        effects: list[Any] = self.victim.receive_stream(stream, framed, self.now)
        for _ in range(40):
            effects += self.victim.handle_deadline(self.tick())
        effects += self.victim.stream_closed(stream, self.now)
        return effects

    def work(self) -> tuple[int, int, int]:
        """Return (signature checks asked for, computed, records merged) by the victim so far."""
        statistics = self.victim._ctx.statistics
        return statistics.signature_checks, self.verifier.computed_count, statistics.records_merged

    def measured(self, effects: list[Any], before: tuple[int, int, int]) -> tuple[int, int]:
        """Check that an input's effects are bounded, and return its work."""
        assert len(effects) < 200, f"{len(effects)} effects of one input"
        after = self.work()
        return max(after[0] - before[0], after[1] - before[1]), after[2] - before[2]


def datagram_targets() -> list[Target]:
    pair = Pair()
    plain = [d for d in pair.recorder.datagrams if d[1] != datagram.PacketType.DATA]
    strangers = [*plain, *(d for d in pair.recorder.datagrams if d[1] == datagram.PacketType.DATA)][:60]
    messages = packet_messages()
    bodies = [datagram.encode_body(messages[:6]), datagram.encode_body(messages[6:10])]
    bodies += [datagram.encode_body([message]) for message in messages[4:]]
    bodies += [datagram.encode_body([datagram.encode_message(record)] * 3) for record in signed_records()]

    def feed_stranger(data: bytes) -> tuple[int, int]:
        now, before = pair.tick(), pair.work()
        return pair.measured(pair.victim.receive_datagram(data, pair.hostile_host.address, now), before)

    def feed_member(body: bytes) -> tuple[int, int]:
        now, before = pair.tick(), pair.work()
        packet = pair.packet(body)
        effects = pair.victim.receive_datagram(packet, pair.hostile_host.address, now)
        assert len(pair.victim.members()) <= 3, "strangers became members"
        return pair.measured(effects, before)

    def feed_signed(data: bytes) -> tuple[int, int]:
        """The hostile member signs what it mangled: only what its key may say stands in its way."""
        now, before = pair.tick(), pair.work()
        kind = data[0] % 7 + 1 if data else 1  # the last is of no build yet
        message = signed_bytes(DOMAIN.trust_domain, kind, data[1:])
        record = SignedRecord(kind, data[1:], pair.hostile._ctx.keys.signing.sign(message))
        packet = pair.packet(datagram.encode_body([datagram.encode_message(record)]))
        effects = pair.victim.receive_datagram(packet, pair.hostile_host.address, now)
        assert pair.victim.own_state.epoch < 2**40, "a member drove the victim's epoch"
        return pair.measured(effects, before)

    def feed_credential(data: bytes) -> tuple[int, int]:
        """A stolen credential key signs what it likes, by a member's packet or an operator's hand."""
        now, before = pair.tick(), pair.work()
        message = signed_bytes(DOMAIN.trust_domain, RecordKind.CREDENTIAL, data)
        record = msgspec.structs.replace(
            DOMAIN.node("n3").credential, body=data, signature=DOMAIN.credential_key.sign(message)
        )
        if len(data) % 2:
            effects = pair.victim.offer_credential(record, now)
        else:
            packet = pair.packet(datagram.encode_body([datagram.encode_message(record)]))
            effects = pair.victim.receive_datagram(packet, pair.hostile_host.address, now)
        assert len(pair.victim.members()) <= 3
        return pair.measured(effects, before)

    checks_max, records_max = limits.DATAGRAM_SIGNATURE_CHECKS_MAX, limits.DATAGRAM_MESSAGES_MAX
    return [
        Target("datagram-stranger", 60, "bytes", strangers, feed_stranger, checks_max, records_max, True),
        Target("datagram-member", 88, "mixed", bodies, feed_member, checks_max, records_max, True),
        Target("credential-member", 8, "mixed", credential_bodies(), feed_credential, checks_max, 1, True),
        Target("record-member", 30, "mixed", own_bodies(), feed_signed, checks_max, records_max, True),
    ]


def own_bodies() -> list[bytes]:
    """Return record bodies of the hostile member, each behind a byte that chooses its kind."""
    keys, victim = DOMAIN.node("n2"), DOMAIN.node("n1")
    address = (Address("10.0.0.2", 7948),)
    state = NodeState(keys.node_id, 1, 1, 90, "n2", address, address, 0, "1", 1, 1, (), run_id=7)
    services = ServiceSet(keys.node_id, 1, 1, 90, (service_entry("shop/x"),))
    entries = (IdentityPins("/node/n2", (b"1" * 16, b"2" * 16)), IdentityPins("/ns/shop/svc/x", (b"3" * 16,)))
    claim = Claim(victim.node_id, 1, 1, 90, MemberStatus.DEAD, keys.node_id)
    values: list[tuple[int, Any]] = [
        (RecordKind.NODE_STATE, state),
        (RecordKind.SERVICE_SET, services),
        (CLAIM, claim),
        (5, services),
        (RecordKind.KEY_SET, KeySet(keys.node_id, 1, 1, 90, entries)),
    ]
    return [bytes((kind - 1,)) + encode(value) for kind, value in values]


def stream_targets() -> list[Target]:
    pair = Pair()
    messages = frame_messages()

    def feed_stranger(data: bytes) -> tuple[int, int]:
        """Bytes of a connection from anywhere, in two pieces, then its end."""
        now, before = pair.tick(), pair.work()
        stream = pair.accept(now)
        effects = []
        for piece in (data[: len(data) // 3], data[len(data) // 3 :]):
            effects += pair.victim.receive_stream(stream, piece, now)
        effects += pair.victim.stream_closed(stream, now)
        return pair.measured(effects, before)

    def feed_member(message: bytes) -> tuple[int, int]:
        """A member opens a stream, shows who it is and says something mangled."""
        now, before = pair.tick(), pair.work()
        stream = pair.accept(now)
        hello, nonce = pair.stream_hello(b"stream opener", 0, b"")
        answer = pair.sent(pair.victim.receive_stream(stream, frames.encode_frame(hello), now))
        acceptor = frames.decode_stream_hello_untrusted(answer[frames.LENGTH_BYTES :])
        return pair.measured(pair.say(stream, message, nonce + acceptor.nonce), before)

    def feed_answer(message: bytes) -> tuple[int, int]:
        """The victim opens a stream to compare or to fetch, and is answered with something mangled."""
        pair.tick()
        before = pair.work()
        streams, member = pair.victim._streams, pair.victim._catalog.get(pair.hostile.own_node_id)
        purpose = ("sync", "policy", "trust")[len(message) % 3]
        if not streams.open_to(member, purpose, "mesh" if purpose == "policy" else None):
            raise AssertionError("the victim may open no stream any more")
        opened = [e for e in pair.victim._ctx.drain() if type(e) is OpenStream][-1].stream
        return pair.measured(pair.answer_stream(opened, message), before)

    return [
        Target(
            "stream-stranger", 20, "bytes", pair.recorder.streams[:40], feed_stranger, CHECKS_MAX, 1_100, True
        ),
        Target("stream-member", 30, "mixed", messages, feed_member, CHECKS_MAX, 1_100, True),
        Target("stream-answer", 30, "mixed", messages, feed_answer, CHECKS_MAX, 1_100, True),
    ]


CHECKS_MAX = limits.FRAME_RECORDS_MAX + 16  # a full frame of records, and the handshake


def restored_targets() -> list[Target]:
    """A core started from a damaged disk: whatever the member entries hold, it starts."""
    pair = Pair()
    entries = pair.victim_host.disk.entries(PersistKind.MEMBER)
    keys = [key for key, _ in entries]
    factory = NodeFactory(DOMAIN, Verifier(512))
    host = pair.victim_host

    def feed(data: bytes) -> tuple[int, int]:
        documents = DOMAIN.documents(factory.verifier)
        before = factory.verifier.computed_count
        restored = RestoredState(3, tuple((key, data) for key in keys))
        rng = random.Random(1)
        core = factory.build(host, documents, restored, rng, host.instant(0), host.wall_offset_s())
        return factory.verifier.computed_count - before, len(core.members())

    return [Target("restored-member", 10, "mixed", [value for _, value in entries], feed, 24, 3, True)]


def member_targets() -> list[Target]:
    """Return every target of this module."""
    return [*datagram_targets(), *stream_targets(), *restored_targets()]
