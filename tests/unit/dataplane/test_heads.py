"""Reading heads: the usual form needs one look, and what is unusual is understood or refused alike."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipmesh.dataplane.reference.http1 import (
    OUTER_LIMITS,
    BadMessage,
    FieldsTooLarge,
    HeadLimits,
    parse_request_untrusted,
    parse_response_untrusted,
)

REQUEST = b"GET /a?b HTTP/1.1\r\nHost: cart.shop\r\nX-One: 1\r\nEmpty:\r\nAccept: a, b\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n"
SPACED = [
    REQUEST.replace(b"X-One: 1", b"X-One: 1 "),
    REQUEST.replace(b"X-One: 1", b"X-One:\t1\t \t"),
    REQUEST.replace(b"Empty:", b"Empty: \t "),
    REQUEST.replace(b"cart.shop", b"  cart.shop  "),
    REQUEST.replace(b"a, b", b"a, b\t"),
]
BAD = [
    (b"X-One", b" X-One"),  # a folded line
    (b"X-One", b"\tX-One"),
    (b"X-One: 1", b"X-One: \0"),
    (b"GET /a?b", b"GET /a\0b"),
    (b"X-One: 1", b"X-One: 1\r"),
    (b"X-One: 1", b"X-One: 1\n"),
    (b"X-One: 1", b"X-One: 1\rY: 2"),
    (b"X-One: 1", b"X-One: 1\nY: 2"),
    (b"X-One: 1", b"X-One : 1"),
    (b"X-One: 1", b"X-One"),
    (b"X-One: 1", b": 1"),
    (b"X-One: 1", b"X\xe9: 1"),
    (b"GET ", b"GET  "),
    (b"GET /a?b", b"GET"),
    (b"HTTP/1.1", b"HTTP/1.2"),
    (b"HTTP/1.1", b"HTTP/1.1 "),
    (b"HTTP/1.1", b"http/1.1"),
    (b"GET ", b"\r\nGET "),
]


@pytest.mark.parametrize("head", SPACED)
def test_white_space_at_the_end_of_lines_changes_nothing(head: bytes) -> None:
    read, plain = parse_request_untrusted(head), parse_request_untrusted(REQUEST)
    assert (read.method, read.target, read.host) == (plain.method, plain.target, plain.host)
    assert read.headers == plain.headers


@pytest.mark.parametrize(("right", "wrong"), BAD)
def test_what_is_not_of_the_form_is_refused(right: bytes, wrong: bytes) -> None:
    parse_request_untrusted(REQUEST)
    with pytest.raises(BadMessage):
        parse_request_untrusted(REQUEST.replace(right, wrong, 1))


@pytest.mark.parametrize("spaced", [False, True])
def test_limits_hold_in_every_form(spaced: bool) -> None:
    head = REQUEST.replace(b"X-One: 1", b"X-One: 1 ") if spaced else REQUEST
    parse_request_untrusted(head, HeadLimits(len(head), 4))
    with pytest.raises(FieldsTooLarge, match="4, where 3 may be"):
        parse_request_untrusted(head, HeadLimits(len(head), 3))
    with pytest.raises(FieldsTooLarge, match=f"more than {len(head) - 1} bytes"):
        parse_request_untrusted(head, HeadLimits(len(head) - 1, 4))


def test_a_line_as_long_as_a_head_is_walked_once() -> None:
    """A pattern that goes back would take minutes for this."""
    line = b"x" * (OUTER_LIMITS.bytes_max - len(ANSWER) - 6)
    for end in (b"", b" ", b"\0"):
        long = ANSWER.replace(b"Server: x", b"Server: " + line + end)
        if end == b"\0":
            with pytest.raises(BadMessage, match="a NUL"):
                parse_response_untrusted(long)
        else:
            assert parse_response_untrusted(long).headers == [(b"server", line)]


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"keep-alive", [b"server", b"x-one"]),
        (b"Keep-Alive", [b"server", b"x-one"]),
        (b"keep-alive, X-One", [b"server"]),
        (b"x-one", [b"server"]),
        (b"close", [b"server", b"x-one"]),
    ],
)
def test_connection_names_what_goes_no_further(value: bytes, left: list[bytes]) -> None:
    head = ANSWER.replace(b"keep-alive", value).replace(b"Server: x", b"Server: x\r\nX-One: 1")
    assert [name for name, _ in parse_response_untrusted(head).headers] == left


class Told:
    """The fields as httptools tells them."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes | None) -> None:
        self.headers.append((name.lower(), (value or b"").strip(b" \t")))


NAMES = st.text(alphabet="aZ9-_~!", min_size=1, max_size=3) | st.text(alphabet='a\\"():;= \t', max_size=2)
VALUES = st.text(alphabet='a,:; \t"\xe9', max_size=5) | st.text(alphabet="a \t\r\n\0\x7f", max_size=3)
LINES = st.lists(
    st.tuples(NAMES, st.sampled_from([":", ": ", ":\t", ": \t", "::", " :", ""]), VALUES), max_size=3
)


@given(LINES)
def test_fields_are_what_httptools_takes_them_for(lines: list[tuple[str, str, str]]) -> None:
    """It says whether it is a head, we cut it up: on none that is taken may the two differ."""
    fields = "".join(f"{name}{colon}{value}\r\n" for name, colon, value in lines)
    head = f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode("latin-1")
    try:
        read = parse_response_untrusted(head)
    except BadMessage:
        return
    told = Told()
    httptools.HttpResponseParser(told).feed_data(head)
    assert read.headers == told.headers
