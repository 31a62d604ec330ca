"""The flight recorder: the last ten minutes of a core's inputs, kept so that what it did can be done again.

It stands beside the core: a shell hands inputs over to it (`RecordedInputs`), and it hands them on. The key
that the core signs with tells it what was signed. Ends at a `Tape`, a copy of what is held: `rekeying` makes
a file of it that has no key of ours.
Rules:
1. Memory has a bound, and reaching it is counted. A beginning comes first, then the newest inputs: the oldest
   go as soon as a newer beginning is there.
2. A stretch of entries is of use only from a beginning: the core's start, or a checkpoint. One is taken in
   time, so that the newest inputs have one; where none can be, only inputs are held, and the file says so.
3. Recording never changes what the core does, and a checkpoint that fails only costs the recording.
Paper: none. Deviation: none.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from gossipmesh.gossip.base.effects import CloseStream, MemberChanged, Notify, SendStream
from gossipmesh.gossip.base.settings import GossipSettings, NodeKeys, NodeProfile, RestoredState
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.checkpoint import Documents
from gossipmesh.gossip.replay.recorded_inputs import RecordedInputs, Told
from gossipmesh.gossip.replay.recording import (
    RESEED,
    Entry,
    Start,
    failure_digest,
    message_digest,
    step_digest,
)
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import SigningKey, Verifier
from gossipmesh.wire.frames import LENGTH_BYTES, decode_stream_hello_untrusted

RECORDER_BYTES_MAX: Final = 4_194_304
WINDOW_NS: Final = 600 * SECOND_NS
CHECKPOINT_INTERVAL_NS: Final = 300 * SECOND_NS
CHECKPOINT_RETRY_NS: Final = SECOND_NS  # a stream is open for less, mostly
BEGINNING_PERCENT_MAX: Final = 50  # of the memory; more would leave no room for what happens since
PEERS_MAX: Final = 1_024
_ENCODER: Final = msgspec.msgpack.Encoder()
_ENTRY_OVERHEAD_BYTES: Final = 56  # the object that holds an entry's bytes, and its place in the queue

Peer = tuple[NodeId, bytes]
Checkpointer = Callable[[GossipNode, int], bytes | None]
"""Returns a core's state; None when that cannot be had now, or would be longer than so many bytes."""


class TappedSigningKey(SigningKey):
    """Signs with the node's key and tells what was signed, once, to whoever records."""

    __slots__ = ("_key", "_told")

    def __init__(self, key: SigningKey, told: Callable[[bytes, bytes], None]) -> None:
        self._key = key
        self._told = told
        self.public = key.public

    def sign(self, message: bytes) -> bytes:
        """Return the signature of `message`, noted."""
        signature = self._key.sign(message)
        self._told(message, signature)
        return signature

    def seed(self) -> bytes:
        """Refuse: whoever records has no business with the secret."""
        raise PermissionError("a recorded key does not give away its seed")


class _Stretch:
    """Entries since one beginning; None once the beginning itself was let go."""

    __slots__ = ("began", "beginning", "beginning_bytes", "entries", "size_bytes")

    def __init__(self, beginning: Start | bytes | None, began: int, size_bytes: int) -> None:
        self.beginning = beginning
        self.beginning_bytes = size_bytes
        self.began = began
        self.size_bytes = size_bytes
        self.entries: deque[bytes] = deque()


class Tape(msgspec.Struct, frozen=True):
    """What is held at one moment: a beginning and the entries since, each encoded."""

    beginning: Start | bytes | None
    began: int
    ended: int
    entries: tuple[bytes, ...]
    dropped_count: int
    peers: dict[int, tuple[Peer, ...]]


