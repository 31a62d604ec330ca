"""Policy sets nobody should accept, made from real ones as somebody without the signer's key would."""

import json

from gossipmesh.trust.documents import PolicySet, decode_policy_set_untrusted
from gossipmesh.trust.envelope import Envelope, decode_envelope_untrusted


def _with_payload(raw: bytes, *, keep_signatures: bool) -> bytes:
    """Return the set with its version raised by one, under the old signatures or none."""
    policy_set = decode_policy_set_untrusted(raw)
    envelope = decode_envelope_untrusted(policy_set.manifest)
    manifest = json.loads(envelope.payload)
    manifest["version"] += 1
    payload = json.dumps(manifest, separators=(",", ":")).encode()
    signatures = envelope.signatures if keep_signatures else ()
    forged = Envelope(envelope.payload_type, payload, signatures)
    return PolicySet(forged.to_bytes(), policy_set.bodies).to_bytes()


def tampered(raw: bytes) -> bytes:
    """Return a set whose manifest was changed after it was signed."""
    return _with_payload(raw, keep_signatures=True)


def unsigned(raw: bytes) -> bytes:
    """Return a set that carries no signature at all."""
    return _with_payload(raw, keep_signatures=False)


def swapped_body(raw: bytes) -> bytes:
    """Return a set whose manifest is genuine and whose last document is not."""
    policy_set = decode_policy_set_untrusted(raw)
    *bodies, last = policy_set.bodies
    return PolicySet(policy_set.manifest, (*bodies, last.replace(b"shop", b"shap"))).to_bytes()
