"""What a node knows when it compiles: its own services, the catalog, policies, and what is wanted."""

from collections.abc import Mapping

import msgspec

from gossipmesh.model.engine_features import SECTION_FEATURES
from gossipmesh.model.member import Address
from gossipmesh.model.policy import Document
from gossipmesh.model.service import NodeEndpoints
from gossipmesh.model.snapshot import LimitsSection


class LocalService(msgspec.Struct, frozen=True):
    """One workload of this node; `upstreams` are (service, address of the explicit port)."""

    registration: str
    service: str
    protocol: str
    workload: Address
    uid: int
    upstreams: tuple[tuple[str, Address], ...] = ()


class PolicyInput(msgspec.Struct, frozen=True):
    """A document in force and the manifest version that introduced its name."""

    document: Document
    since: int


class PeerInputs(msgspec.Struct, frozen=True):
    """What an engine judges its peers by; see `model.snapshot` for the entries.

    `pins`, `credentials`: shard -> entries. `intermediates`: PEM. `hears`: this agent hears other members.
    `listed`: by service, for each of `SnapshotInputs.serving` in its order, the pins its node lists for it:
    None where the node signs no key sets, empty where its set is not here yet. `revoked_leaves`: serial
    numbers of certificates that count no more, in hex.
    """

    pins: Mapping[str, bytes]
    credentials: Mapping[str, bytes]
    intermediates: tuple[str, ...]
    hears: bool
    listed: Mapping[str, tuple[tuple[bytes, ...] | None, ...]]
    revoked_leaves: tuple[str, ...] = ()


class SnapshotInputs(msgspec.Struct, frozen=True):
    """Everything a snapshot is made of; the order within the tuples does not matter.

    `serving`: by service, who serves it, as far as each is relied upon now (see `reliance`). What a compiler
    finds equal to what it was last given is not looked at again, and the same object costs nothing.
    `wanted`: services applications asked for lately; declared upstreams are wanted without asking.
    `protocols`: (service, protocol) as last known, for services nobody serves now.
    `peers`: None for an engine that takes whoever a root vouches for.
    `workloads`: the identity that this node's processes of no service may speak with; None: it has none yet.
    `features`: what the engine names (model.engine_features); nothing it could not read is written.
    """

    trust_domain: str
    node: str
    local: tuple[LocalService, ...]
    serving: Mapping[str, tuple[NodeEndpoints, ...]]
    policies: tuple[PolicyInput, ...]
    wanted: tuple[str, ...]
    limits: LimitsSection
    protocols: tuple[tuple[str, str], ...] = ()
    peers: PeerInputs | None = None
    workloads: str | None = None
    features: frozenset[str] = SECTION_FEATURES
