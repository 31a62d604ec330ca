"""Attacks on the one door signed documents come in by, as tables: each row refused, nothing changed."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from gossipmesh.model import limits
from gossipmesh.model.documents import TrustDocument
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.policy import document_name
from gossipmesh.testing.builders import TrustDomainBuilder, access_policy, http_route, seal_policy_set
from gossipmesh.trust.documents import (
    AcceptedSet,
    PolicyRefusal,
    PolicySet,
    TrustedDocuments,
    decode_policy_set_untrusted,
)
from gossipmesh.trust.envelope import (
    MANIFEST_PAYLOAD_TYPE,
    TRUST_PAYLOAD_TYPE,
    Envelope,
    EnvelopeSignature,
    decode_envelope_untrusted,
    seal_envelope,
)
from gossipmesh.trust.keys import SigningKey, Verifier, key_id
from gossipmesh.wire.versions import FEATURES

SIGNERS = {"policy": ("mesh",), "second": ("mesh",), "edge": ("edge",)}
DOCUMENTS = (http_route("cart", backends={"cart": 90, "cart-next": 10}), access_policy("cart"))

Attack = Callable[[TrustDomainBuilder], PolicySet]


def domain(**options: object) -> TrustDomainBuilder:
    """Return a domain with two signers of `mesh` and one of `edge`."""
    return TrustDomainBuilder(signers=SIGNERS, **options)  # type: ignore[arg-type]


def with_envelope(policy_set: PolicySet, change: Callable[[Envelope], Envelope]) -> PolicySet:
    """Return the set with its manifest's envelope changed."""
    changed = change(decode_envelope_untrusted(policy_set.manifest))
    return PolicySet(changed.to_bytes(), policy_set.bodies)


def with_manifest(builder: TrustDomainBuilder, **changes: object) -> PolicySet:
    """Return a set whose manifest was changed before it was signed with the right key."""
    policy_set = builder.policy_set(5, DOCUMENTS)
    payload = json.loads(decode_envelope_untrusted(policy_set.manifest).payload)
    payload.update(changes)
    envelope = seal_envelope(MANIFEST_PAYLOAD_TYPE, json.dumps(payload).encode(), [builder.signers["policy"]])
    return PolicySet(envelope.to_bytes(), policy_set.bodies)


def with_body(builder: TrustDomainBuilder, body: bytes, name: str | None = None) -> PolicySet:
    """Return a rightly signed set whose only document is these bytes."""
    entry = {
        "name": name or document_name(DOCUMENTS[0]),
        "sha256": hashlib.sha256(body).hexdigest(),
        "size": len(body),
        "since": 5,
    }
    return PolicySet(with_manifest(builder, entries=[entry]).manifest, (body,))


def edited(edit: Callable[[dict[str, object]], None]) -> bytes:
    """Return the first document's body after `edit` of its JSON."""
    value = json.loads(msgspec.json.encode(DOCUMENTS[0]))
    edit(value)
    return json.dumps(value).encode()


def tampered_payload(builder: TrustDomainBuilder) -> PolicySet:
    def change(envelope: Envelope) -> Envelope:
        payload = envelope.payload.replace(b'"version":5', b'"version":6')
        return msgspec.structs.replace(envelope, payload=payload)

    return with_envelope(builder.policy_set(5, DOCUMENTS), change)


def tampered_body(builder: TrustDomainBuilder) -> PolicySet:
    good = builder.policy_set(5, DOCUMENTS)
    return PolicySet(good.manifest, (good.bodies[0].replace(b"shop", b"shoq"), *good.bodies[1:]))


def unsigned(builder: TrustDomainBuilder) -> PolicySet:
    return with_envelope(
        builder.policy_set(5, DOCUMENTS), lambda e: msgspec.structs.replace(e, signatures=())
    )


def wrong_key(builder: TrustDomainBuilder) -> PolicySet:
    stranger = SigningKey(b"\x07" * 32)

    def change(envelope: Envelope) -> Envelope:
        return seal_envelope(envelope.payload_type, envelope.payload, [stranger])

    return with_envelope(builder.policy_set(5, DOCUMENTS), change)


