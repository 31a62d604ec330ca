"""Transcripts of joining, dying, being gone in part, and coming back."""

import pytest

from gossipmesh.gossip.base.effects import IdentityCopied, MemberChanged, PersistKind, ViewRepaired
from gossipmesh.gossip.base.settings import GossipSettings
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import NodePhase
from gossipmesh.model.records import RecordKind
from gossipmesh.model.service import ServiceEntry
from gossipmesh.testing.swim.node import SwimNode
from tests.unit.gossip.group import Group, policy_set, signed_credential

CART = ServiceEntry("cart", "shop/cart", "http", 1, False, 100, ())


BOTH = pytest.mark.parametrize("node_class", [GossipNode, SwimNode], ids=["monitors", "swim"])


def joined(
    names: str = "a b c d e",
    *,
    seed: int = 1,
    settings: GossipSettings | None = None,
    node_class: type[GossipNode] = GossipNode,
) -> Group:
    """Return a group whose members all know one another, settled for a few seconds."""
    group = Group(names, seed=seed, settings=settings, node_class=node_class)
    group.start_all()
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    group.run(3)
    return group


def everybody(group: Group, status: str) -> bool:
    live = [name for name, host in group.hosts.items() if host.node is not None]
    return all(group.status(at, of) == status for at in live for of in live if at != of)


def publish(group: Group, name: str, *entries: ServiceEntry) -> None:
    group.perform(group.hosts[name], group.node(name).publish_services(entries, Instant(group.now)))


def serving(group: Group, at: str) -> dict[str, list[str]]:
    return {one.node: [entry.registration for entry in one.entries] for one in group.node(at).endpoints()}


def test_a_join_through_one_seed_reaches_everybody_and_sums_are_equal() -> None:
    group = joined()
    assert len({group.node(name).state_sums() for name in group.hosts}) == 1
    for host in group.hosts.values():
        repaired = [event for event in host.events if isinstance(event, ViewRepaired)]
        assert repaired[-1].peers_count >= 2


def test_the_epoch_is_on_disk_before_anything_is_sent() -> None:
    group = Group("a b")
    group.start("a")
    assert group.hosts["a"].disk[(PersistKind.EPOCH, b"")] == b"\x01"
    group.kill("a")
    group.start("a")
    assert group.node("a").incarnation == (1, 2)


def test_a_joiner_with_loss_still_converges() -> None:
    group = Group("a b c d e f g h", seed=3)
    group.loss = 0.2
    group.start_all()
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 30)


@BOTH
def test_services_reach_everybody_and_go_with_their_dead_node(node_class: type[GossipNode]) -> None:
    group = joined(node_class=node_class)
    publish(group, "e", CART)
    group.run_until(lambda: all(serving(group, at) == {"e": ["cart"]} for at in "abcd"), 1)
    group.hosts["e"].engine_serves = False
    group.kill("e")
    group.run_until(lambda: set(group.statuses("e").values()) == {"dead"}, 25)
    assert all(serving(group, at) == {} for at in "abcd")
    assert everybody(group, "alive")


def test_a_service_the_credential_does_not_allow_is_refused() -> None:
    group = joined("a b")
    foreign = ServiceEntry("db", "bank/db", "tcp", 1, False, 100, ())
    with pytest.raises(Exception, match="may not serve"):
        publish(group, "a", foreign)
    assert serving(group, "b") == {}


@BOTH
def test_a_member_whose_engine_answers_is_unattended_and_keeps_its_services(
    node_class: type[GossipNode],
) -> None:
    group = joined(node_class=node_class)
    publish(group, "e", CART)
    group.run(1)
    group.kill("e")
    group.run_until(lambda: set(group.statuses("e").values()) == {"unattended"}, 25)
    assert all(serving(group, at) == {"e": ["cart"]} for at in "abcd")
    group.start("e")
    group.run_until(lambda: set(group.statuses("e").values()) == {"alive"} and group.converged(), 5)
    assert all(serving(group, at) == {"e": ["cart"]} for at in "abcd")


