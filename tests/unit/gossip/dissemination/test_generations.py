"""A stolen signer is undone by the next Trust: sets of generations, on their way through a group."""

import hashlib

import pytest

from gossipmesh.gossip.base.effects import PersistKind, PolicyApplied
from gossipmesh.gossip.dissemination.generations import NewerGenerations, begun_generations
from gossipmesh.model.documents import first_version_of
from gossipmesh.model.instant import Instant
from gossipmesh.testing.builders import TrustDomainBuilder
from gossipmesh.trust.documents import PolicyRefusal, PolicySet
from gossipmesh.trust.envelope import decode_envelope_untrusted
from gossipmesh.wire.codec import encode
from gossipmesh.wire.datagram import PolicyAnnouncement
from tests.unit.gossip.group import Group, key_of, policy_set, trust_envelope
from tests.unit.gossip.test_transcripts import joined

NEXT = first_version_of(1)
LAST = NEXT - 1
STOLEN_LATER = first_version_of(9) + 1
NEW_SIGNER = key_of("policy again")


def hash_of(signed: PolicySet) -> bytes:
    return hashlib.sha256(decode_envelope_untrusted(signed.manifest).payload).digest()


def steal(group: Group, name: str, version: int) -> None:
    """Start a node with a set on its disk that no command would publish."""
    signed = policy_set(version, "/stolen")
    group.kill(name)
    disk = group.hosts[name].disk
    disk[PersistKind.POLICY_SET, b"mesh"] = signed.to_bytes()
    disk[PersistKind.FLOOR, b"mesh"] = encode([version, hash_of(signed)])
    group.start(name, "b")


def running(group: Group) -> list[int]:
    return [
        policies[0].version if (policies := host.node.own_state.policies) else 0
        for host in group.hosts.values()
        if host.node is not None
    ]


def rotate(group: Group, name: str) -> PolicySet:
    """Hand a node the next Trust, and the scope signed anew."""
    envelope = trust_envelope(2, floors={"mesh": NEXT}, signer=NEW_SIGNER)
    signed = policy_set(NEXT + 1, signer=NEW_SIGNER)
    for give, what in (("offer_trust", envelope), ("offer_policy", signed)):
        group.perform(group.hosts[name], getattr(group.node(name), give)(what, Instant(group.now)))
    return signed


@pytest.fixture
def attacked() -> Group:
    """A group in which the greatest version of the first generation is in force everywhere."""
    group = joined()
    steal(group, "c", LAST)
    group.run_until(lambda: running(group) == [LAST] * 5, 10)
    return group


def test_nothing_can_be_pushed_above_the_last_version(attacked: Group) -> None:
    for version in (LAST - 1, NEXT, NEXT + 1):
        with pytest.raises(PolicyRefusal):
            attacked.perform(
                attacked.hosts["a"],
                attacked.node("a").offer_policy(policy_set(version), Instant(attacked.now)),
            )
    assert running(attacked) == [LAST] * 5


def test_the_next_trust_and_the_set_signed_anew_run_everywhere_within_a_second(attacked: Group) -> None:
    signed = rotate(attacked, "d")
    took = attacked.run_until(lambda: running(attacked) == [NEXT + 1] * 5, 5)
    assert took <= 1
    assert attacked.run_until(attacked.converged, 5) is not None
    for host in attacked.hosts.values():
        applied = [e for e in host.events if isinstance(e, PolicyApplied)]
        assert applied[-1] == PolicyApplied("mesh", NEXT + 1, hash_of(signed))
    for name in "abcde":
        attacked.kill(name)
        attacked.start(name, *[other for other in "abcde" if other != name][:1])
    attacked.run(5)
    assert running(attacked) == [NEXT + 1] * 5


def test_the_old_set_stays_in_force_until_the_new_one_comes(attacked: Group) -> None:
    envelope = trust_envelope(2, floors={"mesh": NEXT}, signer=NEW_SIGNER)
    attacked.perform(attacked.hosts["a"], attacked.node("a").offer_trust(envelope, Instant(attacked.now)))
    attacked.run(5)
    assert running(attacked) == [LAST] * 5
    signed = policy_set(NEXT + 1, signer=NEW_SIGNER)
    attacked.perform(attacked.hosts["e"], attacked.node("e").offer_policy(signed, Instant(attacked.now)))
    attacked.run_until(lambda: running(attacked) == [NEXT + 1] * 5, 5)


def test_the_stolen_keys_sets_are_refused_whatever_they_say(attacked: Group) -> None:
    rotate(attacked, "a")
    attacked.run(5)
    for version in (LAST, NEXT + 2, STOLEN_LATER):
        steal(attacked, "c", version)
        attacked.run(5)
        others = [version for name, version in zip("abcde", running(attacked), strict=True) if name != "c"]
        assert others == [NEXT + 1] * 4


def test_who_hears_of_a_later_generation_first_fetches_trust_and_then_the_set(attacked: Group) -> None:
    """Its announcement may come before that of the Trust which names it, or alone."""
    attacked.partition("a b c d", "e")
    signed = rotate(attacked, "a")
    attacked.run(5)
    attacked.heal()
    hearer, teller = attacked.node("e"), attacked.node("a")
    member = hearer._catalog.get(teller.own_node_id)
    hearer._advance(Instant(attacked.now))
    hearer._spreading.receive_policy(member, PolicyAnnouncement("mesh", NEXT + 1, hash_of(signed)))
    attacked.perform(attacked.hosts["e"], hearer._finish())
    attacked.run_until(lambda: running(attacked) == [NEXT + 1] * 5, 1)


def test_an_invented_generation_costs_its_announcer_one_question() -> None:
    group = joined("a b c")
    hearer = group.node("a")
    member = hearer._catalog.get(group.node("b").own_node_id)
    before = hearer.statistics().streams_opened
    for _ in range(50):
        hearer._advance(Instant(group.now))
        hearer._spreading.receive_policy(member, PolicyAnnouncement("mesh", STOLEN_LATER, b"\1" * 32))
        hearer._spreading.receive_policy(member, PolicyAnnouncement("invented", STOLEN_LATER, b"\1" * 32))
        group.perform(group.hosts["a"], hearer._finish())
        group.run(0.5)
    assert hearer.statistics().streams_opened - before <= 2
    group.perform(group.hosts["a"], hearer.offer_policy(policy_set(1), Instant(group.now)))
    group.run_until(lambda: running(group) == [1, 1, 1], 5)


def test_what_is_remembered_is_one_announcement_a_scope() -> None:
    newer = NewerGenerations()
    newer.keep(("mesh", NEXT, b"1"), b"a")
    newer.keep(("mesh", NEXT + 1, b"2"), b"b")
    assert newer.take() == [(b"b", ("mesh", NEXT + 1, b"2"))]
    assert newer.take() == []


def test_which_generations_a_trust_begins() -> None:
    builder = TrustDomainBuilder()
    before = builder.trust_document(1, floors={"mesh": 5})
    after = builder.trust_document(2, floors={"mesh": 9, "edge": NEXT})
    assert begun_generations(before, after) == [("edge", NEXT)]
    assert begun_generations(after, builder.trust_document(3, floors={"mesh": NEXT + 7})) == [("mesh", NEXT)]
    assert begun_generations(None, None) == []
