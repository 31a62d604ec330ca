"""Transcripts of SWIM with Lifeguard: suspected, refuting, parted, and confirmed once."""

from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.swim.claims import sign_claim
from gossipmesh.testing.swim.intake import QUEUED_AS
from gossipmesh.testing.swim.node import SwimNode
from tests.unit.gossip.group import DOMAIN, Group, key_of
from tests.unit.gossip.test_transcripts import everybody, joined


def test_a_suspected_member_refutes_before_it_is_declared_dead() -> None:
    group = joined(node_class=SwimNode)
    before = group.node("b").own_state.order
    group.partition("a", "b")
    detector = group.node("a")._detector
    member = group.node("a")._catalog.get(group.node("b").own_node_id)
    assert member is not None
    group.now += 1
    detector._ctx.now = Instant(group.now)
    detector._claim(member, member.order, MemberStatus.SUSPECT)
    group.perform(group.hosts["a"], detector._ctx.drain())
    group.run_until(lambda: group.node("b").statistics().refutations == 1, 2)
    assert group.node("b").own_state.order > before
    group.run_until(lambda: group.status("a", "b") == "alive" and group.converged(), 5)
    assert not any(host.node.statistics().deaths_declared for host in group.hosts.values() if host.node)


def test_a_partition_declares_deaths_and_heals_by_itself() -> None:
    group = joined(node_class=SwimNode)
    group.partition("a b", "c d e")
    crossing = [(at, of) for one in "ab" for other in "cde" for at, of in ((one, other), (other, one))]
    group.run_until(lambda: all(group.status(at, of) == "dead" for at, of in crossing), 90)
    group.run(60)
    group.heal()
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    assert all(group.node(name).incarnation == (1, 2) for name in group.hosts)


def test_one_node_cut_off_declares_nobody_before_a_longer_wait_and_is_back_at_once() -> None:
    group = joined(node_class=SwimNode)
    group.partition("a", "b c d e")
    group.run_until(lambda: set(group.statuses("a").values()) == {"dead"}, 40)
    assert "dead" not in [group.status("a", of) for of in "bcde"]
    group.heal()
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 15)


def test_a_confirmation_is_verified_and_sent_on_once() -> None:
    """Copies go round a dozen times, our own among them: none of them may cost a check or a sending."""
    group = joined("a b c d e f", node_class=SwimNode)
    node, queue = group.node("a"), group.node("a")._courier.queue
    suspect = node._catalog.get(group.node("e").own_node_id)
    assert suspect is not None
    records = {
        name: sign_claim(
            DOMAIN,
            key_of(name),
            group.node(name).own_node_id,
            suspect.node_id,
            suspect.order,
            MemberStatus.SUSPECT,
        )[1]
        for name in "abc"
    }

    def hear(name: str) -> int:
        """Take a claim and return how many signatures that took."""
        before = node.statistics().signature_checks
        node._intake.take(records[name], node._catalog.get(group.node("d").own_node_id), Checks(12))
        return node.statistics().signature_checks - before

    assert [hear(name) for name in "bccb"] == [1, 1, 0, 0]
    assert suspect.status is MemberStatus.SUSPECT
    node._detector._claim(suspect, suspect.order, MemberStatus.SUSPECT)
    queue.drop_subject(QUEUED_AS, suspect.node_id)
    assert [hear(name) for name in "abc"] == [0, 0, 0]
    assert len(queue) == 0


def test_the_table_of_timers_is_the_products_without_what_monitors_set_and_with_what_claims_set() -> None:
    ours = Group("a", node_class=SwimNode).start("a")._deadlines.keys()
    product = Group("a").start("a")._deadlines.keys()
    assert ours - product == {"suspicion", "held claim"}
    assert {"probe", "probe late", "nack", "question", "engine", "obituary"} <= ours & product
    assert product - ours >= {"case", "control", "heartbeat", "watch", "want", "answer"}
