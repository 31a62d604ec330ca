"""Claims merge as everything does: any order of arrival, any repetition, ends in one view and one state
sum."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gossipmesh.model.member import MemberStatus, NodePhase, Order
from gossipmesh.model.records import SignedRecord
from gossipmesh.testing.swim.claims import CLAIM, Claim
from gossipmesh.testing.swim.node import SwimNode
from gossipmesh.trust.records import sign_record
from tests.unit.gossip.group import DOMAIN, credential_of, key_of
from tests.unit.gossip.membership.test_lattice import (
    ENROLLED,
    STATES,
    state_record,
    verdict_record,
    view_after,
)


def claim_record(
    subject: str, epoch: int, sequence: int, status: MemberStatus, accuser: str = "y"
) -> SignedRecord:
    """Return a claim about `subject` that `accuser` signed."""
    claim = Claim(
        credential_of(subject).node_id, 1, epoch, sequence, int(status), credential_of(accuser).node_id
    )
    return sign_record(DOMAIN, CLAIM, claim, key_of(accuser))


CLAIMS = [
    claim_record("x", epoch, sequence, status)
    for epoch, sequence in ((1, 1), (1, 2), (2, 1))
    for status in (MemberStatus.SUSPECT, MemberStatus.UNATTENDED, MemberStatus.DEAD)
]


def held_after(records: list[SignedRecord]) -> tuple[str, Order, bytes]:
    """Return what a node of this core makes of x."""
    return view_after(records, node_class=SwimNode)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.permutations(CLAIMS[:6]), st.integers(0, 2**32))
def test_claims_in_any_order_and_number_end_alike(claims: list[SignedRecord], seed: int) -> None:
    rng = random.Random(seed)
    repeated = [*claims, *(rng.choice(claims) for _ in range(3))]
    status, order, _ = held_after([*STATES[:2], *repeated])
    assert (status, order) == ("dead", Order(1, 1, 2))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.permutations([*STATES, *CLAIMS]))
def test_any_arrival_ends_in_one_view_once_everything_was_repeated(records: list[SignedRecord]) -> None:
    # A claim waits for the state it is about, as repair brings both again.
    once = held_after([*STATES, *CLAIMS])
    assert held_after([*records, *records, *records]) == once


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
    status, _, _ = held_after(records)
    expected = held or MemberStatus.ALIVE
    if sequence == 2:
        expected = max(expected, offered)
    assert status == expected.label


@pytest.mark.parametrize("status", [MemberStatus.SUSPECT, MemberStatus.UNATTENDED, MemberStatus.DEAD])
def test_a_higher_state_beats_any_claim_and_an_equal_one_none(status: MemberStatus) -> None:
    claimed = [state_record("x", 1, 1), claim_record("x", 1, 1, status)]
    assert held_after([*claimed, state_record("x", 1, 1)])[0] == status.label
    assert held_after([*claimed, state_record("x", 1, 2)])[0] == "alive"
    assert held_after([*claimed, state_record("x", 2, 1)])[0] == "alive"


def test_suspicion_does_not_move_the_sum_and_a_death_does() -> None:
    alive = held_after([STATES[0]])[2]
    assert held_after([STATES[0], claim_record("x", 1, 1, MemberStatus.SUSPECT)])[2] == alive
    dead = held_after([STATES[0], claim_record("x", 1, 1, MemberStatus.DEAD)])[2]
    assert dead != alive


def test_who_accused_does_not_move_the_sum() -> None:
    by_y = held_after([STATES[0], claim_record("x", 1, 1, MemberStatus.DEAD, "y")])
    by_x = held_after([STATES[0], claim_record("x", 1, 1, MemberStatus.DEAD, "x")])
    assert by_y == by_x


def test_who_left_is_not_claimed_dead() -> None:
    left = [state_record("x", 1, 5, NodePhase.LEFT)]
    assert held_after([*left, claim_record("x", 1, 5, MemberStatus.DEAD)])[0] == "left"


@pytest.mark.parametrize("sequence", [2, 2**61])
def test_nobody_is_condemned_in_advance(sequence: int) -> None:
    """A claim against an order its subject never signed could not be answered before it counts."""
    claim = claim_record("x", 1, sequence, MemberStatus.DEAD)
    assert held_after([state_record("x", 1, 1), claim])[0] == "alive"


def test_a_verdict_is_no_verdict_here() -> None:
    verdict = verdict_record("x", 1, MemberStatus.DEAD)
    assert held_after([*ENROLLED, STATES[0], verdict]) == held_after([*ENROLLED, STATES[0]])
