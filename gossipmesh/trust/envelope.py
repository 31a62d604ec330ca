"""DSSE v1 envelopes over exact bytes.

Spec: DSSE v1 (secure-systems-lab/dsse, protocol.md). The payload is verified and then read; it is
never encoded again. On the wire an envelope is msgpack; `to_json` gives the standard form.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.trust.keys import SigningKey, Verifier, key_id
from gossipmesh.wire.codec import decode_untrusted, encode

Signed = TypeVar("Signed")

TRUST_PAYLOAD_TYPE = "application/vnd.gossipmesh.trust.v1+json"
MANIFEST_PAYLOAD_TYPE = "application/vnd.gossipmesh.manifest.v1+json"


class EnvelopeSignature(msgspec.Struct, frozen=True, array_like=True):
    """One signature; `key_id` is a hint (8 bytes), never a proof."""

    key_id: bytes
    signature: bytes


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """Unverified: a payload, its type and signatures. Reading `payload` proves nothing."""

    payload_type: str
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]

    def to_bytes(self) -> bytes:
        """Return the wire form."""
        return encode(self)

    def to_json(self) -> str:
        """Return the standard DSSE JSON form."""
        signatures = [
            {"keyid": s.key_id.hex(), "sig": base64.b64encode(s.signature).decode()} for s in self.signatures
        ]
        payload = base64.b64encode(self.payload).decode()
        return json.dumps({"payload": payload, "payloadType": self.payload_type, "signatures": signatures})


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed (DSSE v1, PAE)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal_envelope(payload_type: str, payload: bytes, keys: list[SigningKey]) -> Envelope:
    """Sign `payload` with each key, in the order given."""
    message = pre_authentication_encoding(payload_type, payload)
    signatures = tuple(EnvelopeSignature(key_id(key.public), key.sign(message)) for key in keys)
    return Envelope(payload_type, payload, signatures)


def decode_envelope_untrusted(data: bytes) -> Envelope:
    """Read the wire form; nothing is verified yet.

    Raises:
        MalformedInput: not an envelope within limits. Remote's fault. State unchanged.
    """
    envelope = decode_untrusted(data, Envelope, bytes_max=limits.POLICY_SET_BYTES_MAX)
    if len(envelope.signatures) > limits.SIGNATURES_PER_ENVELOPE_MAX:
        raise MalformedInput(f"{len(envelope.signatures)} signatures in one envelope")
    return envelope


def decode_envelopes_untrusted(data: bytes) -> tuple[bytes, ...]:
    """Read several envelopes as one answer or request carries them, each still in its wire form.

    Raises:
        MalformedInput: no list of byte strings within limits. Remote's fault. State unchanged.
    """
    if not data:
        return ()
    envelopes: tuple[bytes, ...] = decode_untrusted(
        data, tuple[bytes, ...], bytes_max=limits.POLICY_SET_BYTES_MAX
    )
    return envelopes


def decode_payload_untrusted(payload: bytes, decoder: msgspec.json.Decoder[Signed], what: str) -> Signed:
    """Read what an envelope carries: the one way for every type that is signed as JSON.

    Args:
        what: the type in words, such as "a Trust document".

    Raises:
        MalformedInput: not of the decoder's type, or JSON at all. Remote's fault. State unchanged.
    """
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedInput(f"not {what}: {error}"[:300]) from None


def signers_of(envelope: Envelope, keys: Mapping[bytes, bytes], verifier: Verifier) -> set[bytes]:
    """Return the distinct public keys, among `keys` (key id -> public key), that signed this envelope.

    Spec: DSSE v1 (protocol.md): a key id is an unauthenticated hint that may be absent. It decides what is
        tried first, never what counts.
    Deviation: at most limits.SIGNATURE_CHECKS_PER_ENVELOPE_MAX checks, those with a known hint before all
        others, so that signatures nobody vouches for cost an envelope its own signers' only.
    """
    message = pre_authentication_encoding(envelope.payload_type, envelope.payload)
    signed: dict[bytes, bytes] = {}  # signature -> the key that made it
    checks_left = limits.SIGNATURE_CHECKS_PER_ENVELOPE_MAX
    for public_key, signature in _pairs(envelope, keys):
        if signature in signed or public_key in signed.values():
            continue
        if not checks_left:
            break
        checks_left -= 1
        if verifier.verify(public_key, message, signature):
            signed[signature] = public_key
    return set(signed.values())


def _pairs(envelope: Envelope, keys: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield which key to try on which signature: what the hints say first, then the rest, in order."""
    signatures = envelope.signatures[: limits.SIGNATURES_PER_ENVELOPE_MAX]
    for entry in signatures:
        if entry.key_id in keys:
            yield keys[entry.key_id], entry.signature
    for entry in signatures:
        for name, public_key in keys.items():
            if name != entry.key_id:
                yield public_key, entry.signature
