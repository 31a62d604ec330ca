"""The next Trust: what it becomes, what is refused before anything is signed, and that nodes take it."""

import json
from pathlib import Path

import msgspec
import pytest

from gossipmesh.control.trust_changes import (
    drop_intermediate,
    find_signer,
    next_generation,
    require_features,
    revoke_leaf,
    revoke_node,
    rotate_signer,
    sign_trust,
    successor,
)
from gossipmesh.model import limits
from gossipmesh.model.documents import Access, SignerRole, TrustDocument, first_version_of
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import DAY_S, HOUR_S, WallSeconds
from gossipmesh.testing.builders import TrustDomainBuilder
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.envelope import TRUST_PAYLOAD_TYPE, seal_envelope
from gossipmesh.trust.keys import Verifier
from gossipmesh.wire.versions import FEATURES

BUILDER = TrustDomainBuilder(signers={"policy": ("mesh", "edge"), "second": ("mesh",)})
ROOTS = [BUILDER.signing_key(f"root/{n}") for n in range(5)]
CERTIFICATE = json.loads(
    Path(__file__).parents[3].joinpath("spec", "engine", "v1-draft", "peers.json").read_text()
)["certificates"]["root"]
PEM_BEGIN, PEM_END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
NOW = WallSeconds(1_800_000_000)
FRESH = BUILDER.signing_key("fresh").public


def trust(**changes: object) -> TrustDocument:
    """Return a first Trust under three root keys, two of which sign."""
    keys = {"root_keys": tuple(key.public.hex() for key in ROOTS[:3]), "root_threshold": 2}
    return msgspec.structs.replace(BUILDER.trust, **keys, **changes)


def large() -> TrustDocument:
    """Return a Trust of more bytes than nodes take."""
    return trust(intermediates=("x" * 50_000,))


def node_of(first: TrustDocument) -> TrustedDocuments:
    """Return what a node believes that enrolled under `first`."""
    documents = TrustedDocuments(trust_domain="mesh.test", verifier=Verifier(), features=FEATURES)
    documents.load_trust_untrusted(
        seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(first), ROOTS[:3]).to_bytes()
    )
    return documents


def test_a_rotated_signer_has_another_key_and_its_scopes_the_next_generation() -> None:
    first = trust(floors={"mesh": 7})
    document = rotate_signer(first, "policy", FRESH)
    assert document.version == 2
    assert document.floors == {"mesh": first_version_of(1), "edge": first_version_of(1)}
    changed = [s.name for s, t in zip(first.signers, document.signers, strict=True) if s != t]
    assert changed == ["policy"]
    assert find_signer(document, "policy", SignerRole.POLICY).public_key == FRESH.hex()
    node = node_of(first)
    assert node.load_trust_untrusted(sign_trust(first, document, ROOTS[:2]).to_bytes()) == document
    assert next_generation(document, "mesh") == 2


CHANGES = [
    ("revoked", lambda t: revoke_node(t, "vm1", 3), {"vm1": 3}),
    ("intermediates", lambda t: drop_intermediate(t, "one"), ("two",)),
    ("access", lambda t: successor(t, access=Access.DENY), "deny"),
]


@pytest.mark.parametrize(("field", "change", "wanted"), CHANGES, ids=[row[0] for row in CHANGES])
def test_a_change_changes_its_field_alone_and_is_taken(field: str, change: object, wanted: object) -> None:
    first = trust(intermediates=("one", "two"), revoked={})
    document = change(first)
    before, after = (json.loads(msgspec.json.encode(one)) for one in (first, document))
    assert {key for key in after if after[key] != before.get(key)} == {"version", field}
    assert getattr(document, field) == wanted
    node = node_of(first)
    assert node.load_trust_untrusted(sign_trust(first, document, ROOTS[1:3]).to_bytes()) == document


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        ("", "not a certificate"),
        (2 * CERTIFICATE, "2 certificates where Trust takes one"),
        (f"{PEM_BEGIN}\n!\n{PEM_END}\n", "no base64"),
        (f"{PEM_BEGIN}\nMAA=\n{PEM_END}\n", "not a certificate"),
        (f"{PEM_BEGIN}\nMAA=\n", "cut short"),
    ],
)
@pytest.mark.parametrize("field", ["root_certificates", "intermediates"])
def test_what_is_no_certificate_is_not_signed(field: str, pem: str, why: str) -> None:
    """Nodes would take such a Trust and trip over it at their next renewal, with no way back."""
    first = trust()
    with pytest.raises(OperatorError, match=why):
        successor(first, **{field: (*getattr(first, field), pem)})