class FlightRecorder:
    """Records one core. `checkpoint` gives its whole state as bytes, None when that is not possible now."""

    def __init__(
        self,
        *,
        bytes_max: int = RECORDER_BYTES_MAX,
        window_ns: int = WINDOW_NS,
        checkpoint: Checkpointer = lambda core, length_max: None,
        checkpoint_interval_ns: int = CHECKPOINT_INTERVAL_NS,
    ) -> None:
        self._bytes_max = bytes_max
        self._window_ns = window_ns
        self._checkpoint = checkpoint
        self._checkpoint_interval_ns = checkpoint_interval_ns
        self._next_checkpoint = 0
        self._retry_at = 0
        self._stretches: list[_Stretch] = []
        self._size_bytes = 0
        self._signatures: list[tuple[bytes, bytes]] = []
        self._spoken: set[int] = set()
        self._peers: dict[int, tuple[Peer, ...]] = {}
        self._now = 0
        self._core: GossipNode | None = None
        self._inputs: RecordedInputs | None = None
        self._rng = random.Random()
        self.entries_count = 0
        self.dropped_count = 0
        self.checkpoints_count = 0

    @property
    def size_bytes(self) -> int:
        """Return how much is held, about."""
        return self._size_bytes

    @property
    def is_replayable(self) -> bool:
        """Tell whether the beginning of what is held is held as well."""
        return bool(self._stretches) and self._stretches[0].beginning is not None

    def build(
        self,
        node_class: type[GossipNode],
        *,
        settings: GossipSettings,
        trust_domain: str,
        keys: NodeKeys,
        profile: NodeProfile,
        documents: TrustedDocuments,
        verifier: Verifier,
        restored: RestoredState,
        rng: random.Random,
        now: Instant,
        wall_offset_s: int,
    ) -> GossipNode:
        """Build a core as its class does, recorded from its first moment.

        Raises:
            MalformedInput: as `GossipNode`.
        """
        held = Documents.of(documents)
        start = Start(
            settings=settings,
            trust_domain=trust_domain,
            credential=keys.credential,
            profile=profile,
            trust_envelopes=held.trust_envelopes,
            floors=held.floors,
            policy_sets=held.policy_sets,
            restored=restored,
            generator=rng.getstate(),
            now=now,
            wall_offset_s=wall_offset_s,
        )
        core = node_class(
            settings=settings,
            trust_domain=trust_domain,
            keys=msgspec.structs.replace(keys, signing=TappedSigningKey(keys.signing, self._signed)),
            profile=profile,
            documents=documents,
            verifier=verifier,
            restored=restored,
            rng=rng,
            now=now,
            wall_offset_s=wall_offset_s,
        )
        self._rng = rng
        size_bytes = sum(len(value) for _, value in restored.members) + sum(map(len, restored.roll))
        fits = size_bytes <= self._bytes_max * BEGINNING_PERCENT_MAX // 100
        self._begin(start if fits else None, now, size_bytes if fits else 0)
        self._core, self._inputs = core, RecordedInputs(core, self)
        return core

    @property
    def inputs(self) -> RecordedInputs:
        """Return what a shell is given in the stead of the core that was built last."""
        assert self._inputs is not None
        return self._inputs

    def tape(self) -> Tape:
        """Return what is held now, oldest first; the newest beginning that lies outside the window counts."""
        stretches = self._stretches
        core = self._core
        assert core is not None
        peers = dict(self._peers)
        for member in core._catalog:
            _add_peer(peers, member)
        entries = tuple(entry for stretch in stretches for entry in stretch.entries)
        first = stretches[0]
        return Tape(first.beginning, first.began, self._now, entries, self.dropped_count, peers)

    def stir(self, seed: bytes) -> None:
        """Go on from another random seed: what was copied must not tell what this core will draw."""
        self._rng.seed(seed)
        packed = msgspec.Raw(msgspec.msgpack.encode([seed]))
        self._note(Entry(RESEED, packed, b""))

    # Inside

    def _begin(self, beginning: Start | bytes | None, now: int, size_bytes: int) -> None:
        self._stretches.append(_Stretch(beginning, now, size_bytes))
        self._size_bytes += size_bytes
        self._next_checkpoint = now + self._checkpoint_interval_ns
        self._retry_at = now + CHECKPOINT_RETRY_NS
        self._now = now

    def _signed(self, message: bytes, signature: bytes) -> None:
        self._signatures.append((message_digest(message), signature))

    def take(self, now: Instant, call: Callable[..., Told], *arguments: Any) -> Told:
        """Call an input of the core, note it and what came of it, and return or raise that."""
        core, name = self._core, call.__name__
        assert core is not None
        packed = msgspec.Raw(_ENCODER.encode(arguments))
        try:
            effects = call(*arguments)
        except Exception as error:
            self._note(Entry(name, packed, failure_digest(error), tuple(self._signatures)))
            raise
        else:
            digest = step_digest(effects, core.next_deadline())  # type: ignore[arg-type]
            nonces = self._follow(core, effects) if effects else ()
            self._note(Entry(name, packed, digest, tuple(self._signatures), nonces))
        finally:
            self._signatures.clear()
        if name == "stream_closed":
            self._spoken.discard(arguments[0])
        if now > self._now:
            self._now = now
        self._turn(core)
        return effects

    def _follow(self, core: GossipNode, effects: Any) -> tuple[tuple[int, bytes], ...]:
        """Note what opening recorded packets will take: peers' public keys, our nonces of streams."""
        nonces: list[tuple[int, bytes]] = []
        for effect in effects:
            if type(effect) is SendStream and effect.stream not in self._spoken:
                self._spoken.add(effect.stream)
                try:
                    hello = decode_stream_hello_untrusted(effect.payload[LENGTH_BYTES:])
                except MalformedInput:
                    continue
                nonces.append((effect.stream, hello.nonce))
            elif type(effect) is CloseStream:
                self._spoken.discard(effect.stream)
            elif type(effect) is Notify and type(effect.event) is MemberChanged:
                self._meet(core, effect.event.node_id)
        return tuple(nonces)

    def _meet(self, core: GossipNode, node_id: NodeId) -> None:
        """Remember a member's public exchange key, lest it enrols anew; `tape` adds the others."""
        member = core._catalog.get(node_id)
        if member is not None and len(self._peers) < PEERS_MAX:
            _add_peer(self._peers, member)

    def _note(self, entry: Entry) -> None:
        packed = bytes(memoryview(_ENCODER.encode(entry)))  # without the room an encoder keeps to grow
        stretch, size_bytes = self._stretches[-1], len(packed) + _ENTRY_OVERHEAD_BYTES
        stretch.entries.append(packed)
        stretch.size_bytes += size_bytes
        self._size_bytes += size_bytes
        self.entries_count += 1

    def _turn(self, core: GossipNode) -> None:
        """Begin a new stretch when one is due, and let go of what is too old or too much."""
        now, stretches = self._now, self._stretches
        if now >= self._next_checkpoint or (now >= self._retry_at and self._is_full()):
            self._next_checkpoint = self._retry_at = now + CHECKPOINT_RETRY_NS
            length_max = self._bytes_max * BEGINNING_PERCENT_MAX // 100
            state = self._checkpoint(core, length_max)
            if state is not None and len(state) <= length_max:
                self.checkpoints_count += 1
                self._begin(state, now, len(state))
            elif state is not None:
                # Too long to keep, and work for nothing: a core does not become so much smaller soon.
                self._next_checkpoint = self._retry_at = now + self._checkpoint_interval_ns
        while len(stretches) > 1 and (
            stretches[1].began <= now - self._window_ns or self._size_bytes > self._bytes_max
        ):
            gone = stretches.pop(0)
            self._size_bytes -= gone.size_bytes
            self.dropped_count += len(gone.entries)
        last = stretches[-1]
        while self._size_bytes > self._bytes_max and last.entries:
            last.beginning = None
            self.dropped_count += 1
            size_bytes = len(last.entries.popleft()) + _ENTRY_OVERHEAD_BYTES
            last.size_bytes -= size_bytes
            self._size_bytes -= size_bytes

    def _is_full(self) -> bool:
        """Tell whether the inputs since the last beginning take the room they may, or have lost it.

        They may have half of what two beginnings leave, so that those before can be replayed meanwhile; where
        that is little, nearly all that one leaves.
        """
        last = self._stretches[-1]
        if last.beginning is None:
            return True
        inputs_bytes = last.size_bytes - last.beginning_bytes
        spare_bytes = self._bytes_max - 2 * last.beginning_bytes
        if spare_bytes >= self._bytes_max // 3:
            return inputs_bytes > spare_bytes // 2
        return 10 * inputs_bytes > 9 * (self._bytes_max - last.beginning_bytes)


def _add_peer(peers: dict[int, tuple[Peer, ...]], member: Member) -> None:
    """Keep a member's public exchange key, and the one it had before."""
    peer = (member.node_id, member.credential.exchange_key)
    held = peers.get(member.short_id, ())
    if peer not in held:
        peers[member.short_id] = (*held[-1:], peer)