def wrong_key_under_a_known_id(builder: TrustDomainBuilder) -> PolicySet:
    def change(envelope: Envelope) -> Envelope:
        forged = seal_envelope(envelope.payload_type, envelope.payload, [SigningKey(b"\x07" * 32)])
        hint = key_id(builder.signers["policy"].public)
        signature = EnvelopeSignature(hint, forged.signatures[0].signature)
        return msgspec.structs.replace(envelope, signatures=(signature,))

    return with_envelope(builder.policy_set(5, DOCUMENTS), change)


def credential_key(builder: TrustDomainBuilder) -> PolicySet:
    def change(envelope: Envelope) -> Envelope:
        return seal_envelope(envelope.payload_type, envelope.payload, [builder.credential_key])

    return with_envelope(builder.policy_set(5, DOCUMENTS), change)


def trust_payload_type(builder: TrustDomainBuilder) -> PolicySet:
    def change(envelope: Envelope) -> Envelope:
        return seal_envelope(TRUST_PAYLOAD_TYPE, envelope.payload, [builder.signers["policy"]])

    return with_envelope(builder.policy_set(5, DOCUMENTS), change)


def swapped_bodies(builder: TrustDomainBuilder) -> PolicySet:
    good = builder.policy_set(5, DOCUMENTS)
    return PolicySet(good.manifest, good.bodies[::-1])


ATTACKS: list[tuple[str, str, Attack]] = [
    ("tampered payload", "signature", tampered_payload),
    ("tampered body", "hash", tampered_body),
    ("bodies in another order", "hash", swapped_bodies),
    ("unsigned", "unsigned", unsigned),
    ("a stranger's key", "signature", wrong_key),
    ("a stranger's key under a known id", "signature", wrong_key_under_a_known_id),
    ("the credential key", "signature", credential_key),
    ("right key, wrong scope", "scope", lambda b: b.policy_set(5, DOCUMENTS, signers=("edge",))),
    ("a scope nobody may sign for", "scope", lambda b: b.policy_set(5, DOCUMENTS, scope="nobody")),
    ("another trust domain", "trust-domain", lambda b: b.policy_set(5, DOCUMENTS, trust_domain="evil.test")),
    ("a Trust document's payload type", "malformed", trust_payload_type),
    ("missing body", "malformed", lambda b: PolicySet(b.policy_set(5, DOCUMENTS).manifest, ())),
    (
        "extra body",
        "malformed",
        lambda b: PolicySet(b.policy_set(5, DOCUMENTS).manifest, (*b.policy_set(5, DOCUMENTS).bodies, b"{}")),
    ),
    ("a document too large", "too-large", lambda b: with_body(b, b" " * (limits.DOCUMENT_BYTES_MAX + 1))),
    (
        "a set too large",
        "too-large",
        lambda b: PolicySet(b.policy_set(5).manifest, (b" " * limits.DOCUMENT_BYTES_MAX,) * 16),
    ),
    (
        "too many documents",
        "too-large",
        lambda b: PolicySet(b.policy_set(5).manifest, (b"",) * (limits.DOCUMENTS_PER_SET_MAX + 1)),
    ),
    ("an envelope of noise", "malformed", lambda b: PolicySet(b"\xc1\x00noise", ())),
    ("an unknown field in the manifest", "unsupported", lambda b: with_manifest(b, canary=10)),
    ("a signed manifest that is no manifest", "malformed", lambda b: with_manifest(b, entries=7)),
    ("version 0", "malformed", lambda b: with_manifest(b, version=0, base=0)),
    ("a version no packet can carry", "malformed", lambda b: with_manifest(b, version=2**64)),
    ("a base that is no earlier version", "malformed", lambda b: with_manifest(b, base=5)),
    ("a feature we lack", "features", lambda b: b.policy_set(5, DOCUMENTS, requires=("time-travel",))),
    (
        "an unknown field",
        "unsupported",
        lambda b: with_body(b, edited(lambda v: v.update(when=[{"header": "x"}]))),
    ),
    ("an unknown kind", "unsupported", lambda b: with_body(b, edited(lambda v: v.update(kind="Fault")))),
    (
        "an unknown apiVersion",
        "unsupported",
        lambda b: with_body(b, edited(lambda v: v.update(apiVersion="v9"))),
    ),
    ("a body that is no JSON", "malformed", lambda b: with_body(b, b"{")),
    (
        "a body under another name",
        "malformed",
        lambda b: with_body(b, edited(lambda v: None), "HTTPRoute/a/b"),
    ),
    (
        "one name twice",
        "malformed",
        lambda b: seal_policy_set(b_manifest(b), (DOCUMENTS[0], DOCUMENTS[0]), [b.signers["policy"]]),
    ),
]


