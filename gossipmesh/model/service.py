"""Services as their nodes publish them.

Endpoint health comes from the owner's checks and is never mixed with member status.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum, StrEnum

import msgspec

from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address, MemberStatus


class Protocol(StrEnum):
    """What a workload speaks; `http` is HTTP/1.1."""

    HTTP = "http"
    TCP = "tcp"


class EndpointHealth(IntEnum):
    """What the owner's checks say of a workload."""

    UNKNOWN = 0
    PASSING = 1
    FAILING = 2

    @property
    def label(self) -> str:
        """Return the word an operator reads."""
        return self.name.lower()


class ServiceEntry(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=False):
    """One registration as gossip carries it, inside its owner's `ServiceSet`.

    `registration` is unique on its node and is a DNS label; `service` is `namespace/name`;
    `labels` are sorted by key, no key twice; `weight` is 1..65535, 100 by default.
    """

    registration: str
    service: str
    protocol: str
    health: int
    draining: bool
    weight: int
    labels: tuple[tuple[str, str], ...]


class NodeEndpoints(msgspec.Struct, frozen=True, gc=False):
    """The endpoints of one member that are in use, and what they share: where it is and how it stands.

    `node` is its name and `address` where its engine is called; `draining`: it takes nothing new at any of
    them; `since`: when this node came to hold it in that `status`; `unreachable`: it is alive, and this node
    alone does not hear it; `retained`: it died with many others, and these are kept; `entries`: as it signed
    them, sorted by registration.
    """

    node_id: NodeId
    node: str
    address: Address
    draining: bool
    status: MemberStatus
    since: Instant
    unreachable: bool
    retained: bool
    entries: tuple[ServiceEntry, ...]


class EndpointsDelta(msgspec.Struct, frozen=True, gc=False):
    """What changed of one member's endpoints: those of `services` are now as in `after`, in use or not.

    `after` is all that it has in use, None for nothing; of services that are not named nothing changed.
    """

    node_id: NodeId
    services: tuple[str, ...]
    after: NodeEndpoints | None


def services_of(entries: Iterable[ServiceEntry]) -> tuple[str, ...]:
    """Return the services of these, each once, in their order."""
    return tuple(dict.fromkeys(entry.service for entry in entries))


def services_differing(old: Sequence[ServiceEntry], new: Sequence[ServiceEntry]) -> tuple[str, ...]:
    """Return the services of which an entry was added, removed or changed."""
    both = frozenset(old) & frozenset(new)
    return services_of(entry for entry in (*old, *new) if entry not in both)
