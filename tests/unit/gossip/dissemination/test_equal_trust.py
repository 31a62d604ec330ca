"""Equal Trust is equal, whatever became of its envelopes on the way; then everything is, everywhere."""

import random
from contextlib import suppress
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.gossip.base.settings import GossipSettings
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.model.documents import Manifest, Signer, SignerRole, TrustDocument, first_version_of
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.opening import Unconfirmed
from gossipmesh.model.records import SignedRecord
from gossipmesh.testing.builders import http_route, seal_policy_set
from gossipmesh.testing.relayer import changed_envelope, changed_set, changed_trusts
from gossipmesh.trust.documents import PolicyRefusal, PolicySet, decode_policy_set_untrusted
from gossipmesh.trust.envelope import TRUST_PAYLOAD_TYPE, decode_envelope_untrusted, seal_envelope
from gossipmesh.trust.keys import SigningKey
from gossipmesh.trust.records import signed_bytes
from gossipmesh.wire.datagram import decode_record
from gossipmesh.wire.versions import MEMBER_FEATURES
from tests.unit.gossip.group import (
    AUTHORITY,
    DOMAIN,
    WALL_OFFSET_S,
    Group,
    credential_of,
    key_of,
    signed_credential,
)
from tests.unit.gossip.membership.test_lattice import state_record
from tests.unit.gossip.test_tombstones import tombstone

ROOTS = [key_of(f"root {number}") for number in range(3)]
SIGNERS = [key_of(f"signer {number}") for number in range(3)]
NEXT = first_version_of(1)
THRESHOLD = 2
NAMES = "a b c d"
RELAYER = "b"

Offered = bytes | PolicySet | SignedRecord


def trust(version: int, roots: list[SigningKey] | None = None, floor: int = 0) -> bytes:
    """Return a version of Trust; two of its three root keys are enough, and two of three signers."""
    signers = [
        Signer(f"policy{number}", SignerRole.POLICY, key.public.hex(), ("mesh",))
        for number, key in enumerate(SIGNERS)
    ]
    document = TrustDocument(
        version=version,
        trust_domain=DOMAIN,
        root_certificates=("pem",),
        intermediates=(),
        root_keys=tuple(key.public.hex() for key in ROOTS),
        root_threshold=THRESHOLD,
        signers=(Signer("authority", SignerRole.CREDENTIAL, AUTHORITY.public.hex()), *signers),
        policy_threshold={"mesh": THRESHOLD},
        floors={"mesh": floor} if floor else {},
    )
    return seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(document), roots or ROOTS).to_bytes()


def policy(version: int, name: str = "cart") -> PolicySet:
    """Return a set that all three signers signed."""
    manifest = Manifest(DOMAIN, "mesh", version, version - 1, "", (), (), WALL_OFFSET_S, WALL_OFFSET_S)
    return seal_policy_set(manifest, [http_route(name)], SIGNERS)


def mesh(names: str = NAMES, *, older: str = "") -> Group:
    """Return nodes that are not started, all of this build but those that are `older`."""
    group = Group(names, settings=GossipSettings(full_compare_interval_ns=3_600 * SECOND_NS))
    group.features_of = {name: MEMBER_FEATURES for name in names.split() if name not in older.split()}
    group.first_trust = trust(1)
    return group


def has_relayer(group: Group, seed: int) -> None:
    """Have one member pass on changed envelopes of what it is asked for."""
    rng = random.Random(seed)
    spreading = group.node(RELAYER)._spreading
    answer_trust, answer_policy = spreading.answer_trust, spreading.answer_policy
    spreading.answer_trust = lambda version: changed_trusts(answer_trust(version), rng, THRESHOLD)

    def policy_set(scope: str) -> bytes:
        held = answer_policy(scope)
        return changed_set(held, rng, THRESHOLD) if held else held

    spreading.answer_policy = policy_set


def offer_trust(group: Group, name: str, envelope: bytes) -> None:
    group.perform(group.hosts[name], group.node(name).offer_trust(envelope, Instant(group.now)))


def require_rest(group: Group) -> None:
    """Require that once news has settled nobody compares or fetches: all are equal by their own sums."""
    group.run(10)
    before = streams_opened(group)
    group.run(30)
    assert streams_opened(group) == before, "they still compare"


def streams_opened(group: Group) -> int:
    return sum(host.node.statistics().streams_opened for host in group.hosts.values() if host.node)


def envelopes(group: Group) -> set[bytes]:
    return {host.node._ctx.documents.trust_envelopes[-1] for host in group.hosts.values() if host.node}


