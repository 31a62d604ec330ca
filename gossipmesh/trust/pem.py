"""Ed25519 signer keys as files: PKCS #8 in PEM, what `openssl pkey` reads too.

Ends at text; who may read the file is `net.secret_files`' to check.
Spec: RFC 8410 (Ed25519 in PKCS #8), RFC 7468 (PEM).
"""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gossipmesh.model.errors import MalformedInput
from gossipmesh.trust.keys import SigningKey


def is_locked(data: bytes) -> bool:
    """Tell whether a key in PEM is under a passphrase (PKCS #8, encrypted)."""
    return b"ENCRYPTED" in data[:200]


def protection(passphrase: bytes | None) -> KeySerializationEncryption:
    """Return how a private key is written: under a passphrase, or open for None."""
    return NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)


def signing_key_to_pem(key: SigningKey, passphrase: bytes | None = None) -> bytes:
    """Return the key as PEM, for a 0600 file and nothing else."""
    private = Ed25519PrivateKey.from_private_bytes(key.seed())
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection(passphrase))


def signing_key_from_pem_untrusted(data: bytes, passphrase: bytes | None = None) -> SigningKey:
    """Read an Ed25519 private key.

    Raises:
        MalformedInput: not such a key, or not under this passphrase; nothing of the content is repeated.
            State unchanged.
    """
    try:
        private = load_pem_private_key(data, password=passphrase if is_locked(data) else None)
    except Exception as error:  # ValueError, TypeError, UnsupportedAlgorithm: all say "not this"
        if is_locked(data):
            raise MalformedInput("a key under a passphrase, and this is not it") from None
        raise MalformedInput(f"not a private key in PEM ({type(error).__name__})") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise MalformedInput("a private key, but not of Ed25519")
    return SigningKey(private.private_bytes_raw())