def b_manifest(builder: TrustDomainBuilder) -> object:
    """Return the manifest of a good set, without its entries."""
    accepted = builder.documents().check_untrusted(builder.policy_set(5))
    return accepted.manifest


@pytest.mark.parametrize(("name", "code", "attack"), ATTACKS, ids=[row[0] for row in ATTACKS])
def test_refuses_the_attack_and_keeps_what_it_had(name: str, code: str, attack: Attack) -> None:
    builder = domain()
    documents = builder.documents()
    before = adopt(documents, builder.policy_set(4, DOCUMENTS))

    with pytest.raises(PolicyRefusal) as refusal:
        documents.check_untrusted(attack(builder))

    assert refusal.value.code == code
    assert refusal.value.reason
    assert documents.in_force("mesh") is before
    assert documents.floor("mesh") == before.floor
    assert documents.scopes() == ["mesh"]


def adopt(documents: TrustedDocuments, policy_set: PolicySet) -> AcceptedSet:
    """Check and put in force."""
    accepted = documents.check_untrusted(policy_set)
    documents.adopt(accepted)
    return accepted


def test_a_good_set_is_read_whole() -> None:
    """The control of the table above: without an attack, the same set is taken."""
    builder = domain()
    documents = builder.documents()
    accepted = adopt(documents, decode_policy_set_untrusted(builder.policy_set(5, DOCUMENTS).to_bytes()))
    assert accepted.documents == (DOCUMENTS[1], DOCUMENTS[0])
    assert (accepted.scope, accepted.version) == ("mesh", 5)
    assert documents.in_force("mesh") is accepted


def test_a_refusal_of_an_unverified_set_names_only_scopes_in_trust() -> None:
    """A stranger must not be able to fill the status and the metrics with scopes it invents."""
    builder = domain()
    documents = builder.documents()
    for scope, shown in (("mesh", "mesh"), ("invented", "")):
        with pytest.raises(PolicyRefusal) as refusal:
            documents.check_untrusted(
                with_envelope(
                    builder.policy_set(9, scope=scope), lambda e: msgspec.structs.replace(e, signatures=())
                )
            )
        assert refusal.value.scope == shown


class TestOrder:
    """(version, hash) only rises, and every node ends with the same winner."""

    def test_older_and_same_are_refused(self) -> None:
        builder = domain()
        documents = builder.documents()
        adopt(documents, builder.policy_set(5, DOCUMENTS))
        for version, code in ((4, "older"), (5, "same")):
            with pytest.raises(PolicyRefusal) as refusal:
                documents.check_untrusted(builder.policy_set(version, DOCUMENTS))
            assert refusal.value.code == code

    def test_two_sets_of_one_version_end_as_one_winner(self) -> None:
        """Equivocation, or two pushes racing from one base: the greater hash wins in both orders."""
        builder = domain()
        rivals = [builder.policy_set(5, DOCUMENTS), builder.policy_set(5, DOCUMENTS[:1])]
        winners = []
        for order in (rivals, rivals[::-1]):
            documents = builder.documents()
            for rival in order:
                with suppress(PolicyRefusal):
                    adopt(documents, rival)
            winners.append(documents.floor("mesh"))
        assert winners[0] == winners[1]

    def test_a_checked_set_overtaken_before_its_adoption_is_refused(self) -> None:
        builder = domain()
        documents = builder.documents()
        slow = documents.check_untrusted(builder.policy_set(5, DOCUMENTS))
        adopt(documents, builder.policy_set(6, DOCUMENTS))
        with pytest.raises(PolicyRefusal):
            documents.adopt(slow)
        assert documents.floor("mesh")[0] == 6

    def test_a_restored_floor_holds_and_its_own_set_comes_back(self) -> None:
        builder = domain()
        ours = builder.policy_set(5, DOCUMENTS)
        accepted = builder.documents().check_untrusted(ours)
        documents = builder.documents()
        documents.restore_floor("mesh", 5, accepted.manifest_hash)
        with pytest.raises(PolicyRefusal, match="below"):
            documents.check_untrusted(builder.policy_set(4, DOCUMENTS))
        assert adopt(documents, ours).version == 5

    def test_trusts_explicit_floor_is_a_floor(self) -> None:
        builder = domain()
        documents = builder.documents()
        documents.load_trust_untrusted(builder.sign_trust(builder.trust_document(2, floors={"mesh": 9})))
        with pytest.raises(PolicyRefusal) as refusal:
            documents.check_untrusted(builder.policy_set(8, DOCUMENTS))
        assert refusal.value.code == "older"
        assert adopt(documents, builder.policy_set(9, DOCUMENTS)).version == 9