def test_members_with_other_signatures_on_one_trust_are_equal_and_fetch_nothing() -> None:
    """Two of three root keys are enough, and of two members each may have got another two."""
    group = mesh("a b")
    group.start_all()
    group.run(3)
    group.partition("a", "b")
    offer_trust(group, "a", trust(2, ROOTS[:2]))
    offer_trust(group, "b", trust(2, ROOTS[1:]))
    group.heal()
    group.run_until(group.converged, 3)
    assert len(envelopes(group)) == 2
    require_rest(group)


@pytest.mark.parametrize("seed", range(4))
def test_a_relayer_that_changes_envelopes_parts_nobody(seed: int) -> None:
    group = mesh()
    group.start_all()
    has_relayer(group, seed)
    group.run(3)
    group.partition("a", "c d")  # what a is given goes by way of the relayer
    offer_trust(group, "a", trust(2))
    group.run(2)
    group.heal()
    group.run_until(group.converged, 3)
    require_rest(group)
    for host in group.hosts.values():
        written = decode_envelope_untrusted(host.disk[(PersistKind.TRUST, (2).to_bytes(8, "big"))])
        assert all(len(one.signature) == 64 and len(one.key_id) == 8 for one in written.signatures)
        assert len(written.signatures) <= len(ROOTS)


def test_a_joiner_that_got_trust_in_another_envelope_is_opened_by_those_that_run_it() -> None:
    group = mesh("a b c j")
    for name, seeds in (("a", ()), ("b", ("a",)), ("c", ("a",))):
        group.start(name, *seeds)
    group.run(3)
    offer_trust(group, "a", trust(2, ROOTS[:2]))
    group.run(3)
    group.hosts["j"].disk[(PersistKind.TRUST, (2).to_bytes(8, "big"))] = trust(2, ROOTS[1:])
    joiner = group.start("j", "a", unconfirmed=Unconfirmed(4))
    group.run_until(lambda: not joiner.opening.is_closed, 5)
    assert joiner.opening.differing == ()


def test_what_stands_on_the_disk_is_what_was_verified_and_not_what_came_later() -> None:
    """A member that is asked for later versions may send earlier ones again, in other envelopes."""
    group = mesh("a b")
    group.start_all()
    group.run(3)
    offer_trust(group, "a", trust(2))
    group.run(3)
    key = (PersistKind.TRUST, (2).to_bytes(8, "big"))
    held = group.hosts["b"].disk[key]
    node = group.node("b")
    again = msgspec.msgpack.encode([trust(2, ROOTS[:2])])
    node._spreading.fetched_trust(bytes(group.node("a").own_node_id), again)
    group.perform(group.hosts["b"], node._finish())
    assert group.hosts["b"].disk[key] == held


@pytest.mark.parametrize("older", ["", "c", "c d"])
def test_members_of_older_builds_agree_wherever_nobody_left_a_signature_out(older: str) -> None:
    """What was added, renamed or moved is put right by whoever takes it, so their sums agree as well."""
    group = mesh(older=older)
    group.start_all()
    group.run(3)
    rng = random.Random(1)
    offer_trust(group, "a", changed_envelope(trust(2), rng, least_count=3))
    group.run_until(lambda: envelopes(group) == {trust(2)}, 3)
    require_rest(group)


def test_a_member_that_says_it_counts_as_before_parts_itself_alone() -> None:
    group = mesh(older="d")
    group.start_all()
    group.run(3)
    for name, roots in (("a", ROOTS[:2]), ("b", ROOTS[1:]), ("c", ROOTS), ("d", ROOTS[::2])):
        group.node(name)._spreading._streams.fetch = lambda member_id, scope: False
        offer_trust(group, name, trust(2, roots))
    group.run(5)
    sums = {name: group.node(name).state_sums() for name in NAMES.split()}
    assert sums["a"] == sums["b"] == sums["c"] != sums["d"]


@pytest.mark.parametrize("kind", [2, 3, 6, 99])
def test_the_key_id_of_an_owners_record_is_nobodys_word_and_goes_no_further(kind: int) -> None:
    """It is not signed: whoever passes a record on could have everybody keep and send what he wrote there."""
    group = mesh("a b")
    group.start_all()
    group.run(3)
    record = state_record("x", 1, 1)
    node = group.node("a")
    node._intake.take(signed_credential("x"), None, Checks(9))
    if kind != 2:
        body = msgspec.msgpack.encode([credential_of("x").node_id, 1, 1, 7, []])
        signature = key_of("x").sign(signed_bytes(DOMAIN, kind, body))
        record = SignedRecord(kind, body, signature)
    node._intake.take(msgspec.structs.replace(record, key_id=b"k" * 5_000), None, Checks(9))
    group.perform(group.hosts["a"], node._finish())
    member = node._catalog.get(credential_of("x").node_id)
    assert member is not None
    assert decode_record(member.messages[kind]) == record


