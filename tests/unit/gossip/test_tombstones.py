"""A revoked member is one no more, everywhere and at once, until its name is enrolled again."""

from itertools import permutations

import msgspec
import pytest

from gossipmesh.gossip.base.effects import KeysChanged, MemberChanged, Revoked
from gossipmesh.gossip.inspection import inspect
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.checkpoint import open_checkpoint_untrusted, write_checkpoint
from gossipmesh.model.documents import TrustDocument
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.identity import node_path, node_spiffe_id
from gossipmesh.model.instant import DAY_S, SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import IdentityPins, NodeCredential, RecordKind, SignedRecord
from gossipmesh.testing.builders import service_entry
from gossipmesh.trust.envelope import TRUST_PAYLOAD_TYPE, decode_envelope_untrusted, seal_envelope
from gossipmesh.trust.keys import SigningKey, Verifier
from gossipmesh.trust.records import BadSignature, open_owned_untrusted, sign_record
from tests.unit.gossip.group import (
    AUTHORITY,
    DOMAIN,
    ROOT,
    WALL_OFFSET_S,
    Group,
    credential_of,
    exchange_of,
    key_of,
    signed_credential,
    trust_envelope,
)


def tombstone_of(name: str, *, generation: int = 2, serial: int = 1, ends: int = 2**33) -> NodeCredential:
    """Return what takes every credential of a name below a generation out of the group."""
    credential = credential_of(name, generation=generation, serial=serial, ends=ends)
    return msgspec.structs.replace(credential, signing_key=b"", exchange_key=b"", service_patterns=())


def signed(credential: NodeCredential, key: SigningKey = AUTHORITY) -> SignedRecord:
    return sign_record(DOMAIN, RecordKind.CREDENTIAL, credential, key)


def tombstone(name: str, *, generation: int = 2, serial: int = 1, ends: int = 2**33) -> SignedRecord:
    return signed(tombstone_of(name, generation=generation, serial=serial, ends=ends))


def mesh(names: str = "a b c d e", *, and_not: str = "") -> Group:
    """Return a mesh at rest in which everybody serves and publishes keys; hosts of `and_not` are down."""
    group = Group(f"{names} {and_not}".strip())
    first, *others = names.split()
    group.start(first)
    for name in others:
        group.start(name, first)
    for name in names.split():
        host, node, now = group.hosts[name], group.node(name), Instant(group.now)
        group.perform(host, node.publish_services([service_entry("shop/cart")], now))
        group.perform(host, node.turn_keys([IdentityPins(node_path(name), (name.encode() * 16,))], now))
    group.run(8)
    assert group.converged()
    return group


def offer(group: Group, at: str, record: SignedRecord) -> None:
    group.perform(group.hosts[at], group.node(at).offer_credential(record, Instant(group.now)))


def told(group: Group, at: str, kind: type) -> list:
    return [event for event in group.hosts[at].events if isinstance(event, kind)]


def ids_in(core: GossipNode) -> set[bytes]:
    """Return whom anything in a core waits for, votes on or watches."""
    seen = inspect(core)
    subjects = {timer.subject for timer in seen.timers if timer.subject is not None}
    votes = {vote.target for vote in seen.judging.votes} | {vote.voter for vote in seen.judging.votes}
    return subjects | votes | {case.target for case in seen.judging.cases}


def is_gone(group: Group, at: str, name: str) -> bool:
    """Tell whether nothing at a node knows a member of that name."""
    node, node_id = group.node(at), credential_of(name).node_id
    keys = node.keys_of(node_id)
    return (
        name not in {view.name for view in node.members()}
        and name not in {found.node for found in node.endpoints()}
        and name not in node.names(list(MemberStatus), 10)
        and node.member(node_id) is None
        and node.endpoints_of(node_id) is None
        and node_id not in node._catalog.eligible.ids()
        and node_id not in {member.node_id for member in node._catalog.reachable}
        and node_id not in ids_in(node)
        and node.tally().members_count == node.statistics().members
        and keys is not None
        and keys.is_revoked
        and keys.entries is None
    )


def others_of(group: Group, name: str) -> list[str]:
    return [host.name for host in group.hosts.values() if host.node is not None and host.name != name]


def gone_everywhere(group: Group, name: str) -> bool:
    return all(is_gone(group, at, name) for at in others_of(group, name))


