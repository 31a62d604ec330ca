"""Certificates that are as they should be but for one thing, for vectors: they last until 2099.

Serial numbers, names and extensions are the caller's; `Leaf` holds what ours have.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gossipmesh.trust.leaf_profile import authority_key, key_usage
from gossipmesh.trust.svid import leaf_key_pem, read_leaf_key_untrusted

SINCE, UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
ENDED = datetime(2021, 1, 1, tzinfo=UTC)
BOTH_SIDES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
USAGES = ("digital_signature", "key_agreement", "key_cert_sign", "crl_sign")

Extensions = tuple[tuple[x509.ExtensionType, bool], ...]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def p256(label: int) -> ec.EllipticCurvePrivateKey:
    """Return the same key for the same label."""
    return read_leaf_key_untrusted(leaf_key_pem(bytes([label]) * 48))


def key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def usage(*names: str) -> x509.KeyUsage:
    """Return a key usage of these alone."""
    every = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "encipher_only", "decipher_only"),
        False,
    )
    return x509.KeyUsage(**every, **{name: name in names for name in USAGES})


@dataclass(frozen=True)
class Ca:
    """A CA: its certificate and key, and the CAs above it but the root."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def ca(name: str, label: int, issuer: Ca | None = None, more: Extensions = (), serial: int = 7) -> Ca:
    """Return a CA below `issuer`, or a root."""
    key = p256(label)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(SINCE)
        .not_valid_after(UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=2), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    for extension, critical in more:
        builder = builder.add_extension(extension, critical=critical)
    if issuer is not None:
        builder = builder.add_extension(authority_key(issuer.certificate), critical=False)
    signer = key if issuer is None else issuer.key
    certificate = builder.sign(signer, hashes.SHA256())
    return Ca(certificate, key, () if issuer is None else (certificate, *issuer.above))


@dataclass(frozen=True)
class Leaf:
    """A leaf to be made; None for an extension leaves it out."""

    spiffe_id: str
    key: PrivateKey
    serial: int = 11
    names: tuple[x509.GeneralName, ...] | None = None
    constraints: x509.BasicConstraints | None = field(
        default_factory=lambda: x509.BasicConstraints(ca=False, path_length=None)
    )
    usage: x509.KeyUsage | None = field(default_factory=lambda: key_usage(ca=False))
    usage_critical: bool = True
    purposes: Sequence[x509.ObjectIdentifier] = BOTH_SIDES
    more: Extensions = ()
    since: datetime = SINCE
    until: datetime = UNTIL

    def but(self, **changes: Any) -> "Leaf":
        """Return the same with something else about it."""
        return replace(self, **changes)

    def signed(self, issuer: Ca) -> list[x509.Certificate]:
        """Return the chain that is shown: the leaf, then CAs up to the root's."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer.certificate.subject)
            .public_key(self.key.public_key())
            .serial_number(self.serial)
            .not_valid_before(self.since)
            .not_valid_after(self.until)
        )
        for extension, critical in (*self._extensions(), (authority_key(issuer.certificate), False)):
            builder = builder.add_extension(extension, critical=critical)
        return [builder.sign(issuer.key, hashes.SHA256()), *issuer.above]

    def _extensions(self) -> list[tuple[x509.ExtensionType, bool]]:
        names = (x509.UniformResourceIdentifier(self.spiffe_id),) if self.names is None else self.names
        found: list[tuple[x509.ExtensionType, bool]] = []
        if names:
            found.append((x509.SubjectAlternativeName(names), True))
        if self.constraints is not None:
            found.append((self.constraints, True))
        if self.usage is not None:
            found.append((self.usage, self.usage_critical))
        if self.purposes:
            found.append((x509.ExtendedKeyUsage(self.purposes), False))
        return [*found, *self.more]
