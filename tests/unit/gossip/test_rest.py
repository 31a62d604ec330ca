"""What a node at rest is woken for: each wake-up of a process costs more than what is done in it."""

from collections import Counter

import pytest

from gossipmesh.gossip.base.timers import Timers
from gossipmesh.gossip.failure.heartbeats import Heartbeats
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from tests.unit.gossip.failure.test_monitor_detector import voting
from tests.unit.gossip.group import Group

SECONDS = 20


@pytest.fixture(scope="module")
def rested() -> Group:
    """Return a group that has nothing to tell any more."""
    group = voting()
    group.run(10)
    return group


def wakeups(group: Group, name: str, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Let a group rest; return how often a node's timers woke it, by what was due first."""
    node = group.node(name)
    due: Counter[str] = Counter()
    handle = node.handle_deadline

    def counted(now: Instant):
        due[min(node._ctx.timers._live.items(), key=lambda item: item[1][:2])[0][0]] += 1
        return handle(now)

    monkeypatch.setattr(node, "handle_deadline", counted)
    group.run(SECONDS)
    return due


def test_what_comes_around_comes_with_a_heartbeat(rested: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    due = wakeups(rested, "a", monkeypatch)
    beats_count = SECONDS * SECOND_NS // rested.node("a")._ctx.settings.monitor.heartbeat_slot_ns
    # A probe that takes what it takes at least is over with a beat, too: it may come first of those due.
    together = sum(due[name] for name in ("heartbeat", "probe", "probe over", "obituary", "lag"))
    assert abs(together - beats_count) <= 1
    assert due.total() <= together + 1


def test_an_answered_probe_does_not_wake_for_its_lateness(
    rested: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rested.node("a").statistics().probes
    assert wakeups(rested, "a", monkeypatch)["probe late"] == 0
    assert rested.node("a").statistics().probes > before


def test_a_round_out_of_step_comes_back_to_the_beat(rested: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    timers = rested.node("b")._ctx.timers
    prober = rested.node("b")._detector.prober
    timers.set(("probe", None), rested.now + 77 * MILLISECOND_NS)
    rested.run(1)
    slot_ns = prober._ctx.settings.monitor.heartbeat_slot_ns
    beat_at, probe_at = timers.due_at(("heartbeat", None)), timers.due_at(("probe", None))
    assert (probe_at - beat_at) % slot_ns == 0


@pytest.mark.parametrize(("at_ms", "nearest_ms"), [(2_100, 2_000), (2_126, 2_250), (1_900, 2_000)])
def test_the_nearest_beat(rested: Group, at_ms: int, nearest_ms: int) -> None:
    ctx = rested.node("c")._ctx
    beat_at = ctx.timers.due_at(("heartbeat", None))
    at = beat_at + at_ms * MILLISECOND_NS
    assert ctx.on_beat(at) == beat_at + nearest_ms * MILLISECOND_NS


def test_without_heartbeats_a_moment_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = voting("a b c").node("a")._ctx
    monkeypatch.setattr(ctx, "timers", Timers())
    assert ctx.on_beat(1_234) == 1_234


def test_heartbeats_begin_at_a_moment_of_their_own_where_nothing_probes(
    rested: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = rested.node("d")
    ctx, beats = node._ctx, node._detector.heartbeats
    assert isinstance(beats, Heartbeats)
    monkeypatch.setattr(ctx, "timers", Timers())
    beats.start()
    first_at = ctx.timers.due_at(("heartbeat", None))
    assert 0 <= first_at - ctx.now < ctx.settings.monitor.heartbeat_slot_ns
