"""The index agrees with the members it was told of, whatever comes and goes, and takes its time."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from gossipmesh.agent.endpoint_index import EndpointIndex
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.service import EndpointsDelta, NodeEndpoints
from gossipmesh.testing.builders import node_endpoints


class FakeCatalog:
    """Members by name, with their endpoints."""

    def __init__(self) -> None:
        self.members: dict[str, NodeEndpoints] = {}

    def each_endpoints(self) -> Iterator[NodeEndpoints]:
        for name in sorted(self.members):
            if name in self.members:
                yield self.members[name]

    def put(self, name: str, *services: str, **changes: Any) -> EndpointsDelta:
        """Let a member serve these from now on, and return what that changes."""
        before, after = self.members.get(name), node_endpoints(name, *services, **changes)
        self.members[name] = after
        return EndpointsDelta(before, after)

    def drop(self, name: str) -> EndpointsDelta:
        return EndpointsDelta(self.members.pop(name, None), None)

    def serving(self, service: str) -> tuple[NodeEndpoints, ...]:
        found = [one for one in self.members.values() if service in [entry.service for entry in one.entries]]
        return tuple(sorted(found, key=lambda one: one.node))


def begun(index: EndpointIndex) -> int:
    """Walk over everything; return in how many steps."""
    return sum(1 for _ in index.begin())


NAMES = [f"shop/s{number}" for number in range(6)]


def some_change(catalog: FakeCatalog, rng: random.Random) -> EndpointsDelta:
    name = f"n{rng.randrange(40)}"
    if rng.random() < 0.3:
        return catalog.drop(name)
    status = rng.choice((MemberStatus.ALIVE, MemberStatus.UNATTENDED))
    return catalog.put(name, *rng.sample(NAMES, rng.randrange(3)), status=status)


def test_the_index_follows_who_serves_what() -> None:
    rng = random.Random(5)
    catalog = FakeCatalog()
    for _ in range(30):
        some_change(catalog, rng)
    index = EndpointIndex(catalog)
    begun(index)
    assert begun(index) == 0
    for _ in range(300):
        index.take(some_change(catalog, rng))
        for name in NAMES:
            assert index.serving(name) == catalog.serving(name)


def test_deltas_that_come_late_or_while_it_walks_end_alike() -> None:
    """A disk may hold up what the core tells; the walk finds what is true by then."""
    rng = random.Random(6)
    catalog = FakeCatalog()
    for number in range(1_000):
        catalog.put(f"n{number}", *rng.sample(NAMES, 2))
    index = EndpointIndex(catalog)
    late = [some_change(catalog, rng) for _ in range(50)]
    for _ in index.begin():
        late += [some_change(catalog, rng) for _ in range(20)]
        for delta in late[:15]:
            index.take(delta)
        del late[:15]
    for delta in late:
        index.take(delta)
    for name in NAMES:
        assert index.serving(name) == catalog.serving(name)


def test_a_change_tells_which_services_it_touches() -> None:
    catalog = FakeCatalog()
    index = EndpointIndex(catalog)
    assert index.take(catalog.put("n1", "shop/a", "shop/b")) == ["shop/a", "shop/b"]
    assert index.take(catalog.put("n1", "shop/b", "shop/c")) == ["shop/a", "shop/c"]
    assert index.take(catalog.put("n1", "shop/b", "shop/c")) == []
    assert index.take(catalog.put("n1", "shop/b", "shop/c", draining=True)) == ["shop/b", "shop/c"]
    assert index.take(catalog.drop("n1")) == ["shop/b", "shop/c"]
    assert index.serving("shop/b") == ()


def test_what_is_kept_is_what_the_core_keeps() -> None:
    catalog = FakeCatalog()
    index = EndpointIndex(catalog)
    index.take(catalog.put("n1", "shop/a", "shop/b"))
    index.take(catalog.put("n1", "shop/a", "shop/c"))
    assert [one is catalog.members["n1"] for name in ("shop/a", "shop/c") for one in index.serving(name)] == [
        True,
        True,
    ]


def test_many_members_are_walked_over_step_by_step() -> None:
    catalog = FakeCatalog()
    for number in range(1_000):
        catalog.put(f"n{number}", "shop/cart")
    index = EndpointIndex(catalog)
    assert not index.begun
    assert begun(index) == 5
    assert index.begun
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
    assert [one.node for one in index.serving("shop/s99")] == ["n0", "n1"]
    assert (len(index._serving), len(index._protocols)) == (2, 10)
    for name in ("n0", "n1"):
        index.take(catalog.drop(name))
    assert index._serving == {}
    assert index.knows("shop/s99")
    assert not index.knows("shop/s1")