class TestThreshold:
    def test_one_key_never_counts_twice(self) -> None:
        builder = domain(policy_threshold={"mesh": 2})
        documents = builder.documents()
        twice = with_envelope(
            builder.policy_set(5, DOCUMENTS),
            lambda e: msgspec.structs.replace(e, signatures=e.signatures * 2),
        )
        for below in (builder.policy_set(5, DOCUMENTS), twice):
            with pytest.raises(PolicyRefusal) as refusal:
                documents.check_untrusted(below)
            assert refusal.value.code == "threshold"

    def test_a_signer_of_another_scope_does_not_count(self) -> None:
        builder = domain(policy_threshold={"mesh": 2})
        with pytest.raises(PolicyRefusal) as refusal:
            builder.documents().check_untrusted(builder.policy_set(5, DOCUMENTS, signers=("policy", "edge")))
        assert refusal.value.code == "threshold"

    def test_two_distinct_signers_are_enough(self) -> None:
        builder = domain(policy_threshold={"mesh": 2})
        accepted = builder.documents().check_untrusted(
            builder.policy_set(5, DOCUMENTS, signers=("policy", "second"))
        )
        assert accepted.version == 5


class RootKeys:
    """A Trust history under several root keys."""

    def __init__(self) -> None:
        self.builder = domain()
        self.keys = [self.builder.signing_key(f"root/{n}") for n in range(6)]

    def trust(self, version: int, holders: list[int], threshold: int, **changes: object) -> TrustDocument:
        return msgspec.structs.replace(
            self.builder.trust_document(version),
            root_keys=tuple(self.keys[n].public.hex() for n in holders),
            root_threshold=threshold,
            **changes,
        )

    def sign(self, trust: TrustDocument, by: list[int]) -> bytes:
        payload = msgspec.json.encode(trust)
        return seal_envelope(TRUST_PAYLOAD_TYPE, payload, [self.keys[n] for n in by]).to_bytes()

    def documents(self) -> TrustedDocuments:
        documents = TrustedDocuments(trust_domain="mesh.test", verifier=Verifier(), features=FEATURES)
        documents.load_trust_untrusted(self.sign(self.trust(1, [0, 1, 2], 2), [0, 1]))
        return documents


# version offered, its root keys, its threshold, who signs it
TRUST_REFUSED = [
    ("signed by the new keys only", 2, [3, 4, 5], 2, [3, 4]),
    ("signed by the old keys only", 2, [3, 4, 5], 2, [0, 1]),
    ("old threshold missed", 2, [0, 3, 4], 2, [0, 3]),
    ("new threshold missed", 2, [0, 1, 3], 3, [0, 1]),
    ("one key twice", 2, [0, 1, 2], 2, [0, 0]),
    ("a version skipped", 3, [0, 1, 2], 2, [0, 1]),
    ("the same version, other content", 1, [0, 1, 3], 2, [0, 1]),
    ("unsigned", 2, [0, 1, 2], 2, []),
]


