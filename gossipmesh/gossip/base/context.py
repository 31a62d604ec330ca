"""What all parts of one gossip core share: who we are, what time it is, and the effects of this step.

It exists so that parts need not know one another; it decides nothing. Deviation: no paper speaks of it.
"""

import hashlib
import random

from gossipmesh.gossip.base.civil_time import CivilTime
from gossipmesh.gossip.base.effects import (
    ClockBelowRecords,
    ClockOff,
    Effect,
    Event,
    Notify,
    OpenStream,
    Persist,
    PersistKind,
    SendDatagram,
    SendStream,
)
from gossipmesh.gossip.base.history import History
from gossipmesh.gossip.base.lag import LagMeter
from gossipmesh.gossip.base.peer_clocks import PeerClocks
from gossipmesh.gossip.base.settings import GossipSettings, GossipStatistics, NodeKeys
from gossipmesh.gossip.base.timers import Timers
from gossipmesh.gossip.base.writes import Continuation, Writes
from gossipmesh.model import limits
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import Verifier
from gossipmesh.trust.seal import group_tag_of
from gossipmesh.wire.datagram import DATA, TYPE_AT


class Context:
    """Shared by reference; `now` is set at the start of each step and never goes back."""

    def __init__(
        self,
        *,
        settings: GossipSettings,
        trust_domain: str,
        keys: NodeKeys,
        documents: TrustedDocuments,
        verifier: Verifier,
        rng: random.Random,
        now: Instant,
        wall_offset_s: int,
    ) -> None:
        self.settings = settings
        self.trust_domain = trust_domain
        self.keys = keys
        self.documents = documents
        self.verifier = verifier
        self.rng = rng
        self.now = now
        self.wall_offset_s = wall_offset_s
        self.group_tag = group_tag_of(trust_domain)
        self.run_id = self.fresh_number()
        self.timers = Timers()
        self.writes = Writes()
        self.is_mute = self._has_begun = False
        self.started = now
        self.lag = LagMeter()
        self.clocks = PeerClocks()
        self.civil = CivilTime()
        self.history = History()
        self.statistics = GossipStatistics()
        self._effects: list[Effect] = []

    @property
    def beat(self) -> int:
        """Return which of our own beats it is; 1 at the start, the same for every addressee."""
        return (self.now - self.started) // self.settings.monitor.heartbeat_slot_ns + 1

    def on_beat(self, at: int) -> int:
        """Return the moment of our heartbeats nearest to `at`, which is a slot away or more.

        A process at rest costs what waking it costs: what need not be exact is done when it wakes anyway.
        """
        beat_at = self.timers.due_at(("heartbeat", None))
        if beat_at is None:
            return at
        slot_ns = self.settings.monitor.heartbeat_slot_ns
        return at + (beat_at - at + slot_ns // 2) % slot_ns - slot_ns // 2

    @property
    def lag_ms(self) -> int:
        """Return how late we act just now, in milliseconds."""
        return self.lag.current_ns(self.now) // MILLISECOND_NS

    @property
    def wall_s(self) -> int:
        """Return what our clock says of civil time; what it is judged by is `civil`."""
        return self.now // SECOND_NS + self.wall_offset_s

    @property
    def earliest_s(self) -> int:
        """Return the earliest date that may be now: what ended before it has ended by every word we have."""
        return self.civil.earliest(self.wall_s)

    @property
    def latest_s(self) -> int:
        """Return the latest date that may be now."""
        return self.civil.latest(self.wall_s)

    def holds_now(self, not_before: int, ends: int) -> bool:
        """Tell whether what was signed for this while may be taken."""
        return self.civil.has_begun(not_before, self.wall_s) and self.earliest_s < ends

    def note_peer_clock(self, node_id: bytes, wall_s: int, arrived: Instant) -> None:
        """Take what a peer that we asked says of civil time, and judge our own clock by it."""
        self.clocks.note(node_id, wall_s, arrived)
        self.judge_clock()

    def judge_clock(self) -> None:
        """Judge our own clock by what peers said, and by what was signed."""
        skew = self.clocks.skew(self.wall_offset_s, self.now)
        self.statistics.clock_skew_s, self.statistics.clock_peers = skew
        below_s = self.statistics.clock_below_records_s = self.civil.below_records_s(self.wall_s)
        turn = self.civil.judge(self.wall_s, *skew, self.now)
        self.statistics.clock_off = int(self.civil.is_off)
        if turn.is_off is not None:
            self.notify(ClockOff(skew.by_s if turn.is_off else 0, skew.peers_count))
        if turn.is_below_records is not None:
            self.notify(ClockBelowRecords(below_s if turn.is_below_records else 0))

    def fresh(self, size_bytes: int) -> bytes:
        """Return random bytes that may be shown: hashed, so that nobody can compute `rng` from them."""
        return hashlib.blake2b(self.rng.randbytes(32), digest_size=size_bytes).digest()

    def fresh_number(self) -> int:
        """Return a random number in 1..2^62 that may be shown."""
        return (int.from_bytes(self.fresh(8), "big") >> 2) + 1

    def emit(self, effect: Effect) -> None:
        """Add an effect to this step."""
        self._effects.append(effect)

    def notify(self, event: Event) -> None:
        """Add an event to this step."""
        self._effects.append(Notify(event))

    def persist(self, kind: PersistKind, key: bytes, value: bytes | None) -> None:
        """Add a write to this step that a power cut may take back."""
        self._effects.append(Persist(kind, key, value, durable=False))

    def persist_durably(
        self, kind: PersistKind, key: bytes, value: bytes, then: Continuation | None = None
    ) -> None:
        """Add a write that is to be on disk before `then` goes on; None: nothing waits for it."""
        ticket = 0 if then is None else self.writes.begin(then)
        self._effects.append(Persist(kind, key, value, durable=True, ticket=ticket))

    def send(self, destination: Address, payload: bytes) -> None:
        """Add a datagram to this step."""
        self.statistics.datagrams_sent += 1
        self.statistics.bytes_sent += len(payload)
        self._effects.append(SendDatagram(destination, payload))

    def dropped(self, reason: str) -> None:
        """Count a packet or frame that was not used."""
        table = self.statistics.dropped
        table[reason] = table.get(reason, 0) + 1

    def refused(self, reason: str) -> None:
        """Count a record that was not merged."""
        table = self.statistics.refused
        table[reason] = table.get(reason, 0) + 1

    def hush(self, *, has_begun: bool) -> None:
        """Keep back until `speak` whatever shows others our epoch.

        Before we have begun that is what is sealed, for all else only asks who is there; from then on it is
        everything but the epoch's own writing.
        """
        self.is_mute, self._has_begun = True, has_begun

    def speak(self) -> None:
        """Let out what waited for our epoch, and all that comes after it."""
        self.is_mute = False

    def drain(self) -> list[Effect]:
        """Return the effects of this step, in order; while we are mute only what `hush` lets out."""
        effects, self._effects = self._effects, []
        if not self.is_mute:
            return effects
        said: list[Effect] = []
        for effect in effects:
            if self._is_said_mute(effect):
                said.append(effect)
            elif type(effect) is SendDatagram and len(self._effects) >= limits.EFFECTS_PER_STEP_MAX // 2:
                self.dropped("before our epoch was on disk")
            else:
                self._effects.append(effect)
        return said

    def _is_said_mute(self, effect: Effect) -> bool:
        """Tell whether an effect is performed though we are mute."""
        if self._has_begun:
            return type(effect) is Persist and effect.kind is PersistKind.EPOCH
        if type(effect) is SendDatagram:
            return effect.payload[TYPE_AT] != DATA
        return type(effect) not in (OpenStream, SendStream)
