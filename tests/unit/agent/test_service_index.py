"""The index agrees with the members it was made of, whatever comes and goes, and takes its time."""

import random
from collections.abc import Iterator
from typing import Any, cast

import pytest

from gossipmesh.agent.service_index import ServiceIndex, Serving
from gossipmesh.model.identity import NodeId
from gossipmesh.model.records import ServiceSet
from gossipmesh.testing.builders import service_entry


class View:
    """As much of a member's view as the index reads."""

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id


class FakeCatalog:
    """Node ids and the services of each."""

    def __init__(self) -> None:
        self.services: dict[NodeId, tuple[str, ...]] = {}

    def each_service(self) -> Iterator[Serving]:
        for node_id in list(self.services):
            found = self.service(node_id)
            assert found is not None
            yield found

    def service(self, node_id: NodeId) -> Serving | None:
        if node_id not in self.services:
            return None
        entries = tuple(service_entry(name) for name in self.services[node_id])
        return cast("Any", View(node_id)), ServiceSet(node_id, 1, 1, 1, entries)

    def nodes_of(self, service: str) -> list[NodeId]:
        return sorted(node_id for node_id, names in self.services.items() if service in names)


def refreshed(index: ServiceIndex) -> int:
    """Take in everything; return in how many steps."""
    return sum(1 for _ in index.refresh())


def test_the_index_follows_who_serves_what() -> None:
    rng = random.Random(5)
    names = [f"shop/s{number}" for number in range(6)]
    catalog = FakeCatalog()
    nodes = [NodeId(rng.randbytes(16)) for _ in range(40)]
    for node_id in nodes[:20]:
        catalog.services[node_id] = (rng.choice(names),)
    index = ServiceIndex(catalog)
    for _ in range(200):
        node_id = rng.choice(nodes)
        if rng.random() < 0.3:
            catalog.services.pop(node_id, None)
        else:
            catalog.services[node_id] = tuple(rng.sample(names, rng.randrange(3)))
        index.changed(node_id)
        if rng.random() < 0.5:
            refreshed(index)
            for name in names:
                assert sorted(index.nodes_of(name)) == catalog.nodes_of(name)


def test_many_members_are_taken_in_step_by_step() -> None:
    catalog = FakeCatalog()
    nodes = [NodeId(number.to_bytes(16, "big")) for number in range(1_000)]
    catalog.services = dict.fromkeys(nodes, ("shop/cart",))
    index = ServiceIndex(catalog)
    assert refreshed(index) == 20
    for node_id in nodes:
        del catalog.services[node_id]
        index.changed(node_id)
    assert refreshed(index) == 20
    assert index.nodes_of("shop/cart") == []
    assert refreshed(index) == 0


def test_only_so_many_names_are_kept_of_services_that_nobody_has_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A member may name its services anew for as long as it likes."""
    monkeypatch.setattr("gossipmesh.model.limits.SERVICES_KNOWN_MAX", 10)
    catalog = FakeCatalog()
    index = ServiceIndex(catalog)
    nodes = [NodeId(bytes([number]) * 16) for number in range(2)]
    for number in range(100):
        for node_id in nodes:
            catalog.services[node_id] = (f"shop/s{number}", "shop/cart")
            index.changed(node_id)
        refreshed(index)
    assert sorted(index.nodes_of("shop/s99")) == nodes
    known = index._protocols
    tables = [table for table in vars(index).values() if isinstance(table, dict) and table is not known]
    assert max(map(len, tables)) == 2
    assert len(known) == 10
    for node_id in nodes:
        del catalog.services[node_id]
        index.changed(node_id)
    refreshed(index)
    assert not any(tables)
    assert index.knows("shop/s99")
    assert not index.knows("shop/s1")
