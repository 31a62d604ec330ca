"""Certificates for a run: a root of its own, and an SVID for any SPIFFE ID, with the contexts that show it.

Spec: X509-SVID section 4, docs/IDENTITY.md. A peer made here believes whatever an engine shows: what an
engine shows is looked at, what it believes is tested.
"""

import os
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN: Final = "mesh.test"


class Pems(NamedTuple):
    """A certificate chain and its key."""

    chain_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "Pems(...)"


class Authority:
    """One root; leaves are made once for each SPIFFE ID."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "conformance root")])
        now = datetime.now(UTC)
        self._window = (now - timedelta(hours=1), now + timedelta(days=1))
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = self._builder(self._name, self._key.public_key()).add_extension(constraints, critical=True)
        root = builder.sign(self._key, hashes.SHA256())
        self.bundle_pem = root.public_bytes(serialization.Encoding.PEM)
        self._made: dict[str, Pems] = {}

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        begins, ends = self._window
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        serial = x509.random_serial_number()
        return builder.serial_number(serial).not_valid_before(begins).not_valid_after(ends)

    def svid(self, spiffe_id: str) -> Pems:
        """Return a leaf for `spiffe_id` and its key."""
        if spiffe_id not in self._made:
            self._made[spiffe_id] = self._issue(spiffe_id)
        return self._made[spiffe_id]

    def _issue(self, spiffe_id: str) -> Pems:
        key = ec.generate_private_key(ec.SECP256R1())
        usage = dict.fromkeys(_USAGES, False) | {"digital_signature": True}
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            self._builder(x509.Name([]), key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(names, critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        )
        leaf = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        pkcs8, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return Pems(leaf, key.private_bytes(serialization.Encoding.PEM, pkcs8, bare))


_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def client_context(pair: Pems | None, alpn: list[str]) -> ssl.SSLContext:
    """Return a caller's context that shows `pair`, if any, and believes whatever it is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _finished(context, pair, alpn)


def server_context(pair: Pems, alpn: list[str], asked: list[Any], roots_pem: bytes) -> ssl.SSLContext:
    """Return a callee's context; the SNI of each caller is appended to `asked`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=roots_pem.decode())
    context.sni_callback = lambda _connection, name, _context: asked.append(name)
    context.num_tickets = 0
    return _finished(context, pair, alpn)


def _finished(context: ssl.SSLContext, pair: Pems | None, alpn: list[str]) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if alpn:
        context.set_alpn_protocols(alpn)
    if pair is not None:
        descriptor = os.memfd_create("pair")
        with os.fdopen(descriptor, "wb") as file:
            file.write(pair.chain_pem + b"\n" + pair.key_pem)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    return context
