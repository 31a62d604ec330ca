"""Transcripts of voting monitors: who is found gone, how soon, and who never is."""

import random

import pytest

from gossipmesh.gossip.base.effects import EndpointsRetained, MemberChanged, SendDatagram, ServicesChanged
from gossipmesh.gossip.base.lag import LagMeter, step_of
from gossipmesh.gossip.base.settings import STEADY, GossipSettings
from gossipmesh.gossip.failure.verdicts import make_verdict
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import Cause, Vote
from gossipmesh.trust.records import vote_bytes
from gossipmesh.wire.datagram import Ping
from tests.unit.gossip.group import DOMAIN, Group, key_of
from tests.unit.gossip.test_transcripts import CART, everybody, publish, serving

FIVE = "a b c d e"
VOTING = GossipSettings()


def voting(names: str = FIVE, *, seed: int = 1, settings: GossipSettings = VOTING) -> Group:
    """Return a settled group whose monitors vote."""
    group = Group(names, seed=seed, settings=settings)
    group.start_all()
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    group.run(3)
    return group


def until_all_hold(group: Group, of: str, status: str, seconds: float) -> float:
    return group.run_until(lambda: set(group.statuses(of).values()) == {status}, seconds)


def given_up(group: Group) -> set[str]:
    """Return whom anybody ever held dead or unattended."""
    return {
        event.name
        for host in group.hosts.values()
        for event in host.events
        if isinstance(event, MemberChanged) and event.status in (MemberStatus.DEAD, MemberStatus.UNATTENDED)
    }


def view(group: Group, at: str, of: str):
    return next(view for view in group.node(at).members() if view.name == of)


def kinds(group: Group, at: str, of: str) -> list[str]:
    node_id = view(group, at, of).node_id
    return [entry.kind for entry in group.node(at).history(node_id)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("names", ["a b c", FIVE, "a b c d e f g h i j k l"])
def test_a_machine_gone_silent_is_dead_everywhere_in_about_four_seconds(names: str, seed: int) -> None:
    group = voting(names, seed=seed)
    group.loss = 0.05
    last = names.split()[-1]
    publish(group, last, CART)
    group.run(1)
    group.kill(last, silent=True)
    assert until_all_hold(group, last, "dead", 5.5) > 2.5
    assert given_up(group) == {last}
    assert all(serving(group, at) == {} for at in names.split()[:-1])


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_node_whose_machine_refuses_is_dead_within_a_second_or_so(seed: int) -> None:
    group = voting(seed=seed)
    group.loss = 0.05
    group.hosts["e"].engine_serves = False
    group.kill("e")
    until_all_hold(group, "e", "dead", 1.5)
    assert given_up(group) == {"e"}


def test_the_steady_profile_waits_longer() -> None:
    group = voting(settings=GossipSettings(monitor=STEADY))
    group.kill("e", silent=True)
    group.run(6)
    assert set(group.statuses("e").values()) == {"alive"}
    until_all_hold(group, "e", "dead", 2.5)


def test_an_agent_gone_beside_a_serving_engine_is_unattended_and_keeps_its_services() -> None:
    group = voting()
    publish(group, "e", CART)
    group.run(1)
    group.kill("e")
    until_all_hold(group, "e", "unattended", 2)
    group.run(30)
    assert set(group.statuses("e").values()) == {"unattended"}
    assert all(serving(group, at) == {"e": ["cart"]} for at in "abcd")
    group.hosts["e"].engine_serves = False
    until_all_hold(group, "e", "dead", 60)
    group.start("e")
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 5)


def test_a_hung_agent_beside_a_serving_engine_is_unattended_and_back_at_once() -> None:
    group = voting()
    host = group.hosts["e"]
    sleeper, host.node, host.refuses = host.node, None, False
    until_all_hold(group, "e", "unattended", 6)
    group.run(10)
    host.node = sleeper
    until_all_hold(group, "e", "alive", 1.5)
    group.run_until(group.converged, 5)
    assert given_up(group) == {"e"}


@pytest.mark.parametrize("seconds", [1, 2])
def test_a_short_pause_is_no_death_and_the_sleeper_accuses_nobody(seconds: int) -> None:
    group = voting()
    host = group.hosts["e"]
    sleeper, host.node, host.refuses = host.node, None, False
    host.engine_serves = False
    group.run(seconds)
    host.node, host.engine_serves = sleeper, True
    group.run(10)
    assert given_up(group) == set()
    assert sleeper is not None
    assert sleeper.statistics().pauses >= 1


