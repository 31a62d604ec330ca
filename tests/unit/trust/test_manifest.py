"""What a signer makes is what nodes take, and nothing slips under a signature."""

import msgspec
import pytest

from gossipmesh.model import limits
from gossipmesh.model.documents import Signer, SignerRole, TrustDocument
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.policy import (
    AccessPolicy,
    AccessPolicySpec,
    AccessRuleSpec,
    BackendRef,
    Document,
    HTTPRoute,
    HTTPRouteRule,
    HTTPRouteSpec,
    Metadata,
    ParentRef,
    Subset,
    SubsetSpec,
    TargetRef,
)
from gossipmesh.trust.documents import PolicyRefusal, PolicySet, TrustedDocuments
from gossipmesh.trust.envelope import TRUST_PAYLOAD_TYPE, seal_envelope
from gossipmesh.trust.keys import SigningKey, Verifier
from gossipmesh.trust.manifest import (
    EMPTY_BASE,
    BaseSet,
    Change,
    SignedSet,
    build_manifest,
    changes,
    encode_document,
    encode_documents,
    open_base_untrusted,
    sign_set,
    upsert,
    without,
)
from gossipmesh.wire.versions import FEATURES

POLICY_KEY = SigningKey(b"\x01" * 32)
OTHER_KEY = SigningKey(b"\x02" * 32)
ROOT_KEY = SigningKey(b"\x03" * 32)


def subset(name: str, version: str = "v1") -> Subset:
    labels = {"version": version, "a": "b"}
    return Subset("gossipmesh.dev/v1", Metadata(name, "shop"), SubsetSpec("cart", labels))


def route(weight: int = 10) -> HTTPRoute:
    backend = BackendRef("cart-v2", "Subset", "gossipmesh.dev", weight=weight)
    rule = HTTPRouteRule(backendRefs=(backend,))
    spec = HTTPRouteSpec(parentRefs=(ParentRef("cart"),), rules=(rule,))
    return HTTPRoute("gateway.networking.k8s.io/v1", Metadata("cart", "shop"), spec)


def access() -> AccessPolicy:
    spec = AccessPolicySpec(TargetRef("db"), "Deny", (AccessRuleSpec(),))
    return AccessPolicy("gossipmesh.dev/v1", Metadata("db", "shop"), spec)


def signed(base: BaseSet, bodies: dict[str, bytes], key: SigningKey = POLICY_KEY) -> SignedSet:
    manifest = build_manifest(base, bodies, trust_domain="mesh.test", scope="mesh", created=1_000)
    return sign_set(manifest, bodies, [key])


def opened(policy_set: PolicySet, *keys: SigningKey) -> BaseSet:
    return open_base_untrusted(policy_set, "mesh", [key.public for key in keys], Verifier())


@pytest.fixture
def node() -> TrustedDocuments:
    """A node that trusts POLICY_KEY for the scope `mesh`."""
    trust = TrustDocument(
        version=1,
        trust_domain="mesh.test",
        root_certificates=("PEM",),
        intermediates=(),
        root_keys=(ROOT_KEY.public.hex(),),
        root_threshold=1,
        signers=(Signer("policy", SignerRole.POLICY, POLICY_KEY.public.hex(), ("mesh",)),),
    )
    documents = TrustedDocuments(trust_domain="mesh.test", verifier=Verifier(), features=FEATURES)
    payload = msgspec.json.encode(trust)
    documents.load_trust_untrusted(seal_envelope(TRUST_PAYLOAD_TYPE, payload, [ROOT_KEY]).to_bytes())
    return documents


def test_nodes_take_each_next_set_and_since_stays_with_a_name(node: TrustedDocuments) -> None:
    first = signed(EMPTY_BASE, encode_documents([subset("cart-v2"), route()]))
    node.adopt(node.check_untrusted(first.policy_set))

    base = opened(first.policy_set, POLICY_KEY)
    second = signed(base, upsert(base, encode_documents([route(50), access()]), prune=False))
    accepted = node.check_untrusted(second.policy_set)
    node.adopt(accepted)

    assert (accepted.version, accepted.manifest_hash) == (2, second.manifest_hash)
    assert accepted.manifest.base_hash == first.manifest_hash.hex()
    assert accepted.manifest.requires == ("access-policy", "http-route", "subset")
    assert [(entry.name, entry.since) for entry in accepted.manifest.entries] == [
        ("AccessPolicy/shop/db", 2),
        ("HTTPRoute/shop/cart", 1),
        ("Subset/shop/cart-v2", 1),
    ]
    with pytest.raises(PolicyRefusal, match="below"):
        node.check_untrusted(first.policy_set)


def test_a_set_signed_by_another_key_is_refused_by_nodes_and_as_a_base(node: TrustedDocuments) -> None:
    foreign = signed(EMPTY_BASE, encode_documents([subset("cart-v2")]), OTHER_KEY)
    with pytest.raises(PolicyRefusal):
        node.check_untrusted(foreign.policy_set)
    with pytest.raises(Untrusted, match="not signed by this signer"):
        opened(foreign.policy_set, POLICY_KEY)
    assert opened(foreign.policy_set, POLICY_KEY, OTHER_KEY).version == 1


def test_a_base_with_an_exchanged_body_is_refused() -> None:
    honest = signed(EMPTY_BASE, encode_documents([access()]))
    forged = PolicySet(honest.policy_set.manifest, (b'{"kind":"AccessPolicy"}',))
    with pytest.raises(Untrusted, match="not the one that was signed"):
        opened(forged, POLICY_KEY)
    with pytest.raises(Untrusted, match="other documents"):
        opened(PolicySet(honest.policy_set.manifest, ()), POLICY_KEY)
    with pytest.raises(Untrusted, match="scope"):
        open_base_untrusted(honest.policy_set, "other", [POLICY_KEY.public], Verifier())
    with pytest.raises(MalformedInput):
        opened(PolicySet(b"\x93", ()), POLICY_KEY)


def test_equal_content_has_equal_bytes_whatever_the_order_it_was_written_in() -> None:
    spec = SubsetSpec("cart", {"a": "b", "version": "v1"})
    swapped = Subset("gossipmesh.dev/v1", Metadata("x", "shop"), spec)
    body = encode_document(subset("x"))
    assert encode_document(swapped) == body
    assert msgspec.json.decode(body, type=Document) == swapped


def test_upsert_prune_and_delete_name_what_they_change() -> None:
    base = opened(signed(EMPTY_BASE, encode_documents([subset("a"), subset("b")])).policy_set, POLICY_KEY)
    given = encode_documents([subset("b", "v2"), subset("c")])
    assert changes(base, upsert(base, given, prune=False)) == [
        Change("Subset/shop/b", "changed"),
        Change("Subset/shop/c", "added"),
    ]
    assert changes(base, upsert(base, given, prune=True))[0] == Change("Subset/shop/a", "removed")
    assert changes(base, without(base, ["Subset/shop/a"])) == [Change("Subset/shop/a", "removed")]
    assert changes(base, upsert(base, encode_documents([subset("a")]), prune=False)) == []


def test_what_no_node_would_take_is_not_signed() -> None:
    body = b"x" * (limits.DOCUMENT_BYTES_MAX + 1)
    for bodies in (
        {"Subset/shop/a": body},
        {f"Subset/shop/{number}": body[:60_000] for number in range(20)},
        {f"Subset/shop/{number}": b"{}" for number in range(limits.DOCUMENTS_PER_SET_MAX + 1)},
    ):
        with pytest.raises(MalformedInput):
            signed(EMPTY_BASE, bodies)
