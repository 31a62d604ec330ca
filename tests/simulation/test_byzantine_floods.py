"""One member that accuses faster than anybody can have reason to; what it costs its readers is bounded."""

import msgspec

from gossipmesh.gossip.accusations import Accusations
from gossipmesh.gossip.certificates import make_certificate
from gossipmesh.gossip.monitors import Monitors
from gossipmesh.model import limits
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.wire.datagram import Check, encode_message
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


def test_certificates_with_votes_that_do_not_verify_are_their_senders_fault() -> None:
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
        send(group, "b", encode_message(make_certificate(votes, MemberStatus.DEAD)))
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
    monitors = Monitors(lambda: [bytes([number]) * 16 for number in range(40)])
    accusations = Accusations(monitors)
    target = bytes(16)
    monitors.of(target, 8)
    now = Instant(SECOND_NS)
    assert all(accusations.admits_check(b"s", target, now) for _ in range(10_000))
    assert sum(accusations.admits_check(b"s", b"unranked", now) for _ in range(10_000)) == 32
    assert sum(accusations.admits_vote(b"v", target, now) for _ in range(1_000)) == 40
    assert accusations.admits_vote(b"v", bytes([1]) * 16, now), "another target's votes are counted apart"
