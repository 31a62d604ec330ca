"""The inputs of a core as a shell hands them over to a flight recorder, which hands each on to the core.

One method for each input of `GossipNode`, of the same name and form: a shell is given these in the core's
stead, or the core itself. What the core calls of itself does not come by here.
Paper: none. Deviation: none.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from gossipmesh.gossip.base.effects import Effect, StreamId
from gossipmesh.gossip.base.settings import NodeAddresses
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address
from gossipmesh.model.records import IdentityPins, SignedRecord
from gossipmesh.model.service import ServiceEntry
from gossipmesh.trust.documents import PolicySet

Told = TypeVar("Told")


class Taker(Protocol):
    """Who notes an input."""

    def take(self, now: Instant, call: Callable[..., Told], *arguments: Any) -> Told:
        """Call an input of the core, note what came of it, and return or raise that."""


class RecordedInputs:
    """All inputs of one core, each handed over to a taker; every method is as the core's of its name."""

    def __init__(self, core: GossipNode, taker: Taker) -> None:
        self._core = core
        self._take = taker.take

    def next_deadline(self) -> Instant:
        """Return when `handle_deadline` is due; no input."""
        return self._core.next_deadline()

    def start(self, seeds: Sequence[Address], now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.start, seeds, now)

    def seeds_changed(self, seeds: Sequence[Address], now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.seeds_changed, seeds, now)

    def addresses_changed(self, addresses: NodeAddresses, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.addresses_changed, addresses, now)

    def handle_deadline(self, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.handle_deadline, now)

    def receive_datagram(
        self, payload: bytes, sender: Address, now: Instant, arrived: Instant | None = None
    ) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.receive_datagram, payload, sender, now, arrived)

    def port_refused(self, address: Address, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.port_refused, address, now)

    def note_lag(self, lag_ns: int, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.note_lag, lag_ns, now)

    def stream_accepted(self, stream: StreamId, peer: Address, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.stream_accepted, stream, peer, now)

    def stream_opened(self, stream: StreamId, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.stream_opened, stream, now)

    def receive_stream(self, stream: StreamId, data: bytes, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.receive_stream, stream, data, now)

    def stream_closed(self, stream: StreamId, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.stream_closed, stream, now)

    def engine_probed(self, probe: int, answered: bool, now: Instant, refused: bool = False) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.engine_probed, probe, answered, now, refused)

    def persisted(self, ticket: int, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.persisted, ticket, now)

    def publish_services(self, entries: Sequence[ServiceEntry], now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.publish_services, entries, now)

    def turn_keys(self, entries: Sequence[IdentityPins], now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.turn_keys, entries, now)

    def offer_policy(self, policy_set: PolicySet, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.offer_policy, policy_set, now)

    def offer_trust(self, envelope: bytes, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.offer_trust, envelope, now)

    def offer_roll(self, piece: bytes, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.offer_roll, piece, now)

    def renew_credential(self, record: SignedRecord, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.renew_credential, record, now)

    def offer_credential(self, record: SignedRecord, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.offer_credential, record, now)

    def set_draining(self, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.set_draining, now)

    def set_restarting(self, for_s: int, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.set_restarting, for_s, now)

    def set_engine_lacks(self, features: tuple[str, ...], now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.set_engine_lacks, features, now)

    def release_mass_death(self, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.release_mass_death, now)

    def open_by_hand(self, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.open_by_hand, now)

    def ask_members(self, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.ask_members, now)

    def leave(self, now: Instant) -> list[Effect]:
        """Hand over the input of this name."""
        return self._take(now, self._core.leave, now)

    def adjust_wall_clock(self, wall_offset_s: int, now: Instant) -> None:
        """Hand over the input of this name."""
        return self._take(now, self._core.adjust_wall_clock, wall_offset_s, now)
