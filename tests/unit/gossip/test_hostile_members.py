"""What a member with a good credential can send: authentic packets of spoiled content."""

import random

import pytest

from gossipmesh.gossip.base.effects import PolicyRefused
from gossipmesh.gossip.sessions.session import Session
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import Instant
from gossipmesh.wire.datagram import PolicyAnnouncement
from gossipmesh.wire.frames import decode_frame_message_untrusted, encode_frame_message
from tests.unit.gossip.group import Group, policy_set
from tests.unit.gossip.test_transcripts import everybody, joined


def recorded_bodies(group: Group) -> list[list[bytes]]:
    """Return the messages of every packet that `a` seals while things happen."""
    bodies: list[list[bytes]] = []
    courier = group.node("a")._courier
    original = courier.send

    def send(member, messages, *, fill=True):
        bodies.append(list(messages))
        original(member, messages, fill=fill)

    courier.send = send
    group.perform(group.hosts["a"], group.node("a").offer_policy(policy_set(1), Instant(group.now)))
    group.run(6)
    group.kill("c")
    group.run(12)
    courier.send = original
    return bodies


def mutate(rng: random.Random, data: bytes) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        mutated[rng.randrange(len(mutated))] = rng.choice((0, 1, 127, 128, 192, 255, rng.randrange(256)))
    return bytes(mutated)


@pytest.mark.parametrize("seed", range(3))
def test_authentic_packets_of_mutated_messages_raise_nothing(seed: int) -> None:
    group = joined("a b c", seed=seed)
    rng = random.Random(seed)
    bodies = recorded_bodies(group)
    node = group.node("b")
    sender = node._catalog.get(group.node("a").own_node_id)
    assert sender is not None
    member = group.node("a")._catalog.get(node.own_node_id)
    assert member is not None
    link, ctx = member.link, group.node("a")._ctx
    assert link is not None
    checks = node.statistics().signature_checks
    for _ in range(1_500):
        messages = [mutate(rng, message) for message in rng.choice(bodies)]
        packet = link.packet(ctx.group_tag, group.node("a")._courier._own_short, ctx.run_id, messages)
        effects = node.receive_datagram(packet, group.hosts["a"].address, Instant(group.now))
        assert len(effects) < 50
    assert node.statistics().signature_checks - checks <= 1_500 * 12
    group.run(20)
    assert group.status("b", "a") == "alive"


@pytest.mark.parametrize("seed", range(3))
def test_mutated_frames_raise_only_what_they_may(seed: int) -> None:
    group = joined("a b", seed=seed)
    rng = random.Random(seed)
    frames: list[bytes] = []
    for name in "ab":
        streams = group.node(name)._streams
        original = streams.say

        def say(session, message, original=original):
            frames.append(message if isinstance(message, bytes) else encode_frame_message(message))
            original(session, message)

        streams.say = say
    group.perform(group.hosts["a"], group.node("a").offer_policy(policy_set(1), Instant(group.now)))
    group.node("b")._repair.sync(group.node("b")._catalog.get(group.node("a").own_node_id))
    group.perform(group.hosts["b"], group.node("b")._ctx.drain())
    group.run(5)
    assert len(frames) >= 5
    repair = group.node("b")._repair
    outcomes = {"read": 0, "refused": 0}
    for number in range(2_000):
        session = Session(500_000 + number, opener=rng.random() < 0.5, purpose="serve", scope=None)
        session.member = group.node("b")._catalog.get(group.node("a").own_node_id)
        group.node("b")._streams.say = lambda session, message: None
        try:
            message = decode_frame_message_untrusted(mutate(rng, rng.choice(frames)))
            if message is not None:
                repair.receive(session, message)
            outcomes["read"] += 1
        except MalformedInput:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50
    group.perform(group.hosts["b"], group.node("b")._ctx.drain())
    group.run(10)
    assert everybody(group, "alive")


def test_a_member_cannot_make_another_refuse_for_good_by_announcing_nonsense() -> None:
    group = joined("a b c")
    liar = group.node("a")
    liar._spreading.answer_policy = lambda scope: policy_set(9).to_bytes()[:-40]
    for version in range(2, 12):
        member = group.node("b")._catalog.get(liar.own_node_id)
        assert member is not None
        group.node("b")._spreading.receive_policy(member, PolicyAnnouncement("mesh", version, bytes(32)))
        group.perform(group.hosts["b"], group.node("b")._ctx.drain())
        group.run(1)
    refused = [event for event in group.hosts["b"].events if isinstance(event, PolicyRefused)]
    assert len(refused) == 10
    group.perform(group.hosts["c"], group.node("c").offer_policy(policy_set(1), Instant(group.now)))
    group.run_until(lambda: group.node("b").own_state.policies[0].version == 1, 3)