class TestTrust:
    @pytest.mark.parametrize(
        ("version", "holders", "threshold", "by"),
        [row[1:] for row in TRUST_REFUSED],
        ids=[row[0] for row in TRUST_REFUSED],
    )
    def test_refuses(self, version: int, holders: list[int], threshold: int, by: list[int]) -> None:
        roots = RootKeys()
        documents = roots.documents()
        with pytest.raises(Untrusted):
            documents.load_trust_untrusted(roots.sign(roots.trust(version, holders, threshold), by))
        assert documents.trust is not None
        assert documents.trust.version == 1
        assert len(documents.trust_envelopes) == 1

    def test_root_keys_rotate_by_both_thresholds(self) -> None:
        roots = RootKeys()
        documents = roots.documents()
        handover = roots.sign(roots.trust(2, [3, 4, 5], 2), [0, 1, 3, 4])
        assert documents.load_trust_untrusted(handover).version == 2
        assert documents.load_trust_untrusted(handover).version == 2
        with pytest.raises(Untrusted):
            documents.load_trust_untrusted(roots.sign(roots.trust(3, [0, 1, 2], 2), [0, 1]))
        assert len(documents.trust_envelopes) == 2

    def test_the_first_must_be_signed_by_its_own_keys(self) -> None:
        roots = RootKeys()
        documents = TrustedDocuments(trust_domain="mesh.test", verifier=Verifier(), features=FEATURES)
        with pytest.raises(Untrusted):
            documents.load_trust_untrusted(roots.sign(roots.trust(1, [0, 1, 2], 2), [0]))
        assert documents.trust is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"trust_domain": "evil.test"},
            {"root_threshold": 0},
            {"root_threshold": 4},
            {"version": 0},
            {"root_keys": ("00",)},
            {"root_certificates": ()},
            {"policy_threshold": {"mesh": 0}},
            {"floors": {"mesh": 2**60}},
            {"floors": {"Not A Scope": 1}},
        ],
    )
    def test_refuses_a_document_that_cannot_be(self, changes: dict[str, object]) -> None:
        roots = RootKeys()
        documents = TrustedDocuments(trust_domain="mesh.test", verifier=Verifier(), features=FEATURES)
        trust = msgspec.structs.replace(roots.trust(1, [0, 1, 2], 2), **changes)
        with pytest.raises(MalformedInput):
            documents.load_trust_untrusted(roots.sign(trust, [0, 1]))
        assert documents.trust is None

    def test_a_removed_signer_signs_nothing_new_but_its_set_survives_a_restart(self) -> None:
        """Policy is fail-static: taking a key away must not open doors when a node restarts."""
        builder = domain()
        in_force = builder.policy_set(5, DOCUMENTS)
        without = msgspec.structs.replace(
            builder.trust_document(2),
            signers=tuple(signer for signer in builder.trust.signers if signer.name != "policy"),
        )
        documents = builder.documents()
        documents.load_trust_untrusted(builder.sign_trust(without))
        documents.restore_floor("mesh", 5, builder.documents().check_untrusted(in_force).manifest_hash)

        for offered in (in_force, builder.policy_set(6, DOCUMENTS)):
            with pytest.raises(PolicyRefusal, match="no signature verifies"):
                documents.check_untrusted(offered)
        assert documents.restore_untrusted(in_force).version == 5
        with pytest.raises(PolicyRefusal, match="is below 5"):
            documents.restore_untrusted(builder.policy_set(4, DOCUMENTS))

    def test_a_set_written_before_its_floor_is_restored_after_a_crash_between(self) -> None:
        builder = domain()
        newer = builder.policy_set(6, DOCUMENTS)
        documents = builder.documents()
        documents.restore_floor("mesh", 5, b"\x00" * 32)
        assert documents.restore_untrusted(newer) is documents.in_force("mesh")
        assert documents.floor("mesh")[0] == 6
        with pytest.raises(PolicyRefusal, match="signature"):
            documents.restore_untrusted(wrong_key(builder))

    def test_credential_keys_are_those_of_the_role(self) -> None:
        builder = domain()
        assert list(builder.documents().credential_keys.values()) == [builder.credential_key.public]


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\xa1a\x90", b"\x90", b"\x92\xc4\x01a\x91\x01"])
def test_noise_is_not_a_set(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        decode_policy_set_untrusted(data)


def test_only_scopes_with_a_signer_have_a_name_to_be_counted_by() -> None:
    """Whoever offers a set may call its scope anything."""
    documents = domain().documents()
    assert documents.has_signer("mesh")
    assert not any(documents.has_signer(scope) for scope in ("payments-7f3a", "", "mesh2", "MESH"))
    fresh = TrustedDocuments(trust_domain="mesh.test", verifier=Verifier(), features=FEATURES)
    assert not fresh.has_signer("mesh")
