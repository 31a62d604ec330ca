"""A TLS 1.3 peer that may send what no library would: it takes over a connection after its handshake.

Spec: RFC 8446 sections 4.6.3 (key updates), 5.2 (records), 7.1 to 7.3 (keys).
"""

from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

APPLICATION_DATA = 23
HANDSHAKE = 22
ALERT = 21
KEY_UPDATE = b"\x18\x00\x00\x01\x00"
KEY_UPDATE_REQUESTED = b"\x18\x00\x00\x01\x01"


class RawSender:
    """Seals records as the client of a connection whose keys were logged."""

    def __init__(self, key_log: Path) -> None:
        lines = [line.split() for line in key_log.read_text().splitlines()]
        self._secret = bytes.fromhex(next(line[2] for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0"))
        self._begin()

    def _begin(self) -> None:
        self._cipher = AESGCM(_expand(self._secret, b"key", 32))
        self._iv = int.from_bytes(_expand(self._secret, b"iv", 12), "big")
        self._sequence = 0

    def record(self, content: bytes, kind: int = APPLICATION_DATA) -> bytes:
        """Return one sealed record."""
        inner = content + bytes([kind])
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (self._iv ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return header + self._cipher.encrypt(nonce, inner, header)

    def key_update(self, message: bytes = KEY_UPDATE) -> bytes:
        """Return a record that changes our keys, and change them."""
        record = self.record(message, HANDSHAKE)
        self._secret = _expand(self._secret, b"traffic upd", 48)
        self._begin()
        return record


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    name = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return HKDFExpand(SHA384(), length, info).derive(secret)
