"""One member as this node holds it: signed records, and what was observed locally.

The effective status is a maximum over the owner's state and the best claim; nothing else is merged.
Paper: SWIM section 4.2. Deviation: see `catalog`.
"""

from collections.abc import Iterator

from gossipmesh.gossip.links import Link
from gossipmesh.gossip.settings import MemberView
from gossipmesh.model.identity import SHORT_ID_BYTES, NodeId, node_name_of_spiffe_id
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address, MemberStatus, NodePhase, Order
from gossipmesh.model.records import (
    Certificate,
    Claim,
    NodeCredential,
    NodeState,
    RecordKind,
    ServiceSet,
    SignedRecord,
)
from gossipmesh.wire.datagram import decode_record


class Records:
    """A member's records, read from and written to the encoded messages that are all that is kept."""

    __slots__ = ("_messages",)

    def __init__(self, messages: dict[int, bytes]) -> None:
        self._messages = messages

    def __getitem__(self, kind: int) -> SignedRecord:
        return decode_record(self._messages[kind])

    def __iter__(self) -> Iterator[int]:
        return iter(self._messages)

    def __contains__(self, kind: int) -> bool:
        return kind in self._messages

    def get(self, kind: int) -> SignedRecord | None:
        """Return the record of a kind, if there is one."""
        message = self._messages.get(kind)
        return None if message is None else decode_record(message)


class Member:
    """Mutable; owned by the catalog. `claim` and `certificate` are kept while `state` does not beat them."""

    __slots__ = (
        "address_index",
        "announced_at",
        "beat",
        "beat_run",
        "certificate",
        "changed_at",
        "claim",
        "credential",
        "endpoints_held",
        "heard_at",
        "held",
        "held_down_until",
        "lag_ms",
        "link",
        "messages",
        "name",
        "node_id",
        "opaque",
        "restarting_until",
        "run",
        "services",
        "short_id",
        "shown_at",
        "state",
        "status",
        "told_at",
        "unequal_count",
        "unreachable",
    )

    def __init__(self, credential: NodeCredential, now: Instant) -> None:
        self.credential = credential
        self.node_id: NodeId = credential.node_id
        self.short_id = short_id_of(credential.node_id)
        self.name = node_name_of_spiffe_id(credential.spiffe_id) or ""
        self.state: NodeState | None = None
        self.services: ServiceSet | None = None
        self.claim: Claim | None = None
        self.certificate: Certificate | None = None
        self.held: Claim | None = None
        self.messages: dict[int, bytes] = {}
        self.opaque: dict[int, Order] = {}
        self.status = MemberStatus.ALIVE
        self.changed_at = now
        self.run = 0
        self.link: Link | None = None
        self.heard_at = -1
        self.told_at = -1
        self.announced_at = -1
        self.address_index = 0
        self.unequal_count = 0
        self.beat = 0
        self.beat_run = 0
        self.lag_ms = 0
        self.shown_at = -1
        self.restarting_until = -1
        self.unreachable = False
        self.endpoints_held = False
        self.held_down_until: Instant | None = None

    @property
    def order(self) -> Order:
        """Return the order of the newest state held; zero when none is."""
        return _NO_ORDER if self.state is None else self.state.order

    @property
    def address(self) -> Address | None:
        """Return where packets go; None before a state is known."""
        if self.state is None:
            return None
        addresses = self.state.gossip_addresses
        return addresses[self.address_index % len(addresses)]

    @property
    def serving(self) -> bool:
        """Tell whether its endpoints are in use: everything but dead and left."""
        return self.state is not None and self.status < MemberStatus.DEAD

    def settle(self) -> MemberStatus:
        """Return the status that the records held amount to."""
        if self.state is not None and self.state.phase == NodePhase.LEFT:
            return MemberStatus.LEFT
        if self.certificate is not None:
            return MemberStatus(self.certificate.status)
        if self.held_down_until is not None:
            return MemberStatus.DEAD
        return MemberStatus.ALIVE if self.claim is None else MemberStatus(self.claim.status)

    @property
    def verdict_message(self) -> bytes | None:
        """Return what is held against the member, encoded; None when nothing is."""
        if self.certificate is not None:
            return self.messages.get(RecordKind.CERTIFICATE)
        return None if self.claim is None else self.messages.get(RecordKind.CLAIM)

    def view(self, now: Instant) -> MemberView | None:
        """Return the member as the rest of the agent reads it; None before a state is known."""
        if self.state is None:
            return None
        return MemberView(
            name=self.name,
            node_id=self.node_id,
            spiffe_id=self.credential.spiffe_id,
            status=self.status,
            state=self.state,
            credential=self.credential,
            changed_at=self.changed_at,
            unreachable=self.unreachable,
            heard_age_ns=None if self.heard_at < 0 else max(0, now - self.heard_at),
            lag_ms=self.state.lag_ms,
            hold_down_until=self.held_down_until,
            endpoints_held=self.endpoints_held,
        )

    @property
    def records(self) -> Records:
        """Return the records as they were received."""
        return Records(self.messages)

    def record(self, kind: int) -> SignedRecord | None:
        """Return the record of a kind, as it was received."""
        return self.records.get(kind)


_NO_ORDER = Order(0, 0, 0)


def short_id_of(node_id: bytes) -> int:
    """Return the u64 that stands for a node in packet headers."""
    return int.from_bytes(node_id[:SHORT_ID_BYTES], "big")
