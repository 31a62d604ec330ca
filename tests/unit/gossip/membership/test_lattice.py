"""Merging is a maximum: any order of arrival, any repetition, ends in one view and one state sum."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gossipmesh.gossip.failure.verdicts import make_verdict
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus, NodePhase, Order
from gossipmesh.model.records import RETIRED_KINDS, Cause, NodeState, RecordKind, SignedRecord, Vote
from gossipmesh.trust.records import sign_record, vote_bytes
from tests.unit.gossip.group import DOMAIN, Group, credential_of, key_of, signed_credential


def state_record(name: str, epoch: int, sequence: int, phase: NodePhase = NodePhase.SERVING) -> SignedRecord:
    from gossipmesh.model.member import Address

    state = NodeState(
        node_id=credential_of(name).node_id,
        generation=1,
        epoch=epoch,
        sequence=sequence,
        name=name,
        gossip_addresses=(Address("10.9.9.9", 7948),),
        mesh_addresses=(Address("10.9.9.9", 15008),),
        phase=int(phase),
        build="test",
        wire_min=1,
        wire_max=1,
        features=(),
        run_id=epoch,
    )
    return sign_record(DOMAIN, RecordKind.NODE_STATE, state, key_of(name))


PLAIN = [signed_credential("x"), signed_credential("y"), state_record("y", 1, 1)]
STATES = [state_record("x", 1, 1), state_record("x", 1, 2), state_record("x", 2, 1)]


def view_after(
    records: list[SignedRecord], *, node_class: type[GossipNode] = GossipNode
) -> tuple[str, Order, bytes]:
    """Return what `a` makes of x."""
    group = Group("a", node_class=node_class)
    node = group.start("a")
    node._detector.view_complete()
    for record in [*PLAIN, *records]:
        node._intake.take(record, None, Checks(100))
    node._ctx.drain()
    member = node._catalog.get(credential_of("x").node_id)
    assert member is not None
    return member.status.label, member.order, node.state_sums()[0]


def test_left_is_final_for_its_epoch() -> None:
    left = [state_record("x", 1, 5, NodePhase.LEFT)]
    assert view_after([*left, state_record("x", 1, 6)])[:2] == ("left", Order(1, 1, 5))
    assert view_after([*left, state_record("x", 2, 1)])[0] == "alive"


def test_a_record_nobody_signed_is_refused() -> None:
    forged = SignedRecord(int(RecordKind.NODE_STATE), STATES[1].body, STATES[0].signature)
    assert view_after([STATES[0], forged]) == view_after([STATES[0]])


@pytest.mark.parametrize("kind", sorted(RETIRED_KINDS))
@pytest.mark.parametrize("signer", ["x", "y"])
def test_a_retired_kind_is_refused_whoever_signs_it(kind: int, signer: str) -> None:
    """Released nodes refuse it, too: were it kept as unknown kinds are, state sums would differ for ever."""
    body = [bytes(credential_of("x").node_id), 1, 1, 1, 3, bytes(credential_of(signer).node_id)]
    retired = sign_record(DOMAIN, kind, body, key_of(signer))
    unknown = sign_record(DOMAIN, 99, body, key_of(signer))
    assert view_after([STATES[0], retired]) == view_after([STATES[0]])
    assert (view_after([STATES[0], unknown]) == view_after([STATES[0]])) is (signer == "y")


@pytest.mark.parametrize("kind", sorted(RETIRED_KINDS))
@pytest.mark.parametrize("ahead", [0, 1, 1_000])
def test_a_retired_kind_under_our_own_name_is_no_theft_and_no_reason_to_answer(kind: int, ahead: int) -> None:
    group = Group("a")
    node = group.start("a")
    own = node.own_state
    body = [bytes(own.node_id), own.generation, own.epoch + ahead, own.sequence, 3, bytes(own.node_id)]
    for _ in range(3):
        node._intake.take(sign_record(DOMAIN, kind, body, key_of("a")), None, Checks(100))
    assert node._ctx.drain() == []
    assert node.own_state == own
    assert node.statistics().refused == {"Untrusted": 3}


def test_of_two_records_of_one_order_the_same_wins_everywhere() -> None:
    one, other = state_record("x", 1, 1), state_record("x", 1, 1, NodePhase.DRAINING)
    assert view_after([one, other]) == view_after([other, one])


MONITORS = ["y", "z", "w"]
ENROLLED = [signed_credential("x")] + [
    record for name in MONITORS for record in (signed_credential(name), state_record(name, 1, 1))
]


def verdict_record(
    subject: str, epoch: int, status: MemberStatus, voters: list[str] = MONITORS
) -> SignedRecord:
    """Return what a quorum of y, z and w (and a, who stays out of it) condemned."""
    cause = Cause.SILENT if status is MemberStatus.DEAD else Cause.AGENT_GONE
    votes = []
    for voter in voters:
        fields = (credential_of(subject).node_id, 1, epoch, int(cause), credential_of(voter).node_id, 1, 7)
        signature = key_of(voter).sign(vote_bytes(DOMAIN, Vote(*fields, b"")))
        votes.append(Vote(*fields, signature))
    return make_verdict(votes, status)


VERDICTS = [
    verdict_record("x", epoch, status)
    for epoch in (1, 2)
    for status in (MemberStatus.UNATTENDED, MemberStatus.DEAD)
]


def voted(records: list[SignedRecord]) -> tuple[str, Order, bytes]:
    return view_after([*ENROLLED, *records])


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.permutations([*STATES, *VERDICTS]))
def test_verdicts_and_states_in_any_order_end_in_one_view(records: list[SignedRecord]) -> None:
    once = voted([*STATES, *VERDICTS])
    assert once[0] == "dead"
    assert voted([*records, *records, *records]) == once


@pytest.mark.parametrize("status", [MemberStatus.UNATTENDED, MemberStatus.DEAD])
def test_a_verdict_stands_against_a_whole_incarnation(status: MemberStatus) -> None:
    condemned = [state_record("x", 1, 1), verdict_record("x", 1, status)]
    assert voted(condemned)[0] == status.label
    assert voted([*condemned, state_record("x", 1, 9)])[0] == status.label
    assert voted([*condemned, state_record("x", 2, 1)])[0] == "alive"
    assert voted([*condemned, state_record("x", 1, 2, NodePhase.LEFT)])[0] == "left"
    # Nobody is condemned in advance: an incarnation it has not signed yet.
    assert voted([state_record("x", 1, 1), verdict_record("x", 2, status)])[0] == "alive"


def test_who_voted_does_not_move_the_sum() -> None:
    one = voted([STATES[0], verdict_record("x", 1, MemberStatus.DEAD)])
    again = voted([STATES[0], verdict_record("x", 1, MemberStatus.DEAD, MONITORS[::-1])])
    assert one == again
    assert one[2] != voted([STATES[0]])[2]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 3 * SECOND_NS), min_size=1, max_size=20), st.integers(0, 1000))
def test_early_late_and_repeated_deadlines_are_harmless(steps: list[int], seed: int) -> None:
    group = Group("a b c", seed=seed)
    group.start_all()
    group.run(3)
    node, host = group.node("b"), group.hosts["b"]
    for step in steps:
        now = Instant(group.now + step)
        for _ in range(3):
            group.perform(host, node.handle_deadline(now))
        assert node.next_deadline() > now - 1
        group.run(step / SECOND_NS + 0.01)
    group.run_until(group.converged, 10)
    assert set(group.statuses("b").values()) == {"alive"}
    assert not any(h.node.statistics().votes_cast for h in group.hosts.values() if h.node)
