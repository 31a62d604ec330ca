"""Policy sets, Trust and records of unknown kinds on their way through a group."""

import msgspec
import pytest

from gossipmesh.gossip.base.effects import (
    Notify,
    Persist,
    PersistKind,
    PolicyApplied,
    PolicyRefused,
    TrustChanged,
)
from gossipmesh.model.instant import Instant
from gossipmesh.trust.documents import PolicyRefusal
from gossipmesh.trust.records import sign_record
from tests.unit.gossip.group import DOMAIN, Group, key_of, policy_set, trust_envelope
from tests.unit.gossip.test_transcripts import joined


def offer(group: Group, name: str, version: int, path: str = "/") -> None:
    effects = group.node(name).offer_policy(policy_set(version, path), Instant(group.now))
    group.perform(group.hosts[name], effects)


def versions(group: Group) -> list[int]:
    live = [host.node for host in group.hosts.values() if host.node]
    return [node.own_state.policies[0].version if node.own_state.policies else 0 for node in live]


def test_a_policy_offered_to_one_runs_on_all_within_half_a_second() -> None:
    group = joined()
    offer(group, "a", 1)
    took = group.run_until(lambda: versions(group) == [1] * 5, 2)
    assert took <= 0.5
    group.run_until(group.converged, 3)
    for host in group.hosts.values():
        assert [type(e) for e in host.events if isinstance(e, PolicyApplied | PolicyRefused)] == [
            PolicyApplied
        ]
        assert host.disk[(PersistKind.FLOOR, b"mesh")]


def test_every_member_can_say_what_every_other_runs() -> None:
    group = joined("a b c")
    offer(group, "b", 1)
    group.run_until(
        lambda: all(
            view.state.policies and view.state.policies[0].version == 1
            for name in group.hosts
            for view in group.node(name).members()
        ),
        3,
    )


def test_floors_are_durable_and_come_before_the_notice() -> None:
    group = joined("a b")
    node = group.node("a")
    documents = node.state_sums()[1]
    written, floor = node.offer_policy(policy_set(1), Instant(group.now))
    assert isinstance(written, Persist)
    assert isinstance(floor, Persist)
    assert (written.kind, floor.kind, floor.durable) == (PersistKind.POLICY_SET, PersistKind.FLOOR, True)
    assert node.state_sums()[1] == documents
    assert node.own_state.policies == ()
    effects = node.persisted(floor.ticket, Instant(group.now))
    assert node.state_sums()[1] != documents
    assert next(e.event for e in effects if isinstance(e, Notify)) == PolicyApplied(
        "mesh", 1, node.own_state.policies[0].manifest_hash
    )


def test_a_node_that_was_away_gets_the_newest_set_when_it_is_back() -> None:
    group = joined()
    offer(group, "a", 1)
    group.run(2)
    group.kill("e")
    offer(group, "b", 2, "/two")
    group.run(3)
    group.start("e")
    group.run_until(lambda: versions(group) == [2] * 5 and group.converged(), 10)


def test_two_pushes_in_a_partition_end_as_one_winner() -> None:
    group = joined()
    offer(group, "a", 1)
    group.run(2)
    group.partition("a b", "c d e")
    offer(group, "a", 2, "/left")
    offer(group, "e", 2, "/right")
    group.run(5)
    group.heal()
    group.run_until(group.converged, 20)
    hashes = {host.node.own_state.policies[0].manifest_hash for host in group.hosts.values() if host.node}
    assert len(hashes) == 1


def test_an_offer_that_is_not_signed_is_refused_and_the_refusal_published() -> None:
    group = joined("a b")
    with pytest.raises(PolicyRefusal) as refusal:
        group.node("a").offer_policy(policy_set(1, signer=key_of("stranger")), Instant(group.now))
    assert refusal.value.code == "signature"
    group.run(2)
    seen = next(view for view in group.node("b").members() if view.name == "a").state.policies
    assert seen[0].version == 0
    assert seen[0].refused_version == 1
    assert seen[0].refused_reason.startswith("signature")
    assert versions(group)[1] == 0


