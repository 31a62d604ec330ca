"""The attacks that TUF names, one row each: what is tried here, what is expected, and why that is right.

Spec: The Update Framework, section 1.5.2 ("Goals to protect against specific attacks"). A row is tried on
the code that nodes run; where nodes are needed, some exchange real bytes in virtual time.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec
import pytest

from gossipmesh.agent.admin.policy_alarms import alarms_of
from gossipmesh.model import limits
from gossipmesh.model.documents import first_version_of
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.instant import WallSeconds
from gossipmesh.testing.builders import VALID_UNTIL_S, TrustDomainBuilder, access_policy, http_route
from gossipmesh.trust.documents import (
    AcceptedSet,
    PolicyRefusal,
    PolicySet,
    decode_policy_set_untrusted,
)
from gossipmesh.trust.envelope import EnvelopeSignature, decode_envelope_untrusted
from gossipmesh.trust.keys import Verifier
from tests.unit.gossip.dissemination.test_documents import offer, versions
from tests.unit.gossip.test_transcripts import joined

SIGNERS = {"policy": ("mesh",), "second": ("mesh",), "edge": ("edge",)}
CART, CLOSED = http_route("cart"), access_policy("cart")
NEXT = first_version_of(1)


class Attacked:
    """A node with version 5 in force, and the domain it trusts."""

    def __init__(self, **options: int) -> None:
        self.builder = TrustDomainBuilder(signers=SIGNERS, policy_threshold=options)
        self.verifier = Verifier()
        self.node = self.builder.documents(self.verifier)
        signers = ("policy", "second") if options else ("policy",)
        self.held = self.put(self.builder.policy_set(5, (CART, CLOSED), signers=signers))

    def put(self, signed: PolicySet) -> AcceptedSet:
        """Check a set and put it in force."""
        accepted = self.node.check_untrusted(signed)
        self.node.adopt(accepted)
        return accepted

    def refused(self, signed: PolicySet, code: str) -> None:
        """Require that a set is refused with a code, and that nothing follows from it."""
        held = self.node.in_force("mesh")
        with pytest.raises(PolicyRefusal) as refusal:
            self.node.check_untrusted(signed)
        assert refusal.value.code == code
        assert self.node.in_force("mesh") is held


def arbitrary_software() -> None:
    attacked = Attacked()
    stranger = TrustDomainBuilder(seed="stranger", signers=SIGNERS)
    attacked.refused(stranger.policy_set(6, ()), "signature")


def endless_data() -> None:
    attacked = Attacked()
    before = attacked.verifier.computed_count
    with pytest.raises(MalformedInput):
        decode_policy_set_untrusted(bytes(limits.POLICY_SET_BYTES_MAX + 1))
    with pytest.raises(Untrusted):
        attacked.node.load_trust_untrusted(bytes(limits.TRUST_BYTES_MAX + 1))
    assert attacked.verifier.computed_count == before, "what is too long costs no signature check"
    signed = attacked.builder.policy_set(6, ())
    envelope = decode_envelope_untrusted(signed.manifest)
    noise = tuple(EnvelopeSignature(b"", bytes((n,)) * 64) for n in range(limits.SIGNATURES_PER_ENVELOPE_MAX))
    attacked.refused(
        PolicySet(msgspec.structs.replace(envelope, signatures=noise).to_bytes(), signed.bodies), "signature"
    )
    assert attacked.verifier.computed_count - before <= limits.SIGNATURE_CHECKS_PER_ENVELOPE_MAX


def extraneous_dependencies() -> None:
    attacked = Attacked()
    signed = attacked.builder.policy_set(6, (CART,))
    extra = attacked.held.raw.bodies[0]
    attacked.refused(PolicySet(signed.manifest, (*signed.bodies, extra)), "malformed")
    attacked.refused(attacked.builder.policy_set(6, (CART,), signers=("edge",)), "scope")


def fast_forward() -> None:
    attacked = Attacked()
    attacked.refused(attacked.builder.policy_set(2**53, ()), "generation")
    attacked.put(attacked.builder.policy_set(NEXT - 1, ()))
    trust = attacked.builder.trust_document(2, floors={"mesh": NEXT})
    attacked.node.load_trust_untrusted(attacked.builder.sign_trust(trust))
    assert attacked.put(attacked.builder.policy_set(NEXT + 1, (CART, CLOSED))).version == NEXT + 1


def indefinite_freeze() -> None:
    attacked = Attacked()
    assert alarms_of(attacked.node, WallSeconds(VALID_UNTIL_S)) == []
    (alarm,) = alarms_of(attacked.node, WallSeconds(VALID_UNTIL_S + 1))
    assert alarm.kind == "overdue"
    assert attacked.node.in_force("mesh") is attacked.held


def malicious_mirrors() -> None:
    group = joined()
    group.node("a")._spreading.answer_policy = lambda scope: b"\x00garbage"
    offer(group, "a", 1)
    group.run(2)
    assert versions(group) == [1, 0, 0, 0, 0]
    offer(group, "b", 1)
    group.run_until(lambda: versions(group) == [1] * 5, 5)


def mix_and_match() -> None:
    attacked = Attacked()
    newer = attacked.builder.policy_set(6, (http_route("cart", backends={"cart": 1, "bank": 9}), CLOSED))
    attacked.refused(PolicySet(newer.manifest, attacked.held.raw.bodies), "hash")
    attacked.refused(PolicySet(newer.manifest, newer.bodies[::-1]), "hash")
    rival = attacked.builder.policy_set(5, (CART,))
    winner = max(attacked.held.floor, attacked.builder.documents().check_untrusted(rival).floor)
    with suppress(PolicyRefusal):
        attacked.put(rival)
    assert attacked.node.floor("mesh") == winner
    assert [alarm.kind for alarm in attacked.node.alarms.kept] == ["rival-sets"]


def rollback() -> None:
    attacked = Attacked()
    older = attacked.builder.policy_set(4, ())
    attacked.refused(older, "older")
    restarted = attacked.builder.documents()
    restarted.restore_floor("mesh", *attacked.held.floor)
    with pytest.raises(PolicyRefusal, match="below 5"):
        restarted.restore_untrusted(older)
    with pytest.raises(Untrusted, match="does not follow"):
        attacked.node.load_trust_untrusted(attacked.builder.sign_trust(attacked.builder.trust_document(9)))


def slow_retrieval() -> None:
    group = joined("a b c")
    pass_on: Callable[..., None] = group._open
    opened: list[str] = []

    def swallow(host: object, effect: object) -> None:
        if getattr(host, "name", "") == "c":
            opened.append("c")
        if getattr(host, "name", "") != "c" or len(opened) > 1:
            pass_on(host, effect)

    group._open = swallow  # type: ignore[method-assign]
    offer(group, "a", 1)
    assert group.run_until(lambda: versions(group) == [1, 1, 1], 2) <= 2
    assert len(opened) > 1, "the first announcer never answered"


def key_compromise() -> None:
    attacked = Attacked(mesh=2)
    attacked.refused(attacked.builder.policy_set(6, ()), "threshold")
    trust = attacked.builder.trust_document(2)
    kept = tuple(signer for signer in trust.signers if signer.name != "policy")
    fresh_key = attacked.builder.signing_key("new").public.hex()
    fresh = msgspec.structs.replace(trust.signers[1], public_key=fresh_key)
    trust = msgspec.structs.replace(trust, signers=(*kept, fresh), floors={"mesh": NEXT})
    attacked.node.load_trust_untrusted(attacked.builder.sign_trust(trust))
    attacked.refused(attacked.builder.policy_set(NEXT + 1, (), signers=("policy", "second")), "threshold")
    attacked.refused(attacked.builder.policy_set(NEXT + 1, ()), "signature")


def wrong_installation() -> None:
    attacked = Attacked()
    attacked.refused(attacked.builder.policy_set(6, (), trust_domain="other.test"), "trust-domain")
    attacked.refused(attacked.builder.policy_set(6, (), requires=("time-travel",)), "features")


class Row(NamedTuple):
    """An attack by TUF's name, what is expected, why, and the attempt."""

    name: str
    expected: str
    why: str
    attempt: Callable[[], None]


