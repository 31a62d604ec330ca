"""A root in memory and P-256 certificates of it, the same for every pair."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.trust.leaf_profile import key_usage

HOST_NAME = "mesh.test"


class Authority:
    """One root for one run."""

    def __init__(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        self._window = (now - datetime.timedelta(hours=1), now + datetime.timedelta(days=1))
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench root")])
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        certificate = builder.sign(self._key, hashes.SHA256())
        self.root_pem = certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, spiffe_id: str) -> Identity:
        """Return a certificate of one SPIFFE ID, for both sides of a handshake, and its key.

        Its common name is HOST_NAME: HAProxy verifies names of hosts only.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST_NAME)])
        builder = self._builder(subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(key_usage(ca=False), critical=True)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        pem = serialization.Encoding.PEM
        return Identity(
            spiffe_id,
            builder.sign(self._key, hashes.SHA256()).public_bytes(pem),
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )

    def _builder(self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name)
        builder = builder.public_key(public_key).serial_number(x509.random_serial_number())
        return builder.not_valid_before(self._window[0]).not_valid_after(self._window[1])


def write_pem(folder: Path, authority: Authority, name: str, spiffe_id: str) -> Path:
    """Write `name`.pem, a certificate with its key behind it, and the root as ca.pem; return the former."""
    identity = authority.issue(spiffe_id)
    path = folder / f"{name}.pem"
    path.touch(mode=0o600)
    path.write_bytes(identity.chain_pem + identity.key_pem)
    (folder / "ca.pem").write_bytes(authority.root_pem)
    return path
