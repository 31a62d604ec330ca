"""What the engine of a closed node is given: what it served already, if anything, and why no more."""

from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from gossipmesh.model.documents import Access
from gossipmesh.model.snapshot import InboundSection, ListenersSection
from gossipmesh.testing.builders import TrustDomainBuilder, access_policy
from gossipmesh.traffic.sections import Snapshot
from tests.unit.agent.engine.feed_rig import CART, SERVICE, Rig, running
from tests.unit.agent.engine.test_catalog_feed import _saved as saved


def _inbound(snapshot: Snapshot) -> list[str]:
    return [name for name in snapshot.root if name.startswith("inbound/")]


def _said(snapshot: Snapshot) -> str:
    listeners = snapshot.section("listeners")
    assert isinstance(listeners, ListenersSection)
    return listeners.closed


async def test_the_engine_of_a_closed_node_is_told_so_and_gets_no_workload(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "n1", local=(CART,), closed="it waits for 3 open members")
    rig.feed.restore(None, joins=True)
    assert rig.feed.peers_needed == 1
    async with running(rig):
        rig.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        assert _inbound(rig.delivered[-1]) == []
        assert _said(rig.delivered[-1]) == "it waits for 3 open members"
        assert rig.nodes() == ["n1"], "what this node calls is served"
        assert rig.feed.holding
        rig.closed = ""
        rig.feed.opened()
        await trio.testing.wait_all_tasks_blocked()
        assert _inbound(rig.delivered[-1]) == ["inbound/cart"]
        assert _said(rig.delivered[-1]) == ""
        assert not rig.feed.holding, "a founder waits for nobody else to be repaired by"


async def test_a_closed_node_that_finds_no_engine_runs_what_it_left_without_workloads(tmp_path: Path) -> None:
    first = Rig(tmp_path, "n1", "n2", local=(CART,))
    async with running(first):
        first.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        await saved(first.path, first.delivered[-1].version)
    second = Rig(tmp_path, "n1", "n2", local=(CART,), closed="it lost its disk")
    second.feed.restore(None, joins=True)
    assert second.nodes() == ["n1", "n2"]
    assert _inbound(second.delivered[-1]) == []
    async with running(second):
        second.closed = ""
        second.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        assert _inbound(second.delivered[-1]) == ["inbound/cart"]


async def test_an_engine_that_runs_on_keeps_what_it_served_while_its_new_agent_is_closed(
    tmp_path: Path,
) -> None:
    domain = TrustDomainBuilder()
    knowing = domain.documents()
    knowing.adopt(knowing.check_untrusted(domain.policy_set(1, [access_policy("web-only")])))
    first = Rig(tmp_path, "n1", documents=knowing, local=(CART,))
    async with running(first):
        first.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        await saved(first.path, first.delivered[-1].version)
    served = first.delivered[-1]
    new = msgspec.structs.replace(CART, registration="new", service="shop/new")
    second = Rig(tmp_path, "n1", "n2", local=(CART, new), closed="its disk was damaged")
    second.feed.restore(served.version, joins=True)
    async with running(second):
        second.feed.demand(SERVICE)
        second.feed.release("test")
        await trio.testing.wait_all_tasks_blocked()
        now = second.delivered[-1]
        assert second.nodes() == ["n1", "n2"]
        assert _inbound(now) == ["inbound/cart"]
        assert now.section("inbound/cart") == served.section("inbound/cart")
        assert _said(now) == "", "it answers calls, so it is as ready as it was"


async def test_an_unknown_engine_is_let_be_while_its_agent_is_closed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "n1", local=(CART,), closed="its disk was lost")
    rig.feed.restore("unknown", joins=True)
    async with running(rig):
        rig.feed.release("test")
        rig.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.delivered == []
        rig.closed = ""
        rig.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        assert _inbound(rig.delivered[-1]) == ["inbound/cart"]


@pytest.mark.parametrize(("access", "is_open"), [(Access.ALLOW, True), (Access.DENY, False)])
async def test_where_nothing_is_allowed_unasked_a_mesh_without_policy_allows_nobody(
    access: Access, is_open: bool, tmp_path: Path
) -> None:
    domain = TrustDomainBuilder()
    documents = domain.documents()
    following = msgspec.structs.replace(domain.trust_document(2), access=access)
    documents.load_trust_untrusted(domain.sign_trust(following))
    rig = Rig(tmp_path, documents=documents, local=(CART,))
    async with running(rig):
        rig.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        section = rig.delivered[-1].section("inbound/cart")
        assert isinstance(section, InboundSection)
        assert section.default_allow is is_open
        documents.adopt(documents.check_untrusted(domain.policy_set(1)))
        rig.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        section = rig.delivered[-1].section("inbound/cart")
        assert isinstance(section, InboundSection)
        assert section.default_allow
