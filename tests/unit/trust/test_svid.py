"""SVIDs: our judgement of paths, with `openssl verify` as the oracle."""

import base64
import random
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from gossipmesh.control.certificates import make_intermediate, make_root, make_svid, random_serial, to_pem
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.instant import DAY_S, HOUR_S, WallSeconds
from gossipmesh.testing.mutator import Mutator
from gossipmesh.trust.svid import (
    certificate_sha256,
    check_chain_untrusted,
    leaf_key_pem,
    make_request,
    read_leaf_key_untrusted,
    read_request_untrusted,
    spki_hash_of_key,
)
from gossipmesh.trust.x509_leaf import read_leaf_untrusted
from tests.conformance.peers.certificates import Ca, Leaf, ca

NOW = WallSeconds(1_800_000_000)
NODE = "spiffe://mesh.test/node/n1"
SERIAL = b"\x01" * 19


def key(label: int) -> ec.EllipticCurvePrivateKey:
    return read_leaf_key_untrusted(leaf_key_pem(bytes([label]) * 48))


@dataclass
class Chain:
    """A good chain, to be bent by the tests."""

    root: x509.Certificate
    intermediate: x509.Certificate
    leaf: x509.Certificate

    @property
    def pem(self) -> bytes:
        return to_pem(self.leaf) + to_pem(self.intermediate)


def good_chain(spiffe_id: str = NODE) -> Chain:
    root = make_root(key(1), "root", NOW, SERIAL)
    intermediate = make_intermediate(key(2).public_key(), "issuing", root, key(1), NOW, SERIAL)
    return Chain(
        root,
        intermediate,
        make_svid(key(3).public_key(), spiffe_id, intermediate, key(2), NOW, random_serial(SERIAL)),
    )


