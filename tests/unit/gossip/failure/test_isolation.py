"""Whether a node knows that it is itself cut off: within two seconds, and never while anybody is heard."""

import random

import pytest

from gossipmesh.gossip.base.effects import Isolated
from gossipmesh.gossip.base.settings import FAST, STEADY, GossipSettings, MonitorSettings
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import MemberStatus
from tests.unit.gossip.failure.test_monitor_detector import VOTING, given_up, voting
from tests.unit.gossip.group import Group
from tests.unit.gossip.test_transcripts import everybody

PROFILES = pytest.mark.parametrize("profile", [FAST, STEADY], ids=["fast", "steady"])


def names_of(count: int) -> str:
    return " ".join(f"n{number}" for number in range(count))


def cut_off(group: Group, name: str) -> None:
    group.partition(name, " ".join(other for other in group.hosts if other != name))


def told(group: Group, name: str) -> list[bool]:
    """Return what a node told its agent of this, in order."""
    return [event.is_isolated for event in group.hosts[name].events if isinstance(event, Isolated)]


def falsely_told(group: Group, but_not: str = "") -> list[str]:
    return [name for name in group.hosts if name != but_not and told(group, name)]


def until_isolated(group: Group, name: str, seconds: float) -> float:
    return group.run_until(lambda: group.node(name).isolated_since is not None, seconds)


@PROFILES
@pytest.mark.parametrize("count", [3, 8, 50])
def test_who_is_cut_off_knows_within_two_seconds_and_until_the_first_packet(
    count: int, profile: MonitorSettings
) -> None:
    group = voting(names_of(count), settings=GossipSettings(monitor=profile))
    phases = random.Random(count)
    for _ in range(5):
        name = phases.choice(list(group.hosts))
        group.run(phases.uniform(0, 2))
        cut_off(group, name)
        assert until_isolated(group, name, 2.0) <= 2.0
        assert told(group, name)[-1] is True
        others = [view for view in group.node(name).members() if view.name != name]
        assert all(view.unreachable for view in others if view.status is MemberStatus.ALIVE)
        assert group.node(name).tally().unreachable_count == len(others)
        group.run(1)
        group.heal()
        group.run_until(lambda name=name: group.node(name).isolated_since is None, 1.5)
        assert told(group, name)[-1] is False
        assert not any(view.unreachable for view in group.node(name).members())
        group.run(5)
    assert all(len(told(group, name)) % 2 == 0 for name in group.hosts)
    assert everybody(group, "alive")


def test_only_who_is_cut_off_says_so() -> None:
    group = voting(names_of(8))
    cut_off(group, "n3")
    group.run(30)
    assert falsely_told(group, but_not="n3") == []
    assert told(group, "n3") == [True]


@pytest.mark.parametrize("count", [3, 8, 20])
@pytest.mark.parametrize("seed", range(2))
def test_one_packet_in_five_lost_is_no_isolation(count: int, seed: int) -> None:
    group = voting(names_of(count), seed=seed)
    group.loss = 0.2
    group.run(60)
    assert falsely_told(group) == []


def test_who_is_heard_while_it_asks_is_not_isolated() -> None:
    group = voting(names_of(8))
    cut_off(group, "n1")
    group.run_until(lambda: group.node("n1")._ctx.timers.pending(("isolation", None)), 2)
    group.heal()
    group.run(5)
    assert falsely_told(group) == []


@pytest.mark.parametrize("seconds", [1, 5, 30])
def test_who_was_stopped_is_not_isolated(seconds: int) -> None:
    group = voting()
    host = group.hosts["e"]
    sleeper, host.node, host.refuses = host.node, None, False
    group.run(seconds)
    host.node, host.refuses = sleeper, True
    group.run(10)
    assert falsely_told(group) == []


@pytest.mark.parametrize("count", [4, 8, 20])
def test_when_half_of_the_others_die_at_once_it_is_not_we(count: int) -> None:
    group = voting(names_of(count))
    for name in list(group.hosts)[: (count - 1) // 2]:
        group.kill(name, silent=True)
    group.run(20)
    assert falsely_told(group) == []


def test_who_answers_by_tcp_alone_is_contact() -> None:
    """A firewall that drops UDP is no isolation: engines are reached, so traffic goes on."""
    group = voting(names_of(5))
    group.lost_from = group.lost_to = {"n2"}
    group.run(30)
    assert falsely_told(group) == []


def test_a_machine_that_refuses_is_reached() -> None:
    """All agents but ours are killed: their kernels refuse, which is an answer."""
    group = voting()
    for name in "bcde":
        group.kill(name)
    group.run(20)
    assert falsely_told(group) == []


@pytest.mark.parametrize("names", ["a", "a b"])
def test_alone_and_in_a_mesh_of_two_nobody_is_isolated(names: str) -> None:
    """With one other member nobody can tell which of the two is cut off; `unreachable` says what is known."""
    group = Group(names, settings=VOTING)
    group.start_all()
    group.run(5)
    cut_off(group, "a")
    group.run(30)
    assert falsely_told(group) == []


def test_who_starts_while_it_is_cut_off_knows_it_as_soon() -> None:
    group = voting()
    group.kill("e")
    group.run(0.5)
    cut_off(group, "e")
    group.start("e")
    assert until_isolated(group, "e", 2.5) <= 2.1


def test_an_isolated_node_opens_no_cases_and_blames_nobody_its_own_health_included() -> None:
    group = voting(names_of(8))
    before = group.node("n1").statistics()
    cut_off(group, "n1")
    until_isolated(group, "n1", 2)
    group.run(60)
    after = group.node("n1").statistics()
    assert after.cases_open == 0
    assert after.votes_cast == before.votes_cast
    assert after.isolations == 1
    assert group.node("n1").local_health == 0
    assert not [view for view in group.node("n1").members() if view.status is not MemberStatus.ALIVE]
    group.heal()
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    assert given_up(group) == {"n1"}


def test_a_case_that_was_open_is_closed_and_opened_anew_after_it() -> None:
    group = voting(names_of(8))
    group.kill("n7", silent=True)
    group.run(1.5)
    cut_off(group, "n1")
    until_isolated(group, "n1", 2)
    assert group.node("n1").statistics().cases_open == 0
    group.run(20)
    group.heal()
    group.run_until(lambda: set(group.statuses("n7").values()) == {"dead"}, 20)


def test_it_asks_sparingly_while_it_lasts() -> None:
    group = voting(names_of(8))
    cut_off(group, "n1")
    until_isolated(group, "n1", 2)
    before = group.node("n1").statistics().datagrams_sent
    group.run(60)
    assert group.node("n1").statistics().datagrams_sent - before < 60 * 10
    since = group.node("n1").isolated_since
    assert since is not None
    assert group.now - since > 60 * SECOND_NS
