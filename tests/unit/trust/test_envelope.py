"""DSSE, with securesystemslib as the oracle in both directions."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope as OracleEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.trust.envelope import (
    TRUST_PAYLOAD_TYPE,
    Envelope,
    EnvelopeSignature,
    decode_envelope_untrusted,
    pre_authentication_encoding,
    seal_envelope,
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
