"""What a node knows when it compiles: its own services, the catalog, policies, and what is wanted."""

import msgspec

from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.policy import Document
from gossipmesh.model.service import EndpointHealth
from gossipmesh.model.snapshot import LimitsSection


class CatalogEndpoint(msgspec.Struct, frozen=True):
    """One registration of the mesh as gossip holds it now.

    `service` is `namespace/name`; `address` is its node's mesh address; `status` its node's.
    """

    registration: str
    service: str
    protocol: str
    labels: dict[str, str]
    weight: int
    health: EndpointHealth
    draining: bool
    node: str
    address: Address
    status: MemberStatus


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


class SnapshotInputs(msgspec.Struct, frozen=True):
    """Everything a snapshot is made of; the order within the tuples does not matter.

    `wanted`: services applications asked for lately; declared upstreams are wanted without asking.
    `protocols`: (service, protocol) as last known, for services nobody serves now.
    """

    trust_domain: str
    node: str
    local: tuple[LocalService, ...]
    catalog: tuple[CatalogEndpoint, ...]
    policies: tuple[PolicyInput, ...]
    wanted: tuple[str, ...]
    limits: LimitsSection
    protocols: tuple[tuple[str, str], ...] = ()
