"""DSSE, with securesystemslib as the oracle in both directions."""

import hashlib
import json
import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope as OracleEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.testing.relayer import changed_envelope
from gossipmesh.trust.envelope import (
    TRUST_PAYLOAD_TYPE,
    Envelope,
    EnvelopeSignature,
    decode_envelope_untrusted,
    keep_signatures,
    payload_sha256_untrusted,
    pre_authentication_encoding,
    says_the_same_untrusted,
    seal_envelope,
    signatures_of,
    signers_of,
)
from gossipmesh.trust.keys import SigningKey, Verifier, key_id

KEY = SigningKey(b"\x01" * 32)
OTHER = SigningKey(b"\x02" * 32)
PAYLOAD = '{"name": "exact bytes, ü and\\n all"}'.encode()


def oracle_key(key: SigningKey) -> Key:
    """Return our public key as the oracle holds it, under our key id."""
    scheme = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": key.public.hex()}}
    return Key.from_dict(key_id(key.public).hex(), scheme)


def test_the_oracle_verifies_what_we_sign() -> None:
    ours = OracleEnvelope.from_dict(
        json.loads(seal_envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, [KEY, OTHER]).to_json())
    )
    accepted = ours.verify([oracle_key(KEY), oracle_key(OTHER)], threshold=2)
    assert len(accepted) == 2
    ours.payload += b" "
    with pytest.raises(VerificationError):
        ours.verify([oracle_key(KEY)], threshold=1)


def test_we_verify_what_the_oracle_signs() -> None:
    theirs = OracleEnvelope(PAYLOAD, TRUST_PAYLOAD_TYPE, {})
    theirs.sign(CryptoSigner(Ed25519PrivateKey.from_private_bytes(KEY.seed())))
    raw = bytes.fromhex(next(iter(theirs.signatures.values())).signature)
    envelope = Envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, (EnvelopeSignature(key_id(KEY.public), raw),))
    assert theirs.pae() == pre_authentication_encoding(TRUST_PAYLOAD_TYPE, PAYLOAD)
    assert signers_of(envelope, {key_id(KEY.public): KEY.public}, Verifier()) == {KEY.public}


def test_the_payload_type_is_signed_too() -> None:
    """A Trust document must never pass as a manifest, nor the reverse."""
    envelope = seal_envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, [KEY])
    relabelled = Envelope("application/other", envelope.payload, envelope.signatures)
    assert signers_of(relabelled, {key_id(KEY.public): KEY.public}, Verifier()) == set()


def test_the_wire_form_round_trips_and_is_bounded() -> None:
    envelope = seal_envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, [KEY])
    assert decode_envelope_untrusted(envelope.to_bytes()) == envelope
    crowd = Envelope("t", b"", envelope.signatures * (limits.SIGNATURES_PER_ENVELOPE_MAX + 1))
    for data in (crowd.to_bytes(), envelope.to_bytes()[:-1], envelope.to_bytes() + b"\x00", b""):
        with pytest.raises(MalformedInput):
            decode_envelope_untrusted(data)


def test_checks_per_envelope_are_bounded_even_for_repeated_wrong_signatures() -> None:
    wrong = tuple(
        EnvelopeSignature(key_id(KEY.public), bytes([n]) * 64)
        for n in range(limits.SIGNATURES_PER_ENVELOPE_MAX + 20)
    )
    verifier = Verifier()
    assert signers_of(Envelope("t", b"", wrong), {key_id(KEY.public): KEY.public}, verifier) == set()
    assert verifier.computed_count == limits.SIGNATURES_PER_ENVELOPE_MAX


def unnamed(*keys: SigningKey, hint: bytes = b"") -> Envelope:
    """Return an envelope whose signatures carry `hint` as their key id."""
    sealed = seal_envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, list(keys))
    signatures = tuple(EnvelopeSignature(hint, entry.signature) for entry in sealed.signatures)
    return Envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, signatures)


def ring(*keys: SigningKey) -> dict[bytes, bytes]:
    return {key_id(key.public): key.public for key in keys}


