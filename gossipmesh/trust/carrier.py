"""The carrier CA: certificates that carry a key through TLS, and prove nothing.

OpenSSL takes no certificate without an issuer, and no signer may be alive. So each trust domain has a CA
whose key anyone can work out from its name. Rules:

1. What it signs is worth what the key in it is worth: only a pin that its node has signed makes it anyone's
   (`trust.peer_identity`). Nothing else may trust this CA.
2. Its name and key are the same everywhere; its bytes are not, because ECDSA signatures are random.
3. Its certificates do not end: when a key ends is the key set's to say.

Spec: the leaf is an X509-SVID (`trust.leaf_profile`). Deviation: X509-SVID section 5 knows no CA that proves
    nothing; who follows it alone never has this one in its bundle.
"""

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from gossipmesh.trust.leaf_profile import key_usage, leaf_builder
from gossipmesh.trust.svid import leaf_key_pem, read_leaf_key_untrusted

_LABEL: Final = b"gossipmesh carrier key 1\0"
_BEGINS: Final = datetime(2000, 1, 1, tzinfo=UTC)
_NEVER_ENDS: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280 section 4.1.2.5


def carrier_root_pem(trust_domain: str) -> bytes:
    """Return the certificate of a trust domain's carrier CA."""
    return _root(trust_domain).public_bytes(Encoding.PEM)


def carrier_leaf_pem(trust_domain: str, spiffe_id: str, key_pem: bytes, serial: int) -> bytes:
    """Return a leaf that carries the public half of `key_pem` as `spiffe_id`.

    Args:
        serial: positive, at most 20 bytes (RFC 5280 section 4.1.2.2).

    Raises:
        MalformedInput: `key_pem` is no P-256 key. Local fault. State unchanged.
        ValueError: no such serial number. Local fault. State unchanged.
    """
    public_key = read_leaf_key_untrusted(key_pem).public_key()
    builder = leaf_builder(public_key, spiffe_id, _root(trust_domain)).serial_number(serial)
    leaf = builder.not_valid_before(_BEGINS).not_valid_after(_NEVER_ENDS)
    return leaf.sign(_key(trust_domain), hashes.SHA256()).public_bytes(Encoding.PEM)


def _key(trust_domain: str) -> ec.EllipticCurvePrivateKey:
    return read_leaf_key_untrusted(leaf_key_pem(hashlib.sha384(_LABEL + trust_domain.encode()).digest()))


@lru_cache(maxsize=4)  # a process has one; tests have a few
def _root(trust_domain: str) -> x509.Certificate:
    key = _key(trust_domain)
    digest = hashlib.sha256(trust_domain.encode()).hexdigest()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"gossipmesh carrier {digest[:32]}")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(_BEGINS)
        .not_valid_after(_NEVER_ENDS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256())
