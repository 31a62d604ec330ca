"""What a proxy strips, adds and counts down."""

import random

import pytest

from gossipmesh.dataplane.reference.http1 import RequestHead, parse_request_untrusted
from gossipmesh.dataplane.reference.passing import (
    announced_trailers,
    is_engine_word,
    may_go_on,
    passed_headers,
    passed_trailers,
    reflected,
    without_engine_words,
)

SIGNS = b"!#$%&'*+-.^_`|~"


def request(method: str, *fields: str) -> RequestHead:
    lines = [f"{method} / HTTP/1.1", "Host: cart.shop", *fields, "", ""]
    return parse_request_untrusted("\r\n".join(lines).encode())


@pytest.mark.parametrize("sign", [bytes([sign]) for sign in SIGNS], ids=lambda sign: sign.decode())
@pytest.mark.parametrize(
    "word", [b"x-gossipmesh-flag", b"x-gossipmesh-reason", b"x-gossipmesh-hops", b"x-forwarded-client-cert"]
)
def test_a_word_of_engines_is_known_with_every_sign_a_name_may_have(word: bytes, sign: bytes) -> None:
    assert is_engine_word(word.replace(b"-", sign))
    assert is_engine_word(word.replace(b"-", sign, 1))


@pytest.mark.parametrize(
    "name", [b"x-gossip", b"x-gossipmesh", b"gossipmesh-flag", b"x-forwarded-for", b"flag", b"x", b"-"]
)
def test_other_names_are_nobodys(name: bytes) -> None:
    assert not is_engine_word(name)


def test_an_answers_headers_are_kept_as_they_are_without_words_of_engines() -> None:
    headers = [(b"x-a", b"1"), (b"date", b"now")]
    assert without_engine_words(headers) is headers
    assert without_engine_words([*headers, (b"x.gossipmesh.flag", b"UF")]) == headers


def test_a_trace_is_made_once_and_not_for_trace() -> None:
    rng = random.Random(1)
    passed, trace = passed_headers(request("GET"), rng)
    assert (b"traceparent", trace) in passed
    assert trace.startswith(b"00-")
    own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for method in ("GET", "TRACE"):
        passed, trace = passed_headers(request(method, f"Traceparent: {own}"), rng)
        assert (trace, passed.count((b"traceparent", own.encode()))) == (own.encode(), 1)
    passed, trace = passed_headers(request("TRACE"), rng)
    assert trace == b""
    assert b"traceparent" not in dict(passed)


@pytest.mark.parametrize(
    ("method", "value", "goes_on", "left"),
    [
        ("OPTIONS", "0", False, b"0"),
        ("TRACE", "000", False, b"000"),
        ("TRACE", "1", True, b"0"),
        ("OPTIONS", "10", True, b"9"),
        ("OPTIONS", "9" * 30, True, b"9" * 17 + b"8"),
        ("OPTIONS", "-1", True, b"-1"),
        ("OPTIONS", "1, 0", True, b"1, 0"),
        ("GET", "0", True, b"0"),
    ],
)
def test_max_forwards_is_counted_down_where_it_counts(
    method: str, value: str, goes_on: bool, left: bytes
) -> None:
    head = request(method, f"Max-Forwards: {value}")
    assert (may_go_on(head), head.get(b"max-forwards")) == (goes_on, left)


def test_trace_gets_its_request_back_without_secrets() -> None:
    head = request("TRACE", "Cookie: a", "Authorization: b", "X-Gossipmesh-Hops: 1", "X-A:  c ")
    assert reflected(head) == b"TRACE / HTTP/1.1\r\nhost: cart.shop\r\nx-a: c\r\n\r\n"


@pytest.mark.parametrize(
    "name",
    [b"content-length", b"transfer_encoding", b"host", b"authorization", b"set-cookie", b"trailer", b"te",
     b"x.gossipmesh.flag", b"x_forwarded_for", b"cache-control", b"content-type", b"if-match"],
)  # fmt: skip
def test_a_trailer_that_could_change_its_message_is_dropped(name: bytes) -> None:
    assert passed_trailers([(name, b"1"), (b"x-sum", b"2")]) == [(b"x-sum", b"2")]
    assert announced_trailers(b"X-Sum, " + name) == b"trailer: x-sum\r\n"
    assert announced_trailers(name) == announced_trailers(None) == announced_trailers(b" , ") == b""
