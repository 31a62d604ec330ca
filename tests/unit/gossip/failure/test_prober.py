"""Probes of members that are late, and what pings carry."""

import pytest

from gossipmesh.gossip.failure.probe import RelayTable
from gossipmesh.gossip.failure.prober import Prober
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model import limits
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.wire.datagram import Ack, Message, Ping, decode_body_untrusted, encode_body
from tests.unit.gossip.failure.test_monitor_detector import voting
from tests.unit.gossip.group import Group


def parts(group: Group, at: str, of: str) -> tuple[Prober, Member]:
    """Return a node's prober and another as it holds it, its clock set to the present."""
    node = group.node(at)
    node._ctx.now = Instant(group.now)
    return node._detector.prober, node._catalog.get(group.node(of).own_node_id)


def probes_failed_after(group: Group, seconds: float) -> int:
    """Have what the node "a" wants to send on its way; return how many of its probes fail in a while."""
    node = group.node("a")
    before = node.statistics().probes_failed
    group.perform(group.hosts["a"], node._ctx.drain())
    group.run(seconds)
    return node.statistics().probes_failed - before


def silent_group() -> tuple[Group, Prober, Member]:
    """Return a group whose "b" is cut off, having said that it is a second late."""
    group = voting("a b c")
    group.run_until(lambda: not group.node("a")._detector.prober._probes, 3)
    prober, member = parts(group, "a", "b")
    group.kill("b", silent=True)
    member.lag_ms = 1_000
    group.node("a")._detector.heartbeats.forget(member)  # so that nothing else probes it
    return group, prober, member


@pytest.mark.parametrize(("is_patient", "failed"), [(True, 0), (False, 1)])
def test_a_round_gives_a_member_the_time_it_says_it_is_late(is_patient: bool, failed: int) -> None:
    group, prober, member = silent_group()
    prober.probe(member, is_patient=is_patient)
    assert probes_failed_after(group, 0.95) == failed


def test_a_patient_probe_fails_in_the_end() -> None:
    group, prober, member = silent_group()
    prober.probe(member, is_patient=True)
    assert probes_failed_after(group, 2) == 1


def test_a_missed_heartbeat_does_not_wait_for_a_patient_probe() -> None:
    group, prober, member = silent_group()
    prober.probe(member, is_patient=True)
    prober.probe(member)
    assert probes_failed_after(group, 0.95) == 1


def test_how_late_others_are_is_no_round_trip() -> None:
    prober, member = parts(voting("a b c"), "a", "b")
    settings = prober._ctx.settings.monitor
    prober._round_trips.extend([MILLISECOND_NS] * 64)
    for lag_ms, waits_ns in ((2_000, settings.probe_min_ns), (0, settings.probe_max_ns)):
        member.lag_ms = lag_ms
        sequence = prober.ping(member)
        late = Instant(prober._ctx.now + SECOND_NS)
        prober.receive_ack(member, Ack(sequence, None, None, 0), late)
        assert prober.direct_wait_ns() == waits_ns


def test_only_the_probes_of_rounds_compare_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    prober, member = parts(voting("a b c"), "a", "b")
    sent: list[Message] = []

    def send(_: Member, messages: list[bytes]) -> None:
        sent.extend(decode_body_untrusted(encode_body(messages)))

    monkeypatch.setattr(prober._courier, "send", send)
    prober.ping(member, suspect=True)
    prober.ping(member)
    prober.probe(member, is_patient=True)
    assert [message.group_sum is None for message in sent if isinstance(message, Ping)] == [
        True,
        True,
        False,
    ]
    for ping in list(sent):
        assert isinstance(ping, Ping)
        prober.receive_ping(member, ping, prober._ctx.now)
    acks = [message for message in sent if isinstance(message, Ack)]
    assert [ack.group_sum is None for ack in acks] == [True, True, False]


def test_ping_reqs_have_a_budget_by_requester_and_by_target() -> None:
    now, later = Instant(SECOND_NS), Instant(2 * SECOND_NS)
    relays = RelayTable()
    admitted = sum(relays.admits(b"a", b"t%d" % number, now) for number in range(1_000))
    assert admitted == limits.PING_REQS_PER_MEMBER_BURST
    assert sum(relays.admits(b"a", b"t", later) for _ in range(1_000)) == limits.PING_REQS_PER_MEMBER_PER_S
    relays = RelayTable()
    assert sum(relays.admits(b"r%d" % number, b"t", now) for number in range(1_000)) == (
        limits.PING_REQS_PER_TARGET_BURST
    )
    assert relays.admits(b"r", b"another", now)


def test_an_ack_of_another_is_not_the_one_that_is_waited_for() -> None:
    """Sequences can be guessed, and a clock's skew is what those say whom we asked."""
    group = voting("a b c")
    prober, member = parts(group, "a", "b")
    _, liar = parts(group, "a", "c")
    skew_s = group.node("a").statistics().clock_skew_s
    sequence = prober.ping(member)
    for _ in range(9):
        prober.receive_ack(liar, Ack(sequence, None, None, 10**9), Instant(group.now))
    assert group.node("a").statistics().clock_skew_s == skew_s
    round_trips = len(prober._round_trips)
    prober.receive_ack(member, Ack(sequence, None, None, 0), Instant(group.now))
    assert len(prober._round_trips) == round_trips + 1
    assert sequence not in prober._pings


def test_one_wrong_clock_makes_no_other_wrong_however_often_it_answers() -> None:
    """At the first answers, and when most of the last ones come of the one member whose clock is off."""
    group = voting("a b c d e")
    group.run_until(lambda: group.node("a").statistics().clock_peers == 4, 10)
    prober, liar = parts(group, "a", "b")
    wall_s, told = prober._ctx.wall_s, prober._ctx.statistics
    for _ in range(20):
        prober.receive_ack(liar, Ack(prober.ping(liar), None, None, wall_s + 300), prober._ctx.now)
        assert (abs(told.clock_skew_s) <= 1, told.clock_peers) == (True, 4)


def test_the_first_answers_are_one_word_a_peer() -> None:
    group = Group("a b c d e")
    group.start_all()
    group.node("b")._ctx.wall_offset_s += 300
    seen: list[tuple[int, int]] = []

    def judged_by_all() -> bool:
        for name in "acde":
            told = group.node(name).statistics()
            seen.append((told.clock_peers, told.clock_skew_s))
        return all(group.node(name).statistics().clock_peers == 4 for name in "abcde")

    group.run_until(judged_by_all, 20)
    assert [skew_s for peers_count, skew_s in seen if peers_count > 1 and abs(skew_s) > 1] == []
    assert abs(group.node("b").statistics().clock_skew_s + 300) <= 1


def test_three_round_trips_tell_how_long_an_answer_may_take() -> None:
    """A node that is six seconds old notices a silence as soon as an old one does."""
    group = voting("a b c")
    prober, _ = parts(group, "a", "b")
    prober._round_trips.clear()
    waits = []
    for round_trip_ms in (2, 2, 40, 2):
        waits.append(prober.direct_wait_ns() // MILLISECOND_NS)
        prober._round_trips.append(round_trip_ms * MILLISECOND_NS)
    assert waits == [500, 500, 500, 160]
