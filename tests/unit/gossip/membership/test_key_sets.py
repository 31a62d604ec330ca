"""A key set is taken from whoever signed it, of what its credential allows, and of nothing else."""

import pytest

from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.gossip.membership.soundness import require_keys_allowed_untrusted
from gossipmesh.model import limits
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.identity import node_path, service_path, workloads_path
from gossipmesh.model.records import IdentityPins, KeySet, RecordKind, SignedRecord
from gossipmesh.trust.records import sign_record
from tests.unit.gossip.group import DOMAIN, Group, credential_of, key_of, signed_credential

ONE, TWO, THREE, FOUR = (bytes([number]) * 16 for number in range(1, 5))


def pins(path: str, *held: bytes) -> IdentityPins:
    return IdentityPins(path, held or (ONE, TWO))


def key_set(*entries: IdentityPins, name: str = "x", epoch: int = 1, sequence: int = 1) -> KeySet:
    return KeySet(credential_of(name).node_id, 1, epoch, sequence, entries)


def key_record(keys: KeySet, signer: str = "x") -> SignedRecord:
    return sign_record(DOMAIN, RecordKind.KEY_SET, keys, key_of(signer))


NODE, WORKLOADS, CART = pins(node_path("x")), pins(workloads_path("x")), pins(service_path("shop/cart"))
MANY = [pins(service_path(f"shop/s{number:03}")) for number in range(limits.KEY_SET_ENTRIES_MAX + 1)]

REFUSED = [
    ("another node", [pins(node_path("y"))], "not its node's"),
    ("another node's workloads", [pins(workloads_path("y"))], "not its node's"),
    ("a service outside the patterns", [pins(service_path("bank/vault"))], "not its node's"),
    ("one of many outside the patterns", [NODE, WORKLOADS, pins("/ns/bank/svc/vault")], "not its node's"),
    ("the authority", [pins("/authority")], "not its node's"),
    ("no path", [pins("")], "not its node's"),
    ("a whole identity", [pins(f"spiffe://{DOMAIN}/node/x")], "not its node's"),
    ("out of order", [WORKLOADS, NODE], "out of order or twice"),
    ("twice", [NODE, NODE], "out of order or twice"),
    ("too many", MANY, "more identities"),
    ("no pin", [IdentityPins(node_path("x"), ())], "beyond limits"),
    ("four pins", [pins(node_path("x"), ONE, TWO, THREE, FOUR)], "beyond limits"),
    ("a short pin", [pins(node_path("x"), ONE[:15])], "beyond limits"),
    ("a long pin", [pins(node_path("x"), ONE + b"1")], "beyond limits"),
    ("a pin twice", [pins(node_path("x"), ONE, ONE)], "beyond limits"),
]


@pytest.mark.parametrize(("entries", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_a_credential_does_not_allow_is_refused_whole(entries: list[IdentityPins], reason: str) -> None:
    with pytest.raises(Untrusted, match=reason):
        require_keys_allowed_untrusted(key_set(*entries), "x", credential_of("x"))


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [NODE, WORKLOADS, CART],
        MANY[:-1],
        [pins(node_path("x"), ONE)],
        [pins(node_path("x"), ONE, TWO, THREE)],
    ],
)
def test_what_a_credential_allows_is_taken(entries: list[IdentityPins]) -> None:
    require_keys_allowed_untrusted(key_set(*entries), "x", credential_of("x"))


def taken(*records: SignedRecord) -> tuple[bytes | None, bytes, dict[str, int]]:
    """Return what `a` holds of x's keys after these records, its sum, and what it refused."""
    group = Group("a")
    node = group.start("a")
    for record in [signed_credential("x"), *records]:
        node._intake.take(record, None, Checks(100))
    member = node._catalog.get(credential_of("x").node_id)
    assert member is not None
    held = member.record(RecordKind.KEY_SET)
    return None if held is None else held.body, node.state_sums()[0], node.statistics().refused


def test_the_newest_is_kept_in_whatever_order_they_come() -> None:
    older, newer = (key_record(key_set(NODE, epoch=1, sequence=n)) for n in (1, 2))
    assert taken(older, newer) == taken(newer, older) == taken(newer)
    assert taken(newer)[0] == newer.body


@pytest.mark.parametrize(
    "record",
    [
        key_record(key_set(NODE), signer="y"),
        key_record(key_set(pins(node_path("y")))),
        SignedRecord(int(RecordKind.KEY_SET), key_record(key_set(NODE)).body, bytes(64)),
    ],
)
def test_a_set_that_is_refused_leaves_the_one_that_is_held(record: SignedRecord) -> None:
    held = key_record(key_set(NODE, epoch=0, sequence=1))
    body, state_sum, refused = taken(held, record)
    assert (body, state_sum) == taken(held)[:2]
    assert sum(refused.values()) == 1
