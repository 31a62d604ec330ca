"""Which members serve which service: the one table of an agent, and all it keeps of others' endpoints.

It is walked into once and then fed by the deltas that the core tells; the endpoints in it are the objects the
core keeps. Rules:
1. A delta is taken at once and costs what it touches: the services of one member, however many there are.
2. Deltas come in order. One that is older than what the walk found does no harm: those after it follow.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Protocol

from gossipmesh.model import limits
from gossipmesh.model.identity import NodeId
from gossipmesh.model.service import EndpointsDelta, NodeEndpoints

_MEMBERS_PER_STEP: Final = 200  # half a millisecond


class Catalog(Protocol):
    """What this reads of the gossip core."""

    def each_endpoints(self) -> Iterator[NodeEndpoints]:
        """Walk over the endpoints in use, by member."""


class EndpointIndex:
    """Endpoints by service and member, and what services nobody serves any more spoke last."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._serving: dict[str, dict[NodeId, NodeEndpoints]] = {}
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
            self.take(EndpointsDelta(None, found))
            if count % _MEMBERS_PER_STEP == 0:
                yield

    def take(self, delta: EndpointsDelta) -> list[str]:
        """Take in what changed of one member's endpoints; return of which services."""
        touched = delta.services
        after = _services(delta.after)
        if delta.before is not None:
            for name in _services(delta.before):
                if name not in after:
                    self._drop(name, delta.before.node_id)
        if delta.after is not None:
            for name in after:
                self._serving.setdefault(sys.intern(name), {})[delta.after.node_id] = delta.after
            for entry in delta.after.entries:
                if entry.service in touched:
                    self.remember(sys.intern(entry.service), "tcp" if entry.protocol == "tcp" else "http")
        return touched

    def _drop(self, service: str, node_id: NodeId) -> None:
        nodes = self._serving.get(service, {})
        nodes.pop(node_id, None)
        if not nodes:
            self._serving.pop(service, None)

    def knows(self, service: str) -> bool:
        """Tell whether somebody serves, or served, a service."""
        return service in self._serving or service in self._protocols

    def protocol_of(self, service: str) -> str | None:
        """Return what a service spoke when it was last served; None when nobody remembers."""
        return self._protocols.get(service)

    def remember(self, service: str, protocol: str) -> None:
        """Note what a service speaks; the one noted longest ago is forgotten when there are too many."""
        self._protocols[service] = protocol
        self._protocols.move_to_end(service)
        if len(self._protocols) > limits.SERVICES_KNOWN_MAX:
            self._protocols.popitem(last=False)

    def serving(self, service: str) -> tuple[NodeEndpoints, ...]:
        """Return who serves a service, with all it serves, sorted by name. Cost: O(those members)."""
        return tuple(sorted(self._serving.get(service, {}).values(), key=_name_of))


def _name_of(one: NodeEndpoints) -> str:
    return one.node


def _services(endpoints: NodeEndpoints | None) -> dict[str, None]:
    return {} if endpoints is None else dict.fromkeys(entry.service for entry in endpoints.entries)
