"""HTTP/1.1 heads: parsed strictly, written anew.

Responsible for what one head says and how its body is framed. Ends at the body (`body.py`) and at what
to do with a message (`forward.py`). Rules:

1. A head is found by us and read by httptools; what llhttp lets through and two readers could read in
   two ways is refused here, and so is another protocol's version (RTSP, ICE). Nothing is repaired.
2. What goes on is written from what was understood; no byte of a head is copied through unread.
3. Names are lower case from here on; white space around a value is no part of it (RFC 9110 section 5.5).

Spec: RFC 9112 sections 2 to 6, RFC 9110 section 7.6.1 (hop-by-hop fields).
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import httptools

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput

HeaderList = list[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",  # written anew from the framing understood
    }
)
# RFC 3986 section 3.2.3: a port may have no digits.
_HOST: Final = re.compile(rb"([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_TLS_RECORDS: Final = (0x15, 0x16)  # an alert, a handshake
_REQUEST_LINE_ENDS: Final = (b" HTTP/1.1", b" HTTP/1.0")
_STATUS_LINE_BEGINNINGS: Final = (b"HTTP/1.1 ", b"HTTP/1.0 ")
# Lines that begin and end with something visible, without CR, LF, NUL; possessive: one walk, whatever comes.
_PLAIN_FIELDS: Final = rb"(?:[!-~][^\r\n\0]*+(?<![\t ])\r\n)*+\r\n"
# Whole heads that need no second look.
_PLAIN_REQUEST: Final = re.compile(rb"[A-Z]+ [^ \r\n\0]++ HTTP/1\.[01]\r\n" + _PLAIN_FIELDS)
_PLAIN_RESPONSE: Final = re.compile(rb"HTTP/1\.[01] [^\r\n\0]*+(?<![\t ])\r\n" + _PLAIN_FIELDS)
_ABSOLUTE: Final = re.compile(rb"http://([^/?#@\\]+)(/[^#]*|\?[^#]*)?", re.IGNORECASE)
_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_BAD_TARGET: Final = re.compile(rb"[\x00-\x20\x7f#]")
_WHITE: Final = b" \t"
_KEEP_ALIVE: Final = [b"keep-alive"]


class HeadLimits(NamedTuple):
    """How large a head may be."""

    bytes_max: int
    fields_count_max: int


OUTER_LIMITS: Final = HeadLimits(limits.HTTP_HEAD_BYTES_MAX, limits.HTTP_HEADERS_COUNT_MAX)
"""Of a client's or a workload's message."""
ANSWER_BEGINS: Final = b"HTTP/1."
MESH_LIMITS: Final = HeadLimits(
    limits.HTTP_HEAD_BYTES_MAX + limits.HTTP_HEADROOM_BYTES,
    limits.HTTP_HEADERS_COUNT_MAX + limits.HTTP_HEADROOM_COUNT,
)
"""Of another engine's message, which holds what that engine added."""


class BadMessage(MalformedInput):
    """A message that is no HTTP/1.1 or could be read in two ways. Remote's fault. State: close it.

    `status` is what a client is answered.
    """

    status = 400


class TargetTooLong(BadMessage):
    """A request line beyond what a head may have. Remote's fault. State: close it."""

    status = 414


class FieldsTooLarge(BadMessage):
    """Too many header fields, or too many bytes of them. Remote's fault. State: close it."""

    status = 431


class RequestHead:
    """One request's head, understood."""

    __slots__ = (
        "authority",
        "chunked",
        "content_length",
        "expects_continue",
        "headers",
        "host",
        "keep_alive",
        "method",
        "takes_trailers",
        "target",
        "trailer",
        "upgrade",
        "version",
    )

    def __init__(self, method: str, target: bytes, version: str, headers: HeaderList) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.host = b""
        self.authority: bytes | None = None  # of an absolute-form target, or CONNECT's
        self.content_length: int | None = None
        self.chunked = False
        self.expects_continue = False
        self.keep_alive = False
        self.takes_trailers = False  # `TE: trailers`: of the answer
        self.trailer: bytes | None = None  # names of trailers the body announces
        self.upgrade: bytes | None = None

    @property
    def has_body(self) -> bool:
        """Tell whether bytes of a body follow."""
        return self.chunked or bool(self.content_length)

    @property
    def path(self) -> str:
        """Return the target as characters, one per byte."""
        return self.target.decode("latin-1")

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of a header, None when there is none."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def name_host(self, host: bytes) -> None:
        """Have the request say `host` as its Host, whatever it said."""
        if host != self.host:
            self.host = host
            others = [header for header in self.headers if header[0] != b"host"]
            self.headers = [(b"host", host), *others]

    def texts(self) -> "HeaderTexts":
        """Return the headers as text, decoded only when somebody reads them."""
        return HeaderTexts(self.headers)


