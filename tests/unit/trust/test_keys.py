"""Keys, the memo of verdicts, and signer keys as PEM."""

import subprocess
from pathlib import Path

import pytest

from gossipmesh.model.errors import MalformedInput
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier
from gossipmesh.trust.pem import signing_key_from_pem_untrusted, signing_key_to_pem

KEY = SigningKey(b"\x01" * 32)


def test_signs_as_rfc_8032_says() -> None:
    """Section 7.1, test 2."""
    key = SigningKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign(b"\x72").hex().startswith("92a009a9f0d4cab8720e820b5f642540")


def test_exchange_agrees_and_refuses_a_low_order_point() -> None:
    one, two = ExchangeKey(b"\x01" * 32), ExchangeKey(b"\x02" * 32)
    assert one.exchange(two.public) == two.exchange(one.public)
    with pytest.raises(ValueError):
        one.exchange(bytes(32))


def test_the_memo_keeps_verdicts_apart_and_counts() -> None:
    verifier = Verifier()
    signature = KEY.sign(b"message")
    assert verifier.verify(KEY.public, b"message", signature)
    assert verifier.verify(KEY.public, b"message", signature)
    assert not verifier.verify(KEY.public, b"messagf", signature)
    assert not verifier.verify(KEY.public, b"message", signature[:-1] + b"\x00")
    assert (verifier.computed_count, verifier.remembered_count) == (3, 1)


def test_the_memo_does_not_confuse_where_fields_end() -> None:
    verifier = Verifier()
    signature = KEY.sign(b"ab")
    assert verifier.verify(KEY.public, b"ab", signature)
    assert not verifier.verify(KEY.public, b"b", signature + b"a")


def test_the_memo_is_bounded() -> None:
    verifier = Verifier(verdicts_max=2)
    for message in (b"1", b"2", b"3", b"1"):
        verifier.verify(KEY.public, message, bytes(64))
    assert verifier.computed_count == 4


@pytest.mark.parametrize(
    ("public", "signature"), [(b"", b""), (b"\x00" * 31, b"\x00" * 64), (b"\xff" * 32, b"")]
)
def test_keys_and_signatures_of_wrong_length_do_not_verify(public: bytes, signature: bytes) -> None:
    assert not Verifier().verify(public, b"", signature)


def test_no_secret_in_a_repr() -> None:
    secret = SigningKey(b"\x55" * 32)
    assert "55" * 8 not in repr(secret)
    assert "55" * 8 not in repr(ExchangeKey(b"\x55" * 32))


def test_a_signer_key_round_trips_and_openssl_reads_it(tmp_path: Path) -> None:
    pem = signing_key_to_pem(KEY)
    assert signing_key_from_pem_untrusted(pem).public == KEY.public
    file = tmp_path / "policy.key"
    file.write_bytes(pem)
    shown = subprocess.run(
        ["openssl", "pkey", "-in", str(file), "-noout", "-text_pub"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.replace(":", "").replace("\n", "").replace(" ", "").endswith(KEY.public.hex())


@pytest.mark.parametrize(
    "data", [b"", b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", b"\xff"]
)
def test_what_is_no_signer_key_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        signing_key_from_pem_untrusted(data)
