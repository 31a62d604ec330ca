"""When a node answers what is held against it: at once, when its quarantine is over, when it is heard."""

from gossipmesh.gossip.failure.verdicts import make_verdict
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import Cause, SignedRecord, Vote
from gossipmesh.trust.records import vote_bytes
from tests.unit.gossip.failure.test_monitor_detector import voting
from tests.unit.gossip.group import DOMAIN, Group, key_of

VOTERS = ("a", "b", "c")


def verdict_of(group: Group, cause: Cause, status: MemberStatus = MemberStatus.DEAD) -> SignedRecord:
    """Return a verdict against "e" as it is now, of three true votes."""
    state = group.node("e").own_state
    votes = []
    for voter in VOTERS:
        node_id = group.node(voter).own_node_id
        vote = Vote(state.node_id, state.generation, state.epoch, int(cause), node_id, 1, 9, b"")
        signature = key_of(voter).sign(vote_bytes(DOMAIN, vote))
        votes.append(Vote(state.node_id, state.generation, state.epoch, int(cause), node_id, 1, 9, signature))
    return make_verdict(votes, status)


def show(group: Group, record: SignedRecord, at: str = "e") -> None:
    """Show "e", or another, what is held against it."""
    node = group.node(at)
    node._ctx.now = Instant(group.now)
    node._intake.take(record, None, Checks(12))
    group.perform(group.hosts[at], node._ctx.drain())


def answer_suspicion(group: Group) -> None:
    """Have "e" have answered all of them, twice: 1.5 s and 10 ms ago."""
    node = group.node("e")
    for age_ns in (1_500 * MILLISECOND_NS, 10 * MILLISECOND_NS):
        node._ctx.now = Instant(group.now - age_ns)
        for voter in VOTERS:
            node._detector._answering.answered(group.node(voter).own_node_id)


def test_silence_is_answered_at_once() -> None:
    group = voting()
    show(group, verdict_of(group, Cause.SILENT))
    assert group.node("e").incarnation == (1, 2)


def test_who_was_deaf_answers_once_its_quarantine_is_over() -> None:
    group = voting()
    show(group, verdict_of(group, Cause.DEAF))
    group.run(100)
    assert group.node("e").incarnation == (1, 1)
    group.run(25)
    assert group.node("e").incarnation == (1, 2)


def test_who_answered_in_vain_answers_once_it_is_heard() -> None:
    group = voting()
    group.mute = {"e"}
    answer_suspicion(group)
    show(group, verdict_of(group, Cause.SILENT))
    group.run(6)
    assert group.node("e").incarnation == (1, 1)
    show(group, verdict_of(group, Cause.SILENT))  # told again and again, it says no more
    assert group.node("e").incarnation == (1, 1)
    group.mute = set()
    group.run(4)
    assert group.node("e").incarnation == (1, 2)


def test_answers_just_under_way_or_of_long_ago_were_not_in_vain() -> None:
    for age_ns in (10 * MILLISECOND_NS, 3 * SECOND_NS):
        group = voting()
        node = group.node("e")
        node._ctx.now = Instant(group.now - age_ns)
        for voter in VOTERS:
            node._detector._answering.answered(group.node(voter).own_node_id)
        show(group, verdict_of(group, Cause.SILENT))
        assert node.incarnation == (1, 2)


def test_after_a_pause_nothing_was_answered_in_vain() -> None:
    group = voting()
    answer_suspicion(group)
    group.node("e")._detector.paused(3 * SECOND_NS)
    show(group, verdict_of(group, Cause.SILENT))
    assert group.node("e").incarnation == (1, 2)


def test_accusers_are_bounded() -> None:
    group = voting()
    answering = group.node("e")._detector._answering
    for number in range(1_000):
        answering.answered(number.to_bytes(16, "big"))
    assert len(answering._answered) <= 64
