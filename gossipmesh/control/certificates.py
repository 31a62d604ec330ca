"""Making certificates: the root, the issuing intermediate, and SVIDs.

Ends at values; keys' files are `control.roots`', who may have which SVID `control.issuing`'s.
Path lengths from the first day: root 2, issuing intermediate 1, a delegate's 0, so that delegates need no
new root. Spec: X509-SVID sections 2 to 4, RFC 5280. Deviation: no URI name constraint on CAs; verifiers
disagree about it (OpenSSL enforces it, cryptography rejects the chain), and every check here names the
whole SPIFFE ID anyway.
"""

from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from gossipmesh.model.enrolment import LEAF_BACKDATE_S, LEAF_LIFE_S
from gossipmesh.model.instant import DAY_S, WallSeconds
from gossipmesh.trust.leaf_profile import authority_key, key_usage, leaf_builder

ROOT_LIFE_S: Final = 3_650 * DAY_S
INTERMEDIATE_LIFE_S: Final = 1_825 * DAY_S
ROOT_PATH_LENGTH: Final = 2
INTERMEDIATE_PATH_LENGTH: Final = 1
SERIAL_BYTES: Final = 19  # RFC 5280 allows 20; one less keeps the number positive


def make_root(
    key: ec.EllipticCurvePrivateKey, name: str, now: WallSeconds, serial: bytes
) -> x509.Certificate:
    """Return a self-signed root called `name`."""
    subject = _name(name)
    builder = _ca(subject, subject, key.public_key(), now, ROOT_LIFE_S, ROOT_PATH_LENGTH, serial)
    return builder.sign(key, hashes.SHA256())


def make_intermediate(
    public_key: ec.EllipticCurvePublicKey,
    name: str,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    now: WallSeconds,
    serial: bytes,
) -> x509.Certificate:
    """Return the issuing intermediate called `name`, signed by the root."""
    builder = _ca(
        _name(name), root.subject, public_key, now, INTERMEDIATE_LIFE_S, INTERMEDIATE_PATH_LENGTH, serial
    )
    return builder.add_extension(authority_key(root), critical=False).sign(root_key, hashes.SHA256())


def make_svid(
    public_key: ec.EllipticCurvePublicKey,
    spiffe_id: str,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: WallSeconds,
    serial: int,
) -> x509.Certificate:
    """Return a leaf for `spiffe_id`: 24 hours from now, 65 minutes back, never beyond its issuer.

    `serial` is `trust.leaf_serial`'s for a node's leaf, `random_serial`'s for any other.
    """
    ends = min(now + LEAF_LIFE_S, int(issuer.not_valid_after_utc.timestamp()))
    builder = (
        leaf_builder(public_key, spiffe_id, issuer)
        .serial_number(serial)
        .not_valid_before(_time(now - LEAF_BACKDATE_S))
        .not_valid_after(_time(ends))
    )
    return builder.sign(issuer_key, hashes.SHA256())


def to_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def random_serial(entropy: bytes) -> int:
    """Return the serial number that follows from `entropy` (19 random bytes)."""
    if len(entropy) != SERIAL_BYTES:
        raise ValueError(f"{len(entropy)} bytes for a serial number, {SERIAL_BYTES} needed")
    return int.from_bytes(entropy, "big") | 1


def _ca(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: WallSeconds,
    life_s: int,
    path_length: int,
    serial: bytes,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(random_serial(serial))
        .not_valid_before(_time(now - LEAF_BACKDATE_S))
        .not_valid_after(_time(now + life_s))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])  # 64: X.520 ub-common-name


def _time(now: int) -> datetime:
    return datetime.fromtimestamp(now, UTC)
