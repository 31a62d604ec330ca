"""Reading a leaf: `cryptography` is the oracle for the same bytes, and no bytes raise any but refusals."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, PeerRefused
from gossipmesh.testing.mutator import Mutator
from gossipmesh.trust.carrier import carrier_leaf_pem, carrier_root_pem
from gossipmesh.trust.leaf_profile import leaf_builder
from gossipmesh.trust.pins import pin_of
from gossipmesh.trust.svid import leaf_key_pem
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted, read_leaf_untrusted

DOMAIN = "mesh.test"
CART = f"spiffe://{DOMAIN}/ns/shop/svc/cart"
ROOT = x509.load_pem_x509_certificate(carrier_root_pem(DOMAIN))


def leaf_of(spiffe_id: str = CART, serial: int = 11) -> bytes:
    pem = carrier_leaf_pem(DOMAIN, spiffe_id, leaf_key_pem(b"\x05" * 48), serial)
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def dated(since: datetime, until: datetime) -> x509.Certificate:
    key = ec.derive_private_key(7, ec.SECP256R1())
    builder = leaf_builder(key.public_key(), CART, ROOT).serial_number(1)
    return builder.not_valid_before(since).not_valid_after(until).sign(key, hashes.SHA256())


@pytest.mark.parametrize("serial", [1, 127, 128, 255, 256, 2**63, 2**151 + 1, 2**159 - 1])
def test_what_it_says_is_what_another_reader_reads(serial: int) -> None:
    data = leaf_of(serial=serial)
    leaf, other = read_leaf_untrusted(data), x509.load_der_x509_certificate(data)
    key = other.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert (leaf.spiffe_id, leaf.serial, leaf.pin) == (CART, other.serial_number, pin_of(CART, key))
    assert leaf.not_before == int(other.not_valid_before_utc.timestamp())
    assert leaf.not_after == int(other.not_valid_after_utc.timestamp())


def test_dates_of_both_forms() -> None:
    """RFC 5280 section 4.1.2.5: two digits up to 2049, four from 2050 on."""
    for year in (1950, 1999, 2000, 2026, 2049, 2050, 2999):
        since = datetime(year, 2, 28, 23, 59, 58, tzinfo=UTC)
        leaf = read_leaf_untrusted(dated(since, since + timedelta(days=1)).public_bytes(Encoding.DER))
        assert (leaf.not_before, leaf.not_after - leaf.not_before) == (int(since.timestamp()), 86_400)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01"),  # version 2
        (b"\x02\x01\x0b", b"\x02\x01\x00"),  # a serial number of 0
        (b"\x02\x01\x0b", b"\x02\x01\x8b"),  # a negative one
        (b"\x17\x0d000101000000Z", b"\x17\x0d000101000000+"),
        (b"\x17\x0d000101000000Z", b"\x17\x0d001301000000Z"),  # the thirteenth month
        (b"\x18\x0f99991231235959Z", b"\x18\x0f99991231235960Z"),
        (b"\x01\x01\xff", b"\x01\x01\x01"),  # a truth value that is neither
    ],
)
def test_what_another_form_would_say_is_not_read(old: bytes, new: bytes) -> None:
    data = leaf_of()
    assert old in data
    with pytest.raises(PeerRefused) as caught:
        read_leaf_untrusted(data.replace(old, new))
    assert caught.value.code == "unreadable"


def test_an_extension_that_is_there_twice_is_refused() -> None:
    """What makes certificates makes none such: the authority key identifier becomes another key usage."""
    usage, key = b"\x06\x03\x55\x1d\x0f", b"\x06\x03\x55\x1d\x23"
    with pytest.raises(PeerRefused) as caught:
        read_leaf_untrusted(leaf_of().replace(key, usage))
    assert caught.value.code == "extension"


def test_bytes_behind_or_missing_are_refused() -> None:
    data = leaf_of()
    for end in range(len(data)):
        with pytest.raises(PeerRefused):
            read_leaf_untrusted(data[:end])
    for longer in (data + b"\0", data + data, data + b"x" * limits.LEAF_BYTES_MAX):
        with pytest.raises(PeerRefused):
            read_leaf_untrusted(longer)


def test_mutated_leaves_are_refused_or_read_alike() -> None:
    """What both readers take, both read alike; this one leaves unread what OpenSSL has read already."""
    rng = random.Random(11)
    corpus = [leaf_of(), leaf_of(f"spiffe://{DOMAIN}/node/n1", 2**150)]
    mutator = Mutator(rng)
    taken = 0
    for number in range(20_000):
        data = mutator.mutate_bytes(corpus[number % 2], corpus)
        try:
            leaf = read_leaf_untrusted(data)
        except PeerRefused:
            continue
        try:
            other = x509.load_der_x509_certificate(data)
        except ValueError:
            continue
        taken += 1
        assert leaf.serial == other.serial_number
        assert leaf.spiffe_id.encode() in data
        assert leaf.not_before == int(other.not_valid_before_utc.timestamp())
        assert leaf.not_after == int(other.not_valid_after_utc.timestamp())
    assert taken > 100


def test_certificates_come_out_of_pem_in_order() -> None:
    one, two = carrier_root_pem("a.test"), carrier_root_pem("b.test")
    found = certificates_in_pem_untrusted(b"words before\n" + one + b"between\n" + two)
    assert found == [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in (one, two)]
    assert certificates_in_pem_untrusted(b"nothing") == []
    for bad in (one[:-40], one.replace(b"\nMII", b"\n!II")):
        with pytest.raises(MalformedInput):
            certificates_in_pem_untrusted(bad)
