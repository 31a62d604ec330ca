"""A certificate authority in memory, for tests that shake hands: a root, and SVIDs for any SPIFFE ID."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.trust.leaf_profile import key_usage

TRUST_DOMAIN = "mesh.test"


class Authority:
    """One root; two authorities do not trust each other."""

    def __init__(self, name: str = "root") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        self._window = (now - timedelta(hours=1), now + timedelta(days=1))
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.bundle_pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._window[0])
            .not_valid_after(self._window[1])
        )

    def identity(self, spiffe_id: str, uris: Sequence[str] | None = None) -> Identity:
        """Return an SVID for `spiffe_id`; `uris` makes a certificate that says something else."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [spiffe_id] if uris is None else list(uris)
        builder = self._builder(x509.Name([]), key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if names:
            sans = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names])
            builder = builder.add_extension(sans, critical=True)
        builder = builder.add_extension(key_usage(ca=False), critical=True)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Identity(
            spiffe_id,
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


@cache
def shared_authority() -> Authority:
    """Return one authority for a whole test run."""
    return Authority()
