"""DSSE v1 envelopes over exact bytes.

Rules:
1. What two envelopes say is compared by their payloads. Signatures are added, left out and put in another
   order by whoever passes an envelope on, and whoever signs may sign again.
2. What is kept and passed on is written by `keep_signatures`: those that count, one a key, in the order of
   the keys in Trust, under the keys' own ids. So nobody's additions travel further than to whom he gave them.
Spec: DSSE v1 (secure-systems-lab/dsse, protocol.md). The payload is verified and then read; it is
never encoded again. On the wire an envelope is msgpack; `to_json` gives the standard form.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
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


def payload_sha256_untrusted(data: bytes) -> bytes:
    """Return by what an envelope's content is compared, whoever signed it: SHA-256 of its payload.

    Raises:
        MalformedInput: not an envelope within limits. Remote's fault. State unchanged.
    """
    return hashlib.sha256(decode_envelope_untrusted(data).payload).digest()


def says_the_same_untrusted(some: Sequence[bytes], others: Sequence[bytes]) -> bool:
    """Tell whether two lists of envelopes carry the same payloads in the same order, whoever signed them.

    Raises:
        MalformedInput: one of them is no envelope within limits. Remote's fault. State unchanged.
    """
    return len(some) == len(others) and all(
        one == other or payload_sha256_untrusted(one) == payload_sha256_untrusted(other)
        for one, other in zip(some, others, strict=True)
    )


def keep_signatures(envelope: Envelope, signatures: Mapping[bytes, bytes]) -> bytes:
    """Return the wire form with these signatures alone (public key -> signature), in their order."""
    kept = tuple(EnvelopeSignature(key_id(key), signature) for key, signature in signatures.items())
    return Envelope(envelope.payload_type, envelope.payload, kept).to_bytes()


def signers_of(envelope: Envelope, keys: Mapping[bytes, bytes], verifier: Verifier) -> set[bytes]:
    """Return the distinct public keys, among `keys` (key id -> public key), that signed this envelope."""
    return set(signatures_of(envelope, keys, verifier))


def signatures_of(envelope: Envelope, keys: Mapping[bytes, bytes], verifier: Verifier) -> dict[bytes, bytes]:
    """Return public key -> signature of those of `keys` (key id -> public key) that signed, in their order.

    Spec: DSSE v1 (protocol.md): a key id is an unauthenticated hint that may be absent. It decides what is
        tried first, never what counts.
    Deviation: at most limits.SIGNATURE_CHECKS_PER_ENVELOPE_MAX checks, those with a known hint before all
        others, so that signatures nobody vouches for cost an envelope its own signers' only.
    """
    message = pre_authentication_encoding(envelope.payload_type, envelope.payload)
    found: dict[bytes, bytes] = {}
    checks_left = limits.SIGNATURE_CHECKS_PER_ENVELOPE_MAX
    for public_key, signature in _pairs(envelope, keys):
        if public_key in found or signature in found.values():
            continue
        if not checks_left:
            break
        checks_left -= 1
        if verifier.verify(public_key, message, signature):
            found[public_key] = signature
    return {public_key: found[public_key] for public_key in keys.values() if public_key in found}


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
