"""The signed facts members exchange, as values.

Rules:
1. Bytes are signed, never values: a record travels as the exact `body` its owner signed.
2. Every owner-signed body is a msgpack array that begins with (node_id, generation, epoch,
   sequence), so that a kind this build does not know can still be ordered, stored and forwarded.
3. Fields are only ever appended, with defaults; readers ignore what they do not know.
"""

from enum import IntEnum
from typing import Final

import msgspec

from gossipmesh.model.identity import NodeId
from gossipmesh.model.member import Address, Order
from gossipmesh.model.service import ServiceEntry

SEQUENCE_WHOLE: Final = 2**62 - 1
"""The sequence a verdict carries: it is about an incarnation as a whole, so no state of it is later."""


class RecordKind(IntEnum):
    """First byte of what is signed; also the domain separator of the signature."""

    CREDENTIAL = 1
    NODE_STATE = 2
    SERVICE_SET = 3
    VERDICT = 5
    KEY_SET = 6


RETIRED_KINDS: Final = frozenset({4})
"""Kinds that are refused, whoever signs them, and never used anew: 4 was one member's word against another.

Nodes of 0.1 and 0.2 refuse it, too. If it were kept as unknown kinds are, it would count in our roots and
never in theirs, and the two would compare for ever.
"""


class SignedRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record as it travels and rests: kind, the signed bytes, an Ed25519 signature of 64 bytes.

    `key_id` names the authority's document key for a credential and is empty for the rest,
    whose key stands in their owner's credential. A verdict carries its votes' signatures inside and
    none of its own.
    """

    kind: int
    body: bytes
    signature: bytes
    key_id: bytes = b""


class NodeCredential(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The ticket into the group, signed by an authority document key; without keys it is a tombstone.

    A tombstone says that no credential of its generation or below counts any more; it allows nothing.
    `serial` orders credentials of one generation; `spki_hashes` are SHA-256 of the public keys of
    the node's current leaves; `service_patterns` are `namespace/name` with `*` for either part;
    `not_before` and `ends` are wall seconds, and past `ends` nothing of this node counts.
    """

    node_id: NodeId
    spiffe_id: str
    generation: int
    serial: int
    signing_key: bytes
    exchange_key: bytes
    spki_hashes: tuple[bytes, ...]
    service_patterns: tuple[str, ...]
    not_before: int
    ends: int

    @property
    def is_tombstone(self) -> bool:
        """Tell whether this takes its node out of the group."""
        return not self.signing_key


class PolicyStatus(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node runs of one scope, and what it last refused (zero and empty: nothing)."""

    scope: str
    version: int
    manifest_hash: bytes
    refused_version: int = 0
    refused_hash: bytes = b""
    refused_reason: str = ""


class NodeState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node says of itself, signed by itself.

    `gossip_addresses` and `mesh_addresses` are preferred first, 1 to 4 each; `wire_min` and
    `wire_max` are the datagram versions it speaks; `policies` are sorted by scope; `run_id` is the
    random number of this start, 0 for unknown: who holds it can seal packets to the node. `lag_ms` is
    the step its own lag has reached; `restarting_s`: it will be back within so many seconds, 0 for no.
    """

    node_id: NodeId
    generation: int
    epoch: int
    sequence: int
    name: str
    gossip_addresses: tuple[Address, ...]
    mesh_addresses: tuple[Address, ...]
    phase: int
    build: str
    wire_min: int
    wire_max: int
    features: tuple[str, ...]
    policies: tuple[PolicyStatus, ...] = ()
    run_id: int = 0
    lag_ms: int = 0
    restarting_s: int = 0

    @property
    def order(self) -> Order:
        """Return when this record was signed."""
        return Order(self.generation, self.epoch, self.sequence)


class ServiceSet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All services of one node, signed by it; `entries` are sorted by registration, at most 256."""

    node_id: NodeId
    generation: int
    epoch: int
    sequence: int
    entries: tuple[ServiceEntry, ...]

    @property
    def order(self) -> Order:
        """Return when this record was signed."""
        return Order(self.generation, self.epoch, self.sequence)


class IdentityPins(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The TLS keys of one identity of a node: 1 to 3 pins of 16 bytes, current, next, the one before.

    `path` is the identity's within the trust domain: `/node/vm1`, `/node/vm1/workloads`, `/ns/shop/svc/cart`.
    """

    path: str
    pins: tuple[bytes, ...]


class KeySet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The TLS keys a node uses, signed by it; `entries` are sorted by path, at most 130."""

    node_id: NodeId
    generation: int
    epoch: int
    sequence: int
    entries: tuple[IdentityPins, ...]

    @property
    def order(self) -> Order:
        """Return when this record was signed."""
        return Order(self.generation, self.epoch, self.sequence)


class Cause(IntEnum):
    """Why a monitor votes: what it found of its target."""

    SILENT = 1
    REFUSED = 2
    AGENT_GONE = 3
    DEAF = 4
    DEGRADED = 5

    @property
    def label(self) -> str:
        """Return the word an operator reads."""
        return self.name.lower().replace("_", " ")


class Vote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One monitor's signed finding about one incarnation of its target; good for two seconds.

    `sequence` is the voter's own count, `beat` the last of the target's beats (see `Seen`) it heard.
    """

    node_id: NodeId
    generation: int
    epoch: int
    cause: int
    voter: NodeId
    sequence: int
    beat: int
    signature: bytes


class VerdictVote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A vote without what all votes of one verdict have in common."""

    cause: int
    voter: NodeId
    sequence: int
    beat: int
    signature: bytes


class Verdict(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A quorum of monitors found an incarnation dead or unattended; `sequence` is `SEQUENCE_WHOLE`."""

    node_id: NodeId
    generation: int
    epoch: int
    sequence: int
    status: int
    votes: tuple[VerdictVote, ...]

    @property
    def order(self) -> Order:
        """Return an order above every state of the incarnation, below every later one."""
        return Order(self.generation, self.epoch, self.sequence)

    @property
    def beats(self) -> tuple[int, ...]:
        """Return the last beats the voters heard."""
        return tuple(vote.beat for vote in self.votes)
