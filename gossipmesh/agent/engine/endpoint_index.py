"""Which members serve which service: the one table of an agent, and all it keeps of others' endpoints.

It is walked into once and then fed by the deltas that the core tells. Rules:
1. Of a service nobody here asked for it knows who serves it; of one that is read, what they serve as well.
2. A delta is taken at once and costs what it touches: the services of one member, however many there are.
3. Deltas come in order. One that is older than what was found meanwhile does no harm: those after it follow.
"""

import sys
from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import Final, Protocol

from gossipmesh.model import limits
from gossipmesh.model.identity import NodeId
from gossipmesh.model.service import EndpointsDelta, NodeEndpoints, services_of

_MEMBERS_PER_STEP: Final = 100  # half a millisecond


class Catalog(Protocol):
    """What this reads of the gossip core."""

    def each_endpoints(self) -> Iterator[NodeEndpoints]:
        """Walk over the endpoints in use, by member."""

    def endpoints_of(self, node_id: NodeId) -> NodeEndpoints | None:
        """Return those of one member; None when none are in use."""


class EndpointIndex:
    """Members by service, and what services nobody serves any more spoke last."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._nodes: dict[str, dict[NodeId, None]] = {}
        self._read: dict[str, dict[NodeId, NodeEndpoints]] = {}
        self._protocols: OrderedDict[str, str] = OrderedDict()
        self._begun = False

    @property
    def begun(self) -> bool:
        """Tell whether the catalog has been walked over."""
        return self._begun

    def begin(self) -> Iterator[None]:
        """Walk over the catalog, step by step, unless that was done."""
        if self._begun:
            return
        self._begun = True
        for count, found in enumerate(self._catalog.each_endpoints(), 1):
            self.take(EndpointsDelta(found.node_id, services_of(found.entries), found))
            if count % _MEMBERS_PER_STEP == 0:
                yield

    def take(self, delta: EndpointsDelta) -> None:
        """Take in what changed of one member's endpoints."""
        entries = () if delta.after is None else delta.after.entries
        served = frozenset(services_of(entries))
        for name in delta.services:
            if name in served:
                self._nodes.setdefault(sys.intern(name), {})[delta.node_id] = None
            else:
                self._drop(name, delta.node_id)
            read = self._read.get(name)
            if read is not None and delta.after is not None and name in served:
                read[delta.node_id] = delta.after
            elif read is not None:
                read.pop(delta.node_id, None)
        touched = frozenset(delta.services)
        for entry in entries:
            if entry.service in touched:
                self.remember(sys.intern(entry.service), "tcp" if entry.protocol == "tcp" else "http")

    def _drop(self, service: str, node_id: NodeId) -> None:
        nodes = self._nodes.get(service, {})
        nodes.pop(node_id, None)
        if not nodes:
            self._nodes.pop(service, None)

    def knows(self, service: str) -> bool:
        """Tell whether somebody serves, or served, a service."""
        return service in self._nodes or service in self._protocols

    def serves(self, node_id: NodeId, service: str) -> bool:
        """Tell whether a member serves a service."""
        return node_id in self._nodes.get(service, ())

    def protocol_of(self, service: str) -> str | None:
        """Return what a service spoke when it was last served; None when nobody remembers."""
        return self._protocols.get(service)

    def remember(self, service: str, protocol: str) -> None:
        """Note what a service speaks; the one noted longest ago is forgotten when there are too many."""
        self._protocols[service] = protocol
        self._protocols.move_to_end(service)
        if len(self._protocols) > limits.SERVICES_KNOWN_MAX:
            self._protocols.popitem(last=False)

    def read(self, service: str) -> Iterator[None]:
        """Ask the core what those who serve a service say, step by step; deltas keep it true from now on."""
        if service in self._read:
            return
        read = self._read[service] = {}
        for count, node_id in enumerate(list(self._nodes.get(service, ())), 1):
            found = self._catalog.endpoints_of(node_id)
            if found is not None and service in services_of(found.entries):
                read[node_id] = found
            if count % _MEMBERS_PER_STEP == 0:
                yield

    def serving(self, service: str) -> tuple[NodeEndpoints, ...]:
        """Return who serves a service that was read, with all it serves, sorted by name."""
        return tuple(sorted(self._read[service].values(), key=_name_of))

    def read_only(self, services: Collection[str]) -> None:
        """Keep what members serve of no other services than these."""
        for service in [name for name in self._read if name not in services]:
            del self._read[service]


def _name_of(one: NodeEndpoints) -> str:
    return one.node