class ResponseHead:
    """One response's head, understood. `content_length` None and not chunked: until the end."""

    __slots__ = (
        "chunked",
        "content_length",
        "headers",
        "keep_alive",
        "reason",
        "status",
        "trailer",
        "upgrade",
    )

    def __init__(self, status: int, reason: bytes, headers: HeaderList) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = False
        self.trailer: bytes | None = None
        self.upgrade: bytes | None = None


class HeaderTexts:
    """(name, value) pairs as text."""

    __slots__ = ("_headers",)

    def __init__(self, headers: HeaderList) -> None:
        self._headers = headers

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for name, value in self._headers:
            yield name.decode("latin-1"), value.decode("latin-1")


class _Collector:
    """What is read of one head, partly by httptools, which calls it; hop-by-hop fields are kept apart."""

    __slots__ = (
        "codings",
        "complete",
        "headers",
        "lengths",
        "reason",
        "takes_trailers",
        "tokens",
        "trailers",
        "upgrade",
        "url",
        "version",
    )

    def __init__(self) -> None:
        self.url = b""
        self.reason = b""
        self.headers: HeaderList = []
        self.tokens: list[bytes] = []  # of `connection`
        self.lengths: list[bytes] = []
        self.codings: list[bytes] = []
        self.trailers: list[bytes] = []
        self.takes_trailers = False
        self.upgrade: bytes | None = None
        self.complete = False
        self.version = ""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_headers_complete(self) -> None:
        self.complete = True

    def take_fields(self, head: bytes) -> None:
        """Take the fields of a head that httptools has read; lines and colons of it are what they seem."""
        # By ourselves: a call back for each of them costs twice as much.
        begin, end = head.index(b"\r\n") + 2, head.index(b"\r\n\r\n")
        if end < begin:
            return
        headers = self.headers
        for line in head[begin:end].split(b"\r\n"):
            name, _, value = line.partition(b":")
            name, value = name.lower(), value.strip(_WHITE)
            if name in _HOP_BY_HOP:
                self._keep_apart(name, value)
            else:
                headers.append((name, value))

    def _keep_apart(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self.lengths.append(value)
        elif name == b"connection":
            self.tokens += _KEEP_ALIVE if value == b"keep-alive" else _tokens(value)
        elif name == b"transfer-encoding":
            self.codings.append(value)
        elif name == b"upgrade":
            self.upgrade = value
        elif name == b"te":
            self.takes_trailers = self.takes_trailers or b"trailers" in _tokens(value)
        elif name == b"trailer":
            self.trailers.append(value)


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip(_WHITE) for token in value.lower().split(b",")]


def check_head_start_untrusted(
    data: bytes | bytearray, checked: int, allowed: HeadLimits, begins: bytes = b""
) -> None:
    """Refuse a head that cannot become right, before all of it has come.

    Args:
        data: what has come of it, at least one byte.
        checked: how many of those bytes an earlier call has seen.
        allowed: how large it may be.
        begins: how its first line begins, when that is known.

    Raises:
        BadMessage: a leading line break, a bare LF, another protocol, or a head too long. Remote's fault.
            State: close it.
    """
    if begins and not begins.startswith(data[: len(begins)]):
        if data[0] in _TLS_RECORDS:
            raise BadMessage("TLS where HTTP is expected: the mesh encrypts by itself, have it speak http")
        raise BadMessage(f"a first line that is not of HTTP/1.0 or 1.1{_shown(bytes(data[:12]))}")
    if data[0] == 0x16:  # a TLS handshake record
        raise BadMessage("TLS where HTTP is expected: the mesh encrypts by itself, use http://")
    if data[0] in b"\r\n":
        raise BadMessage("a line break before the request line")
    if data.count(b"\n", checked) != data.count(b"\r\n", max(0, checked - 1)):
        raise BadMessage("a bare LF in the head")
    if len(data) > allowed.bytes_max:
        raise _too_long(data, allowed)


def _too_much(head: bytes, allowed: HeadLimits) -> BadMessage:
    if len(head) > allowed.bytes_max:
        return _too_long(head, allowed)
    fields_count = head.count(b"\r\n") - 2
    return FieldsTooLarge(f"too many header fields: {fields_count}, where {allowed.fields_count_max} may be")


