"""What of a request target is matched, and what is refused because nobody agrees on it.

Spec: RFC 3986 section 6.2.2, RFC 9112 section 3.2. The path is forwarded as it came; only matching
sees the form made here. Rules:

1. Cut at `?`; percent-escapes are decoded once; runs of `/` count as one.
2. Refused, because servers behind us read them in different ways and a rule would be walked round:
   `.` and `..` segments (encoded or not), encoded `/` and `\\`, a bare `\\`, encoded NUL, escapes that
   are none, and a path that does not begin with `/`.
3. `*` (OPTIONS) is kept and matches only what asks for no path.

Deviation: Envoy normalises dot segments and forwards the result; here they are refused, because a
proxy that rewrites what it judges has two truths.
"""

import re
from typing import Final

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.snapshot import PathMatch

_ESCAPE: Final = re.compile(rb"%(..?)?")
_HEX: Final = re.compile(rb"[0-9a-fA-F]{2}")
_DOTS: Final = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")
_SLASHES: Final = re.compile(r"/{2,}")
_AMBIGUOUS: Final = (b"/", b"\\", b"\0")


def matched_path_untrusted(target: str) -> str:
    """Return the form of an origin-form target that rules are matched against.

    Args:
        target: path and optional query as received; characters are bytes (latin-1 or ASCII).

    Raises:
        MalformedInput: a path that can be read in two ways. Remote's fault. State unchanged.
    """
    path = target.partition("?")[0]
    return path if path == "*" else _matched_untrusted(path)


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
    if "/." in path and _DOTS.search(path) is not None:
        raise MalformedInput("the path holds a dot segment")
    return path


def _decoded_untrusted(path: str) -> str:
    def one(escape: re.Match[bytes]) -> bytes:
        digits = escape[1] or b""
        if _HEX.fullmatch(digits) is None:
            raise MalformedInput("the path holds an escape that is none")
        byte = bytes.fromhex(digits.decode())
        if byte in _AMBIGUOUS:
            raise MalformedInput(f"the path holds an encoded {byte!r}")
        return byte

    # Latin-1 maps each byte to one character both ways, so raw and encoded bytes compare alike.
    try:
        return _ESCAPE.sub(one, path.encode("latin-1")).decode("latin-1")
    except UnicodeEncodeError:
        raise MalformedInput("the path holds characters beyond one byte") from None