def openssl_accepts(tmp_path: Path, chain_pem: bytes, root_pem: bytes, now: int) -> bool:
    """Ask OpenSSL for its verdict."""
    first, _, rest = chain_pem.partition(b"-----END CERTIFICATE-----\n")
    (tmp_path / "leaf.pem").write_bytes(first + b"-----END CERTIFICATE-----\n")
    (tmp_path / "between.pem").write_bytes(rest or root_pem)
    (tmp_path / "root.pem").write_bytes(root_pem)
    where = ["-CAfile", "root.pem", "-untrusted", "between.pem"]
    words = ["openssl", "verify", "-no-CApath", "-no-CAstore", "-x509_strict", "-attime", str(now), *where]
    return (
        subprocess.run([*words, "leaf.pem"], cwd=tmp_path, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.parametrize(
    "spiffe_id", [NODE, "spiffe://mesh.test/ns/shop/svc/cart", "spiffe://mesh.test/authority"]
)
def test_what_we_issue_holds_here_and_for_openssl(tmp_path: Path, spiffe_id: str) -> None:
    chain = good_chain(spiffe_id)
    facts = check_chain_untrusted(chain.pem, to_pem(chain.root), NOW)
    assert facts.spiffe_id == spiffe_id
    assert (facts.not_before, facts.not_after) == (NOW - 65 * 60, NOW + DAY_S)
    assert facts.spki_hash == spki_hash_of_key(leaf_key_pem(b"\x03" * 48))
    assert openssl_accepts(tmp_path, chain.pem, to_pem(chain.root), NOW)


class TestIntermediatesInTrust:
    """What an intermediate issued ends with its place in Trust."""

    def other(self) -> x509.Certificate:
        """Return another intermediate of the same root, of the good one's name, with its own key."""
        chain = good_chain()
        name = chain.intermediate.subject.rfc4514_string().removeprefix("CN=")
        return make_intermediate(key(5).public_key(), name, chain.root, key(1), NOW, SERIAL)

    def test_the_named_one_issues(self) -> None:
        chain = good_chain()
        named = [to_pem(self.other()).decode(), to_pem(chain.intermediate).decode()]
        assert check_chain_untrusted(chain.pem, to_pem(chain.root), NOW, named).spiffe_id == NODE

    def test_one_that_trust_does_not_name_issues_nothing(self) -> None:
        chain = good_chain()
        for named in ([], [to_pem(self.other()).decode()], [to_pem(chain.root).decode()]):
            with pytest.raises(Untrusted, match="an intermediate Trust names"):
                check_chain_untrusted(chain.pem, to_pem(chain.root), NOW, named)

    def test_neither_does_one_below_a_named_one(self) -> None:
        """A delegate's leaf passes every standard verifier; here it is nobody's."""
        chain = good_chain()
        delegate = make_intermediate(key(5).public_key(), "delegate", chain.intermediate, key(2), NOW, SERIAL)
        svid = make_svid(key(3).public_key(), NODE, delegate, key(5), NOW, random_serial(SERIAL))
        pem = to_pem(svid) + to_pem(delegate) + to_pem(chain.intermediate)
        with pytest.raises(Untrusted):
            check_chain_untrusted(pem, to_pem(chain.root), NOW, [to_pem(chain.intermediate).decode()])


@pytest.mark.parametrize(
    ("offset", "holds"), [(-66 * 60, False), (-64 * 60, True), (DAY_S - 1, True), (DAY_S + 1, False)]
)
def test_validity_is_judged_at_the_time_given(tmp_path: Path, offset: int, holds: bool) -> None:
    chain = good_chain()
    assert openssl_accepts(tmp_path, chain.pem, to_pem(chain.root), NOW + offset) is holds
    try:
        check_chain_untrusted(chain.pem, to_pem(chain.root), WallSeconds(NOW + offset))
    except MalformedInput:
        assert not holds
    else:
        assert holds


def leaf(**wrong: object) -> x509.Certificate:
    """Return a leaf signed by the good intermediate with something wrong in it."""
    chain = good_chain()
    names = wrong.get("names", [x509.UniformResourceIdentifier(NODE)])
    usage = x509.KeyUsage(True, False, False, False, False, bool(wrong.get("signs")), False, False, False)
    purposes = wrong.get("purposes", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(chain.intermediate.subject)
        .public_key(wrong.get("public_key", key(3).public_key()))  # type: ignore[arg-type]
        .serial_number(7)
        .not_valid_before(datetime.fromtimestamp(NOW - 60, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW + HOUR_S, UTC))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)  # type: ignore[arg-type]
        .add_extension(x509.BasicConstraints(ca=bool(wrong.get("ca")), path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)  # type: ignore[arg-type]
    )
    return builder.sign(wrong.get("signed_by", key(2)), hashes.SHA256())  # type: ignore[arg-type]


URI = x509.UniformResourceIdentifier
LEAVES_REFUSED: list[tuple[str, Callable[[], x509.Certificate]]] = [
    ("two SPIFFE IDs", lambda: leaf(names=[URI(NODE), URI("spiffe://mesh.test/authority")])),
    ("a DNS name beside it", lambda: leaf(names=[URI(NODE), x509.DNSName("n1")])),
    ("a DNS name only", lambda: leaf(names=[x509.DNSName("n1")])),
    ("no SPIFFE ID", lambda: leaf(names=[URI("https://mesh.test/node/n1")])),
    ("an identity of no form we issue", lambda: leaf(names=[URI("spiffe://mesh.test/admin")])),
    ("a CA", lambda: leaf(ca=True)),
    ("a key that signs certificates", lambda: leaf(signs=True)),
    ("for servers only", lambda: leaf(purposes=[ExtendedKeyUsageOID.SERVER_AUTH])),
    ("another curve's key", lambda: leaf(public_key=ec.generate_private_key(ec.SECP384R1()).public_key())),
]


@pytest.mark.parametrize("make", [row[1] for row in LEAVES_REFUSED], ids=[row[0] for row in LEAVES_REFUSED])
def test_a_leaf_that_is_no_svid_is_refused(make: Callable[[], x509.Certificate]) -> None:
    chain = good_chain()
    bad = make()
    with pytest.raises(MalformedInput):
        read_leaf_untrusted(bad.public_bytes(Encoding.DER))
    with pytest.raises(MalformedInput):
        check_chain_untrusted(to_pem(bad) + to_pem(chain.intermediate), to_pem(chain.root), NOW)


def test_the_control_of_the_table_above_is_accepted() -> None:
    assert read_leaf_untrusted(leaf().public_bytes(Encoding.DER)).spiffe_id == NODE


def signed_by_a_stranger() -> tuple[bytes, bytes]:
    chain = good_chain()
    return to_pem(leaf(signed_by=key(9))) + to_pem(chain.intermediate), to_pem(chain.root)


def under_another_root() -> tuple[bytes, bytes]:
    return good_chain().pem, to_pem(make_root(key(9), "root", NOW, SERIAL))


def without_its_intermediate() -> tuple[bytes, bytes]:
    chain = good_chain()
    return to_pem(chain.leaf), to_pem(chain.root)


def issued_by_a_leaf() -> tuple[bytes, bytes]:
    chain = good_chain()
    identifiers = x509.SubjectKeyIdentifier.from_public_key(key(3).public_key())
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(chain.leaf.subject)
        .public_key(key(4).public_key())
        .serial_number(8)
        .not_valid_before(datetime.fromtimestamp(NOW - 60, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW + HOUR_S, UTC))
        .add_extension(x509.SubjectAlternativeName([URI("spiffe://mesh.test/node/n2")]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(True, *[False] * 8), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifiers), critical=False
        )
        .sign(key(3), hashes.SHA256())
    )
    return to_pem(forged) + chain.pem, to_pem(chain.root)


def beyond_the_path_length() -> tuple[bytes, bytes]:
    """Root (2) -> intermediate (1) -> a CA -> another CA -> leaf: one CA too many under the intermediate."""
    chain = good_chain()
    third = make_intermediate(key(5).public_key(), "third", chain.intermediate, key(2), NOW, SERIAL)
    fourth = make_intermediate(key(6).public_key(), "fourth", third, key(5), NOW, SERIAL)
    deep = make_svid(key(3).public_key(), NODE, fourth, key(6), NOW, random_serial(SERIAL))
    pem = b"".join(to_pem(c) for c in (deep, fourth, third, chain.intermediate))
    return pem, to_pem(chain.root)


@pytest.mark.parametrize(
    "make",
    [
        signed_by_a_stranger,
        under_another_root,
        without_its_intermediate,
        issued_by_a_leaf,
        beyond_the_path_length,
    ],
)
def test_a_path_that_does_not_hold_is_refused_here_and_by_openssl(
    tmp_path: Path, make: Callable[[], tuple[bytes, bytes]]
) -> None:
    chain_pem, root_pem = make()
    assert not openssl_accepts(tmp_path, chain_pem, root_pem, NOW)
    with pytest.raises(MalformedInput):
        check_chain_untrusted(chain_pem, root_pem, NOW)


@pytest.mark.parametrize("older_first", [True, False])
def test_of_two_roots_of_one_name_the_one_that_signed_counts(tmp_path: Path, older_first: bool) -> None:
    """A root that is turned keeps its name where its operator likes; its certificates stand side by side."""
    chain, other = good_chain(), to_pem(make_root(key(9), "root", NOW, SERIAL))
    roots = other + to_pem(chain.root) if older_first else to_pem(chain.root) + other
    assert check_chain_untrusted(chain.pem, roots, NOW).spiffe_id == NODE
    assert openssl_accepts(tmp_path, chain.pem, roots, NOW)


@pytest.mark.parametrize(
    ("extension", "critical"),
    [
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00"), True),
        (x509.NameConstraints([x509.UniformResourceIdentifier("elsewhere.test")], None), True),
        (x509.NameConstraints(None, [x509.UniformResourceIdentifier("mesh.test")]), False),
    ],
    ids=["unknown and critical", "other names permitted", "our names excluded"],
)
def test_what_a_ca_says_that_nobody_heeds_refuses_it(
    tmp_path: Path, extension: x509.ExtensionType, critical: bool
) -> None:
    root = make_root(key(1), "root", NOW, SERIAL)
    issuing = ca("issuing", 2, Ca(root, key(1)), ((extension, critical),))
    chain = b"".join(map(to_pem, Leaf(NODE, key(3)).signed(issuing)))
    with pytest.raises(Untrusted, match="nobody here heeds"):
        check_chain_untrusted(chain, to_pem(root), NOW)
    assert not openssl_accepts(tmp_path, chain, to_pem(root), NOW)


@pytest.mark.parametrize(
    "data", [b"", b"noise", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]
)
def test_noise_is_no_certificate(data: bytes) -> None:
    root = to_pem(good_chain().root)
    for chain_pem, bundle_pem in ((data, root), (root, data)):
        with pytest.raises(MalformedInput):
            check_chain_untrusted(chain_pem, bundle_pem, NOW)
    with pytest.raises(MalformedInput):
        read_leaf_untrusted(data)
    with pytest.raises(MalformedInput):
        read_leaf_key_untrusted(data)
    with pytest.raises(MalformedInput):
        certificate_sha256(data.decode())


class TestRequests:
    def test_round_trip(self) -> None:
        pem = leaf_key_pem(b"\x03" * 48)
        request = read_request_untrusted(make_request(pem, NODE))
        assert request.spiffe_id == NODE
        assert request.spki_hash == spki_hash_of_key(pem)
        encoded = request.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert encoded == key(3).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def test_one_for_a_key_its_maker_does_not_hold_is_refused(self) -> None:
        """The public key is swapped for another one; the signature is still the first one's."""
        der = x509.load_pem_x509_csr(make_request(leaf_key_pem(b"\x03" * 48), NODE).encode()).public_bytes(
            Encoding.DER
        )
        ours, theirs = (
            key(n).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for n in (3, 4)
        )
        assert ours in der
        forged = x509.load_der_x509_csr(der.replace(ours, theirs)).public_bytes(Encoding.PEM).decode()
        with pytest.raises(MalformedInput, match="its own key"):
            read_request_untrusted(forged)

    @pytest.mark.parametrize(
        "text", ["", "noise", "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n", "é", "x" * 70_000]
    )
    def test_noise_is_refused(self, text: str) -> None:
        with pytest.raises(MalformedInput):
            read_request_untrusted(text)

    def test_keys_follow_from_their_entropy_and_need_all_of_it(self) -> None:
        assert leaf_key_pem(b"\x01" * 48) == leaf_key_pem(b"\x01" * 48)
        assert leaf_key_pem(b"\x01" * 48) != leaf_key_pem(b"\x02" * 48)
        with pytest.raises(ValueError):
            leaf_key_pem(b"\x01" * 32)


def test_mutated_certificates_and_requests_are_refused_or_read_and_nothing_else() -> None:
    """cryptography raises a dozen types on hostile ASN.1; none of them may get out."""
    rng = random.Random(20)
    mutator = Mutator(rng)
    chain = good_chain()
    root = to_pem(chain.root)
    ders = [c.public_bytes(Encoding.DER) for c in (chain.leaf, chain.intermediate)]
    request = make_request(leaf_key_pem(b"\x03" * 48), NODE).encode()
    request_der = x509.load_pem_x509_csr(request).public_bytes(Encoding.DER)
    refused = 0

    def attempt(judge: Callable[[], object]) -> None:
        nonlocal refused
        with suppress(MalformedInput):
            judge()
            return
        refused += 1

    for _ in range(4_000):
        leaf_der = mutator.mutate_bytes(ders[0], ders)
        request_pem = pem("CERTIFICATE REQUEST", mutator.mutate_bytes(request_der, ders)).decode()
        text = mutator.mutate_bytes(request, [root]).decode("latin-1")
        attempt(partial(read_leaf_untrusted, leaf_der))
        attempt(
            partial(
                check_chain_untrusted, pem("CERTIFICATE", leaf_der) + to_pem(chain.intermediate), root, NOW
            )
        )
        attempt(partial(read_request_untrusted, request_pem))
        attempt(partial(read_request_untrusted, text))
    assert refused > 12_000


def pem(label: str, der: bytes) -> bytes:
    """Return DER as PEM."""
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()
