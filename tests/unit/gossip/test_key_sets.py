"""Key sets between nodes: all hold what each signed, and a thief of a key is told apart from its owner."""

import msgspec
import pytest

from gossipmesh.gossip.base.effects import (
    ForeignKeySet,
    IdentityCopied,
    KeysChanged,
    MemberChanged,
    PersistKind,
)
from gossipmesh.gossip.inspection import held
from gossipmesh.gossip.membership.catalog import Checks, pack_records
from gossipmesh.gossip.membership.state_sums import Rank
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.checkpoint import open_checkpoint_untrusted, write_checkpoint
from gossipmesh.model import limits
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.identity import node_path, service_path, workloads_path
from gossipmesh.model.instant import Instant
from gossipmesh.model.records import IdentityPins, KeySet, RecordKind, SignedRecord
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.datagram import encode_message
from gossipmesh.wire.versions import FOREIGN_KEYS
from tests.unit.gossip.group import (
    AUTHORITY,
    DOMAIN,
    Group,
    credential_of,
    exchange_of,
    key_of,
    signed_credential,
)
from tests.unit.gossip.membership.test_lattice import state_record

SHOP = service_path("shop/cart")


def entries(name: str, turn: int = 0) -> tuple[IdentityPins, ...]:
    """Return what the node of a name publishes after so many turns: pins of the current and the next key."""
    paths = (node_path(name), workloads_path(name), SHOP)
    return tuple(IdentityPins(path, tuple(pin(path, turn + ahead) for ahead in (0, 1))) for path in paths)


def pin(path: str, number: int) -> bytes:
    return f"{path[-8:]:8}{number:8}".encode()


def turn(group: Group, name: str, number: int = 0, *, also: str | None = None) -> None:
    """Have a node publish its keys."""
    host = group.hosts[also or name]
    assert host.node is not None
    group.perform(host, host.node.turn_keys(entries(name, number), Instant(group.now)))


def mesh(names: str = "a b c") -> Group:
    group = Group(names)
    group.start_all()
    group.run(5)
    assert group.converged()
    return group


def published(node: GossipNode, of: str) -> tuple[IdentityPins, ...] | None:
    keys = node.keys_of(credential_of(of).node_id)
    assert keys is not None
    return keys.entries


def told(group: Group, at: str, kind: type) -> list:
    return [event for event in group.hosts[at].events if isinstance(event, kind)]


def key_set(
    node: GossipNode, name: str, *, epoch: int = 0, sequence: int = 0, number: int = 90
) -> SignedRecord:
    """Return a set signed with the key of a name, above what its node says by so much."""
    state = node.own_state
    keys = KeySet(
        credential_of(name).node_id, 1, state.epoch + epoch, state.sequence + sequence, entries(name, number)
    )
    return sign_record(DOMAIN, RecordKind.KEY_SET, keys, key_of(name))


def test_everybody_holds_what_each_published_and_is_told_so() -> None:
    group = mesh()
    turn(group, "a")
    group.run(1)
    assert group.converged()
    for name in group.hosts:
        assert published(group.node(name), "a") == tuple(sorted(entries("a"), key=lambda e: e.path))
        assert published(group.node(name), "b") is None
        (event,) = told(group, name, KeysChanged)
        assert (event.name, event.keys) == ("a", group.node(name).keys_of(event.node_id))
        assert event.keys.has_key_sets
        assert (event.keys.generation, event.keys.serial, event.keys.is_revoked) == (1, 1, False)


def test_what_was_published_in_this_incarnation_is_not_signed_again() -> None:
    group = mesh()
    turn(group, "a")
    group.run(1)
    before = group.node("b").state_sums()
    turn(group, "a")
    assert group.node("a").state_sums() == before
    turn(group, "a", 1)
    assert group.node("a").state_sums() != before


def test_those_who_hold_the_newest_set_are_counted() -> None:
    group = mesh()
    assert group.node("a").key_set_heard_count() == 0
    turn(group, "a")
    assert group.node("a").key_set_heard_count() == 0
    group.run_until(lambda: group.node("a").key_set_heard_count() == 2, 10)
    turn(group, "a", 1)
    assert group.node("a").key_set_heard_count() == 0
    group.kill("b", silent=True)
    group.run_until(lambda: group.status("a", "b") == "dead", 30)
    group.run_until(lambda: group.node("a").key_set_heard_count() == 1, 20)


def test_an_identity_that_the_credential_does_not_allow_is_not_signed() -> None:
    group = mesh("a")
    node, before = group.node("a"), group.node("a").state_sums()
    for refused in (
        [IdentityPins("/ns/bank/svc/vault", (pin("x", 0),))],
        [IdentityPins(service_path(f"shop/{number:060}" + "s"), (pin("x", 0), pin("x", 1), pin("x", 2)))
         for number in range(limits.KEY_SET_ENTRIES_MAX)],
    ):  # fmt: skip
        with pytest.raises(Untrusted):
            node.turn_keys(refused, Instant(group.now))
    assert node.state_sums() == before