@BOTH
def test_an_unattended_member_dies_once_its_engine_stops_answering(node_class: type[GossipNode]) -> None:
    group = joined(node_class=node_class)
    group.kill("e")
    group.run_until(lambda: set(group.statuses("e").values()) == {"unattended"}, 25)
    group.hosts["e"].engine_serves = False
    group.run_until(lambda: set(group.statuses("e").values()) == {"dead"}, 40)


def test_a_restarted_node_rejoins_without_a_seed() -> None:
    group = joined()
    group.kill("c")
    group.run(1)
    group.start("c")
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 5)


@BOTH
def test_all_nodes_restarted_at_once_find_one_another_from_disk(node_class: type[GossipNode]) -> None:
    group = joined(node_class=node_class)
    for name in group.hosts:
        group.kill(name)
    for name in group.hosts:
        group.start(name)
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)


def test_a_damaged_member_entry_is_counted_and_the_rest_restored() -> None:
    group = joined()
    group.kill("c")
    damaged = (PersistKind.MEMBER, group.node("d").own_node_id)
    group.hosts["c"].disk[damaged] = group.hosts["c"].disk[damaged][:-5]
    node = group.start("c")
    assert node.statistics().refused["restored member damaged"] == 1
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 5)


def test_a_node_that_lost_its_disk_signs_above_its_older_run() -> None:
    group = joined()
    for _ in range(3):
        group.kill("e")
        group.start("e")
        group.run(2)
    group.kill("e")
    group.hosts["e"].disk.clear()
    group.start("e", "a")
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    assert group.node("e").incarnation == (1, 5)
    assert not any(isinstance(event, IdentityCopied) for event in group.hosts["e"].events)


def test_two_machines_with_one_identity_are_told() -> None:
    group = joined("a b c")
    original = group.node("c")
    group.hosts["c"].node = None
    group.start("c", "a")
    group.run(2)
    clone = group.hosts["c"].node
    assert clone is not None
    state = clone._catalog.get(clone.own_node_id)
    assert state is not None
    for _ in range(2):
        now = Instant(group.now)
        record = state.records[RecordKind.NODE_STATE]
        original._ctx.now = now
        original._intake.take(record, None, group_checks())
        group.perform(group.hosts["c"], original._ctx.drain())
        clone._own.raise_epoch(original.incarnation[1], "outbid", (False,))
        group.perform(group.hosts["c"], clone._ctx.drain())
    assert any(isinstance(event, IdentityCopied) for event in group.hosts["c"].events)


def group_checks():

    return Checks(12)


@BOTH
def test_leaving_is_seen_by_all_and_final_for_the_start(node_class: type[GossipNode]) -> None:
    group = joined(node_class=node_class)
    publish(group, "d", CART)
    group.run(1)
    group.perform(group.hosts["d"], group.node("d").leave(Instant(group.now)))
    group.run_until(lambda: set(group.statuses("d").values()) == {"left"}, 2)
    assert all(serving(group, at) == {} for at in "abce")
    group.kill("d")
    group.run(30)
    assert set(group.statuses("d").values()) == {"left"}
    group.start("d")
    group.run_until(lambda: set(group.statuses("d").values()) == {"alive"} and group.converged(), 5)


@pytest.mark.parametrize("big", ["seed", "joiner", "both"])
def test_credentials_too_big_for_a_packet_join_by_stream(big: str) -> None:
    group = Group("a b c")
    group.start("a", leaves=40 if big in ("seed", "both") else 0)
    group.start("b", "a", leaves=40 if big in ("joiner", "both") else 0)
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    group.start("c", "b")
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)


