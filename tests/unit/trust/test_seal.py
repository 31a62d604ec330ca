"""Sealing, replay windows and cookies."""

import random

import pytest

from gossipmesh.model.errors import Untrusted
from gossipmesh.trust.keys import ExchangeKey
from gossipmesh.trust.seal import (
    Ciphers,
    CookieJar,
    ReplayWindow,
    derive_sealer,
    group_tag_of,
    shared_secret_untrusted,
)

ONE = ExchangeKey(bytes(range(32)))
OTHER = ExchangeKey(bytes(range(1, 33)))


def test_both_sides_derive_one_key_and_each_info_another() -> None:
    secret = shared_secret_untrusted(ONE, OTHER.public)
    assert secret == shared_secret_untrusted(OTHER, ONE.public)
    sealed = derive_sealer(secret, b"salt", b"info").seal(1, b"header", b"body")
    assert len(sealed) == len(b"body") + 16
    assert derive_sealer(secret, b"salt", b"info").open_untrusted(1, b"header", sealed) == b"body"
    for salt, info, counter, header in (
        (b"tlas", b"info", 1, b"header"),
        (b"salt", b"ofni", 1, b"header"),
        (b"salt", b"info", 2, b"header"),
        (b"salt", b"info", 1, b"redaeh"),
    ):
        with pytest.raises(Untrusted):
            derive_sealer(secret, salt, info).open_untrusted(counter, header, sealed)


@pytest.mark.parametrize("peer", [bytes(32), b"short", b""])
def test_a_useless_exchange_key_is_refused(peer: bytes) -> None:
    with pytest.raises(Untrusted):
        shared_secret_untrusted(ONE, peer)


@pytest.mark.parametrize("sealed", [b"", bytes(15), bytes(16), bytes(100)])
def test_nonsense_does_not_open(sealed: bytes) -> None:
    with pytest.raises(Untrusted):
        derive_sealer(bytes(32), b"", b"").open_untrusted(1, b"", sealed)


def test_a_counter_is_taken_once_and_old_ones_never() -> None:
    window = ReplayWindow()
    for counter in (1, 5, 3, 300):
        assert window.fresh(counter)
        window.take(counter)
        assert not window.fresh(counter)
    assert window.fresh(299)
    assert window.fresh(45)
    assert not window.fresh(44)
    assert not window.fresh(5)
    assert not window.fresh(0)


def test_the_window_agrees_with_a_set_of_everything_seen() -> None:
    rng = random.Random(4)
    window, seen, highest = ReplayWindow(), set(), 0
    for _ in range(5_000):
        counter = max(1, highest + rng.randrange(-300, 20))
        expected = counter not in seen and (counter > highest or highest - counter < 256)
        assert window.fresh(counter) == expected
        if expected:
            window.take(counter)
            seen.add(counter)
            highest = max(highest, counter)


def test_ciphers_are_kept_for_so_many_sealers_and_made_again() -> None:
    ciphers = Ciphers(2)
    sealers = [derive_sealer(bytes(32), b"", bytes((number,)), ciphers) for number in range(3)]
    sealed = [sealer.seal(1, b"h", b"body") for sealer in sealers]
    assert len(ciphers) == 2
    assert [sealer._cipher is None for sealer in sealers] == [True, False, False]
    assert [sealer.open_untrusted(1, b"h", s) for sealer, s in zip(sealers, sealed, strict=True)] == [
        b"body"
    ] * 3
    assert len(ciphers) == 2


def test_a_cookie_is_for_one_address_run_and_time() -> None:
    jar = CookieJar(bytes(32), 10)
    cookie = jar.bake("10.0.0.1:7948", 5, 1_000)
    assert jar.accepts(cookie, "10.0.0.1:7948", 5, 1_010)
    assert not jar.accepts(cookie, "10.0.0.1:7948", 5, 1_011)
    assert not jar.accepts(cookie, "10.0.0.1:7948", 5, 999)
    assert not jar.accepts(cookie, "10.0.0.2:7948", 5, 1_000)
    assert not jar.accepts(cookie, "10.0.0.1:7948", 6, 1_000)
    assert not jar.accepts(cookie[:-1], "10.0.0.1:7948", 5, 1_000)
    assert not CookieJar(bytes(31) + b"\1", 10).accepts(cookie, "10.0.0.1:7948", 5, 1_000)


def test_secrets_do_not_show() -> None:
    assert repr(derive_sealer(bytes(32), b"", b"")) == "Sealer()"
    assert repr(CookieJar(b"secret", 10)) == "CookieJar()"


def test_trust_domains_have_tags_of_their_own() -> None:
    assert group_tag_of("one.example") != group_tag_of("two.example")