def _too_long(data: bytes | bytearray, allowed: HeadLimits) -> BadMessage:
    if data.find(b"\r\n", 0, allowed.bytes_max) < 0:
        return TargetTooLong(f"a request line of more than {allowed.bytes_max} bytes")
    return FieldsTooLarge(f"header fields too large: more than {allowed.bytes_max} bytes with the first line")


def _read_untrusted(
    head: bytes, kind: Any, plain: re.Pattern[bytes], allowed: HeadLimits
) -> tuple[Any, _Collector]:
    if plain.fullmatch(head) is None:
        head = _looked_at_untrusted(head, kind, allowed)
    elif len(head) > allowed.bytes_max or head.count(b"\n") - 2 > allowed.fields_count_max:
        raise _too_much(head, allowed)
    collector = _Collector()
    parser = kind(collector)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # our framing decides what follows
    except httptools.HttpParserError as error:
        raise BadMessage(f"unreadable head: {error}") from None
    collector.version = parser.get_http_version()
    if not collector.complete:
        raise BadMessage("an incomplete head")
    collector.take_fields(head)
    return parser, collector


def _looked_at_untrusted(head: bytes, kind: Any, allowed: HeadLimits) -> bytes:
    """Return a head that is not of the usual form as it is to be read; or say what is wrong with it."""
    breaks = head.count(b"\r\n")
    if head[:1] in (b"", b"\r", b"\n") or head.count(b"\n") != breaks or head.count(b"\r") != breaks:
        raise BadMessage("a bare CR or LF in the head")
    if b"\0" in head or b"\r\n " in head or b"\r\n\t" in head:
        raise BadMessage("a NUL or a folded line in the head")
    if len(head) > allowed.bytes_max or breaks - 2 > allowed.fields_count_max:
        raise _too_much(head, allowed)
    # The rest of the line llhttp reads strictly; but it would take RTSP's and ICE's versions for HTTP's.
    if kind is httptools.HttpRequestParser:
        end = head.find(b"\r\n")
        right = head[end - 9 : end] in _REQUEST_LINE_ENDS and head.count(b" ", 0, end) == 2
    else:
        right = head[:9] in _STATUS_LINE_BEGINNINGS
    if not right:
        raise BadMessage(f"a first line that is not of HTTP/1.0 or 1.1{_shown(head)}")
    # llhttp drops white space in front of values only.
    return b"\r\n".join([one.rstrip(_WHITE) for one in head.split(b"\r\n")])


def _shown(head: bytes) -> str:
    """Return what a head's first line begins with, when that says what is spoken instead."""
    word = head[:12].splitlines()[0].split(b" ")[0]
    if word.startswith(b"HTTP/1."):
        return ""
    return ": " + "".join(chr(byte) if 0x20 < byte < 0x7F else "?" for byte in word)


def parse_request_untrusted(head: bytes, allowed: HeadLimits = OUTER_LIMITS) -> RequestHead:
    """Read one whole head, its empty line included.

    Raises:
        BadMessage: not HTTP/1.1, or it could be read in two ways. Remote's fault. State: close it.
    """
    parser, collector = _read_untrusted(head, httptools.HttpRequestParser, _PLAIN_REQUEST, allowed)
    request = RequestHead(
        parser.get_method().decode("ascii"), collector.url, collector.version, collector.headers
    )
    hosts = 0
    for name, value in collector.headers:
        if name == b"host":
            hosts += 1
            request.host = value
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise BadMessage("an expectation nobody knows")
            request.expects_continue = True
    tokens, upgrade = collector.tokens, collector.upgrade
    if hosts > 1 or (hosts == 0 and request.version == "1.1"):
        raise BadMessage("Host missing or twice")
    if hosts and _HOST.fullmatch(request.host) is None:
        raise BadMessage("a Host that is none")
    _frame(request, collector, request.version)
    request.keep_alive = b"close" not in tokens and (request.version == "1.1" or b"keep-alive" in tokens)
    request.expects_continue = request.expects_continue and request.has_body and request.version == "1.1"
    websocket = upgrade is not None and upgrade.lower() == b"websocket" and b"upgrade" in tokens
    if websocket and not request.has_body and request.method == "GET" and request.version == "1.1":
        request.upgrade = upgrade
    request.takes_trailers = collector.takes_trailers and request.version == "1.1"
    if collector.trailers:
        request.trailer = b", ".join(collector.trailers)
    if tokens:
        request.headers = end_to_end(collector.headers, tokens)
    _read_target(request)
    return request


