"""Ed25519 signing and X25519 exchange keys, and one counted memo of pure signature checks.

Spec: RFC 8032 (Ed25519), RFC 7748 (X25519). Keys are raw 32-byte strings on the wire.
"""

import hashlib
from collections import OrderedDict

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

KEY_BYTES = 32
SIGNATURE_BYTES = 64
KEY_ID_BYTES = 8

_SIGN_BIT = 0x80
_SMALL_ORDER_Y = frozenset(
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",  # order 4
        "0100000000000000000000000000000000000000000000000000000000000000",  # order 1
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",  # order 8
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",  # order 8
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # order 2
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # 0, written as p
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # 1, written as p + 1
    )
)
"""The y of every point whose order divides 8, in each of its encodings, with the sign bit cleared."""


def is_public_key(public_key: bytes) -> bool:
    """Tell whether bytes may be somebody's Ed25519 public key.

    Spec: RFC 8032 section 5.1.3 for the length. Deviation: points of small order are no keys. Nobody holds
        their private half; OpenSSL accepts them, and then one signature can hold for messages nobody signed.
    """
    if len(public_key) != KEY_BYTES:
        return False
    return public_key[:-1] + bytes((public_key[-1] & ~_SIGN_BIT & 0xFF,)) not in _SMALL_ORDER_Y


def key_id(public_key: bytes) -> bytes:
    """Return the short name of a public key: the first 8 bytes of its SHA-256."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_BYTES]


class SigningKey:
    """An Ed25519 private key; `public` is its raw public half, 32 bytes."""

    __slots__ = ("_private", "public")

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: bytes = self._private.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"SigningKey(key_id={key_id(self.public).hex()})"

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return self._private.sign(message)

    def seed(self) -> bytes:
        """Return the 32 secret bytes, for a 0600 file and nothing else."""
        return self._private.private_bytes_raw()


class ExchangeKey:
    """An X25519 private key; `public` is its raw public half, 32 bytes."""

    __slots__ = ("_private", "public")

    def __init__(self, seed: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(seed)
        self.public: bytes = self._private.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"ExchangeKey(key_id={key_id(self.public).hex()})"

    def exchange(self, peer_public: bytes) -> bytes:
        """Return the 32-byte shared secret.

        Raises:
            ValueError: the peer's key is a low-order point. Remote's fault. State unchanged.
        """
        return self._private.exchange(X25519PublicKey.from_public_bytes(peer_public))

    def seed(self) -> bytes:
        """Return the 32 secret bytes, for a 0600 file and nothing else."""
        return self._private.private_bytes_raw()


class Verifier:
    """Checks Ed25519 signatures and remembers the verdicts, which never change.

    The memo is keyed by a hash of key, message and signature, so it can be shared by every node
    of a simulation without one learning from another anything it could not compute.
    """

    def __init__(self, verdicts_max: int = 65_536) -> None:
        self._verdicts: OrderedDict[bytes, bool] = OrderedDict()
        self._verdicts_max = verdicts_max
        self.computed_count = 0
        self.remembered_count = 0

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is `public_key`'s over `message`. Cost: 136 us when not remembered."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(len(public_key).to_bytes(2, "big") + public_key)
        digest.update(len(signature).to_bytes(2, "big") + signature)
        digest.update(message)
        name = digest.digest()
        known = self._verdicts.get(name)
        if known is not None:
            self.remembered_count += 1
            self._verdicts.move_to_end(name)
            return known
        self.computed_count += 1
        verdict = _verify(public_key, message, signature)
        self._verdicts[name] = verdict
        if len(self._verdicts) > self._verdicts_max:
            self._verdicts.popitem(last=False)
        return verdict


def _verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
