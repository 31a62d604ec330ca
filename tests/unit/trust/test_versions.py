"""Versions, generations, jumps and rivals: what orders a scope's sets, and what gives a signer away."""

import hashlib
from contextlib import nullcontext, suppress

import msgspec
import pytest

from gossipmesh.model import limits
from gossipmesh.model.documents import first_version_of
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.policy import Document
from gossipmesh.testing.builders import TrustDomainBuilder
from gossipmesh.trust.alarms import Alarms
from gossipmesh.trust.documents import NO_FLOOR, AcceptedSet, PolicyRefusal, PolicySet, TrustedDocuments
from gossipmesh.trust.envelope import TRUST_PAYLOAD_TYPE, decode_envelope_untrusted, seal_envelope
from tests.unit.trust.test_documents import DOCUMENTS, adopt, domain, unsigned, wrong_key

NEXT = first_version_of(1)


class TestGenerations:
    """The generation of a scope is what its floor in Trust says; own floors of others do not count."""

    def attacked(self, version: int) -> tuple[TrustDomainBuilder, TrustedDocuments]:
        """Return a domain whose stolen signer made `version` the one in force."""
        builder = domain()
        documents = builder.documents()
        adopt(documents, builder.policy_set(version, DOCUMENTS))
        return builder, documents

    def test_a_version_of_another_generation_is_refused_with_a_sentence(self) -> None:
        builder = domain()
        documents = builder.documents()
        for version in (NEXT, 2**53):
            with pytest.raises(
                PolicyRefusal, match=r"is of generation \d+ of 'mesh', Trust names 0"
            ) as refusal:
                documents.check_untrusted(builder.policy_set(version, DOCUMENTS))
            assert refusal.value.code == "generation"
        assert documents.floor("mesh") == NO_FLOOR

    def test_the_next_trust_undoes_the_greatest_version_of_a_generation(self) -> None:
        builder, documents = self.attacked(NEXT - 1)
        with pytest.raises(PolicyRefusal, match="generation"):
            documents.check_untrusted(builder.policy_set(NEXT, DOCUMENTS))
        held = documents.in_force("mesh")

        documents.load_trust_untrusted(builder.sign_trust(builder.trust_document(2, floors={"mesh": NEXT})))

        assert documents.in_force("mesh") is held, "policy is fail-static"
        assert documents.floor("mesh") == (NEXT, b"")
        for old in (
            held,
            documents_of(builder, NEXT - 1, DOCUMENTS[:1]),
            documents_of(builder, 7, DOCUMENTS),
        ):
            with pytest.raises(PolicyRefusal) as refusal:
                documents.check_untrusted(old.raw)
            assert refusal.value.code == "generation"
            with pytest.raises(PolicyRefusal):
                documents.adopt(old)
        assert adopt(documents, builder.policy_set(NEXT + 1, DOCUMENTS[:1])).version == NEXT + 1
        with pytest.raises(PolicyRefusal, match="below"):
            documents.check_untrusted(builder.policy_set(NEXT, DOCUMENTS))

    @pytest.mark.parametrize("stolen", [NEXT - 1, 2**53])
    def test_a_restart_keeps_what_was_in_force_until_the_new_generation_is_here(self, stolen: int) -> None:
        """2**53 is what a node of a build before generations may hold."""
        builder = domain()
        foreign = builder.policy_set(stolen, DOCUMENTS)
        next_trust = builder.sign_trust(builder.trust_document(2, floors={"mesh": NEXT}))

        def restarted(*sets: PolicySet) -> TrustedDocuments:
            documents = builder.documents()
            documents.load_trust_untrusted(next_trust)
            documents.restore_floor("mesh", stolen, manifest_hash_of(foreign))
            for one in sets:
                documents.restore_untrusted(one)
            return documents

        documents = restarted(foreign)
        assert documents.scopes() == ["mesh"]
        assert documents.floor("mesh") == (NEXT, b"")
        signed_anew = builder.policy_set(NEXT + 1, DOCUMENTS)
        assert adopt(documents, signed_anew).version == NEXT + 1
        crashed = restarted(signed_anew)
        assert crashed.floor("mesh")[0] == NEXT + 1, "the set was on disk, and its floor was not yet"
        crashed.restore_floor("mesh", stolen, manifest_hash_of(foreign))
        assert crashed.floor("mesh")[0] == NEXT + 1

    def test_a_set_checked_before_its_generation_ended_is_not_adopted(self) -> None:
        builder = domain()
        documents = builder.documents()
        slow = documents.check_untrusted(builder.policy_set(5, DOCUMENTS))
        documents.load_trust_untrusted(builder.sign_trust(builder.trust_document(2, floors={"mesh": NEXT})))
        with pytest.raises(PolicyRefusal, match="an older Trust's"):
            documents.adopt(slow)
        assert documents.in_force("mesh") is None

    def test_other_scopes_go_on_as_they_were(self) -> None:
        builder = domain()
        documents = builder.documents()
        documents.load_trust_untrusted(builder.sign_trust(builder.trust_document(2, floors={"mesh": NEXT})))
        assert adopt(documents, builder.policy_set(1, (), scope="edge", signers=("edge",))).version == 1


