"""Taking a node out: what the ledger remembers, what the mesh is handed, and what is refused afterwards."""

from pathlib import Path

import pytest

from gossipmesh.control.ledger import Ledger
from gossipmesh.control.requests import RequestRefused
from gossipmesh.control.revoking import take_out
from gossipmesh.model.enrolment import CREDENTIAL_LIFE_S
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import DAY_S, WallSeconds
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import Verifier
from gossipmesh.wire.codec import decode_untrusted
from tests.unit.control.test_issuing import NOW, Desk, enrol_request, renew_request


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path / "authority")
    made.issuer.enrol(enrol_request(made.token("shop/*")), NOW)
    return made


def opened(desk: Desk, record: bytes) -> NodeCredential:
    """Return a tombstone; its signature is checked against the credential key in Trust."""
    from gossipmesh.trust.records import signed_bytes

    documents = TrustedDocuments(trust_domain="mesh.test", verifier=Verifier(), features=())
    documents.load_trust_untrusted(desk.authority.trust_envelopes[0])
    signed = decode_untrusted(record, SignedRecord, bytes_max=32_768)
    key = documents.credential_keys[signed.key_id]
    message = signed_bytes("mesh.test", signed.kind, signed.body)
    assert Verifier().verify(key, message, signed.signature)
    return decode_untrusted(signed.body, NodeCredential, bytes_max=32_768)


def test_a_tombstone_is_the_next_generation_without_keys(desk: Desk) -> None:
    revocation = take_out(desk.authority, desk.ledger, "n1", NOW, what="revoked")
    tombstone = opened(desk, revocation.record)
    assert (revocation.generation, tombstone.generation) == (NOW, NOW + 1)
    assert (tombstone.signing_key, tombstone.exchange_key) == (b"", b"")
    assert (tombstone.spki_hashes, tombstone.service_patterns) == ((), ())
    assert tombstone.serial == NOW + 1
    assert tombstone.ends == NOW + CREDENTIAL_LIFE_S, "it outlives all that it revokes"
    assert [deed.what for deed in desk.ledger.log.deeds("n1")][-1] == "revoked"


@pytest.mark.parametrize("days", [0, 44, 46, 74])
def test_a_revoked_node_never_renews(desk: Desk, days: int) -> None:
    """Late renewals are for machines that slept."""
    take_out(desk.authority, desk.ledger, "n1", NOW, what="revoked")
    later = WallSeconds(NOW + days * DAY_S)
    with pytest.raises(RequestRefused) as refusal:
        desk.issuer.renew(renew_request(issued=later), later)
    assert refusal.value.code == "revoked"


def test_its_tokens_are_spent_and_a_new_one_brings_it_back_above_the_tombstone(desk: Desk) -> None:
    old = desk.token("shop/*")
    other = desk.token("shop/*", node="n2")
    tombstone = opened(desk, take_out(desk.authority, desk.ledger, "n1", NOW, what="revoked").record)
    with pytest.raises(RequestRefused, match="used already"):
        desk.issuer.enrol(enrol_request(old), NOW)
    assert desk.ledger.token(other.token_id).used is None  # type: ignore[union-attr]
    back = desk.credential(desk.issuer.enrol(enrol_request(desk.token("shop/*")), NOW))
    assert (back.generation, back.serial) > (tombstone.generation, tombstone.serial)
    desk.issuer.renew(renew_request(), NOW)


def test_asked_again_it_answers_the_same_bytes(desk: Desk) -> None:
    first = take_out(desk.authority, desk.ledger, "n1", NOW, what="revoked")
    again = take_out(desk.authority, Ledger(desk.authority.directory), "n1", NOW, what="forgotten")
    assert (first.is_new, again.is_new) == (True, False)
    assert (again.record, again.generation) == (first.record, first.generation)


def test_a_node_that_is_not_on_record_needs_its_generation(desk: Desk) -> None:
    """One enrolled after the backup that this authority was restored from."""
    with pytest.raises(OperatorError, match=r"n7 is not on record here.*--generation"):
        take_out(desk.authority, desk.ledger, "n7", NOW, what="revoked")
    tombstone = opened(
        desk, take_out(desk.authority, desk.ledger, "n7", NOW, what="revoked", generation=NOW + 5).record
    )
    assert tombstone.generation == NOW + 6
    desk.issuer.enrol(enrol_request(desk.token(node="n7"), "spiffe://mesh.test/node/n7"), NOW)
    assert desk.ledger.enrolment("n7").generation == NOW + 7  # type: ignore[union-attr]
    with pytest.raises(OperatorError, match="cannot be a node's name"):
        take_out(desk.authority, desk.ledger, "../n1", NOW, what="revoked")


def test_a_node_that_was_taken_out_is_not_counted(desk: Desk) -> None:
    """A newcomer asks as many others as there are."""
    second = enrol_request(desk.token(node="n2"), "spiffe://mesh.test/node/n2")
    assert desk.issuer.enrol(second, NOW).enrolled_count == 2
    take_out(desk.authority, desk.ledger, "n1", NOW, what="forgotten")
    third = enrol_request(desk.token(node="n3"), "spiffe://mesh.test/node/n3")
    assert desk.issuer.enrol(third, NOW).enrolled_count == 2