def test_two_of_five_cut_off_condemn_nobody_and_nothing_is_lost_at_the_heal() -> None:
    group = voting()
    publish(group, "a", CART)
    group.run(1)
    group.partition("a b", "c d e")
    group.run(120)
    assert all(group.status(at, of) == "alive" for at in "ab" for of in "cde")
    assert all(view(group, at, of).unreachable for at in "ab" for of in "cde")
    group.heal()
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 5)
    group.run(2)
    assert not any(view(group, at, of).unreachable for at in "abcde" for of in "abcde" if at != of)
    assert all(serving(group, at) == {"a": ["cart"]} for at in "bcde")


def test_one_cut_off_of_five_is_dead_to_the_rest_and_holds_nobody_dead_itself() -> None:
    group = voting()
    group.partition("a", "b c d e")
    group.run(30)
    assert set(group.statuses("a").values()) == {"dead"}
    assert [group.status("a", of) for of in "bcde"] == ["alive"] * 4
    group.heal()
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    assert group.node("a").incarnation == (1, 2)
    assert given_up(group) == {"a"}


def test_a_blackout_of_everything_kills_nobody() -> None:
    group = voting("a b c d e f g h")
    group.loss = 1.0
    group.run(20)
    group.loss = 0.0
    group.run(10)
    assert given_up(group) == set()
    assert everybody(group, "alive")


def test_two_members_condemn_nobody_and_know_it_for_routing_only() -> None:
    group = voting("a b")
    group.kill("b", silent=True)
    group.run(6)
    assert group.status("a", "b") == "alive"
    assert view(group, "a", "b").unreachable
    assert ServicesChanged(view(group, "a", "b").node_id) in group.hosts["a"].events
    group.run(60)
    assert group.status("a", "b") == "alive"
    group.start("b")
    group.run_until(lambda: not view(group, "a", "b").unreachable, 5)


def test_a_deaf_member_is_found_and_kept_out_for_two_minutes_after_it_is_back() -> None:
    group = voting()
    group.deaf = {"e"}
    until_all_hold(group, "e", "dead", 20)
    group.deaf = set()
    group.run(30)
    assert group.node("e").incarnation == (1, 1)
    assert set(group.statuses("e").values()) == {"dead"}
    assert view(group, "a", "e").quarantine_until is not None
    until_all_hold(group, "e", "alive", 120)
    assert given_up(group) == {"e"}
    assert "quarantine" in kinds(group, "a", "e")


def test_many_deaths_at_once_keep_their_endpoints_until_the_operator_says() -> None:
    group = voting("a b c d e f g")
    for name in "efg":
        publish(group, name, CART)
    group.run(1)
    for name in "efg":
        group.hosts[name].engine_serves = False
        group.kill(name)
    group.run_until(lambda: all(set(group.statuses(of).values()) == {"dead"} for of in "efg"), 10)
    assert all(set(serving(group, at)) == {"e", "f", "g"} for at in "abcd")
    for at in "abcd":
        assert any(isinstance(event, EndpointsRetained) for event in group.hosts[at].events)
        group.perform(group.hosts[at], group.node(at).release_mass_death(Instant(group.now)))
    assert all(serving(group, at) == {} for at in "abcd")


def test_one_death_of_three_is_no_mass_death() -> None:
    group = voting("a b c")
    publish(group, "c", CART)
    group.run(1)
    group.kill("c", silent=True)
    until_all_hold(group, "c", "dead", 6)
    assert serving(group, "a") == {}


def test_a_restart_that_was_announced_opens_no_hole() -> None:
    group = voting()
    publish(group, "e", CART)
    group.perform(group.hosts["e"], group.node("e").set_restarting(30, Instant(group.now)))
    group.run(1)
    group.kill("e")
    group.run(20)
    assert given_up(group) == set()
    group.start("e")
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 5)
    group.perform(group.hosts["e"], group.node("e").set_restarting(10_000, Instant(group.now)))
    assert group.node("e").own_state.restarting_s == 60


def test_a_machine_lost_in_its_restart_is_found_and_one_that_is_slow_to_come_back_is_not() -> None:
    """While its agent is away only the engine speaks for it, and that may be as late as any reader."""
    group = voting()
    group.perform(group.hosts["e"], group.node("e").set_restarting(30, Instant(group.now)))
    group.run(1)
    group.kill("e", silent=True)
    group.run(11)
    assert given_up(group) == set()
    until_all_hold(group, "e", "dead", 6)


def test_an_announced_restart_is_forwarded_at_once() -> None:
    """Its monitors are few of many, and who announces it has no time left to spread it."""
    group = voting("a b c d e f")
    before = {name: group.node(name).statistics().eager_sent for name in "abcde"}
    group.perform(group.hosts["f"], group.node("f").set_restarting(30, Instant(group.now)))
    group.kill("f")
    group.run(0.05)
    assert all(group.node(name).statistics().eager_sent > before[name] for name in "abcde")


