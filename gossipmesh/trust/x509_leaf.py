"""A peer's leaf certificate: what it says, if it is a leaf that may stand for anyone.

Ends at the leaf by itself: who issued it is OpenSSL's to verify and `trust.peer_identity`'s to weigh, dates
are OpenSSL's at the handshake. Rules:

1. A leaf is what this mesh issues (`trust.leaf_profile`) or it is refused, with a code that stays the same.
2. What the bytes hold twice, or what nobody here understands and is critical, is refused.

Spec: X509-SVID sections 2, 4.1, 4.3, 4.4 and 5.2; RFC 5280 sections 4.1, 4.2 and 6.1.4.
Deviation: X509-SVID allows names beside the SPIFFE ID; here there is none, as docs/IDENTITY.md says.
"""

import binascii
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, PeerRefused
from gossipmesh.model.identity import parse_spiffe_id
from gossipmesh.trust import der
from gossipmesh.trust.pins import pin_of

_SUBJECT_NAMES: Final = b"\x55\x1d\x11"
_BASIC_CONSTRAINTS: Final = b"\x55\x1d\x13"
_KEY_USAGE: Final = b"\x55\x1d\x0f"
_EXTENDED_KEY_USAGE: Final = b"\x55\x1d\x25"
_NAME_CONSTRAINTS: Final = b"\x55\x1d\x1e"
_UNDERSTOOD: Final = (_SUBJECT_NAMES, _BASIC_CONSTRAINTS, _KEY_USAGE, _EXTENDED_KEY_USAGE)
_SERVER_AUTH: Final = bytes.fromhex("2b06010505070301")
_CLIENT_AUTH: Final = bytes.fromhex("2b06010505070302")
_P256_KEY: Final = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")  # its AlgorithmIdentifier
_P256_POINT_BYTES: Final = 65
_UNCOMPRESSED: Final = 4
_URI: Final = 0x86
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_UNIQUE_IDS: Final = (0x81, 0x82)
_DIGITAL_SIGNATURE: Final = 0x80
_CERT_SIGN: Final = 0x04
_CRL_SIGN: Final = 0x02
_VERSION_3: Final = 2
_SERIAL_BYTES_MAX: Final = 20
_PEM_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_PEM_END: Final = b"-----END CERTIFICATE-----"


@dataclass(frozen=True)
class Leaf:
    """What a leaf says: whose it is, from when to when (wall seconds), its serial number, its key's pin."""

    spiffe_id: str
    not_before: int
    not_after: int
    serial: int
    pin: bytes


@dataclass(frozen=True)
class _Extension:
    critical: bool
    value: bytes


def read_leaf_untrusted(data: bytes) -> Leaf:
    """Read a certificate's DER as an SVID's leaf.

    Raises:
        PeerRefused: unreadable, or no leaf of an SVID. Remote's fault. State unchanged.

    Cost: some 50 us, once for each of the last limits.LEAVES_REMEMBERED_MAX leaves.
    """
    if len(data) > limits.LEAF_BYTES_MAX:
        raise PeerRefused("unreadable", f"a certificate of {len(data)} bytes")
    return _read(data)


@lru_cache(maxsize=limits.LEAVES_REMEMBERED_MAX)  # what bytes say never changes, and callers come again
def _read(data: bytes) -> Leaf:
    try:
        return _leaf(data)
    except PeerRefused:
        raise
    except MalformedInput as error:
        raise PeerRefused("unreadable", f"not a certificate: {error}") from None


def _leaf(data: bytes) -> Leaf:
    certificate = der.Reader(der.only(data, der.SEQUENCE))
    body = der.Reader(certificate.take(der.SEQUENCE).content)
    algorithm = certificate.take(der.SEQUENCE)
    der.bits(certificate.take(der.BIT_STRING).content)
    certificate.end()
    if der.integer(der.only(body.take(_VERSION).content, der.INTEGER)) != _VERSION_3:
        raise MalformedInput("it is not of version 3")
    serial = der.integer(body.take(der.INTEGER).content)
    if serial <= 0 or serial.bit_length() > 8 * _SERIAL_BYTES_MAX:
        raise MalformedInput("its serial number is not positive, or too long")
    if body.take(der.SEQUENCE) != algorithm:
        raise MalformedInput("it names two algorithms for one signature")
    body.take(der.SEQUENCE)  # the issuer: OpenSSL found it
    not_before, not_after = _validity(body.take(der.SEQUENCE).content)
    body.take(der.SEQUENCE)  # the subject: the name is in an extension
    key = body.take(der.SEQUENCE)
    for tag in _UNIQUE_IDS:
        if body.peek() == tag:
            body.take()
    extensions = _extensions(der.only(body.take(_EXTENSIONS).content, der.SEQUENCE))
    body.end()
    _check_extensions(extensions)
    spiffe_id = _name(extensions)
    _check_use(extensions)
    _check_key(key.content)
    return Leaf(spiffe_id, not_before, not_after, serial, pin_of(spiffe_id, key.whole))


