"""Who joins after a death must come to hold the dead dead, and takes no old death for a new one."""

import pytest

from gossipmesh.gossip.base.effects import EndpointsRetained
from gossipmesh.model.instant import HOUR_S, SECOND_NS, Instant
from gossipmesh.testing.builders import service_entry
from tests.simulation.test_byzantine import mesh
from tests.unit.gossip.group import WALL_OFFSET_S, Group, credential_of, trust_envelope


def after_deaths(names: str, dead: str, *, seed: int = 1) -> Group:
    """Return a group whose last node is yet to join, some of the others having died one by one."""
    group = Group(names, seed=seed)
    first, *rest = names.split()[:-1]
    group.start(first)
    for name in rest:
        group.start(name, first)
    group.run(12)
    for name in dead:
        group.kill(name, silent=True)
        group.run(20)
        assert set(group.statuses(name).values()) == {"dead"}
    return group


@pytest.mark.parametrize(
    ("names", "dead"),
    [("a b c d e f n", "f"), ("a b c d e n", "ed"), ("a b c d e f g h i n", "ihg")],
    ids=["one of six", "two of five", "three of nine"],
)
def test_a_newcomer_that_counts_others_than_the_voters_did_agrees_in_the_end(names: str, dead: str) -> None:
    """With it the members are one more, and what was a quorum is none for it."""
    group = after_deaths(names, dead)
    group.start("n", "a")
    took_s = group.run_until(lambda: all(group.status("n", name) == "dead" for name in dead), 60)
    assert took_s < 60
    group.run_until(group.converged, 15)
    assert group.converged()
    started = sum(host.node.statistics().repairs_started for host in group.hosts.values() if host.node)
    group.run(60)
    assert group.converged()
    later = sum(host.node.statistics().repairs_started for host in group.hosts.values() if host.node)
    assert later - started < 10
    assert [host.node.statistics().cases_open for host in group.hosts.values() if host.node].count(0) >= 3
    assert {group.status("n", name) for name in "abc"} == {"alive"}


def test_votes_against_the_dead_end_once_all_agree() -> None:
    group = after_deaths("a b c d e f n", "f")
    group.start("n", "a")
    group.run_until(lambda: group.status("n", "f") == "dead", 60)
    group.run(15)
    sent = {name: group.node(name).statistics().votes_sent for name in "abcden"}
    group.run(30)
    assert {name: group.node(name).statistics().votes_sent for name in "abcden"} == sent


def test_a_restart_takes_no_old_deaths_for_a_catastrophe() -> None:
    group = mesh("a b c d e f")
    for name in "abcdef":
        entry = service_entry("shop/cart", registration="cart-" + name)
        group.perform(group.hosts[name], group.node(name).publish_services([entry], Instant(group.now)))
    for name in "fe":
        group.kill(name, silent=True)
        group.run(90)
    group.kill("b")
    group.run(0.2)
    group.hosts["b"].events.clear()
    group.start("b", "a")
    group.run(20)
    assert group.status("b", "e") == group.status("b", "f") == "dead"
    assert not [event for event in group.hosts["b"].events if isinstance(event, EndpointsRetained)]
    assert not [view for view in group.node("b").members() if view.endpoints_retained]


def test_who_was_condemned_and_then_left_has_left_for_newcomers_too() -> None:
    names = "a b c d e f h g i"
    group = Group(names, seed=1)
    group.start("a")
    for name in "bcdefhg":
        group.start(name, "a")
    group.run(12)
    group.deaf.add("g")
    group.run_until(lambda: set(group.statuses("g").values()) == {"dead"}, 30)
    group.perform(group.hosts["g"], group.node("g").leave(Instant(group.now)))
    group.run(1)
    group.kill("g", silent=True)
    group.run_until(lambda: set(group.statuses("g").values()) == {"left"}, 10)
    assert group.node("b")._catalog.get(credential_of("g").node_id).verdict is None
    group.start("i", "a")
    assert group.run_until(group.converged, 30) < 30


def test_a_wrong_clock_for_a_moment_forgets_nobody_and_for_long_does() -> None:
    group = mesh("a b c d e f")
    node, host = group.node("b"), group.hosts["b"]
    on_disk = dict(host.disk)
    node.adjust_wall_clock(WALL_OFFSET_S + 2**33, Instant(group.now))
    group.run(30)
    assert len(node.members()) == 6
    assert host.disk.keys() == on_disk.keys()
    node.adjust_wall_clock(WALL_OFFSET_S, Instant(group.now))
    group.run(2)
    assert len(node.members()) == 6
    for name in "acdef":
        group.kill(name, silent=True)
    node.adjust_wall_clock(WALL_OFFSET_S + 2**33, Instant(group.now))
    silent_since = group.now
    group.run_until(lambda: len(node.members()) == 1, HOUR_S + 60)
    assert group.now - silent_since > (HOUR_S - 60) * SECOND_NS, "what its peers said last counts for an hour"


def test_a_newcomer_agrees_though_trust_has_moved_every_monitor_since() -> None:
    """By the new version's ranks the voters were none of its monitors."""
    group = after_deaths("a b c d e f g h i j k l m o p q n", "f")
    group.perform(group.hosts["a"], group.node("a").offer_trust(trust_envelope(2), Instant(group.now)))
    group.run(5)
    held = group.node("b")._catalog.get(credential_of("f").node_id).verdict
    assert not group.node("b")._detector.judge.is_valid(held)
    group.start("n", "a")
    assert group.run_until(lambda: group.status("n", "f") == "dead", 90) < 90
    assert group.run_until(group.converged, 30) < 30
