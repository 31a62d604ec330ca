"""Merging is a maximum: any order of arrival, any repetition, ends in one view and one root."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gossipmesh.gossip.base.settings import GossipSettings
from gossipmesh.gossip.failure.verdicts import make_certificate
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus, NodePhase, Order
from gossipmesh.model.records import Cause, Claim, NodeState, RecordKind, SignedRecord, Vote
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


def claim_record(
    subject: str, epoch: int, sequence: int, status: MemberStatus, accuser: str = "y"
) -> SignedRecord:
    claim = Claim(
        credential_of(subject).node_id, 1, epoch, sequence, int(status), credential_of(accuser).node_id
    )
    return sign_record(DOMAIN, RecordKind.CLAIM, claim, key_of(accuser))


PLAIN = [signed_credential("x"), signed_credential("y"), state_record("y", 1, 1)]
STATES = [state_record("x", 1, 1), state_record("x", 1, 2), state_record("x", 2, 1)]
CLAIMS = [
    claim_record("x", epoch, sequence, status)
    for epoch, sequence in ((1, 1), (1, 2), (2, 1))
    for status in (MemberStatus.SUSPECT, MemberStatus.UNATTENDED, MemberStatus.DEAD)
]


def view_after(records: list[SignedRecord], *, detector: str = "swim") -> tuple[str, Order, bytes]:
    """Return what `a` makes of x; claims are SWIM's, certificates the monitors'."""
    group = Group("a", settings=GossipSettings(detector=detector))
    node = group.start("a")
    node._detector.view_complete()
    for record in [*PLAIN, *records]:
        node._intake.take(record, None, Checks(100))
    node._ctx.drain()
    member = node._catalog.get(credential_of("x").node_id)
    assert member is not None
    return member.status.label, member.order, node.roots()[0]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.permutations(CLAIMS[:6]), st.integers(0, 2**32))
def test_claims_in_any_order_and_number_end_alike(claims: list[SignedRecord], seed: int) -> None:
    rng = random.Random(seed)
    repeated = [*claims, *(rng.choice(claims) for _ in range(3))]
    status, order, _ = view_after([*STATES[:2], *repeated])
    assert (status, order) == ("dead", Order(1, 1, 2))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.permutations([*STATES, *CLAIMS]))
def test_any_arrival_ends_in_one_view_once_everything_was_repeated(records: list[SignedRecord]) -> None:
    # A claim waits for the state it is about, as repair brings both again.
    once = view_after([*STATES, *CLAIMS])
    assert view_after([*records, *records, *records]) == once


@pytest.mark.parametrize("held", [None, MemberStatus.SUSPECT, MemberStatus.UNATTENDED, MemberStatus.DEAD])
@pytest.mark.parametrize("offered", [MemberStatus.SUSPECT, MemberStatus.UNATTENDED, MemberStatus.DEAD])
@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_every_status_meets_every_claim(
    held: MemberStatus | None, offered: MemberStatus, sequence: int
) -> None:
    records = [state_record("x", 1, 2)]
    if held is not None:
        records.append(claim_record("x", 1, 2, held))
    records.append(claim_record("x", 1, sequence, offered))
    status, _, _ = view_after(records)
    expected = held or MemberStatus.ALIVE
    if sequence == 2:
        expected = max(expected, offered)
    assert status == expected.label


@pytest.mark.parametrize("status", [MemberStatus.SUSPECT, MemberStatus.UNATTENDED, MemberStatus.DEAD])
def test_a_higher_state_beats_any_claim_and_an_equal_one_none(status: MemberStatus) -> None:
    claimed = [state_record("x", 1, 1), claim_record("x", 1, 1, status)]
    assert view_after([*claimed, state_record("x", 1, 1)])[0] == status.label
    assert view_after([*claimed, state_record("x", 1, 2)])[0] == "alive"
    assert view_after([*claimed, state_record("x", 2, 1)])[0] == "alive"


def test_left_is_final_for_its_epoch() -> None:
    left = [state_record("x", 1, 5, NodePhase.LEFT)]
    assert view_after([*left, state_record("x", 1, 6)])[:2] == ("left", Order(1, 1, 5))
    assert view_after([*left, claim_record("x", 1, 5, MemberStatus.DEAD)])[0] == "left"
    assert view_after([*left, state_record("x", 2, 1)])[0] == "alive"


def test_suspicion_does_not_move_the_root_and_a_death_does() -> None:
    alive = view_after([STATES[0]])[2]
    assert view_after([STATES[0], claim_record("x", 1, 1, MemberStatus.SUSPECT)])[2] == alive
    dead = view_after([STATES[0], claim_record("x", 1, 1, MemberStatus.DEAD)])[2]
    assert dead != alive


def test_who_accused_does_not_move_the_root() -> None:
    by_y = view_after([STATES[0], claim_record("x", 1, 1, MemberStatus.DEAD, "y")])
    by_x = view_after([STATES[0], claim_record("x", 1, 1, MemberStatus.DEAD, "x")])
    assert by_y == by_x


def test_a_record_nobody_signed_is_refused() -> None:
    forged = SignedRecord(int(RecordKind.NODE_STATE), STATES[1].body, STATES[0].signature)
    assert view_after([STATES[0], forged]) == view_after([STATES[0]])


def test_of_two_records_of_one_order_the_same_wins_everywhere() -> None:
    one, other = state_record("x", 1, 1), state_record("x", 1, 1, NodePhase.DRAINING)
    assert view_after([one, other]) == view_after([other, one])


MONITORS = ["y", "z", "w"]
ENROLLED = [signed_credential("x")] + [
    record for name in MONITORS for record in (signed_credential(name), state_record(name, 1, 1))
]


def certificate_record(
    subject: str, epoch: int, status: MemberStatus, voters: list[str] = MONITORS
) -> SignedRecord:
    """Return what a quorum of y, z and w (and a, who stays out of it) certified."""
    cause = Cause.SILENT if status is MemberStatus.DEAD else Cause.AGENT_GONE
    votes = []
    for voter in voters:
        fields = (credential_of(subject).node_id, 1, epoch, int(cause), credential_of(voter).node_id, 1, 7)
        signature = key_of(voter).sign(vote_bytes(DOMAIN, Vote(*fields, b"")))
        votes.append(Vote(*fields, signature))
    return make_certificate(votes, status)


CERTIFICATES = [
    certificate_record("x", epoch, status)
    for epoch in (1, 2)
    for status in (MemberStatus.UNATTENDED, MemberStatus.DEAD)
]


def voted(records: list[SignedRecord]) -> tuple[str, Order, bytes]:
    return view_after([*ENROLLED, *records], detector="monitors")


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.permutations([*STATES, *CERTIFICATES]))
def test_certificates_and_states_in_any_order_end_in_one_view(records: list[SignedRecord]) -> None:
    once = voted([*STATES, *CERTIFICATES])
    assert once[0] == "dead"
    assert voted([*records, *records, *records]) == once


@pytest.mark.parametrize("status", [MemberStatus.UNATTENDED, MemberStatus.DEAD])
def test_a_certificate_stands_against_a_whole_incarnation(status: MemberStatus) -> None:
    certified = [state_record("x", 1, 1), certificate_record("x", 1, status)]
    assert voted(certified)[0] == status.label
    assert voted([*certified, state_record("x", 1, 9)])[0] == status.label
    assert voted([*certified, state_record("x", 2, 1)])[0] == "alive"
    assert voted([*certified, state_record("x", 1, 2, NodePhase.LEFT)])[0] == "left"
    # Nobody is condemned in advance: an incarnation it has not signed yet.
    assert voted([state_record("x", 1, 1), certificate_record("x", 2, status)])[0] == "alive"


def test_who_voted_does_not_move_the_root() -> None:
    one = voted([STATES[0], certificate_record("x", 1, MemberStatus.DEAD)])
    again = voted([STATES[0], certificate_record("x", 1, MemberStatus.DEAD, MONITORS[::-1])])
    assert one == again
    assert one[2] != voted([STATES[0]])[2]


def test_neither_detector_takes_the_others_verdicts() -> None:
    dead = MemberStatus.DEAD
    assert voted([STATES[0], claim_record("x", 1, 1, dead)])[0] == "alive"
    assert view_after([*ENROLLED, STATES[0], certificate_record("x", 1, dead)])[0] == "alive"


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
    assert not any(h.node.statistics().deaths_declared for h in group.hosts.values() if h.node)