def test_who_was_away_learns_them_and_who_starts_anew_has_them_from_disk() -> None:
    group = mesh()
    group.kill("c")
    turn(group, "a")
    group.run(2)
    group.start("c", "a")
    group.run(3)
    assert published(group.node("c"), "a") is not None
    group.kill("c")
    group.kill("a", silent=True)
    group.kill("b", silent=True)
    assert published(group.start("c"), "a") is not None


def test_a_set_too_long_for_a_packet_goes_by_stream() -> None:
    group = mesh()
    many = [IdentityPins(service_path(f"shop/s{n:03}"), (pin("s", n),)) for n in range(100)]
    group.perform(group.hosts["a"], group.node("a").turn_keys(many, Instant(group.now)))
    group.run(3)
    assert group.converged()
    assert len(published(group.node("c"), "a") or ()) == 100


def test_a_later_enrolment_takes_the_former_ones_keys_away() -> None:
    group = mesh("a b d")
    turn(group, "a")
    group.run(2)
    group.kill("a", silent=True)
    group.start("d", "b", enrolled_as="a")
    group.run(5)
    assert published(group.node("b"), "a") is None
    assert told(group, "b", KeysChanged)[-1].keys.generation == 2


def narrowed(name: str, *, serial: int, patterns: tuple[str, ...]) -> SignedRecord:
    credential = msgspec.structs.replace(credential_of(name, serial=serial), service_patterns=patterns)
    return sign_record(DOMAIN, RecordKind.CREDENTIAL, credential, AUTHORITY)


def test_a_narrower_credential_takes_away_what_it_does_not_allow_in_whatever_order() -> None:
    """Whoever learns the credential first refuses the set: all must hold the same in the end."""
    sums = []
    keys = KeySet(credential_of("x").node_id, 1, 1, 1, (IdentityPins(SHOP, (pin("x", 1),)),))
    record = sign_record(DOMAIN, RecordKind.KEY_SET, keys, key_of("x"))
    wide, narrow = signed_credential("x"), narrowed("x", serial=2, patterns=("bank/*",))
    for records in ([wide, record, narrow], [wide, narrow, record], [narrow, wide, record]):
        node = Group("a").start("a")
        for one in records:
            node._intake.take(one, None, Checks(100))
        assert published(node, "x") is None
        sums.append(node.state_sums())
    assert len(set(sums)) == 1


def test_our_own_set_follows_a_narrower_credential_of_ours() -> None:
    group = mesh()
    turn(group, "a")
    group.run(1)
    record = narrowed("a", serial=2, patterns=())
    group.perform(group.hosts["a"], group.node("a").renew_credential(record, Instant(group.now)))
    group.run(3)
    assert group.converged()
    paths = [entry.path for entry in published(group.node("b"), "a") or ()]
    assert paths == [node_path("a"), workloads_path("a")]


# A build that does not know key sets keeps them unread, as any owner's record of an unknown kind.


def test_what_an_older_build_kept_unread_on_disk_is_read_as_a_key_set() -> None:
    group = mesh("a b")
    record = key_set(group.node("a"), "a", epoch=-1)
    host, node_id = group.hosts["b"], credential_of("a").node_id
    state = group.node("a")._own_member().messages.state
    group.kill("b")
    group.kill("a", silent=True)
    host.disk[(PersistKind.MEMBER, node_id)] = pack_records(
        [encode_message(signed_credential("a")), state, encode_message(record)]
    )
    assert published(group.start("b"), "a") == entries("a", 90)


def older_checkpoint(node: GossipNode, name: str, record: SignedRecord) -> bytes:
    """Return a checkpoint of a core that keeps a record of kind 6 unread, counted as unknown kinds are."""
    member = node._catalog.get(credential_of(name).node_id)
    assert member is not None
    keys = msgspec.msgpack.decode(record.body)
    node._catalog._store(member, record, Rank(*keys[1:4], b""))
    return write_checkpoint(node)


@pytest.mark.parametrize(("claimed_for", "is_taken"), [("b", True), ("a", False)])
def test_what_an_older_checkpoint_kept_unread_is_read_as_a_key_set(claimed_for: str, is_taken: bool) -> None:
    """`b` may not publish pins for `a`: an older build did not look, and this one counts nothing of it."""
    group = mesh("a b")
    node = group.node("a")
    sums = node.state_sums()
    claimed = KeySet(credential_of("b").node_id, 1, 1, 1, entries(claimed_for))
    record = sign_record(DOMAIN, RecordKind.KEY_SET, claimed, key_of("b"))
    core = open_checkpoint_untrusted(older_checkpoint(node, "b", record), key_of("a"), exchange_of("a"))
    assert (published(core, "b") is not None) is is_taken
    assert (core.state_sums() == sums) is not is_taken


