"""Headers a proxy adds, passes and strips on the way.

Rules: what claims an identity or speaks in the engine's name is stripped from every request, also when
it is spelled with `_`, which CGI and WSGI servers fold into `-`; a valid `traceparent` is passed
untouched and a missing one made; a hop count ends loops.

Spec: W3C Trace Context section 3.2.
"""

import random
import re
from typing import Final

from gossipmesh.dataplane.reference.http1 import HeaderList
from gossipmesh.model import limits

HOPS: Final = b"x-gossipmesh-hops"
_STRIPPED: Final = frozenset(
    {b"x-forwarded-client-cert", b"x-gossipmesh-flag", b"x-gossipmesh-reason", HOPS, b"traceparent"}
)
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}.*"
)


class TooManyHops(Exception):
    """The request has passed more proxies than any real path has. Remote's fault. State unchanged."""


def passed_headers(headers: HeaderList, rng: random.Random) -> tuple[HeaderList, bytes]:
    """Return (headers for the next hop, the traceparent among them).

    Raises:
        TooManyHops: a loop, or a hop count that is none. Remote's fault. State unchanged.
    """
    hops = 0
    trace = b""
    passed: HeaderList = []
    for header in headers:
        name = header[0]
        if name not in _STRIPPED:
            if b"_" not in name or name.replace(b"_", b"-") not in _STRIPPED:
                passed.append(header)
        elif name == HOPS:
            value = header[1]
            hops = int(value) if value.isdigit() and len(value) < 4 else limits.HOPS_MAX
        elif name == b"traceparent" and not trace and _TRACEPARENT.fullmatch(header[1]) is not None:
            trace = header[1]
    if hops >= limits.HOPS_MAX:
        raise TooManyHops
    trace = trace or b"00-%032x-%016x-01" % (rng.getrandbits(128) or 1, rng.getrandbits(64) or 1)
    passed.append((b"traceparent", trace))
    passed.append((HOPS, b"%d" % (hops + 1)))
    return passed, trace
