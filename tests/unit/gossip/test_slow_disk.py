"""What a node does while its disk takes its time: it goes on as it was, and tells nothing not there yet."""

import msgspec
import pytest

from gossipmesh.gossip.base.effects import IdentityCopied, PersistKind, PolicyApplied, TrustChanged
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.checkpoint import open_checkpoint_untrusted, take_checkpoint
from gossipmesh.model import limits
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.records import Cause, NodeState, RecordKind, SignedRecord
from gossipmesh.trust.documents import PolicyRefusal
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.codec import decode_untrusted
from tests.unit.gossip.failure.test_answering import show, verdict_of
from tests.unit.gossip.failure.test_monitor_detector import voting
from tests.unit.gossip.group import DOMAIN, Group, exchange_of, key_of, policy_set, trust_envelope
from tests.unit.gossip.test_transcripts import joined


def offer(group: Group, name: str, version: int, path: str = "/") -> None:
    group.perform(
        group.hosts[name], group.node(name).offer_policy(policy_set(version, path), Instant(group.now))
    )


def offer_trust(group: Group, name: str, version: int) -> None:
    effects = group.node(name).offer_trust(trust_envelope(version), Instant(group.now))
    group.perform(group.hosts[name], effects)


def runs(group: Group, name: str) -> int:
    """Return which version a node says it runs."""
    return next((policy.version for policy in group.node(name).own_state.policies), 0)


def applied(group: Group, name: str) -> list[int]:
    return [event.version for event in group.hosts[name].events if isinstance(event, PolicyApplied)]


def test_a_set_that_is_being_written_is_told_to_nobody_and_beats_go_on() -> None:
    group = joined("a b c d e")
    group.slow = {"a"}
    before = group.node("a").state_sums()[1]
    offer(group, "a", 1)
    beats = group.node("a").statistics().datagrams_sent
    group.run(5)
    assert group.node("a").statistics().datagrams_sent > beats + 15
    assert group.node("a").state_sums()[1] == before
    assert [runs(group, name) for name in group.hosts] == [0] * 5
    assert set(group.statuses("a").values()) == {"alive"}
    group.written("a")
    group.run_until(lambda: [runs(group, name) for name in group.hosts] == [1] * 5, 2)


def test_sets_that_are_being_written_come_into_force_in_their_order() -> None:
    group = joined("a b")
    group.slow = {"a"}
    offer(group, "a", 1)
    offer(group, "a", 3)
    for version, code in ((3, "same"), (2, "older"), (1, "older")):
        with pytest.raises(PolicyRefusal) as refused:
            offer(group, "a", version)
        assert refused.value.code == code
    group.written("a")
    assert applied(group, "a") == [1, 3]
    floor = decode_untrusted(group.hosts["a"].disk[(PersistKind.FLOOR, b"mesh")], list, bytes_max=99)
    assert floor[0] == 3


def test_a_node_whose_disk_hangs_takes_no_more_sets_than_it_may_hold() -> None:
    group = joined("a b")
    group.slow = {"a"}
    for version in range(1, limits.SETS_BEING_WRITTEN_MAX + 1):
        offer(group, "a", version)
    with pytest.raises(PolicyRefusal, match="wait for the disk") as refused:
        offer(group, "a", limits.SETS_BEING_WRITTEN_MAX + 1)
    assert refused.value.code == "busy"
    group.written("a")
    offer(group, "a", limits.SETS_BEING_WRITTEN_MAX + 1)


def test_one_word_of_the_disk_counts_for_all_that_began_before() -> None:
    group = joined("a b")
    group.slow = {"a"}
    offer(group, "a", 1)
    offer(group, "a", 2)
    group.hosts["a"].writing[:-1] = []
    group.written("a")
    assert applied(group, "a") == [1, 2]


def test_a_set_that_is_fetched_while_its_floor_is_written_is_not_fetched_again() -> None:
    group = joined("a b c")
    group.slow = {"b"}
    offer(group, "a", 1)
    group.run_until(lambda: bool(group.hosts["b"].writing), 3)
    tickets = list(group.hosts["b"].writing)
    group.run(5)
    assert group.hosts["b"].writing == tickets
    assert (runs(group, "a"), runs(group, "b"), runs(group, "c")) == (1, 0, 1)
    group.written("b")
    assert runs(group, "b") == 1
    group.run_until(group.converged, 3)


def test_a_newer_set_that_comes_while_one_is_written_is_fetched_after_it() -> None:
    group = joined("a b c")
    group.slow = {"b"}
    offer(group, "a", 1)
    group.run_until(lambda: bool(group.hosts["b"].writing), 3)
    offer(group, "a", 2, "/two")
    group.run(1)
    group.written("b")
    group.run_until(lambda: bool(group.hosts["b"].writing), 3)
    group.written("b")
    assert applied(group, "b") == [1, 2]
    group.slow = set()
    group.run_until(group.converged, 3)