def _validity(content: bytes) -> tuple[int, int]:
    dates = der.Reader(content)
    window = der.time(dates.take()), der.time(dates.take())
    dates.end()
    return window


def _extensions(content: bytes) -> dict[bytes, _Extension]:
    found: dict[bytes, _Extension] = {}
    reader = der.Reader(content)
    while not reader.done:
        parts = der.Reader(reader.take(der.SEQUENCE).content)
        name = parts.take(der.OBJECT).content
        critical = parts.peek() == der.BOOLEAN and der.boolean(parts.take(der.BOOLEAN).content)
        value = parts.take(der.OCTET_STRING).content
        parts.end()
        if name in found:
            raise PeerRefused("extension", "a certificate with one extension twice")
        found[name] = _Extension(critical, value)
    return found


def _check_extensions(extensions: dict[bytes, _Extension]) -> None:
    if _NAME_CONSTRAINTS in extensions:
        raise PeerRefused("extension", "a leaf with name constraints, which are for CAs")
    for name, extension in extensions.items():
        if extension.critical and name not in _UNDERSTOOD:
            raise PeerRefused("extension", f"a critical extension nobody here knows ({_dotted(name)})")


def _name(extensions: dict[bytes, _Extension]) -> str:
    extension = extensions.get(_SUBJECT_NAMES)
    names = [] if extension is None else _elements(extension.value)
    if len(names) != 1 or names[0].tag != _URI:
        raise PeerRefused("names", f"{len(names)} alternative names where exactly one SPIFFE ID was due")
    spiffe_id = names[0].content.decode("ascii", "replace")
    try:
        parse_spiffe_id(spiffe_id)
    except MalformedInput as error:
        raise PeerRefused("names", str(error)) from None
    return spiffe_id


def _check_use(extensions: dict[bytes, _Extension]) -> None:
    """Check that the key is for both sides of a handshake, and signs no certificates."""
    constraints = extensions.get(_BASIC_CONSTRAINTS)
    if constraints is None or der.only(constraints.value, der.SEQUENCE):
        raise PeerRefused("ca", "a certificate that is a CA, or does not say that it is none")
    usage = extensions.get(_KEY_USAGE)
    if usage is None or not usage.critical:
        raise PeerRefused("key-usage", "a leaf that does not say, as critical, what its key is for")
    first = (der.bits(der.only(usage.value, der.BIT_STRING))[1] or b"\0")[0]
    if not first & _DIGITAL_SIGNATURE or first & (_CERT_SIGN | _CRL_SIGN):
        raise PeerRefused("key-usage", "a key whose use is not that of a leaf")
    extended = extensions.get(_EXTENDED_KEY_USAGE)
    purposes = [] if extended is None else [one.content for one in _elements(extended.value)]
    if _SERVER_AUTH not in purposes or _CLIENT_AUTH not in purposes:
        raise PeerRefused("extended-key-usage", "a leaf that is not for both sides of a handshake")


def _check_key(content: bytes) -> None:
    reader = der.Reader(content)
    algorithm = reader.take(der.SEQUENCE).whole
    unused, point = der.bits(reader.take(der.BIT_STRING).content)
    reader.end()
    right = algorithm == _P256_KEY and not unused and len(point) == _P256_POINT_BYTES
    if not right or point[0] != _UNCOMPRESSED:
        raise PeerRefused("key-kind", "a key that is not of P-256")


def _elements(data: bytes) -> list[der.Element]:
    found = []
    reader = der.Reader(der.only(data, der.SEQUENCE))
    while not reader.done:
        found.append(reader.take())
    return found


def _dotted(name: bytes) -> str:
    """Return an object identifier as people write it, as far as a sentence needs it."""
    numbers, value = [], 0
    for octet in name[:32]:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2) if numbers else 0
    return (
        ".".join(str(number) for number in (first, numbers[0] - 40 * first, *numbers[1:])) if numbers else "?"
    )


def certificates_in_pem_untrusted(pem: bytes) -> list[bytes]:
    """Return the DER of each certificate in PEM, in order.

    Spec: RFC 7468 section 3.

    Raises:
        MalformedInput: text that is no base64. Remote's fault. State unchanged.
    """
    found = []
    for part in pem.split(_PEM_BEGIN)[1:]:
        text, end, _rest = part.partition(_PEM_END)
        try:
            found.append(binascii.a2b_base64(b"".join(text.split()), strict_mode=True))
        except binascii.Error as error:
            raise MalformedInput(f"a certificate that is no base64: {error}") from None
        if not end:
            raise MalformedInput("a certificate that is cut short")
    return found
