"""Votes: one per voter, good for two seconds, and only those that belong together make a quorum."""

import msgspec
import pytest

from gossipmesh.gossip.base.settings import FAST
from gossipmesh.gossip.failure.votes import VoteBox, verdict_of
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import Cause, Vote

TARGET = NodeId(b"t" * 16)
NOW = Instant(100 * SECOND_NS)


def vote(
    voter: str, *, sequence: int = 1, beat: int = 100, cause: Cause = Cause.SILENT, epoch: int = 1
) -> Vote:
    return Vote(TARGET, 1, epoch, int(cause), NodeId(voter.encode() * 16), sequence, beat, b"")


def box_of(*votes: Vote) -> VoteBox:
    box = VoteBox(FAST)
    for each in votes:
        assert box.put(each, NOW)
    return box


def test_a_quorum_of_distinct_voters_is_found() -> None:
    box = box_of(vote("a"), vote("b"))
    assert box.quorum(TARGET, (1, 1), 3, NOW) is None
    assert box.put(vote("c"), NOW)
    found = box.quorum(TARGET, (1, 1), 3, NOW)
    assert found is not None
    assert found[0] is MemberStatus.DEAD
    assert len(found[1]) == 3


def test_one_voter_counts_once_however_often_it_votes() -> None:
    box = box_of(vote("a", sequence=1), vote("a", sequence=2), vote("a", sequence=3))
    assert len(box.fresh(TARGET, (1, 1), NOW)) == 1
    assert not box.put(vote("a", sequence=3), NOW)
    assert not box.put(vote("a", sequence=2), NOW)


def test_votes_expire_after_two_seconds() -> None:
    box = box_of(vote("a"), vote("b"), vote("c"))
    just_good = Instant(NOW + 2 * SECOND_NS)
    assert box.quorum(TARGET, (1, 1), 3, just_good) is not None
    assert box.quorum(TARGET, (1, 1), 3, Instant(just_good + MILLISECOND_NS)) is None


def test_a_withdrawal_outlives_votes_that_were_sent_before_it() -> None:
    box = box_of(vote("a", sequence=5))
    assert box.withdraw(TARGET, vote("a").voter, 5, NOW)
    assert not box.put(vote("a", sequence=4), NOW)
    assert not box.put(vote("a", sequence=5), NOW)
    assert box.put(vote("a", sequence=6), NOW)
    assert not box.withdraw(TARGET, vote("a").voter, 5, NOW)
    assert len(box.fresh(TARGET, (1, 1), NOW)) == 1


def test_votes_about_another_incarnation_do_not_count() -> None:
    box = box_of(vote("a"), vote("b", epoch=2), vote("c"))
    assert box.quorum(TARGET, (1, 1), 3, NOW) is None
    assert box.quorum(TARGET, (1, 2), 1, NOW) is not None


@pytest.mark.parametrize(("beats", "makes"), [((1, 30, 65), True), ((1, 30, 66), False), ((0, 0, 0), True)])
def test_votes_of_different_hours_do_not_belong_together(beats: tuple[int, ...], makes: bool) -> None:
    votes = [vote(name, beat=beat) for name, beat in zip("abc", beats, strict=True)]
    assert (verdict_of(votes, 3, 64) is not None) is makes


def test_the_latest_votes_that_belong_together_are_taken() -> None:
    votes = [vote(name, beat=beat) for name, beat in zip("abcdef", (1, 2, 3, 900, 901, 902), strict=True)]
    found = verdict_of(votes, 3, 64)
    assert found is not None
    assert sorted(each.beat for each in found[1]) == [900, 901, 902]


def test_a_vote_for_dead_also_says_that_the_agent_is_gone_and_not_the_reverse() -> None:
    gone = [vote("a", cause=Cause.AGENT_GONE), vote("b", cause=Cause.AGENT_GONE), vote("c")]
    found = verdict_of(gone, 3, 64)
    assert found is not None
    assert found[0] is MemberStatus.UNATTENDED
    dead = verdict_of([*gone, vote("d"), vote("e")], 3, 64)
    assert dead is not None
    assert dead[0] is MemberStatus.DEAD


def test_no_number_of_votes_is_enough_where_nobody_may_condemn() -> None:
    assert verdict_of([vote(name) for name in "abcdefgh"], 0, 64) is None


def test_the_box_is_bounded_and_forgets_members_that_go() -> None:
    box = VoteBox(FAST)
    for number in range(40):
        crowd = msgspec.structs.replace(vote("a"), voter=NodeId(bytes([number]) * 16))
        box.put(crowd, NOW)
    assert len(box.fresh(TARGET, (1, 1), NOW)) == 16
    box.drop_voter(bytes([3]) * 16)
    assert len(box.fresh(TARGET, (1, 1), NOW)) == 15
    box.drop(TARGET)
    assert box.fresh(TARGET, (1, 1), NOW) == []


def test_who_heard_no_beat_takes_the_one_two_others_agree_on() -> None:
    """One liar among them cannot name it: neither alone nor above what an honest voter heard."""

    def taken(*beats: int) -> int:
        votes = [vote(name, beat=beat) for name, beat in zip("abcd", beats, strict=False)]
        return box_of(*votes).beat_of_others(TARGET, (1, 1), vote("d").voter, NOW)

    assert taken() == taken(0) == taken(131) == taken(0, 0) == taken(131, 5_000) == 0
    assert taken(0, 131, 130) == 130
    assert taken(2**60, 131, 130) == 130
    assert taken(131 + 64, 131) == 131
    assert taken(0, 0, 131, 130) == 0, "its own vote counts for nothing"


def test_a_place_is_free_once_its_vote_is_old() -> None:
    """Whoever lives for months has had more monitors than there are places."""
    names = "abcdefghijklmnop"
    box = box_of(*(vote(name) for name in names))
    assert not box.put(vote("q"), NOW)
    later = Instant(NOW + 3 * SECOND_NS)
    assert box.put(vote("q"), later)
    assert [held.voter for held in box.fresh(TARGET, (1, 1), later)] == [vote("q").voter]
