"""Equal Trust and equal records give equal acceptance, in any order, by any clock, whoever else is known."""

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.model.identity import node_path, service_path
from gossipmesh.model.instant import Instant
from gossipmesh.model.records import IdentityPins, KeySet, RecordKind, SignedRecord
from gossipmesh.trust.documents import PolicyRefusal, PolicySet
from gossipmesh.trust.records import sign_record
from tests.unit.gossip.group import (
    AUTHORITY,
    DOMAIN,
    WALL_OFFSET_S,
    Group,
    credential_of,
    key_of,
    policy_set,
    signed_credential,
)
from tests.unit.gossip.membership.test_lattice import state_record
from tests.unit.gossip.test_tombstones import revoking, tombstone

ROUNDS = 4  # what was refused comes again, as comparisons bring it
NAMES = ("x", "y", "z", "w")


def keys_record(name: str, path: str, sequence: int) -> SignedRecord:
    entry = IdentityPins(path, (f"{sequence:16}".encode(),))
    keys = KeySet(credential_of(name).node_id, 1, 1, sequence, (entry,))
    return sign_record(DOMAIN, RecordKind.KEY_SET, keys, key_of(name))


def narrow(name: str) -> SignedRecord:
    credential = msgspec.structs.replace(credential_of(name, serial=3), service_patterns=())
    return sign_record(DOMAIN, RecordKind.CREDENTIAL, credential, AUTHORITY)


def twin(name: str) -> SignedRecord:
    """Return another credential of one generation and serial, as a restored authority might sign."""
    credential = msgspec.structs.replace(credential_of(name, serial=2), ends=2**33 - 1)
    return sign_record(DOMAIN, RecordKind.CREDENTIAL, credential, AUTHORITY)


OFFERED: list[SignedRecord | PolicySet | bytes] = [
    signed_credential("x"),
    state_record("x", 1, 1),
    state_record("x", 1, 2),
    keys_record("x", service_path("shop/cart"), 1),
    keys_record("x", node_path("x"), 2),
    keys_record("x", service_path("bank/vault"), 3),
    tombstone("x", generation=3),
    signed_credential("x", generation=3, serial=9),
    signed_credential("y"),
    state_record("y", 1, 1),
    keys_record("y", service_path("shop/cart"), 1),
    narrow("y"),
    signed_credential("z"),
    state_record("z", 1, 1),
    signed_credential("w", serial=2),
    twin("w"),
    state_record("w", 1, 1),
    sign_record(DOMAIN, RecordKind.CREDENTIAL, credential_of("w", serial=7), key_of("x")),
    policy_set(1),
    policy_set(2),
    policy_set(2, "/other"),
    policy_set(3, signer=key_of("x")),
    revoking(2, z=1),
]


def accepted(
    offered: list[SignedRecord | PolicySet | bytes], clock_s: int, strangers: list[str]
) -> tuple[dict[str, dict[int, bytes]], bytes, list[str]]:
    """Return what `a` holds of each name, its documents' sum, and whom it takes for revoked."""
    group = Group("a")
    node = group.start("a")
    node.adjust_wall_clock(WALL_OFFSET_S + clock_s, Instant(group.now))
    for name in strangers:
        node._intake.take(signed_credential(name), None, Checks(100))
    for _ in range(ROUNDS):
        for one in offered:
            group.now += 1_000_000_000
            node._ctx.now = Instant(group.now)
            if isinstance(one, SignedRecord):
                node._intake.take(one, None, Checks(100))
                group.perform(group.hosts["a"], node._finish())
            elif isinstance(one, PolicySet):
                try:
                    group.perform(group.hosts["a"], node.offer_policy(one, Instant(group.now)))
                except PolicyRefusal:
                    continue
            else:
                group.perform(group.hosts["a"], node.offer_trust(one, Instant(group.now)))
    held = {}
    for name in NAMES:
        member = node._catalog.get(credential_of(name).node_id)
        if member is not None:
            held[name] = {int(kind): member.records[kind].body for kind in member.messages}
    revoked = sorted(keys.name for keys in node.each_keys() if keys.is_revoked)
    return held, node.state_sums()[1], revoked


EXPECTED = accepted(OFFERED, 0, [])


def test_what_is_accepted_is_what_should_be() -> None:
    held, _, revoked = EXPECTED
    assert revoked == ["x", "z"]
    assert {name: sorted(kinds) for name, kinds in held.items()} == {"x": [1], "y": [1, 2], "w": [1, 2]}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.permutations(OFFERED),
    st.integers(min_value=-300, max_value=300 * 86_400),
    st.lists(st.sampled_from(["p", "q", "r", "s"]), max_size=4, unique=True),
)
def test_orders_clocks_and_catalogues_change_nothing(
    offered: list[SignedRecord | PolicySet | bytes], clock_s: int, strangers: list[str]
) -> None:
    assert accepted(offered, clock_s, strangers) == EXPECTED
