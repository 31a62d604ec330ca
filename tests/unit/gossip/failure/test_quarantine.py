"""Who was deaf or degraded stays out until it answers, so that all hold the same of it at any moment."""

from itertools import pairwise

import msgspec
import pytest

from gossipmesh.gossip.base.settings import FAST
from gossipmesh.gossip.failure.quarantine import Quarantine, made_at
from gossipmesh.gossip.failure.verdicts import decode_verdict_untrusted
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.records import Cause
from tests.unit.gossip.failure.test_answering import show, verdict_of
from tests.unit.gossip.failure.test_monitor_detector import FIVE, given_up, until_all_hold, view, voting
from tests.unit.gossip.group import Group
from tests.unit.gossip.test_transcripts import CART, everybody, publish, serving

OUT_NS = FAST.quarantine_ns
SLOT_NS = FAST.heartbeat_slot_ns


def deafened(group: Group, name: str = "e") -> None:
    """Have a member hear nothing until all others hold it dead, then hear again."""
    group.deaf = {name}
    until_all_hold(group, name, "dead", 20)
    group.deaf = set()


def require_equal_views(group: Group) -> None:
    """Whose sums are equal, their views are: statuses, and whose endpoints are in use."""
    held: dict[bytes, tuple[str, object]] = {}
    for name, host in group.hosts.items():
        if host.node is None:
            continue
        statuses = {one.name: one.status.label for one in host.node.members()}
        services = {
            at: what for at, what in serving(group, name).items() if at != name or statuses[at] != "dead"
        }
        seen = (name, (statuses, services))
        other = held.setdefault(host.node.state_sums()[0], seen)
        assert other[1] == seen[1], f"{other[0]} and {name} have one sum and two views at {group.now}"


def run_equal(group: Group, seconds: float) -> None:
    """Let time pass; at no moment of it may equal sums mean different views."""
    for _ in range(int(seconds * 4)):
        group.run(0.25)
        require_equal_views(group)


