"""What somebody between can do to signed bytes without a key: all but what they say.

Signatures are left out, added, written twice, named otherwise and put in another order. What was signed
stays, and so must everything that is decided by it.
"""

import random

import msgspec

from gossipmesh.model import limits
from gossipmesh.trust.documents import PolicySet, decode_policy_set_untrusted
from gossipmesh.trust.envelope import EnvelopeSignature, decode_envelope_untrusted
from gossipmesh.trust.keys import KEY_ID_BYTES, SIGNATURE_BYTES
from gossipmesh.wire.codec import decode_untrusted, encode


def changed_envelope(data: bytes, rng: random.Random, least_count: int = 1) -> bytes:
    """Return an envelope of the same payload with at least so many of its signatures, and more besides."""
    envelope = decode_envelope_untrusted(data)
    held = list(envelope.signatures)
    count = rng.randint(min(least_count, len(held)), len(held))
    signatures = [_renamed(one, rng) for one in rng.sample(held, count)]
    signatures += [_renamed(one, rng) for one in rng.sample(held, rng.randint(0, len(held)))]
    signatures += [_noise(rng) for _ in range(rng.randint(0, 3))]
    del signatures[limits.SIGNATURES_PER_ENVELOPE_MAX :]
    rng.shuffle(signatures)
    return msgspec.structs.replace(envelope, signatures=tuple(signatures)).to_bytes()


def changed_set(data: bytes, rng: random.Random, least_count: int = 1) -> bytes:
    """Return the wire form of a policy set with the envelope of its manifest changed."""
    policy_set = decode_policy_set_untrusted(data)
    manifest = changed_envelope(policy_set.manifest, rng, least_count)
    return PolicySet(manifest, policy_set.bodies).to_bytes()


def changed_trusts(data: bytes, rng: random.Random, least_count: int = 1) -> bytes:
    """Return an answer with versions of Trust, each in an envelope that was changed."""
    if not data:
        return data
    envelopes = decode_untrusted(data, tuple[bytes, ...], bytes_max=limits.POLICY_SET_BYTES_MAX)
    return encode([changed_envelope(one, rng, least_count) for one in envelopes])


def _renamed(signature: EnvelopeSignature, rng: random.Random) -> EnvelopeSignature:
    hints = (signature.key_id, b"", rng.randbytes(KEY_ID_BYTES), rng.randbytes(40))
    return EnvelopeSignature(rng.choice(hints), signature.signature)


def _noise(rng: random.Random) -> EnvelopeSignature:
    return EnvelopeSignature(
        rng.randbytes(KEY_ID_BYTES), rng.randbytes(rng.choice((0, SIGNATURE_BYTES, 900)))
    )
