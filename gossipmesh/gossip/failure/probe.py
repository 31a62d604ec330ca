"""Whom to ping next, what a running probe has heard, and pings made for others.

Paper: SWIM section 3 and 4.3 (shuffled round robin), Lifeguard IV.A (nack).
Deviation: any authenticated packet of the target during its probe counts as an answer, and a TCP
handshake runs beside the indirect pings (memberlist), so that a filter on UDP alone kills nobody.
"""

import random

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.budgets import KeyedBudgets
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model import limits
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import MemberStatus


@kept.part("probe list")
class ProbeList:
    """Every probed member once per round, in a new random order each round.

    The order is drawn member by member: to shuffle ten thousand in one go would hold the loop for 5 ms.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._round: list[bytes] = []

    def next(self, catalog: Catalog) -> Member | None:
        """Return the next member to probe; None when there is none. Cost: a copy of all ids once a round."""
        for _ in range(2):
            while self._round:
                member = catalog.get(self._draw())
                if member is not None and is_probed(member, catalog.own_id):
                    return member
            self._round = [member.node_id for member in catalog.reachable]
        return None

    def _draw(self) -> bytes:
        """Take any of those left."""
        place = self._rng.randrange(len(self._round))
        self._round[place], self._round[-1] = self._round[-1], self._round[place]
        return self._round.pop()


@kept.value("probe")
class Probe:
    """One running probe of one member."""

    __slots__ = ("answered", "helpers", "is_patient", "nacks", "sequence", "started", "target")

    def __init__(self, target: Member, sequence: int, now: Instant, *, is_patient: bool = False) -> None:
        self.target = target
        self.sequence = sequence
        self.started = now
        self.answered = False
        self.is_patient = is_patient
        self.helpers: list[bytes] = []
        self.nacks: list[bytes] = []


@kept.value("relayed ping")
class RelayedPing:
    """A ping made because another member asked; its ack is passed on."""

    __slots__ = ("requester", "requester_sequence", "target_id")

    def __init__(self, requester: Member, requester_sequence: int, target_id: bytes) -> None:
        self.requester = requester
        self.requester_sequence = requester_sequence
        self.target_id = target_id


@kept.part("relays")
class RelayTable:
    """Relayed pings by our own sequence, oldest forgotten first, within a budget by requester and target."""

    def __init__(self) -> None:
        self._pings: dict[int, RelayedPing] = {}
        self._by_requester = KeyedBudgets(
            limits.PING_REQS_PER_MEMBER_PER_S, limits.PING_REQS_PER_MEMBER_BURST
        )
        self._by_target = KeyedBudgets(limits.PING_REQS_PER_TARGET_PER_S, limits.PING_REQS_PER_TARGET_BURST)

    def admits(self, requester: bytes, target: bytes, now: Instant) -> bool:
        """Count one more request; False for more than anybody needs, lest it be us who floods the target."""
        return self._by_requester.take_key(requester, now) and self._by_target.take_key(target, now)

    def add(self, sequence: int, ping: RelayedPing) -> None:
        """Remember a relayed ping."""
        self._pings[sequence] = ping
        if len(self._pings) > limits.RELAYED_PINGS_MAX:
            del self._pings[next(iter(self._pings))]

    def take(self, sequence: int) -> RelayedPing | None:
        """Return and forget a relayed ping."""
        return self._pings.pop(sequence, None)

    def get(self, sequence: int) -> RelayedPing | None:
        """Return a relayed ping that is still open."""
        return self._pings.get(sequence)


def is_probed(member: Member, own_id: bytes) -> bool:
    """Tell whether probes go to this member: its agent answers, as far as we know, at an address."""
    return (
        member.node_id != own_id
        and member.messages.state is not None
        and member.status < MemberStatus.UNATTENDED
    )