def test_who_is_revoked_is_gone_everywhere_and_is_told_to_end() -> None:
    group = mesh()
    offer(group, "b", tombstone("a"))
    assert is_gone(group, "b", "a")
    assert group.run_until(lambda: gone_everywhere(group, "a"), 1) <= 1
    group.run_until(lambda: told(group, "a", Revoked) != [], 5)
    assert told(group, "a", Revoked)[0] == Revoked(2)
    for name in others_of(group, "a"):
        (event,) = [e for e in told(group, name, MemberChanged) if e.name == "a" and e.previous is not None]
        assert event.status is MemberStatus.DEAD
        assert event.endpoints is not None
        assert event.endpoints.after is None
        assert told(group, name, KeysChanged)[-1].keys.is_revoked
    group.kill("a")
    group.run(5)
    assert group.converged()


def test_nothing_of_it_is_asked_for_probed_or_voted_on_any_more() -> None:
    group = mesh()
    group.kill("a", silent=True)
    group.run_until(lambda: any(credential_of("a").node_id in ids_in(group.node(n)) for n in "bcde"), 10)
    offer(group, "b", tombstone("a"))
    group.run_until(lambda: gone_everywhere(group, "a"), 2)
    group.trace.clear()
    group.run(20)
    assert gone_everywhere(group, "a")
    assert [line for line in group.trace if line[2] == str(group.hosts["a"].address)] == []


def test_it_does_not_come_back_but_by_a_later_enrolment() -> None:
    group = mesh(and_not="z")
    offer(group, "b", tombstone("a", generation=2))
    group.run(2)
    group.kill("a")
    for credential in (signed_credential("a", serial=9), signed_credential("a", generation=2, serial=9)):
        offer(group, "c", credential)
    for generation in (1, 2):
        group.start("z", "b", "c", enrolled_as="a", generation=generation)
        group.run(5)
        assert told(group, "z", Revoked) != []
        group.kill("z")
        group.hosts["z"].events.clear()
        assert gone_everywhere(group, "a")
    group.start("z", "b", enrolled_as="a", generation=3)
    group.run(5)
    assert told(group, "z", Revoked) == []
    assert set(group.statuses("a").values()) == {"alive"}
    assert {group.node(name).statistics().members for name in "bcde"} == {5}
    assert group.converged()
    keys = group.node("c").keys_of(credential_of("a").node_id)
    assert keys is not None
    assert not keys.is_revoked


def test_streams_with_it_are_cut() -> None:
    group = mesh()
    node = group.node("b")
    member = node._catalog.get(credential_of("a").node_id)
    assert member is not None
    assert node._streams.open_to(member, "sync")
    group.perform(group.hosts["b"], node._ctx.drain())
    group.run(0.0025)
    assert node._streams.opens(member, "sync")
    offer(group, "b", tombstone("a"))
    assert not node._streams.opens(member, "sync")
    assert not group.node("b")._streams._sessions


def test_who_was_cut_off_meanwhile_learns_it_when_they_meet_again() -> None:
    group = mesh()
    group.partition("a b", "c d e")
    offer(group, "c", tombstone("a"))
    group.run(20)
    assert all(is_gone(group, name, "a") for name in "cde")
    assert group.status("b", "a") == "alive"
    group.heal()
    group.run_until(lambda: is_gone(group, "b", "a") and told(group, "a", Revoked) != [], 10)
    group.kill("a")
    group.run(10)
    assert group.converged()


def test_it_is_kept_on_disk_and_an_older_disk_learns_it() -> None:
    group = mesh()
    before = dict(group.hosts["c"].disk)
    offer(group, "b", tombstone("a"))
    group.run(3)
    group.kill("a")
    for name in "bde":
        group.kill(name, silent=True)
    group.kill("c")
    assert is_gone(group, "c", "a") if group.start("c") else None
    group.kill("c")
    group.hosts["c"].disk = before
    group.start("c")
    assert group.status("c", "a") == "alive"
    group.start("b", "c")
    group.run_until(lambda: is_gone(group, "c", "a"), 10)


def test_it_is_held_in_whatever_order_it_comes() -> None:
    records = [
        signed_credential("x"),
        signed_credential("x", serial=7),
        tombstone("x", generation=2),
        signed_credential("x", generation=2, serial=99),
    ]
    sums = set()
    for order in permutations(records):
        node = Group("a").start("a")
        for record in order:
            node._intake.take(record, None, Checks(100))
        keys = node.keys_of(credential_of("x").node_id)
        assert keys is not None
        assert keys.is_revoked
        assert len(node._catalog) == 1
        sums.add(node.state_sums())
    assert len(sums) == 1