def test_what_one_life_refused_is_nothing_against_the_next() -> None:
    """Judged between two ticks, with the evidence of before the restart, it would be a vote."""
    group = voting()
    publish(group, "e", CART)
    desk = group.node("a")._detector.desk
    member = group.node("a")._catalog.get(group.node("e").own_node_id)
    group.perform(group.hosts["e"], group.node("e").set_restarting(30, Instant(group.now)))
    group.run(0.5)
    group.kill("e")
    group.run_until(lambda: any(case.evidence.port_refusals for case in desk._cases.values()), 10)
    group.run(1)
    group.start("e")
    group.run_until(lambda: member.state.epoch > 1, 5)
    assert list(desk._cases) == [member.node_id]
    desk.engine_said(member.node_id, True, False)
    assert not desk._cases
    group.run(10)
    assert given_up(group) == set()


def test_a_restarted_node_and_a_newcomer_learn_who_is_dead() -> None:
    group = voting("a b c d e f")
    group.kill("f", silent=True)
    until_all_hold(group, "f", "dead", 6)
    group.kill("a")
    group.start("a")
    assert group.status("a", "f") == "dead"
    group.kill("b")
    group.hosts["b"].disk.clear()
    group.start("b", "c")
    group.run_until(lambda: group.status("b", "f") == "dead" and group.converged(), 10)


def verdict_against(group: Group, name: str, *, beats: int):
    """Return what a quorum signed against a member when its beats were as given."""
    state = group.node(name).own_state
    votes = []
    for voter in [other for other in group.hosts if other != name]:
        fields = (state.node_id, state.generation, state.epoch, int(Cause.SILENT))
        vote = Vote(*fields, group.node(voter).own_node_id, 1, beats, b"")
        signature = key_of(voter).sign(vote_bytes(DOMAIN, vote))
        votes.append(Vote(*fields, vote.voter, 1, beats, signature))
    return make_verdict(votes[:3], MemberStatus.DEAD)


def test_a_verdict_that_fresh_life_contradicts_is_shown_to_its_target_instead() -> None:
    group = voting()
    group.run(10)
    record = verdict_against(group, "e", beats=1)
    node = group.node("a")
    now = Instant(group.now)
    node._ctx.now = now
    node._intake.take(record, node._catalog.get(group.node("b").own_node_id), Checks(12))
    group.perform(group.hosts["a"], node._ctx.drain())
    assert group.status("a", "e") == "alive"
    group.run(5)
    assert group.node("e").incarnation == (1, 2)
    assert given_up(group) == set()
    assert "beaten-by-life" in kinds(group, "a", "e")


def test_a_verdict_of_the_present_is_applied_and_answered_by_its_target() -> None:
    group = voting()
    member = group.node("a")._catalog.get(group.node("e").own_node_id)
    record = verdict_against(group, "e", beats=member.beat)
    node = group.node("a")
    node._ctx.now = Instant(group.now)
    node._intake.take(record, None, Checks(12))
    group.perform(group.hosts["a"], node._ctx.drain())
    assert group.status("a", "e") == "dead"
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 3)
    assert "refuted" in kinds(group, "e", "e")


def test_forged_refusals_of_a_living_port_lead_to_no_vote() -> None:
    group = voting()
    for _ in range(40):
        for at in "abcd":
            effects = group.node(at).port_refused(group.hosts["e"].address, Instant(group.now))
            group.perform(group.hosts[at], effects)
        group.run(0.1)
    assert given_up(group) == set()
    assert not any(group.node(at).statistics().votes_sent for at in "abcd")
    assert all(group.node(at).statistics().ports_refused >= 40 for at in "abcd")


def test_after_a_pause_the_newest_ping_of_each_sender_is_answered_and_no_other() -> None:
    group = voting("a b c")
    node = group.node("a")
    late = Instant(group.now - SECOND_NS)
    senders = [node._catalog.get(group.node(name).own_node_id) for name in "bc"]
    node._ctx.now = Instant(group.now)
    for sequence in range(20):
        for member in senders:
            node._detector.receive_ping(member, Ping(1_000 + sequence, bytes(16), bytes(16), 0), late)
    assert not [effect for effect in node._ctx.drain() if isinstance(effect, SendDatagram)]
    effects = node.handle_deadline(Instant(group.now + 2 * MILLISECOND_NS))
    sent = [effect.destination for effect in effects if isinstance(effect, SendDatagram)]
    assert sorted(sent) == sorted(group.hosts[name].address for name in "bc")


def test_heartbeats_go_out_four_times_a_second_whatever_the_size() -> None:
    for names in ("a b", "a b c d e f g h i j k l"):
        group = voting(names)
        before = group.node("a").statistics().heartbeats_sent
        group.run(10)
        assert abs(group.node("a").statistics().heartbeats_sent - before - 40) <= 1