ATTACKS = [
    Row(
        "arbitrary software",
        "refused: signature",
        "only signers that Trust names for a scope say what runs in it",
        arbitrary_software,
    ),
    Row(
        "endless data",
        "refused before anything is checked",
        "every length and every number of checks has a limit that is looked at first",
        endless_data,
    ),
    Row(
        "extraneous dependencies",
        "refused: malformed, scope",
        "a set is exactly the documents its manifest lists, and a signer adds none to another's scope",
        extraneous_dependencies,
    ),
    Row(
        "fast-forward",
        "refused: generation; what reaches the last version is undone by the next Trust",
        "floors of a generation that Trust does not name count no more (TUF 5.3.11)",
        fast_forward,
    ),
    Row(
        "indefinite freeze",
        "an alarm, nothing ends",
        "deviation: an expired policy would open or close a mesh whose signers are merely away",
        indefinite_freeze,
    ),
    Row(
        "malicious mirrors",
        "the genuine set comes from another member",
        "a refusal is remembered for its announcer alone",
        malicious_mirrors,
    ),
    Row(
        "mix-and-match",
        "refused: hash; of two sets of one version one wins everywhere, alarmed",
        "the manifest names each body's hash, and a scope is one signed list, taken whole",
        mix_and_match,
    ),
    Row(
        "rollback",
        "refused: older, after a restart as well; Trust goes N to N+1 only",
        "floors are on disk before a set is in force",
        rollback,
    ),
    Row(
        "slow retrieval",
        "another announcer is asked",
        "who brings nothing soon does not hold a set up",
        slow_retrieval,
    ),
    Row(
        "vulnerability to key compromise",
        "refused: threshold; after a rotation the stolen key counts for nothing",
        "thresholds count distinct keys that Trust names now",
        key_compromise,
    ),
    Row(
        "wrong software installation",
        "refused: trust-domain, features",
        "a set says for which domain it is and what its nodes must be able to execute",
        wrong_installation,
    ),
]


@pytest.mark.parametrize("row", ATTACKS, ids=lambda row: row.name)
def test_the_attack_fails_as_expected(row: Row) -> None:
    assert row.expected
    assert row.why
    row.attempt()


def test_the_attacks_are_tufs() -> None:
    assert len({row.name for row in ATTACKS}) == 11