def test_a_tampered_set_from_a_member_is_refused_and_the_genuine_one_still_taken() -> None:
    group = joined("a b c")
    genuine = policy_set(1)
    spoiled = msgspec.structs.replace(genuine, bodies=(genuine.bodies[0].replace(b"cart", b"bank"),))
    liar = group.node("a")
    liar._spreading.answer_policy = lambda scope: spoiled.to_bytes()
    offer(group, "a", 1)
    group.run(2)
    assert versions(group) == [1, 0, 0]
    for name in "bc":
        refused = [e for e in group.hosts[name].events if isinstance(e, PolicyRefused)]
        assert [event.code for event in refused] == ["hash"]
        assert group.node(name).statistics().refused_policies == {"hash": 1}
    offer(group, "b", 1)
    group.run_until(lambda: versions(group) == [1, 1, 1], 3)


def test_a_spoiled_answer_is_fetched_from_another_announcer() -> None:
    group = joined()
    group.node("a")._spreading.answer_policy = lambda scope: b"\x00garbage"
    offer(group, "a", 1)
    group.run(2)
    assert versions(group) == [1, 0, 0, 0, 0]
    offer(group, "b", 1)
    group.run_until(lambda: versions(group) == [1] * 5, 5)


def test_a_set_that_does_not_begin_to_arrive_is_fetched_from_another_announcer_as_well() -> None:
    group = joined("a b c")
    open_stream, opened = group._open, []

    def swallow(host, effect) -> None:
        if host.name != "c":
            open_stream(host, effect)
            return
        opened.append(effect.destination.host)
        if len(opened) > 1:
            open_stream(host, effect)

    group._open = swallow
    offer(group, "a", 1)
    assert group.run_until(lambda: versions(group) == [1, 1, 1], 1) <= 0.2
    assert len(set(opened)) == 2


def test_an_older_set_is_not_fetched() -> None:
    group = joined("a b")
    offer(group, "a", 2)
    group.run(2)
    opened = group.node("b").statistics().streams_opened
    with pytest.raises(PolicyRefusal, match="below"):
        offer(group, "b", 1)
    assert group.node("b").statistics().streams_opened == opened
    assert versions(group) == [2, 2]


def test_a_restart_restores_the_set_in_force() -> None:
    group = joined("a b")
    offer(group, "a", 1)
    group.run(2)
    group.kill("b")
    group.start("b")
    assert group.node("b").own_state.policies[0].version == 1


def test_new_trust_spreads_by_itself() -> None:
    group = joined()
    group.perform(group.hosts["c"], group.node("c").offer_trust(trust_envelope(2), Instant(group.now)))
    group.run_until(
        lambda: all(TrustChanged(2) in host.events for host in group.hosts.values()) and group.converged(), 3
    )
    for host in group.hosts.values():
        assert (PersistKind.TRUST, (2).to_bytes(8, "big")) in host.disk


def test_a_record_of_unknown_kind_is_kept_counted_and_passed_on() -> None:
    group = joined()
    node = group.node("a")
    value = [bytes(node.own_node_id), 1, 1, 7, {"from": "the future"}]
    future = sign_record(DOMAIN, 99, value, key_of("a"))
    before = node.state_sums()
    from gossipmesh.gossip.membership.catalog import Checks

    # As a newer build of `a` would publish it; b hears it from a and c to e from one another.
    group.node("b")._intake.take(future, None, Checks(12))
    group.perform(group.hosts["b"], group.node("b")._ctx.drain())
    group.run_until(group.converged, 10)
    assert node.state_sums() != before
    for name in group.hosts:
        member = group.node(name)._catalog.get(node.own_node_id)
        assert member is not None
        assert member.records[99] == future


def resign(body: bytes, kind: int) -> bytes:
    from gossipmesh.trust.records import signed_bytes

    return key_of("a").sign(signed_bytes(DOMAIN, kind, body))


def test_unknown_kinds_are_bounded_per_member() -> None:
    from gossipmesh.gossip.membership.catalog import Checks
    from gossipmesh.wire.codec import encode

    group = joined("a b")
    node = group.node("b")
    body = encode([bytes(group.node("a").own_node_id), 1, 1, 7])
    for kind in range(50, 62):
        record = msgspec.structs.replace(
            sign_record(DOMAIN, 99, [], key_of("a")),
            kind=kind,
            body=body,
            signature=resign(body, kind),
        )
        node._intake.take(record, None, Checks(12))
    member = node._catalog.get(group.node("a").own_node_id)
    assert member is not None
    assert len(member.opaque) == 8
    assert node.statistics().refused["Untrusted"] == 4