# The property

CATALOGUE: list[Offered] = [
    trust(2),
    trust(3, floor=NEXT),
    policy(1),
    policy(2),
    policy(2, "other"),
    policy(NEXT + 1),
    policy(NEXT + 1, "other"),
    signed_credential("x"),
    state_record("x", 1, 1),
    tombstone("x", generation=3),
    signed_credential("y"),
]


class Handing(NamedTuple):
    """Something is given to a member, in an envelope changed by this seed, while another is cut off."""

    what: int
    to: str
    seed: int
    cut_off: str


@st.composite
def plans(draw: st.DrawFn) -> list[Handing]:
    """Return each thing once and some again, in any order, at any member, in whatever envelope."""
    order = draw(st.permutations(range(len(CATALOGUE))))
    again = draw(st.lists(st.sampled_from(range(len(CATALOGUE))), max_size=4))
    names = st.sampled_from(NAMES.split())
    return [
        Handing(what, draw(names), draw(st.integers(0, 2**16)), draw(st.sampled_from(["", *NAMES.split()])))
        for what in [*order, *again]
    ]


def hand(group: Group, handing: Handing) -> None:
    """Give it; what is too early, or says nothing new, is refused, and comes again."""
    offered, rng = CATALOGUE[handing.what], random.Random(handing.seed)
    host, node, now = group.hosts[handing.to], group.node(handing.to), Instant(group.now)
    if isinstance(offered, SignedRecord):
        noise = offered.key_id if offered.kind == 1 else rng.randbytes(rng.randint(0, 9))
        node._intake.take(msgspec.structs.replace(offered, key_id=noise), None, Checks(100))
        group.perform(host, node._finish())
    elif isinstance(offered, PolicySet):
        changed = decode_policy_set_untrusted(changed_set(offered.to_bytes(), rng, THRESHOLD))
        with suppress(PolicyRefusal):
            group.perform(host, node.offer_policy(changed, now))
    else:
        with suppress(MalformedInput):
            group.perform(host, node.offer_trust(changed_envelope(offered, rng, THRESHOLD), now))


def verdicts(group: Group, name: str, rng: random.Random) -> list[str]:
    """Return what a member says of every set there is, each in a changed envelope."""
    found = []
    for offered in CATALOGUE:
        if isinstance(offered, PolicySet):
            changed = decode_policy_set_untrusted(changed_set(offered.to_bytes(), rng, THRESHOLD))
            try:
                group.node(name)._ctx.documents.check_untrusted(changed)
                found.append("taken")
            except PolicyRefusal as refusal:
                found.append(refusal.code)
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    plans(),
    st.lists(st.integers(-300, 300), min_size=4, max_size=4),
    st.sampled_from(["", "c", "d"]),
    st.integers(0, 2**16),
)
def test_whatever_order_and_envelopes_things_come_in_all_ends_equal_everywhere(
    plan: list[Handing], clocks_s: list[int], late: str, seed: int
) -> None:
    group = mesh()
    begin = [name for name in NAMES.split() if name != late]
    for name in begin:
        group.start(name, *begin[:1], wall_ahead_s=clocks_s[NAMES.split().index(name)])
    has_relayer(group, seed)
    group.run(2)
    for number, handing in enumerate(plan):
        if late and number == len(plan) // 2:
            group.start(late, "a", wall_ahead_s=clocks_s[NAMES.split().index(late)])
        others = " ".join(name for name in NAMES.split() if name != handing.cut_off)
        group.partition(handing.cut_off, others)
        if group.hosts[handing.to].node is not None:
            hand(group, handing)
        group.run(0.3)
    group.heal()
    for what in range(len(CATALOGUE)):  # whoever made them offers again what was too early
        hand(group, Handing(what, "a", seed, ""))
        group.run(0.2)
    group.run_until(group.converged, 60)

    held = [group.node(name)._ctx.documents for name in NAMES.split()]
    assert {one.trust.version for one in held if one.trust} == {3}
    assert len({one.trust_sha256 for one in held}) == 1
    assert {one.floor("mesh")[0] for one in held} == {NEXT + 1}
    assert len({one.floor("mesh") for one in held}) == 1
    rng = random.Random(seed)
    assert len({tuple(verdicts(group, name, rng)) for name in NAMES.split()}) == 1
    require_rest(group)