def parse_response_untrusted(head: bytes, allowed: HeadLimits = OUTER_LIMITS) -> ResponseHead:
    """Read one whole response head, its empty line included.

    Raises:
        BadMessage: not HTTP/1.1, or it could be read in two ways. Remote's fault. State: close it.
    """
    parser, collector = _read_untrusted(head, httptools.HttpResponseParser, _PLAIN_RESPONSE, allowed)
    response = ResponseHead(parser.get_status_code(), collector.reason, collector.headers)
    version, tokens = collector.version, collector.tokens
    response.upgrade = collector.upgrade
    if collector.trailers:
        response.trailer = b", ".join(collector.trailers)
    if not 100 <= response.status <= 599:
        raise BadMessage("a status out of range")
    _frame(response, collector, version)
    response.keep_alive = b"close" not in tokens and (version == "1.1" or b"keep-alive" in tokens)
    if tokens:
        response.headers = end_to_end(collector.headers, tokens)
    return response


def _frame(head: RequestHead | ResponseHead, collector: _Collector, version: str) -> None:
    lengths, codings = collector.lengths, collector.codings
    if codings:
        if lengths or version != "1.1" or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise BadMessage("a transfer coding with a length, on HTTP/1.0, twice or unknown")
        head.chunked = True
    elif lengths:
        if len(lengths) != 1 or _CONTENT_LENGTH.fullmatch(lengths[0]) is None:
            raise BadMessage("two lengths, or one that is no number")
        head.content_length = int(lengths[0])


def _read_target(request: RequestHead) -> None:
    target = request.target
    if _BAD_TARGET.search(target) is not None:
        raise BadMessage("a fragment or control character in the target")
    if request.method == "CONNECT":
        name = _HOST.fullmatch(target)
        if name is None or request.has_body or not _same_name(target, request.host or target):
            raise BadMessage("CONNECT's target is no authority, or not the Host, or a body follows")
        request.authority = target
        return
    if target.startswith(b"/") or (target == b"*" and request.method == "OPTIONS"):
        return
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _same_name(absolute[1], request.host or absolute[1]):
        raise BadMessage("a target that is no path and no address of the Host")
    request.authority = absolute[1]
    request.name_host(absolute[1])
    path = absolute[2] or (b"*" if request.method == "OPTIONS" else b"/")  # RFC 9112 section 3.2.4
    request.target = path if path[:1] in b"/*" else b"/" + path


def _same_name(authority: bytes, host: bytes) -> bool:
    """Tell whether both are hosts with one name; ports are the target's to say (RFC 9112 section 3.2.2)."""
    one, other = _HOST.fullmatch(authority), _HOST.fullmatch(host)
    return one is not None and other is not None and one[1].lower() == other[1].lower()


def end_to_end(headers: HeaderList, tokens: list[bytes]) -> HeaderList:
    """Return the headers without those that `connection` names; hop-by-hop ones are gone already.

    Spec: RFC 9110 section 7.6.1. `host` stays whatever `connection` names.
    """
    if tokens == _KEEP_ALIVE:
        return headers  # mostly it names nothing else
    named = [token for token in tokens if token not in _HOP_BY_HOP and token != b"host"]
    return [header for header in headers if header[0] not in named] if named else headers


def write_request(head: RequestHead, headers: HeaderList, trailer: bytes = b"") -> bytes:
    """Return a request head for the next hop: `headers` plus the framing `head` had.

    `trailer` is the whole line that announces trailers of a chunked body, empty for none.
    """
    parts = [head.method.encode("ascii"), b" ", head.target, b" HTTP/1.1\r\n"]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    if head.chunked:
        parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(trailer)
    elif head.content_length is not None:
        parts.append(b"content-length: %d\r\n" % head.content_length)
    if head.upgrade is not None:
        parts.append(b"connection: upgrade\r\nupgrade: " + head.upgrade + b"\r\n")
    elif head.takes_trailers:
        parts.append(b"connection: te\r\nte: trailers\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def write_response(
    status: int, reason: bytes, headers: HeaderList, *, framing: bytes, keep_alive: bool
) -> bytes:
    """Return a response head; `framing` is whole header lines, maybe none."""
    parts = [b"HTTP/1.1 %d " % status, reason, b"\r\n"]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(framing)
    parts.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    return b"".join(parts)
