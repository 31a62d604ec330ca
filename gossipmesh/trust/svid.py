"""X.509 SVIDs: making requests for them, and judging the ones received.

Ends at certificates as bytes and PEM; handshakes are `net.tls`', issuing is `control.roots`'.
Rules:
1. An SVID carries exactly one URI, a SPIFFE ID this mesh issues, and no other alternative name.
2. A path is judged whole: the leaf (`trust.x509_leaf`), signatures, validity, CA flags, key usage, path
   lengths; what a CA says that nobody here heeds refuses it.
3. Keys are P-256; their entropy is a parameter, so that a core's test can repeat itself.
Spec: X509-SVID sections 2 to 5; RFC 5280 section 6.1. Deviation: cryptography's own path verifier is not
    used, because it rejects any chain with URI name constraints; `openssl verify` is the tests' oracle.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeGuard

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtensionOID

from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.identity import parse_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.trust.pem import is_locked, protection
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted, read_leaf_untrusted

LEAF_ENTROPY_BYTES: Final = 48  # 128 bits more than the order of P-256, so that no scalar is favoured
PEM_BYTES_MAX: Final = 65_536
CHAIN_LENGTH_MAX: Final = 4
_UNDERSTOOD_OF_CAS: Final = (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE)
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class CertificateRequest:
    """A request whose signature proved possession of its key."""

    spiffe_id: str
    public_key: ec.EllipticCurvePublicKey
    spki_hash: bytes


@dataclass(frozen=True)
class LeafFacts:
    """What a judged leaf says: whose it is, from when to when (wall seconds), SHA-256 of its SPKI."""

    spiffe_id: str
    not_before: int
    not_after: int
    spki_hash: bytes


def leaf_key_pem(entropy: bytes) -> bytes:
    """Return the P-256 private key that follows from `entropy` (48 random bytes), as PKCS #8 PEM."""
    if len(entropy) != LEAF_ENTROPY_BYTES:
        raise ValueError(f"{len(entropy)} bytes of entropy, {LEAF_ENTROPY_BYTES} needed")
    scalar = int.from_bytes(entropy, "big") % (_P256_ORDER - 1) + 1
    private = ec.derive_private_key(scalar, ec.SECP256R1())
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def lock_key_pem(key_pem: bytes, passphrase: bytes | None) -> bytes:
    """Return a P-256 key in PEM under a passphrase; as it is for None.

    Raises:
        MalformedInput: not such a key. State unchanged.
    """
    private = read_leaf_key_untrusted(key_pem)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection(passphrase))


