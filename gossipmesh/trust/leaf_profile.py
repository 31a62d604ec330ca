"""What every SVID's leaf looks like, whoever signs it.

Ends at an unsigned builder: serial, dates and signature are the issuer's.
Spec: X509-SVID sections 2 to 4; RFC 5280 sections 4.2.1.3, 4.2.1.6 and 4.2.1.9.
"""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID


def leaf_builder(
    public_key: ec.EllipticCurvePublicKey, spiffe_id: str, issuer: x509.Certificate
) -> x509.CertificateBuilder:
    """Return a leaf for `spiffe_id` below `issuer`, without serial and dates.

    Raises:
        x509.ExtensionNotFound: `issuer` has no subject key identifier. Local fault. State unchanged.
    """
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .add_extension(names, critical=True)  # an empty subject makes it critical (RFC 5280 4.2.1.6)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(authority_key(issuer), critical=False)
    )


def key_usage(*, ca: bool) -> x509.KeyUsage:
    """Return what a CA's key may do, or a leaf's: no key does both."""
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the extension that names the issuer's key."""
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
