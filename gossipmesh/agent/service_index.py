"""Which members serve which service, kept as they change, so that nobody walks over all of them for one.

Names only: what a member says of its services, and how it stands, is read of the core when it is needed.
`refresh` is work in small steps, for the first one and a join bring thousands of changes at once.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Protocol

from gossipmesh.gossip.base.settings import MemberView
from gossipmesh.model import limits
from gossipmesh.model.identity import NodeId
from gossipmesh.model.records import ServiceSet

_MEMBERS_PER_STEP: Final = 50  # half a millisecond

Serving = tuple[MemberView, ServiceSet]


class Catalog(Protocol):
    """What this reads of the gossip core."""

    def each_service(self) -> Iterator[Serving]:
        """Walk over the services of members that are not dead or left."""

    def service(self, node_id: NodeId) -> Serving | None:
        """Return those of one member; None when none are in use."""


class ServiceIndex:
    """Node ids by service, of those in use when they were looked at."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._nodes: dict[str, dict[NodeId, None]] = {}
        self._services: dict[NodeId, tuple[str, ...]] = {}
        self._same: dict[tuple[str, ...], tuple[tuple[str, ...], int]] = {}
        self._changed: dict[NodeId, None] = {}
        self._protocols: OrderedDict[str, str] = OrderedDict()
        self._begun = False

    def changed(self, node_id: NodeId) -> None:
        """Note that a member's services are others, or are (not) in use any more."""
        self._changed[node_id] = None

    def refresh(self) -> Iterator[None]:
        """Take in what changed, step by step; whoever wants it all at once goes through the steps at once."""
        if not self._begun:
            self._begun = True
            for count, (view, services) in enumerate(self._catalog.each_service(), 1):
                self._put(view.node_id, services)
                if count % _MEMBERS_PER_STEP == 0:
                    yield
        count = 0
        while self._changed:
            node_id = next(iter(self._changed))
            del self._changed[node_id]
            found = self._catalog.service(node_id)
            self._put(node_id, None if found is None else found[1])
            count += 1
            if count % _MEMBERS_PER_STEP == 0:
                yield

    @property
    def begun(self) -> bool:
        """Tell whether the catalog has been walked over once."""
        return self._begun

    def knows(self, service: str) -> bool:
        """Tell whether somebody serves, or served, a service."""
        return service in self._nodes or service in self._protocols

    def protocol_of(self, service: str) -> str | None:
        """Return what a service spoke when it was last served; None when nobody remembers."""
        return self._protocols.get(service)

    def remember(self, service: str, protocol: str) -> None:
        """Note what a service speaks; the one noted longest ago is forgotten when there are too many."""
        self._protocols[service] = protocol
        self._protocols.move_to_end(service)
        if len(self._protocols) > limits.SERVICES_KNOWN_MAX:
            self._protocols.popitem(last=False)

    def nodes_of(self, service: str) -> list[NodeId]:
        """Return who serves a service."""
        return list(self._nodes.get(service, ()))

    def _put(self, node_id: NodeId, services: ServiceSet | None) -> None:
        before = self._services.pop(node_id, ())
        for name in before:
            nodes = self._nodes[name]
            nodes.pop(node_id, None)
            if not nodes:
                del self._nodes[name]
        if before:
            self._let_go(before)
        if services is None or not services.entries:
            return
        names = tuple(sys.intern(name) for name in dict.fromkeys(entry.service for entry in services.entries))
        self._services[node_id] = self._hold(names)
        for entry in services.entries:
            self.remember(sys.intern(entry.service), "tcp" if entry.protocol == "tcp" else "http")
        for name in names:
            self._nodes.setdefault(name, {})[node_id] = None

    def _hold(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the one tuple of these names, counted: thousands of members serve the same."""
        same, count = self._same.get(names, (names, 0))
        self._same[same] = (same, count + 1)
        return same

    def _let_go(self, names: tuple[str, ...]) -> None:
        same, count = self._same.pop(names)
        if count > 1:
            self._same[same] = (same, count - 1)
