"""The carrier CA: the same for everybody, enough for OpenSSL, and no authority."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.trust.carrier import carrier_leaf_pem, carrier_root_pem
from gossipmesh.trust.svid import check_chain_untrusted, leaf_key_pem, read_leaf_key_untrusted
from gossipmesh.trust.x509_leaf import read_leaf_untrusted

DOMAIN = "mesh.test"
NODE = f"spiffe://{DOMAIN}/node/n1"
KEY = leaf_key_pem(b"\x03" * 48)
SERIAL = int.from_bytes(b"\x7f" + b"\x01" * 18, "big")


def openssl_accepts(tmp_path: Path, leaf: bytes, root: bytes, at: datetime) -> bool:
    (tmp_path / "leaf.pem").write_bytes(leaf)
    (tmp_path / "root.pem").write_bytes(root)
    words = ["openssl", "verify", "-no-CApath", "-no-CAstore", "-x509_strict", "-purpose", "sslserver"]
    when = ["-attime", str(int(at.timestamp())), "-CAfile", "root.pem", "leaf.pem"]
    return subprocess.run([*words, *when], cwd=tmp_path, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("year", [2001, 2026, 2060, 9999])
def test_openssl_takes_a_leaf_at_any_time(tmp_path: Path, year: int) -> None:
    leaf = carrier_leaf_pem(DOMAIN, NODE, KEY, SERIAL)
    assert openssl_accepts(tmp_path, leaf, carrier_root_pem(DOMAIN), datetime(year, 6, 1, tzinfo=UTC))


def test_a_leaf_of_another_domains_carrier_is_not_taken(tmp_path: Path) -> None:
    leaf = carrier_leaf_pem(DOMAIN, NODE, KEY, SERIAL)
    assert not openssl_accepts(
        tmp_path, leaf, carrier_root_pem("other.test"), datetime(2026, 6, 1, tzinfo=UTC)
    )


def test_the_leaf_has_the_form_of_an_svid_and_carries_the_key() -> None:
    pem = carrier_leaf_pem(DOMAIN, NODE, KEY, SERIAL)
    leaf = x509.load_pem_x509_certificate(pem)
    assert read_leaf_untrusted(leaf.public_bytes(Encoding.DER)).spiffe_id == NODE
    assert leaf.public_key() == read_leaf_key_untrusted(KEY).public_key()
    assert leaf.serial_number == SERIAL
    assert leaf.not_valid_after_utc == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_its_key_and_name_follow_from_the_trust_domain() -> None:
    """Another process, another build and another engine must make the same CA."""
    root = x509.load_pem_x509_certificate(carrier_root_pem(DOMAIN))
    point = root.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    assert point.hex() == "03016be155821541b9209d2bf8ec7751cbaab92427b9cd78ac022567f88ade5003"
    assert root.subject.rfc4514_string() == "CN=gossipmesh carrier d3908e34ce29ec9f94b962231abf7ad2"
    assert root.subject == root.issuer


def test_a_chain_to_the_carrier_is_no_chain_to_a_root() -> None:
    """It stands in no bundle: what is judged by a bundle alone never takes it."""
    with pytest.raises(Untrusted):
        check_chain_untrusted(
            carrier_leaf_pem(DOMAIN, NODE, KEY, SERIAL), carrier_root_pem("other.test"), None
        )


def test_only_a_p256_key_is_carried() -> None:
    with pytest.raises(MalformedInput):
        carrier_leaf_pem(DOMAIN, NODE, b"no key", SERIAL)