def test_each_return_that_is_followed_by_a_death_doubles_the_time_until_it_is_forgotten() -> None:
    quarantine = Quarantine(FAST)
    ends = [quarantine.begin(Instant(1_000))]
    for _ in range(4):
        ends.append(quarantine.begin(Instant(ends[-1] + SECOND_NS)))
    lengths = [(later - before - SECOND_NS) // OUT_NS for before, later in pairwise(ends)]
    assert ends[0] == 1_000 + OUT_NS
    assert lengths == [2, 4, 8, 8]
    quiet = Instant(ends[-1] + FAST.quarantine_forget_ns)
    assert quarantine.begin(quiet) == quiet + FAST.quarantine_max_ns
    quiet = Instant(quiet + FAST.quarantine_max_ns + FAST.quarantine_forget_ns + 1)
    assert quarantine.begin(quiet) == quiet + OUT_NS


@pytest.mark.parametrize(
    ("beats", "at_beat"),
    [((40, 40, 40), 40), ((40, 41, 104), 41), ((40,), 40), ((400, 400), 100), ((0, 0), 0)],
)
def test_a_verdict_is_as_old_as_its_second_latest_beat(beats: tuple[int, ...], at_beat: int) -> None:
    group = voting()
    verdict = decode_verdict_untrusted(verdict_of(group, Cause.DEAF))
    votes = tuple(msgspec.structs.replace(verdict.votes[0], beat=beat) for beat in beats)
    verdict = msgspec.structs.replace(verdict, votes=votes)
    started, now = Instant(7 * SECOND_NS), Instant(7 * SECOND_NS + 100 * SLOT_NS)
    assert made_at(verdict, started, now, SLOT_NS) == started + at_beat * SLOT_NS


@pytest.mark.parametrize("seed", range(3))
def test_who_was_deaf_is_back_everywhere_at_one_moment(seed: int) -> None:
    group = voting(seed=seed)
    publish(group, "e", CART)
    group.run(1)
    began = group.now
    deafened(group)
    found = group.now
    run_equal(group, 100)
    assert set(group.statuses("e").values()) == {"dead"}
    assert group.converged()
    group.run_until(lambda: "alive" in group.statuses("e").values(), 30)
    until_all_hold(group, "e", "alive", 1)
    assert OUT_NS - 2 * SECOND_NS <= group.now - found <= OUT_NS + SECOND_NS
    assert group.now - began < OUT_NS + 15 * SECOND_NS
    assert all(serving(group, at) == {"e": ["cart"]} for at in "abcd")
    assert group.node("e").incarnation == (1, 2)
    assert given_up(group) == {"e"}


def test_who_missed_the_verdict_holds_what_the_others_hold_once_its_sum_is_theirs() -> None:
    group = voting("a b c d e f g h")
    publish(group, "e", CART)
    group.run(1)
    group.deaf = {"e"}
    group.run(6)
    group.partition("d", "a b c e f g h")
    group.run_until(lambda: {group.status(at, "e") for at in "abcfgh"} == {"dead"}, 20)
    assert group.status("d", "e") == "alive"
    group.deaf = set()
    group.heal()
    group.run_until(group.converged, 20)
    run_equal(group, 140)
    assert everybody(group, "alive")
    assert group.converged()


def test_peers_that_start_again_know_that_it_is_out() -> None:
    group = voting()
    deafened(group)
    group.run(10)
    for name in "ab":
        group.kill(name)
        group.run(0.5)
        group.start(name)
    group.run(8)
    assert set(group.statuses("e").values()) == {"dead"}
    run_equal(group, 120)
    assert everybody(group, "alive")


def test_three_deaths_in_one_outage_add_up_to_nothing() -> None:
    """Each start is another incarnation; what is held of the last of them is all that counts."""
    group = voting()
    group.deaf = {"e"}
    for _ in range(3):
        until_all_hold(group, "e", "dead", 30)
        group.kill("e")
        group.run(0.2)
        group.deaf = set()
        group.start("e", "a")
        until_all_hold(group, "e", "alive", 5)
        group.deaf = {"e"}
    until_all_hold(group, "e", "dead", 30)
    healed = group.now
    group.deaf = set()
    run_equal(group, 115)
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    assert group.now - healed < OUT_NS + 2 * SECOND_NS


def test_only_a_return_and_a_new_death_make_it_longer() -> None:
    group = voting()
    for times in (1, 2):
        deafened(group)
        found = group.now
        until_all_hold(group, "e", "alive", 500)
        assert abs(group.now - found - times * OUT_NS) < 3 * SECOND_NS
        group.run(5)


def test_who_is_out_holds_itself_out_and_uses_its_own_services() -> None:
    group = voting()
    publish(group, "e", CART)
    group.run(1)
    deafened(group)
    group.run_until(lambda: group.status("e", "e") == "dead" and group.converged(), 10)
    until = view(group, "e", "e").quarantine_until
    assert until is not None
    assert 0 < until - group.now <= OUT_NS
    assert serving(group, "e") == {"e": ["cart"]}
    assert all(one.status.label == "alive" for one in group.node("e").endpoints())
    assert all(serving(group, at) == {} for at in "abcd")
    begun, address = len(group.trace), str(group.hosts["e"].address)
    group.run(60)
    assert not [1 for _, name, to, _ in group.trace[begun:] if (name, to) == ("e", address)]


def test_what_keeps_us_out_is_verified_once_however_often_it_is_told() -> None:
    group = voting()
    deafened(group)
    group.run_until(lambda: group.status("e", "e") == "dead", 10)
    before = group.node("e").statistics()
    group.run(60)
    after = group.node("e").statistics()
    assert after.signature_checks - before.signature_checks <= 2
    assert after.datagrams_received - before.datagrams_received > 50


@pytest.mark.parametrize("seconds", [12, 200])
def test_a_verdict_kept_for_later_keeps_nobody_out(seconds: int) -> None:
    """Who holds a member dead says so whenever it hears it, so who hears of it this late is held alive."""
    group = voting()
    group.run(seconds)
    show(group, verdict_of(group, Cause.DEAF))
    group.run(1)
    assert group.node("e").incarnation == (1, 2)
    assert group.status("e", "e") == "alive"


def test_who_left_or_drains_while_it_is_out_is_heard() -> None:
    group = voting()
    deafened(group)
    group.run_until(lambda: group.status("e", "e") == "dead", 10)
    group.perform(group.hosts["e"], group.node("e").set_draining(Instant(group.now)))
    group.run(2)
    assert {view(group, at, "e").state.phase for at in FIVE.split()} == {1}
    assert set(group.statuses("e").values()) == {"dead"}
    group.perform(group.hosts["e"], group.node("e").leave(Instant(group.now + MILLISECOND_NS)))
    until_all_hold(group, "e", "left", 5)
    require_equal_views(group)
