"""Who watches whom: rankings kept up to date agree with rankings made anew."""

import random
from collections.abc import Iterable

import pytest

from gossipmesh.gossip.failure.monitors import Monitors, Panel, panel_of
from gossipmesh.gossip.membership.eligible import Eligible
from gossipmesh.gossip.membership.standing import Standing


class Listed(Eligible):
    """Who may be a monitor is what stands in `members`."""

    def __init__(self, members: Iterable[bytes]) -> None:
        super().__init__(Standing(b""), b"")
        self.members = members

    def ids(self) -> list[bytes]:
        return list(self.members)


def ids(count: int) -> list[bytes]:
    return [random.Random(f"member {number}").randbytes(16) for number in range(count)]


def made_anew(members: list[bytes], target: bytes, count: int) -> list[bytes]:
    return Monitors(Listed(members)).of(target, count)


@pytest.mark.parametrize(
    ("others", "panel"),
    [
        (0, Panel(0, 0)),
        (1, Panel(1, 0)),
        (2, Panel(2, 2)),
        (3, Panel(3, 2)),
        (4, Panel(4, 3)),
        (7, Panel(7, 4)),
        (8, Panel(8, 5)),
        (999, Panel(8, 5)),
    ],
)
def test_a_quorum_is_a_true_majority_and_two_members_condemn_nobody(others: int, panel: Panel) -> None:
    assert panel_of(others, 8) == panel


def test_two_of_five_can_condemn_nobody_of_the_three_others() -> None:
    monitors_of_each = 4
    votes_of_a_side_of_two = 2
    assert panel_of(monitors_of_each, 8).quorum > votes_of_a_side_of_two


def test_rankings_follow_who_comes_and_goes() -> None:
    rng = random.Random(4)
    everybody = ids(120)
    members = everybody[:60]
    monitors = Monitors(Listed(members))
    targets = everybody[:10]
    for target in targets:
        monitors.of(target, 8)
    for step in range(300):
        if rng.random() < 0.5 and len(members) > 15:
            members.remove(rng.choice(members))
        else:
            absent = [node_id for node_id in everybody if node_id not in members]
            if absent:
                members.append(rng.choice(absent))
        monitors._eligible.note(0)
        target = targets[step % 10]
        assert monitors.of(target, 10) == made_anew(members, target, 10)
        assert monitors.others_count(target) == len([m for m in members if m != target])
    # Three hundred changes cost few rankings made anew: that is what keeps a thousand members cheap.
    assert monitors.computed_count < 40


def test_no_member_watches_itself_and_ranks_count_from_one() -> None:
    members = ids(20)
    monitors = Monitors(Listed(members))
    for target in members:
        best = monitors.of(target, 8)
        assert target not in best
        assert [monitors.rank_as_if(target, node_id) for node_id in best] == list(range(1, 9))


def test_a_voter_that_is_gone_keeps_the_rank_it_would_have() -> None:
    members = ids(20)
    monitors = Monitors(Listed(members))
    target = members[0]
    third = monitors.of(target, 8)[2]
    members.remove(third)
    monitors._eligible.note(0)
    assert monitors.rank_as_if(target, third) == 3


def test_another_trust_version_moves_the_monitors() -> None:
    members = ids(40)
    monitors = Monitors(Listed(members))
    before = monitors.of(members[0], 8)
    monitors._eligible.note(1)
    assert monitors.of(members[0], 8) != before


def test_members_are_watched_evenly() -> None:
    members = ids(200)
    monitors = Monitors(Listed(members))
    watched = dict.fromkeys(members, 0)
    for target in members:
        for node_id in monitors.of(target, 8):
            watched[node_id] += 1
    assert sum(watched.values()) == 1_600
    assert max(watched.values()) <= 22


def test_a_crowd_that_comes_or_goes_does_not_cost_a_ranking_made_anew() -> None:
    everybody = ids(900)
    members = everybody[:5]
    listed = Listed(members)
    monitors = Monitors(listed)
    target = everybody[0]
    for count in (5, 300, 420, 900, 700, 20):
        members = listed.members = everybody[:count]
        monitors._eligible.note(0)
        assert monitors.of(target, 8) == made_anew(members, target, 8)
    assert monitors.computed_count <= 3


def test_who_is_told_to_come_or_go_costs_no_walk_over_the_others() -> None:
    rng = random.Random(5)
    everybody = ids(400)
    members = dict.fromkeys(everybody[:200])
    monitors = Monitors(Listed(members))
    target = everybody[0]
    assert monitors.of(target, 8) == made_anew(list(members), target, 8)
    for _ in range(200):
        # Some come and go before anybody asks, some are told as they are already.
        for node_id in rng.sample(everybody, 5):
            joins = rng.random() < 0.5
            if joins:
                members[node_id] = None
            else:
                members.pop(node_id, None)
            monitors._eligible.note(0, node_id, joins)
        assert monitors.of(target, 8) == made_anew(list(members), target, 8)
        assert monitors.others_count(target) == len([one for one in members if one != target])
    assert monitors.listed_count == 1


def test_a_change_told_before_everybody_is_listed_is_not_counted_twice() -> None:
    everybody = ids(40)
    members = everybody[:20]
    listed = Listed(members)
    monitors = Monitors(listed)
    target = everybody[0]
    monitors.of(target, 8)
    listed.note(0, everybody[1], False)
    members = listed.members = everybody[:30]
    monitors._eligible.note(0)
    monitors._eligible.note(0, everybody[35], False)
    assert monitors.of(target, 8) == made_anew(members, target, 8)
    assert monitors.others_count(target) == 29


def test_a_table_that_comes_page_by_page_costs_its_owner_one_ranking() -> None:
    everybody = ids(6_000)
    members = everybody[:1]
    monitors = Monitors(Listed(members))
    own = everybody[0]
    monitors.of(own, 8)
    computed_before = monitors.computed_count
    for start in range(1, len(everybody), 40):
        for node_id in everybody[start : start + 40]:
            monitors._eligible.note(0, node_id, True)
        # Each page somebody else is ranked as well, as probes that fail have it.
        monitors.of(everybody[start], 8)
        monitors.of(own, 8)
    assert monitors.of(own, 8) == made_anew(everybody, own, 8)
    assert monitors.computed_count - computed_before == 150
    assert monitors.listed_count == 1


@pytest.mark.parametrize("count", [0, 1, 24, 25, 192, 193, 3_000])
def test_a_ranking_is_the_greatest_hashes_of_all(count: int) -> None:
    members = ids(count)
    target = ids(1)[0]
    monitors = Monitors(Listed(members))
    hashes = sorted((monitors._hash(target, node_id), node_id) for node_id in members if node_id != target)
    assert monitors.of(target, 24) == [node_id for _, node_id in hashes[:24]]
