"""What a Trust document may say: the newer fields, their bounds, and thresholds somebody can meet."""

import json

import msgspec
import pytest

from gossipmesh.model import limits
from gossipmesh.model.documents import (
    Access,
    TrustDocument,
    first_version_of,
    generation_of,
    says_more_than_0_2,
)
from gossipmesh.model.errors import MalformedInput
from gossipmesh.testing.builders import TrustDomainBuilder
from gossipmesh.trust.trust_rules import decode_trust_untrusted, trust_problems

SIGNERS = {"policy": ("mesh",), "second": ("mesh",), "edge": ("edge",)}
OF_0_2 = (
    '{"kind":"Trust","version":3,"trust_domain":"mesh.test","root_certificates":["PEM"],"intermediates":[],'
    '"root_keys":["' + "ab" * 32 + '"],"root_threshold":1,"signers":[{"name":"policy","role":"policy",'
    '"public_key":"' + "cd" * 32 + '","scopes":["mesh"]}],"policy_threshold":{},"floors":{}}'
)
"""A document as builds before the newer fields encode it, letter for letter."""


def trust(**changes: object) -> TrustDocument:
    """Return a sound document, changed."""
    return msgspec.structs.replace(TrustDomainBuilder(signers=SIGNERS).trust, **changes)


def test_a_document_without_newer_fields_is_encoded_as_before() -> None:
    """Builds before refuse fields they do not know, and signatures are over these bytes."""
    decoded = decode_trust_untrusted(OF_0_2.encode())
    assert msgspec.json.encode(decoded).decode() == OF_0_2
    assert (decoded.access, decoded.revoked, decoded.roll, decoded.authorities) == (Access.ALLOW, {}, "", ())
    assert not says_more_than_0_2(decoded)


NEWER = [
    {"access": Access.DENY},
    {"revoked": {"vm1": 7}},
    {"revoked_leaves": {"1a5e": 1_800_000_000}},
    {"roll": "0f" * 32},
    {"authorities": ("10.0.0.1:8443", "[fd00::1]:8443", "authority.example.com:8443")},
]


@pytest.mark.parametrize("changes", NEWER, ids=lambda changes: next(iter(changes)))
def test_a_newer_field_is_written_when_it_says_something_and_comes_back(changes: dict[str, object]) -> None:
    payload = msgspec.json.encode(trust(**changes))
    added = set(json.loads(payload)) - set(json.loads(OF_0_2))
    assert added == set(changes)
    assert decode_trust_untrusted(payload) == trust(**changes)
    assert says_more_than_0_2(trust(**changes))


WRONG = [
    ("revoked", {"revoked": {"Not A Node": 1}}),
    ("revoked", {"revoked": {"vm1": 0}}),
    ("revoked", {"revoked": {f"vm{n}": 1 for n in range(limits.TRUST_REVOKED_MAX + 1)}}),
    ("revoked_leaves", {"revoked_leaves": {"": 1}}),
    ("revoked_leaves", {"revoked_leaves": {"0a": 1}}),
    ("revoked_leaves", {"revoked_leaves": {"A1": 1}}),
    ("revoked_leaves", {"revoked_leaves": {"a" * 41: 1}}),
    ("revoked_leaves", {"revoked_leaves": {"a1": 0}}),
    (
        "revoked_leaves",
        {"revoked_leaves": {f"{n:x}": 1 for n in range(1, limits.TRUST_REVOKED_LEAVES_MAX + 2)}},
    ),
    ("roll", {"roll": "0F" * 32}),
    ("roll", {"roll": "0f" * 31}),
    ("authorities", {"authorities": ("authority.example.com",)}),
    ("authorities", {"authorities": ("authority.example.com:0",)}),
    ("authorities", {"authorities": ("10.0.0.300:8443",)}),
    ("authorities", {"authorities": ("10.0.0.1:8443",) * (limits.TRUST_AUTHORITIES_MAX + 1)}),
    ("root_threshold", {"root_threshold": 2}),
    ("policy_threshold", {"policy_threshold": {"mesh": 3}}),
    ("policy_threshold", {"policy_threshold": {"edge": 2}}),
    ("policy_threshold", {"policy_threshold": {"nobody": 1}}),
]


@pytest.mark.parametrize(
    ("field", "changes"), WRONG, ids=lambda value: value if isinstance(value, str) else ""
)
def test_refuses_what_cannot_be_and_names_the_field(field: str, changes: dict[str, object]) -> None:
    wrong = trust(**changes)
    assert trust_problems(wrong) == [field]
    with pytest.raises(MalformedInput, match=f"whose {field} cannot be"):
        decode_trust_untrusted(msgspec.json.encode(wrong))


def test_two_names_of_one_key_do_not_meet_a_threshold_of_two() -> None:
    """Otherwise one holder, listed twice, would look like two and could never sign twice."""
    signers = trust().signers
    twin = msgspec.structs.replace(signers[1], name="twin")
    doubled = trust(signers=(signers[0], signers[1], twin), policy_threshold={"mesh": 2})
    assert trust_problems(doubled) == ["policy_threshold"]


def test_a_threshold_beyond_what_an_envelope_holds_cannot_be_met() -> None:
    count = limits.SIGNATURES_PER_ENVELOPE_MAX + 1
    keys = tuple(TrustDomainBuilder().signing_key(f"root/{n}").public.hex() for n in range(count))
    assert trust_problems(trust(root_keys=keys, root_threshold=count)) == ["root_threshold"]
    assert trust_problems(trust(root_keys=keys, root_threshold=count - 1)) == []


def test_access_is_one_of_two_words() -> None:
    payload = OF_0_2.replace('"floors":{}}', '"floors":{},"access":"maybe"}').encode()
    with pytest.raises(MalformedInput, match="access"):
        decode_trust_untrusted(payload)


def test_a_generation_is_the_upper_part_of_a_version() -> None:
    assert [generation_of(version) for version in (0, 1, 2**32 - 1, 2**32, 2**53)] == [0, 0, 0, 1, 2**21]
    assert generation_of(first_version_of(3)) == 3
    assert generation_of(first_version_of(3) - 1) == 2