def read_leaf_key_untrusted(key_pem: bytes, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """Read a P-256 private key.

    Raises:
        MalformedInput: not such a key, or not under this passphrase; nothing of the content is repeated.
            State unchanged.
    """
    try:
        private = load_pem_private_key(key_pem, password=passphrase if is_locked(key_pem) else None)
    except Exception as error:  # ValueError, TypeError, UnsupportedAlgorithm: all say "not this"
        if is_locked(key_pem):
            raise MalformedInput("a key under a passphrase, and this is not it") from None
        raise MalformedInput(f"not a private key in PEM ({type(error).__name__})") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise MalformedInput("a private key, but not of P-256")
    return private


def spki_hash_of_key(key_pem: bytes) -> bytes:
    """Return the SHA-256 of the public half of a private key.

    Raises:
        MalformedInput: not a P-256 private key. State unchanged.
    """
    return _spki_hash(read_leaf_key_untrusted(key_pem).public_key())


def spki_of_key(key_pem: bytes) -> bytes:
    """Return the public half of a private key, DER of its SubjectPublicKeyInfo.

    Raises:
        MalformedInput: not a P-256 private key. State unchanged.
    """
    return _spki(read_leaf_key_untrusted(key_pem).public_key())


def make_request(key_pem: bytes, spiffe_id: str) -> str:
    """Return a PKCS #10 request in PEM for `spiffe_id`, signed with the key it is for.

    Raises:
        MalformedInput: `key_pem` is no P-256 key. Local's fault. State unchanged.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    request = builder.add_extension(names, critical=True).sign(
        read_leaf_key_untrusted(key_pem), hashes.SHA256()
    )
    return request.public_bytes(Encoding.PEM).decode()


def read_request_untrusted(pem: str) -> CertificateRequest:
    """Read a request and check that whoever made it holds the key.

    Raises:
        MalformedInput: unreadable, badly signed, another kind of key, or not exactly one SPIFFE ID.
            Remote's fault. State unchanged.
    """
    try:
        if len(pem) > PEM_BYTES_MAX:
            raise MalformedInput(f"a request of {len(pem)} characters")
        request = x509.load_pem_x509_csr(pem.encode())
        signed = request.is_signature_valid
        public_key = request.public_key()
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except MalformedInput:
        raise
    except Exception as error:  # cryptography raises a dozen types for what is all "not a request"
        raise MalformedInput(f"not a certificate request ({type(error).__name__})") from None
    if not signed:
        raise Untrusted("a certificate request not signed with its own key")
    spiffe_id = _only_uri(names)
    if not _is_p256(public_key):
        raise MalformedInput("a certificate request for a key that is not of P-256")
    return CertificateRequest(spiffe_id, public_key, _spki_hash(public_key))


def check_chain_untrusted(
    chain_pem: bytes,
    bundle_pem: bytes,
    now: WallSeconds | None,
    intermediates: Sequence[str] | None = None,
) -> LeafFacts:
    """Judge a leaf and its intermediates against the roots of a bundle.

    Spec: RFC 5280 section 6.1 for names, signatures, validity, basic constraints and path length.

    Args:
        chain_pem: leaf first, each next one the issuer of the one before; no root.
        bundle_pem: the roots, any order.
        now: wall seconds; None leaves validity out (for our own chain, read at a start).
        intermediates: those Trust names, PEM: one of them must have signed the leaf itself. None leaves it
            out, for a chain that is not Trust's.

    Returns:
        What the leaf says.

    Raises:
        MalformedInput: unreadable, or a path that does not hold. Remote's fault. State unchanged.
    """
    try:
        if max(len(chain_pem), len(bundle_pem)) > PEM_BYTES_MAX:
            raise MalformedInput("a certificate chain beyond all measure")
        chain = x509.load_pem_x509_certificates(chain_pem)
        roots = x509.load_pem_x509_certificates(bundle_pem)
        leaf = read_leaf_untrusted(chain[0].public_bytes(Encoding.DER))
        public_key = chain[0].public_key()
        if not _is_p256(public_key):
            raise Untrusted("an SVID whose key is not of P-256")
        _check_path(chain, roots, now)
        if intermediates is not None:
            _check_named(chain, intermediates)
    except MalformedInput:
        raise
    except Exception as error:  # cryptography raises a dozen types for what is all "not a chain"
        raise MalformedInput(f"not a certificate chain ({type(error).__name__})") from None
    return LeafFacts(leaf.spiffe_id, leaf.not_before, leaf.not_after, _spki_hash(public_key))


def serial_of_chain(chain_pem: bytes) -> int:
    """Return the serial number of a chain's leaf; of one that was issued to us and judged when it came.

    Raises:
        MalformedInput: no certificate. State unchanged.
    """
    certificates = certificates_in_pem_untrusted(chain_pem)
    if not certificates:
        raise MalformedInput("a chain without a certificate")
    return read_leaf_untrusted(certificates[0]).serial


def certificate_sha256(pem: str) -> str:
    """Return the SHA-256 of a certificate's DER in hex, as `openssl x509 -fingerprint` counts it.

    Raises:
        MalformedInput: not a certificate. State unchanged.
    """
    try:
        der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    except ValueError:
        raise MalformedInput("not a certificate in PEM") from None
    return hashlib.sha256(der).hexdigest()


def _check_path(
    chain: list[x509.Certificate], roots: list[x509.Certificate], now: WallSeconds | None
) -> None:
    if len(chain) > CHAIN_LENGTH_MAX:
        raise Untrusted(f"a chain of {len(chain)} certificates")
    path = [*chain, _root_of(chain[-1], roots)]
    for depth, (certificate, issuer) in enumerate(pairwise(path)):
        if not _signed_by(certificate, issuer):
            raise Untrusted("a certificate its issuer did not sign")
        _check_issuer(issuer, below=depth)
    for certificate in path:
        if now is not None and not _valid_at(certificate, now):
            raise Untrusted(f"a certificate not valid at {now}: {_validity(certificate)}")


def _root_of(certificate: x509.Certificate, roots: list[x509.Certificate]) -> x509.Certificate:
    """Return the root that signed a certificate: of several of one name, whichever did (RFC 5280 6.1)."""
    named = [root for root in roots if root.subject == certificate.issuer]
    if not named:
        raise Untrusted("a chain that ends at no root of the bundle")
    return next((root for root in named if _signed_by(certificate, root)), named[0])


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    return True


def _check_named(chain: list[x509.Certificate], intermediates: Sequence[str]) -> None:
    """Check that the leaf's issuer is one Trust names now: one that was dropped issues nothing any more."""
    named = [x509.load_pem_x509_certificate(pem.encode()) for pem in intermediates]
    if len(chain) < 2 or chain[1] not in named:
        raise Untrusted("a certificate that was not issued directly by an intermediate Trust names")


def _check_issuer(issuer: x509.Certificate, below: int) -> None:
    """Check that `issuer` may sign a certificate with `below` further CAs between it and the leaf."""
    constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    if not constraints.ca:
        raise Untrusted("a certificate issued by one that is no CA")
    if constraints.path_length is None or constraints.path_length < below:
        raise Untrusted(f"a CA of path length {constraints.path_length} with {below} CAs below it")
    usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    if not usage.key_cert_sign:
        raise Untrusted("a CA whose key may not sign certificates")
    for extension in issuer.extensions:
        constrains = isinstance(extension.value, x509.NameConstraints)
        if constrains or (extension.critical and extension.oid not in _UNDERSTOOD_OF_CAS):
            raise Untrusted(f"a CA with an extension nobody here heeds ({extension.oid.dotted_string})")


def _is_p256(public_key: object) -> TypeGuard[ec.EllipticCurvePublicKey]:
    return isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(public_key.curve, ec.SECP256R1)


def _only_uri(names: x509.SubjectAlternativeName) -> str:
    entries = list(names)
    if len(entries) != 1 or not isinstance(entries[0], x509.UniformResourceIdentifier):
        raise Untrusted(f"{len(entries)} alternative names where exactly one SPIFFE ID was due")
    spiffe_id = entries[0].value
    parse_spiffe_id(spiffe_id)
    return spiffe_id


def _valid_at(certificate: x509.Certificate, now: WallSeconds) -> bool:
    not_before, not_after = _validity(certificate)
    return not_before <= now <= not_after


def _validity(certificate: x509.Certificate) -> tuple[int, int]:
    return int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp())


def _spki(public_key: ec.EllipticCurvePublicKey) -> bytes:
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _spki_hash(public_key: ec.EllipticCurvePublicKey) -> bytes:
    return hashlib.sha256(_spki(public_key)).digest()