def test_the_journal_tells_why() -> None:
    group = voting()
    group.kill("e", silent=True)
    until_all_hold(group, "e", "dead", 6)
    told = {kind for at in "abcd" for kind in kinds(group, at, "e")}
    assert {"case-opened", "vote-sent", "vote-received", "verdict", "applied", "case-closed"} <= told
    applied = group.node("a").history(view(group, "a", "e").node_id)[-1]
    assert applied.kind in ("applied", "case-closed")


def test_lag_is_published_in_steps_and_rests() -> None:
    group = voting("a b c")
    group.perform(group.hosts["a"], group.node("a").note_lag(300 * MILLISECOND_NS, Instant(group.now)))
    assert group.node("a").own_state.lag_ms == 200
    group.perform(group.hosts["a"], group.node("a").note_lag(2 * SECOND_NS, Instant(group.now)))
    assert group.node("a").own_state.lag_ms == 200
    group.run(25)
    assert group.node("a").own_state.lag_ms == 0
    assert [view(group, "b", "a").lag_ms for _ in "b"] == [0]


@pytest.mark.parametrize(
    ("lag_ms", "published", "step"),
    [(0, 0, 0), (49, 0, 0), (50, 0, 50), (30, 50, 50), (24, 50, 0), (900, 200, 200), (1_000, 200, 1_000)],
)
def test_published_lag_rises_at_once_and_falls_well_below(lag_ms: int, published: int, step: int) -> None:
    assert step_of(lag_ms * MILLISECOND_NS, published) == step


def test_the_worst_lag_of_five_seconds_holds() -> None:
    meter = LagMeter()
    meter.note(300, Instant(0))
    meter.note(5, Instant(SECOND_NS))
    assert meter.current_ns(Instant(4 * SECOND_NS)) == 300
    assert meter.current_ns(Instant(6 * SECOND_NS)) == 5
    assert meter.current_ns(Instant(7 * SECOND_NS)) == 0
    meter.note(7, Instant(7 * SECOND_NS))
    assert meter.current_ns(Instant(7 * SECOND_NS)) == 7


def test_who_reads_late_is_at_no_moment_prompt() -> None:
    """A lesser lag takes over the very moment a greater one is old, and never more than slots are kept."""
    meter = LagMeter()
    rng = random.Random(5)
    for tick in range(5_000):
        now = Instant(tick * 10 * MILLISECOND_NS)
        if tick % 20 == 0:
            meter.note(rng.randint(500, 2_500) * MILLISECOND_NS, now)
        assert 500 * MILLISECOND_NS <= meter.current_ns(now) <= 2_500 * MILLISECOND_NS
    for tick in range(10_000):
        meter.note(10_000 - tick, Instant(60 * SECOND_NS + tick * MILLISECOND_NS))
    assert len(meter._worst) <= 51


def test_views_tell_how_long_a_member_was_not_heard() -> None:
    group = voting("a b c")
    group.kill("c", silent=True)
    group.run(2)
    age_ns = view(group, "a", "c").heard_age_ns
    assert age_ns is not None
    assert age_ns >= SECOND_NS
    assert NodeId(view(group, "a", "c").node_id) == view(group, "a", "c").node_id


def test_a_verdict_is_made_though_most_of_its_monitors_began_to_watch_after_it() -> None:
    """Three of five lose power at once, two of them come back: these never heard a beat of the third."""
    group = voting()
    group.run(30)  # a hundred beats and more: none of them is near the none that a newcomer heard
    for name in "cde":
        group.kill(name, silent=True)
    group.run(20)
    assert group.statuses("c") == {"a": "alive", "b": "alive"}
    for name in "de":
        group.start(name)
    until_all_hold(group, "c", "dead", 15)
    assert given_up(group) == {"c"}


def test_monitors_take_turns_to_look_at_an_engine() -> None:
    """One of them looks every five seconds, so that nobody has to be lucky for its death to be found."""
    group = voting("a b c d e f g h i j")
    node_id = group.node("e").own_node_id
    group.kill("e")
    until_all_hold(group, "e", "unattended", 6)
    for _ in range(2):
        at = [group.node(name)._ctx.timers._live.get(("engine", node_id)) for name in "abcdfghij"]
        ids = group.node("a")._detector.monitors.of(node_id, 8)
        looks = sorted(
            entry[0] - group.now
            for name, entry in zip("abcdfghij", at, strict=True)
            if group.node(name).own_node_id in ids
        )
        assert len(looks) == 8
        gaps = [later - sooner for sooner, later in zip([0, *looks], looks, strict=False)]
        assert max(gaps) < 10 * SECOND_NS
        group.run(41)
