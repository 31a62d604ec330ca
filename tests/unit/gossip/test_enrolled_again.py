"""A name that was enrolled again elsewhere: whoever holds the older credential is told, however it asks."""

import pytest

from gossipmesh.gossip.base.effects import EnrolledAgain, SendDatagram
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.model.instant import Instant
from gossipmesh.model.records import RecordKind, SignedRecord
from gossipmesh.trust.records import sign_record
from tests.unit.gossip.group import DOMAIN, Group, credential_of, key_of, signed_credential

TOLD = EnrolledAgain(2)


def told(group: Group, name: str) -> bool:
    return TOLD in group.hosts[name].events


def mesh(names: str = "a b c d again") -> Group:
    """Return a converged mesh; the last host is not started."""
    group = Group(names)
    first, *others, _ = group.hosts
    group.start(first)
    for name in others:
        group.start(name, first)
    group.run_until(group.converged, 5)
    return group


def settled(group: Group, *names: str) -> bool:
    """Tell whether these hosts know a where it was enrolled again, alive."""
    views = [view for name in names for view in group.node(name).members() if view.name == "a"]
    there = group.hosts["again"].address
    return all(view.state.gossip_addresses == (there,) and view.status.label == "alive" for view in views)


def test_the_old_agent_is_told_and_the_others_go_on_with_the_new_one() -> None:
    group = mesh()
    group.start("again", "b", enrolled_as="a")
    group.run_until(lambda: told(group, "a"), 3)
    group.kill("a")
    group.run(10)
    assert settled(group, "b", "c", "d", "again")
    assert not any(told(group, name) for name in ("b", "c", "d", "again"))


def test_its_only_seed_is_the_old_agent_itself() -> None:
    group = Group("a again")
    group.start("a")
    group.start("again", "a", enrolled_as="a")
    group.run_until(lambda: told(group, "a"), 3)
    assert not told(group, "again")


def test_a_credential_that_fits_no_packet_comes_by_stream() -> None:
    group = mesh()
    group.start("again", "b", enrolled_as="a", leaves=60)
    group.run_until(lambda: told(group, "a"), 5)


def test_an_agent_that_is_reached_by_streams_alone_is_told() -> None:
    group = mesh()
    perform, lost = group.perform, group.hosts["a"].address

    def without_its_datagrams(host, effects):
        kept = [
            e for e in effects if not isinstance(e, SendDatagram) or lost not in (e.destination, host.address)
        ]
        perform(host, kept)

    group.perform = without_its_datagrams
    group.start("again", "b", enrolled_as="a")
    group.run_until(lambda: told(group, "a"), 10)


def test_an_agent_that_was_down_is_told_when_it_starts() -> None:
    group = mesh()
    group.kill("a")
    group.start("again", "b", enrolled_as="a")
    group.run_until(lambda: settled(group, "b", "c", "d"), 10)
    group.start("a", "b")
    group.run_until(lambda: told(group, "a"), 6)
    assert settled(group, "b", "c", "d")


def test_an_agent_that_was_cut_off_is_told_after_the_heal() -> None:
    group = mesh()
    group.partition("a", "b c d again")
    group.run(10)
    group.start("again", "b", enrolled_as="a")
    group.run(30)
    assert not told(group, "a")
    group.heal()
    group.run_until(lambda: told(group, "a"), 8)


FORGED = sign_record(DOMAIN, RecordKind.CREDENTIAL, credential_of("a", generation=2, keys="b"), key_of("b"))


@pytest.mark.parametrize(
    ("record", "is_told"),
    [
        (signed_credential("a", generation=2, keys="b"), True),
        (FORGED, False),
        (signed_credential("a", generation=2), False),
        (signed_credential("a", serial=9, keys="b"), False),
        (signed_credential("a", generation=2, keys="b", ends=1), False),
        (SignedRecord(RecordKind.CREDENTIAL, b"\x00" + bytes(8), b"", b""), False),
    ],
    ids=["later", "not the authority's", "of our own keys", "of our generation", "ended", "unreadable"],
)
def test_only_the_authoritys_word_counts(record: SignedRecord, is_told: bool) -> None:
    """Whoever hands it on: it is judged by its signature, its time, its generation and its keys."""
    group = Group("a b")
    group.start_all()
    group.run_until(group.converged, 5)
    node = group.node("a")
    node._intake.take(record, node._catalog.get(group.node("b").own_node_id), Checks(12))
    group.perform(group.hosts["a"], node.handle_deadline(Instant(group.now)))
    assert told(group, "a") is is_told
    assert node.incarnation[0] == 1, "what is ours stays as it is"


def test_our_own_renewal_under_a_later_generation_is_no_successor() -> None:
    group = mesh()
    renewed = signed_credential("a", generation=2)
    group.perform(group.hosts["a"], group.node("a").renew_credential(renewed, Instant(group.now)))
    group.run(10)
    assert not told(group, "a")