def test_trust_is_in_force_once_it_is_on_disk_and_what_follows_it_may_be_offered_before() -> None:
    group = joined("a b c")
    group.slow = {"a"}
    offer_trust(group, "a", 2)
    offer_trust(group, "a", 3)
    offer_trust(group, "a", 2)  # once more
    group.run(3)
    assert not any(isinstance(e, TrustChanged) for host in group.hosts.values() for e in host.events)
    group.written("a")
    assert [e.version for e in group.hosts["a"].events if isinstance(e, TrustChanged)] == [2, 3]
    group.run_until(lambda: TrustChanged(3) in group.hosts["c"].events and group.converged(), 5)


def test_a_set_offered_while_trust_is_written_is_judged_by_both() -> None:
    """Else it would be on disk, and out of force by what was to be in force before it."""
    group = joined("a b")
    group.slow = {"a"}
    offer_trust(group, "a", 2)
    offer(group, "a", 1)
    group.written("a")
    assert applied(group, "a") == [1]
    assert [type(event) for event in group.hosts["a"].events[-2:]] == [TrustChanged, PolicyApplied]


def test_a_verdict_is_answered_once_and_by_what_is_on_disk() -> None:
    group = voting()
    group.slow = {"e"}
    show(group, verdict_of(group, Cause.SILENT))
    written = list(group.hosts["e"].writing)
    assert len(written) == 1
    group.now += 2 * SECOND_NS
    show(group, verdict_of(group, Cause.SILENT))
    group.run(1)
    assert group.hosts["e"].writing == written
    assert group.node("e").incarnation == (1, 1)
    assert group.node("e").own_state.epoch == 1
    group.written("e")
    assert group.node("e").incarnation == (1, 2)
    assert group.node("e").own_state.epoch == 2


def test_many_foreign_records_of_one_old_disk_are_no_thief_while_we_outbid_them() -> None:
    group = joined("a b c")
    node = group.node("c")
    record = group.node("a")._catalog.get(node.own_node_id).records[RecordKind.NODE_STATE]  # type: ignore[union-attr]
    group.kill("c")
    group.hosts["c"].disk.clear()
    group.slow = {"c"}
    node = group.start("c")
    group.written("c")
    for _ in range(3):
        node._ctx.now = Instant(group.now)
        node._intake.take(of_a_lost_epoch(record), None, Checks(12))
        group.perform(group.hosts["c"], node._ctx.drain())
    assert len(group.hosts["c"].writing) == 1
    group.written("c")
    assert node.incarnation == (1, 10)
    assert not any(isinstance(event, IdentityCopied) for event in group.hosts["c"].events)


def of_a_lost_epoch(record: SignedRecord) -> SignedRecord:
    """Return a state "c" signed in an epoch that its disk has lost."""
    state = decode_untrusted(record.body, NodeState, bytes_max=2_000)
    return sign_record(
        DOMAIN, RecordKind.NODE_STATE, msgspec.structs.replace(state, epoch=9, run_id=7), key_of("c")
    )


def test_a_checkpoint_holds_what_goes_on_after_each_write() -> None:
    group = voting()
    group.slow = {"e"}
    host, node = group.hosts["e"], group.node("e")
    group.run_until(lambda: not node._streams._sessions, 5)
    offer_trust(group, "e", 2)
    offer(group, "e", 1)
    show(group, verdict_of(group, Cause.SILENT))
    data = take_checkpoint(node)
    assert data is not None
    twin = open_checkpoint_untrusted(data, key_of("e"), exchange_of("e"))
    assert isinstance(twin, GossipNode)
    now = Instant(group.now)
    for ticket in host.writing:
        ours, others = node.persisted(ticket, now), twin.persisted(ticket, now)
        assert [type(effect) for effect in ours] == [type(effect) for effect in others]
        assert ours
    assert node.incarnation == twin.incarnation == (1, 2)
    assert node.own_state.policies == twin.own_state.policies
    assert node.state_sums() == twin.state_sums()


def test_no_checkpoint_is_taken_before_a_start_is_on_disk() -> None:
    group = Group("a")
    group.slow = {"a"}
    node = group.start("a")
    assert take_checkpoint(node) is None
    group.written("a")
    assert take_checkpoint(node) is not None


def test_what_a_node_holds_back_before_its_epoch_is_on_disk_has_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "EFFECTS_PER_STEP_MAX", 8)
    group = Group("a b")
    group.start("b")
    group.slow = {"a"}
    node = group.start("a", "b")
    group.run(30)
    assert node.statistics().dropped["before our epoch was on disk"] > 0
    group.written("a")
    group.run_until(group.converged, 10)
