"""One member that accuses faster than anybody can have reason to; what it costs its readers is bounded."""

import msgspec
import pytest

from gossipmesh.gossip.base.effects import SendDatagram
from gossipmesh.gossip.failure.accusations import Accusations
from gossipmesh.gossip.failure.monitors import Monitors
from gossipmesh.gossip.failure.verdicts import make_verdict
from gossipmesh.gossip.membership.eligible import Eligible
from gossipmesh.gossip.membership.standing import Standing
from gossipmesh.model import limits
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import RecordKind
from gossipmesh.wire.datagram import Check, Ping, Want, encode_message
from tests.simulation.test_byzantine import (
    HOSTILE,
    VICTIM,
    alive,
    beat_of,
    mesh,
    send,
    state_of,
    verdicts,
    vote_by,
)
from tests.unit.gossip.group import Group, credential_of


def test_votes_that_do_not_verify_cost_few_signature_checks() -> None:
    group = mesh("a b c d e f h g")
    node = group.node("b")
    before = node.statistics().signature_checks
    vote = vote_by(group, HOSTILE, HOSTILE, beat=beat_of(group))
    for number in range(1_000):
        forged = msgspec.structs.replace(vote, sequence=2**41 + number, signature=bytes(64))
        send(group, "b", encode_message(forged))
        group.run(0.001)
    assert node.statistics().signature_checks - before <= limits.VOTES_PER_TARGET_BURST + 8
    assert node.statistics().dropped["vote over budget"] > 900
    assert verdicts(group) == []


def test_verdicts_with_votes_that_do_not_verify_are_their_senders_fault() -> None:
    """The last of a quorum is forged, so that all the others are looked at first."""
    names = "a b c d e f h g"
    group = mesh(names)
    node = group.node("b")
    before = node.statistics().signature_checks
    beat = beat_of(group)
    true = [vote_by(group, name, name, beat=beat) for name in "acd"]
    forged = msgspec.structs.replace(vote_by(group, "h", "h", beat=beat), signature=bytes(64))
    for number in range(300):
        votes = [*true, msgspec.structs.replace(forged, sequence=2**41 + number)]
        send(group, "b", encode_message(make_verdict(votes, MemberStatus.DEAD)))
        group.run(0.002)
    assert node.statistics().signature_checks - before <= 4 * 13
    assert node.statistics().refused["sender over budget"] > 250
    assert verdicts(group) == []


def test_alarms_about_everybody_make_few_rankings() -> None:
    group = mesh("a b c d e f h g")
    node = group.node("b")
    ranked = node._detector.monitors
    before = ranked.computed_count
    state = state_of(group, VICTIM)
    for _ in range(400):
        ranked._rankings.clear()  # as if each were about another of ten thousand
        send(group, "b", encode_message(Check(state.node_id, state.generation, state.epoch)))
        group.run(0.002)
    assert node.statistics().dropped["check over budget"] > 300
    assert ranked.computed_count - before < 300
    group.run(3)
    assert verdicts(group) == []
    assert alive(group)


def test_whom_it_watches_is_at_hand_and_costs_an_honest_monitor_nothing() -> None:
    eligible = Eligible(Standing(bytes(16)), bytes(16))
    eligible.ids = lambda: [bytes([number]) * 16 for number in range(40)]
    monitors = Monitors(eligible)
    accusations = Accusations(monitors)
    target = bytes(16)
    monitors.of(target, 8)
    now = Instant(SECOND_NS)
    assert all(accusations.admits_check(b"s", target, now) for _ in range(10_000))
    assert sum(accusations.admits_check(b"s", b"unranked", now) for _ in range(10_000)) == 32
    assert sum(accusations.admits_vote(b"v", target, now) for _ in range(1_000)) == 40
    assert accusations.admits_vote(b"v", bytes([1]) * 16, now), "another target's votes are counted apart"


def packets_of(group: Group, message: bytes, *, count: int) -> list[bytes]:
    """Return sealed packets of the hostile member to "b", each full of one message."""
    node = group.node(HOSTILE)
    member = node._catalog.get(credential_of("b").node_id)
    packets = []
    for _ in range(count):
        node._courier.send(member, [message] * min(60, 1_100 // len(message)), fill=False)
        packets += [effect.payload for effect in node._ctx.drain() if isinstance(effect, SendDatagram)]
    return packets


@pytest.mark.parametrize("what", ["wants", "pings"])
def test_many_questions_in_a_packet_are_not_many_answers(what: str) -> None:
    """A thousand packets a second are within the budget; fifty questions in each would be fifty thousand."""
    group = mesh("a b c d e f h g")
    node, hostile = group.node("b"), group.hosts[HOSTILE].address
    want = Want(int(RecordKind.NODE_STATE), credential_of("c").node_id)
    message = encode_message(want if what == "wants" else Ping(1, None, None, 0))
    answers = 0
    for packet in packets_of(group, message, count=300):
        answers += len(node.receive_datagram(packet, hostile, Instant(group.now), Instant(group.now)))
        group.now += 1_000_000
    assert answers <= (limits.WANTS_PER_MEMBER_BURST + 100 if what == "wants" else 300 + 10)
    refusal = "want over budget" if what == "wants" else "second ping in a packet"
    assert node.statistics().dropped[refusal] > 1_000


def test_verdicts_that_nobody_signed_make_no_rankings() -> None:
    """A voter of too high a rank is nobody's fault: views differ. So it must not be looked up for nothing."""
    names = "a b c d e f h i j k l m o p q g"
    group = mesh(names)
    node, hostile = group.node("b"), group.hosts[HOSTILE].address
    ranked, target = node._detector.monitors, credential_of(VICTIM).node_id
    beat = beat_of(group)
    far = [
        name
        for name in names.split()
        if name != VICTIM and ranked.rank_as_if(target, credential_of(name).node_id) > 10
    ]
    votes = [msgspec.structs.replace(vote_by(group, n, n, beat=beat), signature=bytes(64)) for n in far[:5]]
    assert len(votes) == node._detector.judge.needed(target)
    messages = [encode_message(make_verdict(some, MemberStatus.DEAD)) for some in (votes[:1], votes)]
    for packet in [packet for message in messages for packet in packets_of(group, message, count=50)]:
        ranked._rankings.clear()  # as if each were about another of ten thousand
        before = ranked.computed_count
        node.receive_datagram(packet, hostile, Instant(group.now), Instant(group.now))
        assert ranked.computed_count == before
        group.now += 1_000_000
    assert node.statistics().refused["sender over budget"] > 20
