"""A snapshot as an agent of 0.1 sent it, with a route, a subset and a rule: an engine of today executes it.

`snapshot-0.1.json` holds the bytes of its root and sections. Fields that came later are absent there.
"""

import random

import pytest

from gossipmesh.dataplane.reference.state import EngineState
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model.instant import Instant
from gossipmesh.testing.conformance.files import read
from gossipmesh.traffic.authorization import decide
from gossipmesh.traffic.retries import try_timeout_ns
from gossipmesh.traffic.sections import assemble, section_hash

KEPT = read("snapshot-0.1.json")


@pytest.fixture
def state() -> EngineState:
    sections = {section_hash(data): data for data in map(bytes.fromhex, KEPT["sections"])}
    snapshot = assemble({name: bytes.fromhex(digest) for name, digest in KEPT["root"].items()}, {}, sections)
    assert snapshot.version == KEPT["version"]
    made = EngineState(Counters(), random.Random(1), lambda _: None)
    made.apply(made.prepare(snapshot), Instant(0))
    return made


def test_what_an_agent_of_before_sends_is_executed_today(state: EngineState) -> None:
    upstream = state.ground.upstream("shop/cart")
    assert upstream is not None
    assert upstream.balancer.section.draining == ()
    first = state.ground.pick(upstream, Instant(1), ())
    assert first is not None
    assert {first.node, *(one.node for one in upstream.balancer.candidates(Instant(1)))} == {"n1", "n2"}

    inbound = state.inbound("cart.cart.shop.mesh.example")
    assert inbound is not None
    verdict = decide(inbound, "spiffe://mesh.example/ns/shop/svc/web", "GET", "/items")
    assert (verdict.allow, verdict.rule) == (False, "shop/closed#0")


def test_it_says_nothing_of_keys(state: EngineState) -> None:
    """Whoever a root vouches for is who it says, as it was for 0.1; a carrier's leaf is nobody's."""
    facts = state.peers.facts(Instant(1))
    assert facts is not None
    assert (facts.trust_domain, facts.intermediates) == ("mesh.example", None)


def test_its_default_for_a_try_is_no_policys(state: EngineState) -> None:
    assert state.applied is not None
    router = state.applied.tables.routes.router("shop/cart")
    assert router is not None
    (route,) = router.section.routes
    assert (route.try_timeout_ns, route.try_timeout_idempotent_only) == (15_000_000_000, True)
    assert try_timeout_ns(route) is None
