"""Distinguished encoding, read strictly: what an X.509 certificate is made of, and no more.

Why not a library: an engine loads no cryptography beside OpenSSL's TLS, and Python shows of a peer's
certificate neither its key nor its extensions. Ends at tags, lengths and the few types a leaf holds. Rules:

1. One value has one encoding: lengths are minimal, booleans 00 or FF, integers without leading octets.
2. Whatever is left over is an error; nothing is skipped because nobody knows it.

Spec: X.690 sections 8 and 10.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

from gossipmesh.model.errors import MalformedInput

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT: Final = 0x06
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
_LENGTH_BYTES_MAX: Final = 3
_UTC_TIME_CHARS: Final = 13
_GENERALIZED_TIME_CHARS: Final = 15
_CENTURY_TURNS: Final = 50  # RFC 5280 section 4.1.2.5.1: UTCTime's years from 50 on are of 19xx


class Element(NamedTuple):
    """One value: its tag, its content, and the bytes of both with the length between them."""

    tag: int
    content: bytes
    whole: bytes


class Reader:
    """Takes the elements of one constructed value one after another."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        """Tell whether nothing is left."""
        return self._at == len(self._data)

    def peek(self) -> int:
        """Return the next element's tag, -1 at the end."""
        return -1 if self.done else self._data[self._at]

    def take(self, tag: int | None = None) -> Element:
        """Return the next element, which has to be of `tag` unless that is None.

        Raises:
            MalformedInput: there is none, or another. Remote's fault. State: unusable after.
        """
        data, at = self._data, self._at
        if len(data) < at + 2:
            raise MalformedInput("a value that ends too soon")
        found, length, begin = data[at], data[at + 1], at + 2
        if found & 0x1F == 0x1F or (tag is not None and found != tag):
            raise MalformedInput(f"tag {found:#04x} where {0 if tag is None else tag:#04x} was due")
        if length >= 0x80:
            count = length - 0x80
            octets = data[begin : begin + count]
            length, begin = int.from_bytes(octets, "big"), begin + count
            if not 1 <= count <= _LENGTH_BYTES_MAX or len(octets) < count or not octets[0] or length < 0x80:
                raise MalformedInput("a length that is not the shortest")
        end = begin + length
        if end > len(data):
            raise MalformedInput("a value longer than what holds it")
        self._at = end
        return Element(found, data[begin:end], data[at:end])

    def end(self) -> None:
        """Check that all was taken.

        Raises:
            MalformedInput: something is left. Remote's fault. State unchanged.
        """
        if not self.done:
            raise MalformedInput("bytes after the end of a value")


def only(data: bytes, tag: int) -> bytes:
    """Return the content of the one element that `data` is.

    Raises:
        MalformedInput: another tag, or more than one. Remote's fault. State unchanged.
    """
    reader = Reader(data)
    content = reader.take(tag).content
    reader.end()
    return content


def boolean(content: bytes) -> bool:
    """Return a BOOLEAN's value, MalformedInput for another encoding than DER's."""
    if content not in (b"\x00", b"\xff"):
        raise MalformedInput("a truth value that is neither")
    return content == b"\xff"


def integer(content: bytes) -> int:
    """Return an INTEGER's value, MalformedInput for another encoding than DER's."""
    redundant = len(content) > 1 and content[0] == (0xFF if content[1] & 0x80 else 0x00)
    if not content or redundant:
        raise MalformedInput("a number that is not the shortest")
    return int.from_bytes(content, "big", signed=True)


def bits(content: bytes) -> tuple[int, bytes]:
    """Return how many bits of a BIT STRING's last octet are unused, and the octets.

    Raises:
        MalformedInput: another encoding than DER's. Remote's fault. State unchanged.
    """
    if not content or content[0] > 7 or (content[0] and len(content) == 1):
        raise MalformedInput("a string of bits that is none")
    if content[0] and content[-1] & ((1 << content[0]) - 1):
        raise MalformedInput("unused bits that are set")
    return content[0], content[1:]


def time(element: Element) -> int:
    """Return a Time's wall seconds.

    Spec: RFC 5280 section 4.1.2.5: seconds are there, the zone is Z.

    Raises:
        MalformedInput: another form, or no date. Remote's fault. State unchanged.
    """
    text = element.content.decode("ascii", "replace")
    if element.tag == UTC_TIME and len(text) == _UTC_TIME_CHARS:
        century = "19" if text[:2].isdigit() and int(text[:2]) >= _CENTURY_TURNS else "20"
        text = century + text
    elif element.tag != GENERALIZED_TIME or len(text) != _GENERALIZED_TIME_CHARS:
        raise MalformedInput("a time of no form that certificates have")
    if not text.endswith("Z") or not text[:-1].isdecimal() or not text.isascii():
        raise MalformedInput("a time of no form that certificates have")
    try:
        numbers = [int(text[:4]), *(int(text[at : at + 2]) for at in range(4, 14, 2))]
        return int(datetime(*numbers, tzinfo=UTC).timestamp())  # type: ignore[arg-type,misc]
    except ValueError:
        raise MalformedInput("a time that is no date") from None
