"""What of a request target is matched, and what is refused because nobody agrees on it.

Spec: RFC 3986 sections 3.3, 4.2 and 6.2.2, RFC 9112 section 3.2. The path is forwarded as it came; only
matching sees the forms made here. Rules:

1. Cut at `?`; percent-escapes are decoded once; runs of `/` count as one.
2. Refused, because servers behind us read them in different ways and a rule would be walked round: a
   target that begins with `//`; segments that are `.`, `..` or nothing once parameters (`;`) and trailing
   spaces are cut, encoded or not; encoded `/` and `\\`, a bare `\\`, encoded control characters, UTF-8
   longer than it need be, escapes that are none, and a path that does not begin with `/`.
3. `*` (OPTIONS) is kept and matches only what asks for no path.
4. A path with parameters has two readings, with and without them. What closes a path also closes what
   lenient servers take for it (`closed_form`).

Deviation: Envoy normalises dot segments and forwards the result; here they are refused, because a
proxy that rewrites what it judges has two truths.
"""

import re
from typing import Final

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.snapshot import PathMatch

_HEX: Final = re.compile(rb"[0-9a-fA-F]{2}")
_SLASHES: Final = re.compile(r"/{2,}")
_AMBIGUOUS: Final = frozenset([b"/", b"\\", b"\x7f", *(bytes([code]) for code in range(0x20))])
# What two digits behind `%` stand for; digits know no case.
_BYTES: Final = {
    (high + low).encode(): bytes.fromhex(high + low)
    for high in "0123456789abcdefABCDEF"
    for low in "0123456789abcdefABCDEF"
    if bytes.fromhex(high + low) not in _AMBIGUOUS
}
# A lead byte that no UTF-8 needs, or one whose continuation says that fewer bytes would have done.
_OVERLONG: Final = re.compile(r"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]|\xf0[\x80-\x8f][\x80-\xbf]")


def matched_path_untrusted(target: str) -> str:
    """Return the form of an origin-form target that rules are matched against.

    Args:
        target: path and optional query as received; characters are bytes (latin-1 or ASCII).

    Raises:
        MalformedInput: a path that can be read in two ways. Remote's fault. State unchanged.
    """
    path = target.partition("?")[0]
    if path.startswith("//"):
        raise MalformedInput("the path begins with two slashes, which others read as a host")
    return path if path == "*" else _matched_untrusted(path)


def without_parameters(path: str) -> str:
    """Return a matched path without the parameters of its segments, as servlet containers read it."""
    if ";" not in path:
        return path
    return "/".join(segment.partition(";")[0] for segment in path.split("/"))


def closed_form(path: str) -> str:
    """Return what a deny compares: the widest reading that a server behind us may give a matched path.

    Express knows no case and no trailing slash, Windows neither case nor trailing dots and spaces, servlet
    containers no parameters.
    """
    segments = [segment.partition(";")[0].rstrip(". ") for segment in path.lower().split("/")]
    return "/" + "/".join(segment for segment in segments if segment) if path.startswith("/") else path


def normal_path_match(kind: str, value: str) -> PathMatch | None:
    """Return a rule's path in the form requests are matched in; None for one that matches every path.

    A value that no request could have (a dot segment, say) is kept as it is and matches nothing.
    """
    try:
        path = _matched_untrusted(value.encode().decode("latin-1"))
    except MalformedInput:
        return PathMatch("exact", value)
    if kind == "prefix":
        path = path.rstrip("/") or "/"
        if path == "/":
            return None
    return PathMatch(kind, path)


def path_matches(match: PathMatch, path: str) -> bool:
    """Tell whether a matched path satisfies `match`; prefixes end on an element's border."""
    if match.kind == "exact":
        return path == match.value
    return path == match.value or path.startswith(match.value + "/") or (match.value == "/" and path != "*")


def _matched_untrusted(path: str) -> str:
    if not path.startswith("/"):
        raise MalformedInput("the path does not begin with a slash")
    if "\\" in path:
        raise MalformedInput("the path holds a backslash")
    if "%" in path:
        path = _decoded_untrusted(path)
    if "//" in path:
        path = _SLASHES.sub("/", path)
    if "/." in path or ";" in path:
        _check_segments_untrusted(path)
    if not path.isascii() and _OVERLONG.search(path) is not None:
        raise MalformedInput("the path holds UTF-8 that is longer than it need be")
    return path


def _check_segments_untrusted(path: str) -> None:
    for segment in path.split("/"):
        bare, parameters, _ = segment.partition(";")
        bare = bare.rstrip(" ")
        if bare in (".", ".."):
            raise MalformedInput("the path holds a dot segment")
        if parameters and not bare:
            raise MalformedInput("the path holds a segment of parameters only")


def _decoded_untrusted(path: str) -> str:
    # Latin-1 maps each byte to one character both ways, so raw and encoded bytes compare alike.
    try:
        first, *others = path.encode("latin-1").split(b"%")
    except UnicodeEncodeError:
        raise MalformedInput("the path holds characters beyond one byte") from None
    # By look-up: a target may be 64 KiB of escapes, and each is judged while nobody else runs.
    pieces = [first]
    for piece in others:
        byte = _BYTES.get(piece[:2])
        if byte is None:
            raise MalformedInput(_fault_of_escape(piece[:2]))
        pieces += (byte, piece[2:])
    return b"".join(pieces).decode("latin-1")


def _fault_of_escape(digits: bytes) -> str:
    if _HEX.fullmatch(digits) is None:
        return "the path holds an escape that is none"
    return f"the path holds an encoded {bytes.fromhex(digits.decode())!r}"