def test_a_service_set_too_big_for_a_packet_arrives_by_repair() -> None:
    group = joined()
    entries = [ServiceEntry(f"cart-{n:03}", "shop/cart", "http", 1, False, 100, ()) for n in range(100)]
    publish(group, "b", *entries)
    group.run_until(lambda: all(len(serving(group, at).get("b", [])) == 100 for at in "acde"), 1)


@BOTH
def test_a_restart_remembers_who_was_dead(node_class: type[GossipNode]) -> None:
    group = joined(node_class=node_class)
    group.hosts["e"].engine_serves = False
    group.kill("e")
    group.run_until(lambda: set(group.statuses("e").values()) == {"dead"}, 25)
    group.kill("a")
    group.start("a")
    assert group.status("a", "e") == "dead"
    group.run(10)
    assert set(group.statuses("e").values()) == {"dead"}


def test_a_renewed_credential_reaches_everybody_and_one_of_other_keys_is_refused() -> None:
    group = joined("a b c")
    node = group.node("a")
    renewed = signed_credential("a", serial=2)
    group.perform(group.hosts["a"], node.renew_credential(renewed, Instant(group.now)))
    group.run_until(
        lambda: all(
            view.credential.serial == 2
            for at in "abc"
            for view in group.node(at).members()
            if view.name == "a"
        ),
        2,
    )
    assert not node.renew_credential(renewed, Instant(group.now)), "an authority answers it for ten days"
    for wrong in (signed_credential("b", serial=3), signed_credential("a", serial=1)):
        with pytest.raises(MalformedInput):
            node.renew_credential(wrong, Instant(group.now))


def test_a_new_generation_supersedes_what_the_old_one_signed() -> None:
    group = joined("a b c")
    publish(group, "a", CART)
    group.run(1)
    renewed = signed_credential("a", generation=2)
    effects = group.node("a").renew_credential(renewed, Instant(group.now))
    group.perform(group.hosts["a"], effects)
    group.run_until(lambda: group.converged() and serving(group, "b") == {"a": ["cart"]}, 5)
    assert [v.state.generation for v in group.node("c").members()] == [2, 1, 1]


def test_draining_is_published() -> None:
    group = joined("a b")
    group.perform(group.hosts["a"], group.node("a").set_draining(Instant(group.now)))
    group.run(1)
    phases = {view.name: view.state.phase for view in group.node("b").members()}
    assert phases == {"a": NodePhase.DRAINING, "b": NodePhase.SERVING}


@BOTH
def test_a_paused_node_accuses_nobody_and_answers_for_itself(node_class: type[GossipNode]) -> None:
    group = joined(node_class=node_class)
    sleeper = group.hosts["b"].node
    group.hosts["b"].node = None
    group.run(20)
    assert set(group.statuses("b").values()) == {"unattended"}
    group.hosts["b"].node = sleeper
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    assert sleeper is not None
    assert sleeper.statistics().pauses >= 1
    accused = [e for e in group.hosts["b"].events if isinstance(e, MemberChanged) and e.status >= 2]
    assert accused == []


def test_a_credential_that_ends_takes_its_member_along() -> None:
    group = Group("a b c")
    ends = 1_700_000_000 + group.now // SECOND_NS + 20
    group.start("a")
    group.start("b", "a")
    group.start("c", "a", ends=ends)
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 5)
    group.kill("c")
    group.run(25)
    assert [view.name for view in group.node("a").members()] == ["a", "b"]
    assert group.converged()
    assert (PersistKind.MEMBER, group.node("a")._catalog.own_id) in group.hosts["a"].disk


def test_equal_seeds_make_equal_traces() -> None:
    def trace() -> list[tuple[int, str, str, bytes]]:
        group = Group("a b c d", seed=7)
        group.loss = 0.05
        group.start_all()
        group.run(3)
        group.perform(group.hosts["a"], group.node("a").offer_policy(policy_set(1), Instant(group.now)))
        group.kill("d")
        group.run(15)
        return group.trace

    assert trace() == trace()
