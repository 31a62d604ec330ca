"""What a Trust document may say, beyond its types: bounds, names, keys, thresholds that can be met.

Ends where signatures begin; those are `trust.documents`'.
Spec: TUF section 4.3 (root metadata: distinct keys, a threshold of at least one). Deviation: a threshold
    that no set of its keys can meet is refused here: a scope (or Trust itself) would be shut for good.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.documents import SignerRole, TrustDocument
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.host_port import is_host_port
from gossipmesh.model.identity import is_label, is_trust_domain
from gossipmesh.trust.envelope import decode_payload_untrusted
from gossipmesh.trust.keys import KEY_BYTES, is_public_key, key_id

_TRUST_DECODER = msgspec.json.Decoder(TrustDocument)
_HASH_DIGITS: Final = 64
_SERIAL_DIGITS_MAX: Final = 40  # RFC 5280 section 4.1.2.2


def is_scope(text: str) -> bool:
    """Tell whether `text` may name a scope."""
    return len(text) <= limits.SCOPE_BYTES_MAX and is_label(text)


def keys_of(trust: TrustDocument, role: SignerRole, scope: str | None) -> dict[bytes, bytes]:
    """Return key id -> public key of the signers with `role`, for `scope` (None: for any)."""
    public_keys = [
        bytes.fromhex(signer.public_key)
        for signer in trust.signers
        if signer.role is role and (scope is None or scope in signer.scopes)
    ]
    return {key_id(key): key for key in public_keys}


def scopes_of(trust: TrustDocument) -> list[str]:
    """Return the scopes that Trust names signers of, one for each signer, in its order."""
    return [scope for signer in trust.signers if signer.role is SignerRole.POLICY for scope in signer.scopes]


def decode_trust_untrusted(payload: bytes) -> TrustDocument:
    """Read a Trust payload and check what its types cannot say; no signature is checked here.

    Raises:
        MalformedInput: not a Trust document within limits. Remote's fault. State unchanged.
    """
    trust = decode_payload_untrusted(payload, _TRUST_DECODER, "a Trust document")
    wrong = trust_problems(trust)
    if wrong:
        raise MalformedInput(f"a Trust document whose {', '.join(wrong)} cannot be")
    return trust


def trust_problems(trust: TrustDocument) -> list[str]:
    """Return the names of the fields that cannot be, in the type's order; empty: it may be signed."""
    holds: Mapping[str, bool] = {
        "version": 1 <= trust.version <= limits.VERSION_MAX,
        "trust_domain": is_trust_domain(trust.trust_domain),
        "root_certificates": 1 <= len(trust.root_certificates) <= limits.TRUST_CERTIFICATES_MAX,
        "intermediates": len(trust.intermediates) <= limits.TRUST_CERTIFICATES_MAX,
        "root_keys": len(trust.root_keys) == len(set(trust.root_keys)) <= limits.TRUST_KEYS_MAX,
        "root_threshold": _can_be_met(trust.root_threshold, len(trust.root_keys)),
        "signers": len(trust.signers) <= limits.TRUST_KEYS_MAX,
        "keys": all(
            _is_key(key) for key in (*trust.root_keys, *(signer.public_key for signer in trust.signers))
        ),
        "scopes": _are_scopes([*scopes_of(trust), *trust.policy_threshold, *trust.floors]),
        "policy_threshold": all(
            _can_be_met(needed, signer_count(trust, scope))
            for scope, needed in trust.policy_threshold.items()
        ),
        "floors": all(0 <= n <= limits.VERSION_MAX for n in trust.floors.values()),
        "revoked": len(trust.revoked) <= limits.TRUST_REVOKED_MAX
        and all(is_label(name) and 1 <= n <= limits.VERSION_MAX for name, n in trust.revoked.items()),
        "revoked_leaves": len(trust.revoked_leaves) <= limits.TRUST_REVOKED_LEAVES_MAX
        and all(_is_serial(one) and 1 <= n <= limits.VERSION_MAX for one, n in trust.revoked_leaves.items()),
        "roll": trust.roll == "" or _is_hex(trust.roll, _HASH_DIGITS),
        "authorities": len(trust.authorities) <= limits.TRUST_AUTHORITIES_MAX
        and all(is_host_port(place) for place in trust.authorities),
    }
    return [name for name, is_right in holds.items() if not is_right]


def signer_count(trust: TrustDocument, scope: str) -> int:
    """Return how many distinct keys may sign for a scope."""
    return len({s.public_key for s in trust.signers if s.role is SignerRole.POLICY and scope in s.scopes})


def _can_be_met(threshold: int, keys_count: int) -> bool:
    """Tell whether so many of so many keys can sign one envelope."""
    return 1 <= threshold <= min(keys_count, limits.SIGNATURES_PER_ENVELOPE_MAX)


def _are_scopes(scopes: list[str]) -> bool:
    return len(set(scopes)) <= limits.SCOPES_MAX and all(is_scope(scope) for scope in scopes)


def _is_key(text: str) -> bool:
    """Tell whether `text` is a public key in lower-case hex; one spelling, so that no key counts twice."""
    return _is_hex(text, 2 * KEY_BYTES) and is_public_key(bytes.fromhex(text))


def _is_serial(text: str) -> bool:
    """Tell whether `text` is a serial number in lower-case hex; one spelling, and no number twice."""
    return 1 <= len(text) <= _SERIAL_DIGITS_MAX and text[0] != "0" and _is_hex(text, len(text))


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and all(digit in "0123456789abcdef" for digit in text)
