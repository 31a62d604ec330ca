"""The index agrees with the members it was told of, whatever comes and goes, and takes its time."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gossipmesh.agent.engine.endpoint_index import EndpointIndex
from gossipmesh.model.identity import NodeId
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.service import EndpointsDelta, NodeEndpoints, services_differing, services_of
from gossipmesh.testing.builders import node_endpoints


class FakeCatalog:
    """Members by name, with their endpoints."""

    def __init__(self) -> None:
        self.members: dict[str, NodeEndpoints] = {}
        self.asked_count = 0
        self._names: dict[NodeId, str] = {}

    def each_endpoints(self) -> Iterator[NodeEndpoints]:
        for name in sorted(self.members):
            if name in self.members:
                yield self.members[name]

    def endpoints_of(self, node_id: NodeId) -> NodeEndpoints | None:
        self.asked_count += 1
        return self.members.get(self._names[node_id])

    def put(self, name: str, *services: str, **changes: Any) -> EndpointsDelta:
        """Let a member serve these from now on, and return what that changes."""
        before, after = self.members.get(name), node_endpoints(name, *services, **changes)
        self.members[name], self._names[after.node_id] = after, name
        old = () if before is None else before.entries
        touched = services_of((*old, *after.entries)) if changes else services_differing(old, after.entries)
        return EndpointsDelta(after.node_id, touched, after)

    def drop(self, name: str) -> EndpointsDelta:
        gone = self.members.pop(name, None)
        touched = () if gone is None else services_of(gone.entries)
        return EndpointsDelta(node_endpoints(name).node_id, touched, None)

    def serving(self, service: str) -> tuple[NodeEndpoints, ...]:
        found = [one for one in self.members.values() if service in services_of(one.entries)]
        return tuple(sorted(found, key=lambda one: one.node))


def steps(walk: Iterator[None]) -> int:
    """Go through a walk; return in how many steps."""
    return sum(1 for _ in walk)


def read(index: EndpointIndex, service: str) -> tuple[NodeEndpoints, ...]:
    steps(index.read(service))
    return index.serving(service)


NAMES = [f"shop/s{number}" for number in range(6)]
READ = NAMES[:3]


def some_change(catalog: FakeCatalog, rng: random.Random) -> EndpointsDelta:
    name = f"n{rng.randrange(40)}"
    if rng.random() < 0.3:
        return catalog.drop(name)
    if name in catalog.members and rng.random() < 0.3:
        served = [entry.service for entry in catalog.members[name].entries]
        return catalog.put(name, *served, status=MemberStatus.UNATTENDED)
    return catalog.put(name, *rng.sample(NAMES, rng.randrange(3)), draining=rng.random() < 0.5)


def agree(index: EndpointIndex, catalog: FakeCatalog, services: list[str]) -> None:
    for name in services:
        found, wanted = read(index, name), catalog.serving(name)
        assert [_of(one, name) for one in found] == [_of(one, name) for one in wanted]


def _of(one: NodeEndpoints, service: str) -> NodeEndpoints:
    """Return what of a member's endpoints concerns a service."""
    return msgspec.structs.replace(
        one, entries=tuple(entry for entry in one.entries if entry.service == service)
    )


def test_the_index_follows_who_serves_what() -> None:
    rng = random.Random(5)
    catalog = FakeCatalog()
    for _ in range(30):
        some_change(catalog, rng)
    index = EndpointIndex(catalog)
    steps(index.begin())
    assert steps(index.begin()) == 0
    for _ in range(300):
        index.take(some_change(catalog, rng))
        agree(index, catalog, READ)
        index.read_only(rng.sample(READ, 2))
    agree(index, catalog, NAMES)


def test_deltas_that_come_late_or_while_it_walks_end_alike() -> None:
    """A disk may hold up what the core tells; a walk finds what is true by then."""
    rng = random.Random(6)
    catalog = FakeCatalog()
    for number in range(1_000):
        catalog.put(f"n{number}", *rng.sample(NAMES, 2))
    index = EndpointIndex(catalog)
    late = [some_change(catalog, rng) for _ in range(50)]
    for walk in (index.begin(), *map(index.read, READ)):
        for _ in walk:
            late += [some_change(catalog, rng) for _ in range(20)]
            for delta in late[:15]:
                index.take(delta)
            del late[:15]
    for delta in late:
        index.take(delta)
    agree(index, catalog, NAMES)


def test_the_core_is_asked_once_for_who_serves_what_is_read() -> None:
    catalog = FakeCatalog()
    index = EndpointIndex(catalog)
    steps(index.begin())
    for number in range(10):
        index.take(catalog.put(f"n{number}", "shop/a", "shop/b"))
    assert len(read(index, "shop/a")) == 10
    assert catalog.asked_count == 10
    index.take(catalog.put("n3", "shop/a", draining=True))
    index.take(catalog.drop("n4"))
    found = read(index, "shop/a")
    assert [one.node for one in found] == sorted(catalog.members)
    assert catalog.asked_count == 10
    assert found[3] is catalog.members["n3"]


def test_many_members_are_walked_over_step_by_step() -> None:
    catalog = FakeCatalog()
    for number in range(1_000):
        catalog.put(f"n{number}", "shop/cart")
    index = EndpointIndex(catalog)
    assert not index.begun
    assert steps(index.begin()) == 10
    assert index.begun
    assert steps(index.read("shop/cart")) == 10
    assert steps(index.read("shop/cart")) == 0
    assert len(index.serving("shop/cart")) == 1_000


def test_only_so_many_names_are_kept_of_services_that_nobody_has_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A member may name its services anew for as long as it likes."""
    monkeypatch.setattr("gossipmesh.model.limits.SERVICES_KNOWN_MAX", 10)
    catalog = FakeCatalog()
    index = EndpointIndex(catalog)
    for number in range(100):
        for name in ("n0", "n1"):
            index.take(catalog.put(name, f"shop/s{number}", "shop/cart"))
    assert [one.node for one in read(index, "shop/s99")] == ["n0", "n1"]
    assert (len(index._nodes), len(index._protocols)) == (2, 10)
    for name in ("n0", "n1"):
        index.take(catalog.drop(name))
    assert index._nodes == {}
    index.read_only(())
    assert index._read == {}
    assert index.knows("shop/s99")
    assert not index.knows("shop/s1")
