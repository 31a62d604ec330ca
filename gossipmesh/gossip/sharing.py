"""Equal parts of records kept once: ten thousand members say the same build, features, labels and versions.

Ends at values that compare equal; what a record says never changes.
Paper: none. Deviation: none.
"""

from typing import Any, Final, TypeVar

import msgspec

from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeCredential, NodeState, ServiceSet

T = TypeVar("T")

_VALUES_MAX: Final = 8_192  # what no two members share would only fill this; then it begins anew


class Sharing:
    """Values seen before, by themselves."""

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}

    def share(self, value: T) -> T:
        """Return the first equal value seen of the same type, or this one."""
        if len(self._values) >= _VALUES_MAX:
            self._values.clear()
        kept: T = self._values.setdefault((type(value), value), value)
        return kept

    def credential(self, credential: NodeCredential) -> NodeCredential:
        """Return an equal credential made of shared parts."""
        return msgspec.structs.replace(
            credential,
            service_patterns=self.share(credential.service_patterns),
        )

    def state(self, state: NodeState, credential: NodeCredential, name: str) -> NodeState:
        """Return an equal state made of shared parts and of those of its owner's credential."""
        hosts: dict[str, str] = {}

        def lean(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
            return tuple(Address(hosts.setdefault(a.host, a.host), a.port) for a in addresses)

        return msgspec.structs.replace(
            state,
            node_id=credential.node_id,
            name=name,
            gossip_addresses=lean(state.gossip_addresses),
            mesh_addresses=lean(state.mesh_addresses),
            build=self.share(state.build),
            features=self.share(state.features),
            policies=self.share(state.policies),
        )

    def services(self, services: ServiceSet, credential: NodeCredential) -> ServiceSet:
        """Return an equal service set made of shared parts."""
        entries = tuple(
            self.share(
                msgspec.structs.replace(
                    entry,
                    registration=self.share(entry.registration),
                    service=self.share(entry.service),
                    protocol=self.share(entry.protocol),
                    labels=self.share(entry.labels),
                )
            )
            for entry in services.entries
        )
        return msgspec.structs.replace(services, node_id=credential.node_id, entries=entries)