# Our own set, signed by somebody else


def hears(group: Group, at: str, record: SignedRecord) -> None:
    node = group.node(at)
    node._intake.take(record, None, Checks(100))
    group.perform(group.hosts[at], node._ctx.drain())


@pytest.mark.parametrize("ahead", [{"epoch": 3}, {"sequence": 9}, {"sequence": 1}])
def test_a_set_of_ours_that_we_did_not_sign_is_told_and_signed_above(ahead: dict[str, int]) -> None:
    group = mesh()
    turn(group, "a")
    group.run(1)
    forged = key_set(group.node("a"), "a", **ahead)
    for name in ("b", "c"):
        hears(group, name, forged)
    group.run(3)
    hears(group, "a", forged)
    group.run(5)
    (event,) = told(group, "a", ForeignKeySet)
    assert event.paths == tuple(entry.path for entry in entries("a"))
    assert group.converged()
    assert published(group.node("c"), "a") == entries("a")
    seen = group.node("c").member(credential_of("a").node_id)
    assert seen is not None
    assert FOREIGN_KEYS in seen.state.features
    assert told(group, "a", IdentityCopied) == []


def test_one_of_an_earlier_epoch_above_ours_is_a_thiefs_as_well() -> None:
    """A node that refuted a death has a later epoch than its key set: between the two is room for a thief."""
    group = mesh()
    turn(group, "a")
    group.run(1)
    own = group.node("a")._own
    own.raise_epoch(own.epoch + 5, "answer", (None,))
    group.perform(group.hosts["a"], group.node("a")._ctx.drain())
    group.run(2)
    hears(group, "a", key_set(group.node("a"), "a", epoch=-2))
    group.run(3)
    assert len(told(group, "a", ForeignKeySet)) == 1
    assert group.converged()
    assert published(group.node("b"), "a") == entries("a")


def test_a_forged_set_of_ours_is_refused_and_no_alarm() -> None:
    group = mesh()
    turn(group, "a")
    group.run(1)
    state = group.node("a").own_state
    keys = KeySet(state.node_id, 1, state.epoch + 3, 1, entries("a", 90))
    hears(group, "a", sign_record(DOMAIN, RecordKind.KEY_SET, keys, key_of("b")))
    alien = KeySet(state.node_id, 1, state.epoch + 3, 1, entries("b"))
    hears(group, "a", sign_record(DOMAIN, RecordKind.KEY_SET, alien, key_of("a")))
    assert told(group, "a", ForeignKeySet) == []
    assert group.node("a").statistics().refused == {"BadSignature": 1, "Untrusted": 1}


def test_our_own_from_before_our_disk_was_lost_is_no_theft() -> None:
    """Its keys are still ours, for they lie in another file: the set is signed above, without an alarm."""
    group = mesh()
    turn(group, "a")
    group.run(1)
    group.kill("a")
    group.hosts["a"].disk.clear()
    group.start("a", "b")
    turn(group, "a")
    group.run(5)
    assert told(group, "a", ForeignKeySet) == []
    assert group.converged()
    assert published(group.node("b"), "a") == entries("a")


def test_it_is_seen_in_an_inspection() -> None:
    group = mesh("a b")
    turn(group, "a")
    group.run(1)
    seen = held(group.node("b"), credential_of("a").node_id)
    assert seen is not None
    assert RecordKind.KEY_SET in seen.kinds


def test_keys_are_walked_over_with_everybodys_credential() -> None:
    group = mesh()
    turn(group, "b")
    group.run(1)
    walked = {keys.name: keys.has_key_sets for keys in group.node("a").each_keys()}
    assert walked == {"a": False, "b": True, "c": False}


def test_whose_state_is_not_known_yet_is_judged_as_one_that_publishes_keys() -> None:
    """With the intermediate's key a thief would be a member of whom a joiner knows the credential alone."""
    group = mesh("a b")
    node = group.node("a")
    node._intake.take(signed_credential("x"), None, Checks(9))
    group.perform(group.hosts["a"], node._finish())
    assert {keys.name: keys.has_key_sets for keys in node.each_keys()}["x"]
    node._intake.take(state_record("x", 1, 1), None, Checks(9))
    group.perform(group.hosts["a"], node._finish())
    x_id = credential_of("x").node_id
    first = [e for e in told(group, "a", MemberChanged) if e.node_id == x_id]
    assert len(first) == 1, "whoever reads keys reads them again now"
    keys = node.keys_of(x_id)
    assert keys is not None
    assert not keys.has_key_sets, "a node of 0.2 is judged by its certificate"


def test_two_peers_say_at_once_that_they_hold_a_set() -> None:
    """A first key waits for them, and a newcomer must not wait for a round of probes."""
    group = mesh("a b c d e f")
    turn(group, "a")
    group.run(0.2)
    node = group.hosts["a"].node
    assert node is not None
    assert node.key_set_heard_count() >= 2
