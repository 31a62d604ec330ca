"""Pins: which TLS key an identity uses, in 16 bytes.

Ends at bytes: who may publish a pin for which identity is said where key sets are merged, and what a listed
pin proves where a peer's identity is judged.
Rule: a pin names the identity as well as the key, so that a key listed for one identity proves no other.
Spec: RFC 7469 section 2.4 (a hash of the SubjectPublicKeyInfo). Deviation: the SPIFFE ID is hashed with it,
    and 16 bytes are kept: who makes a second key of one pin needs some 2^128 tries, for it must match a
    pin that is given; two keys of his own with one pin bring nobody anything.
"""

import hashlib
from typing import Final

PIN_BYTES: Final = 16


def pin_of(spiffe_id: str, spki_der: bytes) -> bytes:
    """Return the pin of a public key (DER of its SubjectPublicKeyInfo) as this identity's, 16 bytes."""
    return hashlib.sha256(spiffe_id.encode() + b"\0" + spki_der).digest()[:PIN_BYTES]
