"""A feed whose catalog is said in names, and which delivers into a list."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
import trio.testing

from gossipmesh.agent.engine.catalog_feed import CatalogFeed
from gossipmesh.agent.engine.peer_facts import PeerFacts
from gossipmesh.model.engine_features import SECTION_FEATURES
from gossipmesh.model.identity import NodeId, service_path
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.member_keys import MemberKeys
from gossipmesh.model.records import IdentityPins
from gossipmesh.model.service import EndpointsDelta, NodeEndpoints, Protocol, services_of
from gossipmesh.model.snapshot import SnapshotEndpoint, UpstreamSection
from gossipmesh.testing.builders import TrustDomainBuilder, node_endpoints, service_entry
from gossipmesh.traffic.inputs import LocalService
from gossipmesh.traffic.sections import (
    Snapshot,
)
from gossipmesh.trust.documents import TrustedDocuments

SERVICE = "shop/cart"
CART = LocalService("cart", SERVICE, "http", Address("127.0.0.1", 8080), 1000)


class FakeCatalog:
    """Members by name, each serving shop/cart."""

    def __init__(self, *names: str) -> None:
        self.statuses = dict.fromkeys(names, MemberStatus.ALIVE)
        self.unreachable: list[str] = []
        self.held: list[str] = []
        self.changed_at = Instant(0)
        self.service_of = dict.fromkeys(names, SERVICE)
        self.protocol = Protocol.HTTP
        self.told: dict[str, NodeEndpoints] = {}
        self._names: dict[NodeId, str] = {}

    def each_endpoints(self) -> Iterator[NodeEndpoints]:
        for name in sorted(self.statuses):
            self.delta(name)
        yield from self.told.values()

    def endpoints_of(self, node_id: NodeId) -> NodeEndpoints | None:
        return self.told.get(self._names[node_id])

    def delta(self, name: str) -> EndpointsDelta:
        """Return what changed of a member since it was last told."""
        before, after = self.told.pop(name, None), self._now(name)
        if after is not None:
            self.told[name] = after
        both = [one for one in (before, after) if one is not None]
        touched = services_of(entry for one in both for entry in one.entries)
        node_id = node_endpoints(name).node_id
        self._names[node_id] = name
        return EndpointsDelta(node_id, touched, after)

    def _now(self, name: str) -> NodeEndpoints | None:
        status = self.statuses.get(name)
        if status is None or (status is MemberStatus.DEAD and name not in self.held):
            return None
        number = sorted(self.statuses).index(name) + 1
        entry = msgspec.structs.replace(
            service_entry(self.service_of.get(name, SERVICE)), protocol=self.protocol
        )
        return node_endpoints(
            name,
            entry,
            address=Address(f"10.0.0.{number}", 15008),
            status=status,
            since=self.changed_at,
            unreachable=name in self.unreachable,
            retained=name in self.held,
        )


class FakeKeys:
    """What is known of members' keys, by name; whoever is not named signs no key sets."""

    def __init__(self) -> None:
        self.members: dict[bytes, MemberKeys] = {}

    def each_keys(self) -> Iterator[MemberKeys]:
        yield from self.members.values()

    def keys_of(self, node_id: bytes) -> MemberKeys | None:
        return self.members.get(node_id)

    def put(self, name: str, *pins: bytes, **changes: Any) -> MemberKeys:
        """Let a member list these pins for shop/cart from now on; none: its set is not here yet."""
        entries = (IdentityPins(service_path(SERVICE), pins),) if pins else None
        node_id = node_endpoints(name).node_id
        keys = MemberKeys(node_id, name, 1, 1, 2**40, True, False, entries)
        self.members[node_id] = msgspec.structs.replace(keys, **changes)
        return self.members[node_id]


class Rig:
    """A feed that delivers into a list."""

    def __init__(
        self,
        folder: Path,
        *names: str,
        documents: TrustedDocuments | None = None,
        local: tuple[LocalService, ...] = (),
        clock: Callable[[], Instant] = lambda: Instant(0),
        closed: str = "",
    ) -> None:
        self.catalog = FakeCatalog(*names)
        self.keys = FakeKeys()
        self.features, self.hears = SECTION_FEATURES, True
        documents = documents or TrustDomainBuilder().documents()
        self.delivered: list[Snapshot] = []
        self.path = folder / "snapshot.bin"
        self.closed = closed
        self.feed = CatalogFeed(
            trust_domain="mesh.test",
            node="n1",
            catalog=self.catalog,
            documents=documents,
            local=lambda: local,
            snapshot_path=self.path,
            deliver=self.delivered.append,
            peers=PeerFacts(self.keys, documents, features=lambda: self.features, hears=lambda: self.hears),
            clock=clock,
            closed=lambda: self.closed,
        )

    def tell_keys(self, keys: MemberKeys) -> None:
        """Tell of a member's keys as they are now."""
        self.feed.keys_changed(keys.node_id, keys)

    def put(self, name: str, status: MemberStatus | None) -> None:
        """Let a member come or (None) go, as the core tells it."""
        if status is None:
            del self.catalog.statuses[name]
        else:
            self.catalog.statuses[name] = status
        self.tell(name)

    def tell(self, name: str, *, urgent: bool = False) -> None:
        """Tell of a member as it is now."""
        self.feed.endpoints_changed(self.catalog.delta(name), urgent=urgent)

    def nodes(self) -> list[str]:
        return [endpoint.node for endpoint in self.endpoints()]

    def endpoints(self) -> tuple[SnapshotEndpoint, ...]:
        section = self.delivered[-1].section(f"upstream/{SERVICE}")
        assert isinstance(section, UpstreamSection)
        return section.endpoints


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.feed.run)
        yield
        nursery.cancel_scope.cancel()
