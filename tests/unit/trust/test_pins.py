"""A pin is of a key and an identity: the vectors that every build, of whatever language, must meet."""

import hashlib

import pytest

from gossipmesh.trust.pins import PIN_BYTES, pin_of

VECTORS = [
    ("spiffe://mesh.example/node/vm1", b"", "2f99334da232468e38f118ee2bc52f8a"),
    ("spiffe://mesh.example/node/vm1", b"key", "01694c3ed783954378d96d6f80787fbb"),
    ("spiffe://mesh.example/node/vm1/workloads", b"key", "f38188536f326d9d5e1a68c791da12b6"),
    ("spiffe://mesh.example/ns/shop/svc/cart", bytes(range(91)), "2f881e5bb563f5c2f49d56c8a8a69b37"),
]


@pytest.mark.parametrize(("identity", "spki_der", "pin"), VECTORS)
def test_a_pin_is_what_the_vectors_say(identity: str, spki_der: bytes, pin: str) -> None:
    assert pin_of(identity, spki_der).hex() == pin


def test_a_pin_is_the_head_of_a_digest_over_identity_zero_and_key() -> None:
    digest = hashlib.sha256(b"spiffe://mesh.example/node/vm1\0key").digest()
    assert pin_of("spiffe://mesh.example/node/vm1", b"key") == digest[:PIN_BYTES]


def test_a_key_of_one_identity_is_no_key_of_another() -> None:
    assert len({pin_of(identity, b"key") for identity, _, _ in VECTORS}) == 3