def test_root_keys_change_hands_by_both_thresholds() -> None:
    first = trust()
    document = successor(first, root_keys=tuple(key.public.hex() for key in ROOTS[2:5]))
    for too_few, which in ((ROOTS[:2], "to come"), (ROOTS[2:5], "in force")):
        with pytest.raises(
            OperatorError, match=f"2 of the 3 document root keys of the Trust {which}, [01] given"
        ):
            sign_trust(first, document, too_few)
    envelope = sign_trust(first, document, [*ROOTS, BUILDER.signing_key("stranger")])
    assert len(envelope.signatures) == 5, "a stranger's signature is left out"
    assert node_of(first).load_trust_untrusted(envelope.to_bytes()) == document


def test_a_revoked_certificate_is_named_until_it_has_surely_ended() -> None:
    """The list is bounded by what a day can bring."""
    first = revoke_leaf(trust(), 0x1A5E, NOW)
    assert first.revoked_leaves == {"1a5e": NOW + DAY_S + HOUR_S}
    later = revoke_leaf(first, 7, WallSeconds(NOW + DAY_S))
    assert sorted(later.revoked_leaves) == ["1a5e", "7"]
    last = revoke_leaf(later, 8, WallSeconds(NOW + DAY_S + HOUR_S))
    assert sorted(last.revoked_leaves) == ["7", "8"]


REFUSED = [
    ("the certificate 7 already", lambda: revoke_leaf(revoke_leaf(trust(), 7, NOW), 7, NOW)),
    (
        "no policy signer 'nobody'; there are: policy .mesh edge., second",
        lambda: rotate_signer(trust(), "nobody", FRESH),
    ),
    ("no policy signer 'credential'", lambda: rotate_signer(trust(), "credential", FRESH)),
    ("has already", lambda: rotate_signer(trust(), "second", BUILDER.signers["second"].public)),
    ("its keys would be refused", lambda: rotate_signer(trust(), "second", bytes(32))),
    ("policy_threshold would be refused", lambda: successor(trust(), policy_threshold={"edge": 2})),
    ("revokes 'vm1' up to generation 5 already", lambda: revoke_node(trust(revoked={"vm1": 5}), "vm1", 5)),
    ("does not name that intermediate", lambda: drop_intermediate(trust(), "one")),
    (
        "no command publishes more than 1000",
        lambda: successor(trust(version=limits.TRUST_VERSION_PUBLISHED_MAX)),
    ),
    (
        "used all its generations",
        lambda: next_generation(trust(floors={"mesh": limits.VERSION_MAX - 1}), "mesh"),
    ),
    (
        "bytes, nodes take",
        lambda: sign_trust(large(), successor(large()), ROOTS[:2]),
    ),
]


@pytest.mark.parametrize(("sentence", "change"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_no_node_would_take_is_not_signed(sentence: str, change: object) -> None:
    with pytest.raises(OperatorError, match=sentence):
        change()


def test_newer_fields_wait_for_members_of_older_builds_and_others_do_not() -> None:
    lacking = [f"vm{n:02}" for n in range(12)]
    with pytest.raises(OperatorError, match=r"12 members do not read .*vm00, .* and 2 more; upgrade"):
        require_features(successor(trust(), access=Access.DENY), lacking)
    require_features(successor(trust(), access=Access.DENY), [])
    require_features(rotate_signer(trust(), "policy", FRESH), lacking)
