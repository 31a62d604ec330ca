"""What the builders make is what the real checks accept, byte for byte the same each time."""

import pytest

from gossipmesh.model.errors import Untrusted
from gossipmesh.testing.builders import TrustDomainBuilder, access_policy, http_route
from gossipmesh.trust.documents import PolicyRefusal
from gossipmesh.trust.keys import Verifier
from gossipmesh.trust.records import open_credential_untrusted


def test_two_builders_of_one_seed_make_the_same_bytes() -> None:
    first, second, other = TrustDomainBuilder(), TrustDomainBuilder(), TrustDomainBuilder(seed="1")
    assert first.trust_envelope == second.trust_envelope != other.trust_envelope
    assert first.node("n1").credential == second.node("n1").credential
    assert first.policy_set(1, [http_route("r")]) == second.policy_set(1, [http_route("r")])


def test_a_credential_opens_under_its_own_trust_only() -> None:
    domain, stranger = TrustDomainBuilder(), TrustDomainBuilder(seed="1")
    record = domain.node("n1", generation=2).credential
    keys = domain.documents().credential_keys
    credential = open_credential_untrusted(record, domain.trust_domain, keys, Verifier())
    assert (credential.generation, credential.spiffe_id) == (2, "spiffe://mesh.test/node/n1")
    with pytest.raises(Untrusted):
        open_credential_untrusted(
            record, domain.trust_domain, stranger.documents().credential_keys, Verifier()
        )


def test_a_policy_set_is_accepted_with_its_documents() -> None:
    domain = TrustDomainBuilder()
    accepted = domain.documents().check_untrusted(domain.policy_set(4, [http_route("r"), access_policy("a")]))
    assert (accepted.scope, accepted.version) == ("mesh", 4)
    assert [type(document).__name__ for document in accepted.documents] == ["AccessPolicy", "HTTPRoute"]


def test_thresholds_and_scopes_are_the_ones_asked_for() -> None:
    domain = TrustDomainBuilder(
        signers={"a": ("mesh",), "b": ("mesh",), "c": ("other",)}, policy_threshold={"mesh": 2}
    )
    documents = domain.documents()
    with pytest.raises(PolicyRefusal, match="2 needed"):
        documents.check_untrusted(domain.policy_set(1, signers=["a"]))
    with pytest.raises(PolicyRefusal, match="may not sign"):
        documents.check_untrusted(domain.policy_set(1, signers=["c"]))
    assert documents.check_untrusted(domain.policy_set(1, signers=["a", "b"])).version == 1