@pytest.mark.parametrize(
    "hint",
    [b"", b"\0" * 8, key_id(OTHER.public), b"x" * 32],
    ids=["absent", "unknown", "another key's", "of another convention"],
)
def test_a_key_id_is_a_hint_and_never_decides(hint: bytes) -> None:
    """DSSE v1: consumers must not use it for security decisions; it may be absent."""
    envelope = decode_envelope_untrusted(unnamed(KEY, hint=hint).to_bytes())
    assert signers_of(envelope, ring(OTHER, KEY), Verifier()) == {KEY.public}
    assert signers_of(envelope, ring(OTHER), Verifier()) == set()


def test_two_signatures_without_a_key_id_are_two_signers() -> None:
    assert signers_of(unnamed(OTHER, KEY), ring(KEY, OTHER), Verifier()) == {KEY.public, OTHER.public}


def test_a_signer_counts_once_however_often_it_signs() -> None:
    twice = unnamed(KEY)
    named = seal_envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, [KEY])
    both = Envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, twice.signatures * 2 + named.signatures)
    assert signers_of(both, ring(KEY, OTHER), Verifier()) == {KEY.public}


def test_checks_are_bounded_for_any_number_of_keys_and_unnamed_signatures() -> None:
    many = [SigningKey(bytes([number]) * 32) for number in range(limits.TRUST_KEYS_MAX // 2)]
    junk = tuple(EnvelopeSignature(b"", bytes([n]) * 64) for n in range(limits.SIGNATURES_PER_ENVELOPE_MAX))
    verifier = Verifier()
    assert signers_of(Envelope("t", b"", junk), ring(*many), verifier) == set()
    assert verifier.computed_count == limits.SIGNATURE_CHECKS_PER_ENVELOPE_MAX


def test_unnamed_junk_does_not_take_the_checks_of_a_named_signature() -> None:
    many = [SigningKey(bytes([number]) * 32) for number in range(limits.TRUST_KEYS_MAX // 2)]
    junk = tuple(
        EnvelopeSignature(b"", bytes([n]) * 64) for n in range(limits.SIGNATURES_PER_ENVELOPE_MAX - 1)
    )
    named = seal_envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, [KEY])
    mixed = Envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, (*junk, *named.signatures))
    assert KEY.public in signers_of(mixed, ring(*many, KEY), Verifier())


def test_a_named_signature_costs_one_check() -> None:
    verifier = Verifier()
    named = seal_envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, [KEY])
    assert signers_of(named, ring(OTHER, KEY), verifier) == {KEY.public}
    assert verifier.computed_count == 1


def test_what_is_kept_are_the_signatures_that_count_in_the_order_of_the_keys() -> None:
    sealed = seal_envelope(TRUST_PAYLOAD_TYPE, PAYLOAD, [KEY, OTHER])
    for seed in range(40):
        changed = changed_envelope(sealed.to_bytes(), random.Random(seed), least_count=2)
        envelope = decode_envelope_untrusted(changed)
        kept = keep_signatures(envelope, signatures_of(envelope, ring(KEY, OTHER), Verifier()))
        assert kept == sealed.to_bytes()
        assert says_the_same_untrusted([changed, changed], [kept, sealed.to_bytes()])
        assert payload_sha256_untrusted(changed) == hashlib.sha256(PAYLOAD).digest()


def test_envelopes_of_other_payloads_or_numbers_do_not_say_the_same() -> None:
    one, other = (seal_envelope(TRUST_PAYLOAD_TYPE, text, [KEY]).to_bytes() for text in (b"{}", b"{ }"))
    assert not says_the_same_untrusted([one], [other])
    assert not says_the_same_untrusted([one, one], [one])
    with pytest.raises(MalformedInput):
        says_the_same_untrusted([one], [b"noise"])


def test_the_oracle_and_we_agree_on_an_envelope_without_a_key_id() -> None:
    told = json.loads(unnamed(KEY).to_json())
    theirs = OracleEnvelope.from_dict(told)
    raw = next(iter(theirs.signatures.values())).signature
    assert bytes.fromhex(raw) == unnamed(KEY).signatures[0].signature