FAR = WALL_OFFSET_S + 2 * DAY_S
FORGED = [
    ("by a member", signed(tombstone_of("b"), key_of("c")), "not signed by any authority key"),
    ("by a root key", signed(tombstone_of("b"), ROOT), "not signed by any authority key"),
    (
        "with patterns",
        signed(msgspec.structs.replace(tombstone_of("b"), service_patterns=("*/*",))),
        "allows something",
    ),
    (
        "with an exchange key",
        signed(msgspec.structs.replace(tombstone_of("b"), exchange_key=bytes(32))),
        "allows something",
    ),
    (
        "with hashes",
        signed(msgspec.structs.replace(tombstone_of("b"), spki_hashes=(b"h",))),
        "allows something",
    ),
    ("of a generation to come", tombstone("b", generation=FAR), "day that has not come"),
    ("of a serial to come", tombstone("b", serial=FAR), "day that has not come"),
    ("ended", tombstone("b", ends=WALL_OFFSET_S), "does not hold now"),
    (
        "of another's id",
        signed(msgspec.structs.replace(tombstone_of("b"), spiffe_id=node_spiffe_id(DOMAIN, "c"))),
        "not the hash",
    ),
    (
        "of a node's workloads",
        signed(msgspec.structs.replace(tombstone_of("b"), spiffe_id=f"spiffe://{DOMAIN}/node/b/workloads")),
        "not the hash",
    ),
]


@pytest.mark.parametrize(("record", "reason"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED])
def test_a_forged_one_is_refused_and_changes_nothing(record: SignedRecord, reason: str) -> None:
    group = mesh("a b c")
    before = group.node("a").state_sums()
    with pytest.raises(Untrusted, match=reason):
        group.node("a").offer_credential(record, Instant(group.now))
    group.node("a")._intake.take(record, group.node("a")._catalog.get(credential_of("c").node_id), Checks(9))
    assert group.node("a").state_sums() == before
    assert group.status("a", "b") == "alive"


def test_only_credentials_may_be_offered() -> None:
    group = mesh("a b")
    state = group.node("b")._own_member().records[RecordKind.NODE_STATE]
    with pytest.raises(MalformedInput, match="no credential"):
        group.node("a").offer_credential(state, Instant(group.now))


def test_one_that_is_held_already_is_no_news() -> None:
    group = mesh("a b c")
    offer(group, "b", tombstone("a"))
    group.hosts["b"].events.clear()
    offer(group, "b", tombstone("a"))
    assert group.hosts["b"].events == []


def test_nothing_it_signs_verifies_where_tombstones_are_credentials_like_any_other() -> None:
    """Released builds know no tombstones: they take one as a later credential, without keys."""
    state = Group("x").start("x")._own_member().records[RecordKind.NODE_STATE]
    for key in (b"", bytes(32)):
        with pytest.raises(BadSignature):
            open_owned_untrusted(state, DOMAIN, key, Verifier())


def test_it_goes_when_nothing_of_its_node_could_be_accepted_any_more() -> None:
    group = mesh("a b c")
    ends = WALL_OFFSET_S + group.now // SECOND_NS + 700
    offer(group, "b", tombstone("a", ends=ends))
    group.run(3)
    group.kill("a")
    group.run(720)
    assert group.converged()
    for name in "bc":
        assert group.node(name).keys_of(credential_of("a").node_id) is None
        assert told(group, name, KeysChanged)[-1].keys is None
        assert len(group.node(name)._catalog) == 2


def test_a_checkpoint_holds_it() -> None:
    group = mesh("a b c")
    offer(group, "b", tombstone("a"))
    group.run(5)
    data = write_checkpoint(group.node("b"))
    core = open_checkpoint_untrusted(data, key_of("b"), exchange_of("b"))
    assert core.state_sums() == group.node("b").state_sums()
    assert len(core._catalog) == len(group.node("b")._catalog)
    keys = core.keys_of(credential_of("a").node_id)
    assert keys is not None
    assert keys.is_revoked


def test_a_checkpoint_of_a_build_that_knew_no_tombstones_is_counted_right() -> None:
    group = mesh("a b c")
    offer(group, "b", tombstone("a"))
    group.run(5)
    node = group.node("b")
    node._catalog._revoked_count = 0
    core = open_checkpoint_untrusted(write_checkpoint(node), key_of("b"), exchange_of("b"))
    assert len(core._catalog) == 2


