"""Headers a proxy adds, passes and strips on the way.

Rules: what claims an identity or speaks in the engine's name is stripped from a client's request and from
a workload's answer, however it is spelled: servers fold `_`, and some every other sign, into `-`; a valid
`traceparent` is passed untouched and a missing one made; a hop count ends loops; trailers pass without
what could change how the message is taken.

Spec: W3C Trace Context section 3.2, RFC 9110 sections 6.5.1 (trailers) and 7.6.2 (Max-Forwards).
"""

import random
import re
from typing import Final

from gossipmesh.dataplane.reference.http1 import HeaderList, RequestHead
from gossipmesh.model import limits

HOPS: Final = b"x-gossipmesh-hops"
CERTIFICATE: Final = b"x-forwarded-client-cert"
_ENGINE_WORDS: Final = b"x-gossipmesh-"
_X: Final = ord("x")
_FOLDED: Final = bytes(
    byte if chr(byte).isascii() and chr(byte).isalnum() else ord("-") for byte in range(256)
)
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}.*"
)
# RFC 9110 section 6.5.1: what is needed for framing, routing, authentication, content and caching, and
# what names the client. Whoever merges trailers into a head must not be told these by them.
_NEVER_TRAILERS: Final = frozenset(
    b"""accept-encoding age authentication-info authorization cache-control connection content-encoding
    content-length content-range content-type cookie date expect expires forwarded host if-match
    if-modified-since if-none-match if-range if-unmodified-since keep-alive location max-forwards pragma
    proxy-authenticate proxy-authentication-info proxy-authorization proxy-connection range retry-after
    set-cookie te traceparent tracestate trailer transfer-encoding upgrade vary warning www-authenticate
    x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-forwarded-client-cert x-real-ip
    """.split()
)


class TooManyHops(Exception):
    """The request has passed more proxies than any real path has. Remote's fault. State unchanged."""


def is_engine_word(name: bytes) -> bool:
    """Tell whether only engines may say this header; `name` is lower case and not empty."""
    if name[0] != _X:
        return False
    folded = name.translate(_FOLDED)
    return folded.startswith(_ENGINE_WORDS) or folded == CERTIFICATE


def passed_headers(head: RequestHead, rng: random.Random) -> tuple[HeaderList, bytes]:
    """Return (headers for the next hop, the traceparent of the request).

    TRACE sends back what arrived: a trace made here is kept from it.

    Raises:
        TooManyHops: a loop, or a hop count that is none. Remote's fault. State unchanged.
    """
    hops = 0
    trace = b""
    passed: HeaderList = []
    for header in head.headers:
        name = header[0]
        if name == HOPS:
            value = header[1]
            hops = int(value) if value.isdigit() and len(value) < 4 else limits.HOPS_MAX
        elif name == b"traceparent":
            if not trace and _TRACEPARENT.fullmatch(header[1]) is not None:
                trace = header[1]
        elif name[0] != _X or not is_engine_word(name):
            passed.append(header)
    if hops >= limits.HOPS_MAX:
        raise TooManyHops
    if trace or head.method != "TRACE":
        trace = trace or b"00-%032x-%016x-01" % (rng.getrandbits(128) or 1, rng.getrandbits(64) or 1)
        passed.append((b"traceparent", trace))
    passed.append((HOPS, b"%d" % (hops + 1)))
    return passed, trace


def without_engine_words(headers: HeaderList) -> HeaderList:
    """Return a workload's headers without what only engines may say."""
    for header in headers:
        if header[0][0] == _X and is_engine_word(header[0]):
            return [header for header in headers if not is_engine_word(header[0])]
    return headers


def passed_trailers(trailers: HeaderList) -> HeaderList:
    """Return the trailers that may be passed on, whoever sent them."""
    return [trailer for trailer in trailers if not _never_a_trailer(trailer[0])]


def announced_trailers(value: bytes | None) -> bytes:
    """Return the `trailer` header line for what a message announced, empty when nothing of it may pass."""
    if value is None:
        return b""
    names = [name.strip(b" \t") for name in value.lower().split(b",")]
    passed = [name for name in names if name and not _never_a_trailer(name)]
    return b"trailer: " + b", ".join(passed) + b"\r\n" if passed else b""


def _never_a_trailer(name: bytes) -> bool:
    return is_engine_word(name) or name.translate(_FOLDED) in _NEVER_TRAILERS


def may_go_on(head: RequestHead) -> bool:
    """Count `Max-Forwards` down in `head`; False: the request has to be answered here.

    It counts for OPTIONS and TRACE only; what is no number is passed on and means nothing.
    """
    if head.method not in ("OPTIONS", "TRACE"):
        return True
    for index, (name, value) in enumerate(head.headers):
        if name == b"max-forwards" and value.isdigit():
            left = int(value[:18])
            if left == 0:
                return False
            head.headers[index] = (name, b"%d" % (left - 1))
    return True


def reflected(head: RequestHead) -> bytes:
    """Return what TRACE gets back from its last stop: the request, without its secrets.

    Spec: RFC 9110 section 9.3.8.
    """
    lines = [b"TRACE ", head.target, b" HTTP/", head.version.encode("ascii"), b"\r\n"]
    for name, value in head.headers:
        if name not in (b"authorization", b"cookie") and not is_engine_word(name):
            lines += (name, b": ", value, b"\r\n")
    return b"".join(lines) + b"\r\n"
