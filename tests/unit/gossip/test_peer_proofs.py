"""What a member's packets prove besides its life: that it hears us, what it holds, what its clock says."""

import pytest

from gossipmesh.gossip.base.settings import MemberView
from gossipmesh.model.instant import DAY_S, SECOND_NS, Instant
from gossipmesh.wire.datagram import Ack, Ping
from tests.unit.gossip.failure.test_monitor_detector import view, voting
from tests.unit.gossip.failure.test_prober import parts
from tests.unit.gossip.group import WALL_OFFSET_S, Group


def others(group: Group, at: str) -> list[MemberView]:
    own = group.node(at).own_node_id
    return [member for member in group.node(at).members() if member.node_id != own]


def test_whoever_answers_has_heard_us_and_agrees() -> None:
    group = voting("a b c d")
    group.run(20)
    for member in others(group, "a"):
        assert member.answered_age_ns is not None
        assert member.answered_age_ns < 20 * SECOND_NS
        assert member.agreed_age_ns is not None
        assert member.agreed_age_ns < 20 * SECOND_NS
        assert member.wall_offset_s is not None
        assert abs(member.wall_offset_s - WALL_OFFSET_S) <= 1


def test_a_member_that_hears_nobody_is_heard_and_answers_nobody() -> None:
    group = voting("a b c d")
    group.deaf.add("b")
    group.run(5)
    member = view(group, "a", "b")
    assert member.answered_age_ns is not None
    assert member.heard_age_ns is not None
    assert member.heard_age_ns < 3 * SECOND_NS < member.answered_age_ns


def test_one_alone_was_answered_by_nobody() -> None:
    group = Group("a b")
    group.start("a", "b")
    group.run(5)
    assert others(group, "a") == []


@pytest.mark.parametrize("by_s", [-300, 300])
def test_a_clock_that_is_off_is_known_member_by_member(by_s: int) -> None:
    group = voting("a b c d")
    group.node("b")._ctx.wall_offset_s += by_s
    group.run(20)
    offsets = {member.name: member.wall_offset_s for member in others(group, "a")}
    assert {name for name, offset in offsets.items() if abs((offset or 0) - WALL_OFFSET_S) > 1} == {"b"}
    assert abs((offsets["b"] or 0) - WALL_OFFSET_S - by_s) <= 1


def test_setting_our_own_clock_moves_nobody_elses() -> None:
    group = voting("a b c d")
    before = {member.name: member.wall_offset_s for member in others(group, "a")}
    group.node("a").adjust_wall_clock(WALL_OFFSET_S + DAY_S, Instant(group.now))
    assert {member.name: member.wall_offset_s for member in others(group, "a")} == before


@pytest.mark.parametrize("wall_s", [-(2**63), -1, 2**62, 2**63])
def test_a_clock_beyond_all_reason_is_kept_within_bounds(wall_s: int) -> None:
    group = voting("a b c")
    prober, member = parts(group, "a", "b")
    now = Instant(group.now)
    for told in ("ping", "ack"):
        if told == "ping":
            prober.receive_ping(member, Ping(1, None, None, wall_s), now)
        else:
            prober.receive_ack(member, Ack(prober.ping(member), None, None, wall_s), now)
        assert member.wall_offset_s is not None
        assert -group.now // SECOND_NS <= member.wall_offset_s <= 2**40