def documents_of(builder: TrustDomainBuilder, version: int, documents: tuple[Document, ...]) -> AcceptedSet:
    """Return a set as a node that knows the first Trust alone accepts it."""
    return builder.documents().check_untrusted(builder.policy_set(version, documents))


def manifest_hash_of(policy_set: PolicySet) -> bytes:
    """Return what names a set's manifest."""
    return hashlib.sha256(decode_envelope_untrusted(policy_set.manifest).payload).digest()


class TestAlarms:
    """What signers give away is kept with its proof, and what is in force does not follow from it."""

    def test_two_sets_of_one_version_are_kept_side_by_side(self) -> None:
        builder = domain()
        rivals = [builder.policy_set(5, DOCUMENTS), builder.policy_set(5, DOCUMENTS[:1])]
        for order in (rivals, rivals[::-1]):
            documents = builder.documents()
            for rival in order * 2:
                with suppress(PolicyRefusal):
                    adopt(documents, rival)
            (alarm,) = documents.alarms.kept
            assert (alarm.kind, alarm.scope, alarm.version) == ("rival-sets", "mesh", 5)
            assert alarm.proofs == tuple(one.manifest for one in order)

    def test_a_stranger_raises_none(self) -> None:
        builder = domain()
        documents = builder.documents()
        adopt(documents, builder.policy_set(5, DOCUMENTS))
        for attack in (wrong_key, unsigned):
            with pytest.raises(PolicyRefusal):
                documents.check_untrusted(attack(builder))
        assert documents.alarms.count == 0

    def test_a_jump_is_taken_and_said(self) -> None:
        builder = domain()
        documents = builder.documents()
        for version, alarms in ((1_001, 0), (2_002, 0), (3_004, 1), (3_005, 1)):
            adopt(documents, builder.policy_set(version, DOCUMENTS))
            assert documents.alarms.count == alarms
        assert [alarm.kind for alarm in documents.alarms.kept] == ["jump"]

    def test_two_trusts_of_one_version_are_kept_side_by_side(self) -> None:
        """Judged as the core does: by a copy that has what is being written."""
        builder = domain()
        documents = builder.documents()
        envelopes = [builder.sign_trust(builder.trust_document(2, floors={"mesh": n})) for n in (1, 2)]
        documents.load_trust_untrusted(envelopes[0])
        with pytest.raises(Untrusted):
            documents.with_trust([envelopes[1]])
        (alarm,) = documents.alarms.kept
        assert (alarm.kind, alarm.version, alarm.proofs) == ("rival-trusts", 2, tuple(envelopes))
        thief = builder.signers["policy"]
        theirs = msgspec.structs.replace(builder.trust_document(1), root_keys=(thief.public.hex(),))
        forged = seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(theirs), [thief])
        with pytest.raises(Untrusted):
            documents.load_trust_untrusted(forged.to_bytes())
        assert documents.alarms.count == 1

    def test_they_are_bounded(self) -> None:
        alarms = Alarms()
        for version in range(limits.DOCUMENT_ALARMS_MAX + 5):
            alarms.note("jump", "mesh", version, "far", (bytes(limits.ALARM_PROOF_BYTES_MAX + 1), b"small"))
        assert alarms.count == limits.DOCUMENT_ALARMS_MAX + 5
        assert len(alarms.kept) == limits.DOCUMENT_ALARMS_MAX
        assert alarms.kept[0].proofs == (b"", b"small")


class TestJumps:
    """What a push may jump over; a node that was away takes any jump."""

    @pytest.mark.parametrize(
        ("held", "version", "is_published"),
        [
            (0, 1, True),
            (0, 1_001, True),
            (0, 1_002, False),
            (5, 1_006, True),
            (5, 1_007, False),
            (5, 2**31, False),
        ],
    )
    def test_a_jump_is_not_published_and_is_taken(self, held: int, version: int, is_published: bool) -> None:
        builder = domain()
        documents = builder.documents()
        if held:
            adopt(documents, builder.policy_set(held, DOCUMENTS))
        accepted = documents.check_untrusted(builder.policy_set(version, DOCUMENTS))
        refused = nullcontext() if is_published else pytest.raises(PolicyRefusal, match=r"jumps .* stolen")
        with refused:
            documents.require_no_jump(accepted)
        documents.adopt(accepted)
        assert documents.jump_of(documents_of(builder, version + 1, DOCUMENTS)) == 0

    def test_the_first_set_of_a_generation_jumps_over_nothing(self) -> None:
        builder = domain()
        documents = builder.documents()
        adopt(documents, builder.policy_set(5, DOCUMENTS))
        documents.load_trust_untrusted(builder.sign_trust(builder.trust_document(2, floors={"mesh": NEXT})))
        documents.require_no_jump(documents.check_untrusted(builder.policy_set(NEXT + 1, DOCUMENTS)))
