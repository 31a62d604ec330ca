"""What a change of one endpoint costs on its way from the core to a snapshot."""

import sys
from pathlib import Path
from types import FrameType

from gossipmesh.agent.engine.catalog_feed import CatalogFeed
from gossipmesh.agent.engine.peer_facts import PeerFacts
from gossipmesh.gossip.base.effects import MemberChanged, ServicesChanged
from gossipmesh.model.engine_features import SECTION_FEATURES
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.builders import TrustDomainBuilder, service_entry
from tests.unit.agent.engine.feed_rig import SERVICE, Rig
from tests.unit.gossip.group import Group


async def _calls_of_a_change(folder: Path, others_count: int) -> int:
    """Return how many calls of our code it takes from a change of one of five members to its snapshot."""
    names = [f"n{number:04}" for number in range(5 + others_count)]
    rig = Rig(folder, *names)
    rig.catalog.service_of |= dict.fromkeys(names[5:], "shop/other")
    for service in (SERVICE, "shop/other"):
        rig.feed.demand(service)
    await rig.feed.compile()
    rig.catalog.statuses["n0003"] = MemberStatus.UNATTENDED
    delta = rig.catalog.delta("n0003")
    calls = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and "/gossipmesh/" in frame.f_code.co_filename

    sys.setprofile(note)
    try:
        rig.feed.endpoints_changed(delta)
        await rig.feed.compile()
    finally:
        sys.setprofile(None)
    assert len(rig.delivered) == 2
    assert [endpoint.weight for endpoint in rig.endpoints()] == [100, 100, 100, 50, 100]
    return calls


async def test_what_a_change_costs_does_not_grow_with_members_of_other_services(tmp_path: Path) -> None:
    few, many = [await _calls_of_a_change(tmp_path, count) for count in (10, 2_000)]
    assert few == many


async def test_what_is_compiled_are_the_objects_the_core_keeps(tmp_path: Path) -> None:
    """A second reading of the record, or a copy of what it says, would be others."""
    group = Group("a b c")
    group.start_all()
    group.run_until(group.converged, 10)
    node = group.node("a")
    documents = TrustDomainBuilder().documents()
    feed = CatalogFeed(
        trust_domain="mesh.example",
        node="a",
        catalog=node,
        documents=documents,
        local=tuple,
        snapshot_path=tmp_path / "snapshot.bin",
        deliver=lambda snapshot: None,
        peers=PeerFacts(node, documents, features=lambda: SECTION_FEATURES, hears=lambda: True),
        clock=lambda: Instant(group.now),
    )
    feed.demand(SERVICE)
    await feed.inputs()
    heard = len(group.hosts["a"].events)
    for weight in (100, 50):
        entries = (service_entry(SERVICE, weight=weight),)
        group.perform(group.hosts["b"], group.node("b").publish_services(entries, Instant(group.now)))
        group.run(2)
        for event in group.hosts["a"].events[heard:]:
            if isinstance(event, MemberChanged | ServicesChanged):
                feed.endpoints_changed(event.endpoints)
        heard = len(group.hosts["a"].events)
        (found,) = (await feed.inputs()).serving[SERVICE]
        core_s = node.endpoints_of(group.node("b").own_node_id)
        assert found == core_s
        assert found.entries is core_s.entries
        assert found.entries[0].weight == weight
