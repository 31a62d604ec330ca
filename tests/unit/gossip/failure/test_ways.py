"""Members whom datagrams do not reach and streams do: found, told, carried to, and let go."""

import pytest

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.effects import DatagramsLost, WayChanged
from gossipmesh.gossip.base.own_loss import is_own_loss
from gossipmesh.gossip.failure.ways import Way
from gossipmesh.model import limits
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.builders import service_entry
from tests.unit.gossip.group import Group, policy_set

NAMES = "a b c d e"
NOTICED_S = 12  # two probes of a silent target, three pings, eight tries


def running(names: str = NAMES) -> Group:
    group = Group(names)
    group.start_all()
    group.run_until(group.converged, 10)
    group.run(5)
    return group


def lose(group: Group, name: str, *, inward: bool = True, outward: bool = True) -> None:
    if outward:
        group.lost_from.add(name)
    if inward:
        group.lost_to.add(name)


def pass_again(group: Group) -> None:
    group.lost_from.clear()
    group.lost_to.clear()


def tcp_only(group: Group, at: str) -> set[str]:
    """Return whom a host says it reaches by TCP only."""
    return {view.name for view in group.node(at).members() if view.is_tcp_only}


def is_noticed(group: Group, name: str) -> bool:
    others = {other for other in group.hosts if other != name}
    return tcp_only(group, name) == others and all(tcp_only(group, other) == {name} for other in others)


def carried(group: Group) -> list[int]:
    """Return how many packets each host's carriers have taken."""
    return [group.node(name).statistics().packets_carried for name in group.hosts]


def told_of(group: Group, at: str, kind: type) -> list[object]:
    return [event for event in group.hosts[at].events if type(event) is kind]


@pytest.mark.parametrize(("inward", "outward"), [(True, True), (True, False), (False, True)])
def test_who_is_reached_by_streams_alone_is_told_of_by_both_ends(inward: bool, outward: bool) -> None:
    group = running()
    lose(group, "e", inward=inward, outward=outward)
    group.run_until(lambda: is_noticed(group, "e"), NOTICED_S)
    assert group.statuses("e") == dict.fromkeys("abcd", "alive")
    (found,) = told_of(group, "a", WayChanged)
    assert found == WayChanged(group.node("e").own_node_id, "e", True)
    assert told_of(group, "e", DatagramsLost) == [DatagramsLost(True)], "it says it of itself"
    assert not told_of(group, "a", DatagramsLost)
    pass_again(group)
    group.run_until(lambda: not tcp_only(group, "a") and not tcp_only(group, "e"), 10)
    assert told_of(group, "e", DatagramsLost)[-1] == DatagramsLost(False)
    group.run(15)
    before = carried(group)
    group.run(5)
    assert carried(group) == before, "carriers ended"


def test_what_is_said_in_packets_reaches_it_and_comes_from_it_at_their_pace() -> None:
    group = running()
    lose(group, "e")
    group.run_until(lambda: is_noticed(group, "e"), NOTICED_S)
    host = group.hosts["b"]
    group.perform(host, host.node.offer_policy(policy_set(1), Instant(group.now)))

    def runs(name: str) -> list[int]:
        return [policy.version for policy in group.node(name).own_state.policies]

    assert group.run_until(lambda: all(runs(name) == [1] for name in group.hosts), 2) < 0.5
    for owner in ("c", "e"):
        host = group.hosts[owner]
        group.perform(host, host.node.publish_services([service_entry("shop/late")], Instant(group.now)))
        node_id = host.node.own_node_id
        everywhere = [name for name in group.hosts if name != owner]
        took_s = group.run_until(
            lambda node_id=node_id, names=everywhere: all(group.node(n).endpoints_of(node_id) for n in names),
            2,
        )
        assert took_s < 0.5
    group.run(150)
    assert group.statuses("e") == dict.fromkeys("abcd", "alive"), "carriers are renewed in time"
    assert is_noticed(group, "e")
    assert group.node("a").statistics().verdicts_applied == 0


def test_who_dies_while_streams_alone_reach_it_is_found_dead_as_ever() -> None:
    group = running()
    lose(group, "e")
    group.run_until(lambda: is_noticed(group, "e"), NOTICED_S)
    group.kill("e", silent=True)
    gone_s = group.run_until(lambda: set(group.statuses("e").values()) == {"dead"}, 15)
    assert gone_s < 10
    assert not tcp_only(group, "a")


def test_a_member_that_loses_packets_is_not_said_to_be_reached_by_tcp_only() -> None:
    group = running()
    group.loss = 0.2
    group.run(300)
    assert not any(tcp_only(group, name) for name in group.hosts)
    assert not any(told_of(group, name, WayChanged) for name in group.hosts)


def test_a_way_that_comes_and_goes_keeps_its_carrier() -> None:
    group = running()
    lose(group, "e")
    group.run_until(lambda: is_noticed(group, "e"), NOTICED_S)
    told = len(told_of(group, "a", WayChanged))
    opened = group.node("a").statistics().streams_opened
    for _ in range(10):
        pass_again(group)
        group.run(1)
        lose(group, "e")
        group.run(3)
    assert len(told_of(group, "a", WayChanged)) == told
    assert group.node("a").statistics().streams_opened - opened < 10


def test_there_are_no_more_carriers_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CARRIERS_MAX", 4)
    group = running("a b c d e f g h")
    lose(group, "e")
    group.run(60)
    held = tcp_only(group, "e")
    assert 2 <= len(held) <= 4
    assert group.node("e").statistics().tcp_only == len(held)
    assert group.node("e").statistics().dropped["way over limit"] > 0
    for name in group.hosts:
        assert {view.status for view in group.node(name).members()} == {MemberStatus.ALIVE}


def test_a_carrier_that_breaks_is_opened_again() -> None:
    group = running("a b c")
    lose(group, "c")
    group.run_until(lambda: is_noticed(group, "c"), NOTICED_S)
    for here, there in list(group._streams.items()):
        group._streams.pop(here)
        if there is not None:
            group._later(there[0], "closed", (there[1],))
    group.run(2)
    before = carried(group)
    group.run(2)
    assert carried(group)[0] > before[0]
    assert group.statuses("c") == {"a": "alive", "b": "alive"}


@pytest.mark.parametrize(
    ("count", "others", "is_quiet", "is_own"),
    [
        (0, 4, True, False),  # a node alone for a moment blames nobody
        (1, 4, True, True),
        (1, 4, False, False),
        (3, 4, False, True),
        (1, 2, False, False),
        (1, 1, False, True),
        (7, 300, False, False),
        (8, 300, False, True),
    ],
)
def test_it_is_our_own_loss_when_most_are_reached_by_tcp_only(
    count: int, others: int, is_quiet: bool, is_own: bool
) -> None:
    assert is_own_loss(count, others, is_quiet=is_quiet) is is_own


def test_a_way_is_kept_by_checkpoints() -> None:
    assert kept.NAMES[Way] in kept.VALUES