# Trust may revoke as well: by root keys that lie offline, where the credential key is lost or stolen.


def revoking(version: int, **revoked: int) -> bytes:
    payload = decode_envelope_untrusted(trust_envelope()).payload
    document = msgspec.json.decode(payload, type=TrustDocument)
    document = msgspec.structs.replace(document, version=version, revoked=revoked)
    return seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(document), [ROOT]).to_bytes()


def revoke_by_trust(group: Group, at: str, version: int, **revoked: int) -> None:
    envelope = revoking(version, **revoked)
    group.perform(group.hosts[at], group.node(at).offer_trust(envelope, Instant(group.now)))


@pytest.mark.parametrize("way", ["it was away", "it lost its state", "its datagrams are lost"])
def test_whoever_comes_back_to_be_revoked_by_trust_is_told_so(way: str) -> None:
    """It learns it as a newcomer does that wants a table, as one that knows all, and by streams alone."""
    group = mesh()
    group.kill("a")
    revoke_by_trust(group, "b", 2, a=1)
    group.run_until(lambda: all(group.status(name, "a") == "unknown" for name in others_of(group, "a")), 10)
    if way == "it lost its state":
        group.hosts["a"].disk.clear()
    elif way == "its datagrams are lost":
        group.lost_from, group.lost_to = {"a"}, {"a"}
    group.start("a", "b", "c")
    group.run_until(lambda: bool(told(group, "a", Revoked)), 30)
    assert told(group, "a", Revoked) == [Revoked(1)]
    assert all(group.status(name, "a") == "unknown" for name in others_of(group, "a"))


def test_a_revoked_node_gets_trust_and_nothing_else() -> None:
    """Its agent goes on all the same: what it asks for is not answered, what it brings is not taken."""
    group = mesh()
    revoke_by_trust(group, "b", 2, a=1)
    group.run_until(lambda: bool(told(group, "a", Revoked)), 15)
    told_before = len(group.trace)
    received_before = group.node("a")._ctx.statistics.records_merged
    for name in others_of(group, "a"):
        group.hosts[name].events.clear()
    group.run(30)
    assert len(group.trace) > told_before
    assert group.node("a")._ctx.statistics.records_merged == received_before
    for name in others_of(group, "a"):
        assert group.status(name, "a") == "unknown"
        assert not [event for event in group.hosts[name].events if getattr(event, "name", "") == "a"]


def test_whom_trust_revokes_is_gone_everywhere_and_ends_when_it_learns_so() -> None:
    group = mesh(and_not="z")
    revoke_by_trust(group, "b", 2, a=1)
    group.run_until(lambda: all(group.status(name, "a") == "unknown" for name in others_of(group, "a")), 10)
    group.run_until(lambda: bool(told(group, "a", Revoked)), 10)
    assert told(group, "a", Revoked) == [Revoked(1)]
    for name in "bcde":
        keys = told(group, name, KeysChanged)[-1].keys
        assert (keys.name, keys.generation, keys.is_revoked) == ("a", 1, True)
        assert keys in list(group.node(name).each_keys())
    group.kill("a")
    with pytest.raises(Untrusted, match="Trust revokes"):
        group.node("c").offer_credential(signed_credential("a", serial=5), Instant(group.now))
    group.start("z", "b", enrolled_as="a", generation=2)
    group.run(5)
    assert set(group.statuses("a").values()) - {"unknown"} == {"alive"}
    assert not [keys for keys in group.node("c").each_keys() if keys.is_revoked]
    assert group.converged()


def test_asking_members_tells_who_holds_a_tombstone() -> None:
    """Whoever waits for all asks until each was found equal after it; one beyond a cut never is."""
    group = mesh()
    group.partition("c", "a b d e")
    group.run(1)
    offer(group, "b", tombstone("a"))
    taken_at = group.now
    asked_count = 0

    def holding() -> set[str]:
        views = group.node("b").members()
        ages = {view.name: view.agreed_age_ns for view in views}
        return {name for name, age in ages.items() if age is not None and age < group.now - taken_at}

    while holding() < {"d", "e"}:
        assert (asked_count := asked_count + 1) < 50
        group.perform(group.hosts["b"], group.node("b").ask_members(Instant(group.now)))
        group.run(0.1)
    assert "c" not in holding()
    for name in "de":
        assert group.status(name, "a") == "unknown"
