"""Who gets what: each refusal of the table leaves the token unspent and the ledger as it was."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from gossipmesh.control.audit import AuditLog
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.ledger import Ledger
from gossipmesh.control.pacing import REFUSALS_PER_DAY, RENEWALS_AT_ONCE
from gossipmesh.control.requests import RequestRefused
from gossipmesh.control.roots import Plan, create_authority
from gossipmesh.control.tokens import TokenOrder
from gossipmesh.model.enrolment import (
    CREDENTIAL_LIFE_S,
    LATE_RENEWAL_S,
    PROOF_RENEW,
    EnrolRequest,
    Issued,
    JoinToken,
    RenewRequest,
)
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import DAY_S, HOUR_S, WallSeconds
from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.net.entropy import random_bytes
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier
from gossipmesh.trust.leaf_serial import LeafSerial, decode_leaf_serial_untrusted
from gossipmesh.trust.records import open_credential_untrusted
from gossipmesh.trust.svid import check_chain_untrusted, leaf_key_pem, make_request, spki_hash_of_key
from gossipmesh.wire.codec import decode_untrusted

NOW = WallSeconds(1_800_000_000)
NODE = "spiffe://mesh.test/node/n1"
CART = "spiffe://mesh.test/ns/shop/svc/cart"
SIGNING = SigningKey(b"\x01" * 32)
EXCHANGE = ExchangeKey(b"\x02" * 32)
LEAF_KEYS = [leaf_key_pem(bytes([n]) * 48) for n in range(3, 7)]


class Desk:
    """An authority's desk, without the door."""

    def __init__(self, directory: Path) -> None:
        self.authority = create_authority(Plan("mesh.test", directory, dev=True), NOW, random_bytes)
        self.ledger = Ledger(directory)
        self.issuer = Issuer(self.authority, self.ledger, random_bytes)

    def token(self, *services: str, node: str = "n1") -> JoinToken:
        order = TokenOrder(Address("127.0.0.1", 1), node, services, 600)
        return self.issuer.create_token(order, NOW)

    def credential(self, issued: Issued) -> NodeCredential:
        documents = TrustedDocuments(trust_domain="mesh.test", verifier=Verifier(), features=())
        documents.load_trust_untrusted(issued.trust[0])
        record = decode_untrusted(issued.credential, SignedRecord, bytes_max=32_768)
        return open_credential_untrusted(record, "mesh.test", documents.credential_keys, Verifier())

    def issued_as(self, issued: Issued) -> tuple[int, int]:
        """Return generation and serial, as the leaf of the node says them."""
        leaf = x509.load_pem_x509_certificate(issued.svids[0].chain.encode())
        told = decode_leaf_serial_untrusted(leaf.serial_number)
        assert told is not None
        return told.generation, told.serial

    def state(self) -> list[bytes]:
        folders = (self.authority.directory / "tokens", self.authority.directory / "nodes")
        return [path.read_bytes() for folder in folders for path in sorted(folder.iterdir())]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "authority")


def requests(*names: str) -> tuple[str, ...]:
    return tuple(make_request(key, name) for key, name in zip(LEAF_KEYS, names, strict=False))


def enrol_request(token: JoinToken, *names: str, **changes: Any) -> EnrolRequest:
    """Return a good request for `names`, changed before it is signed."""
    good = EnrolRequest(
        authority_instance=token.authority_instance,
        token_id=token.token_id,
        secret=token.secret,
        signing_key=SIGNING.public,
        exchange_key=EXCHANGE.public,
        requests=requests(*(names or (NODE, CART))),
    )
    changed = msgspec.structs.replace(good, **changes)
    return msgspec.structs.replace(changed, proof=SIGNING.sign(changed.proof_bytes()))


def renew_request(*names: str, signed_by: SigningKey = SIGNING, **changes: Any) -> RenewRequest:
    good = RenewRequest(spiffe_id=NODE, requests=requests(*(names or (NODE, CART))), issued=NOW, serial=NOW)
    changed = msgspec.structs.replace(good, **changes)
    return msgspec.structs.replace(changed, proof=signed_by.sign(changed.proof_bytes()))


def test_a_token_brings_chains_and_a_credential(desk: Desk) -> None:
    issued = desk.issuer.enrol(enrol_request(desk.token("shop/cart", "web/*")), NOW)
    assert [svid.spiffe_id for svid in issued.svids] == [NODE, CART]
    for svid, key in zip(issued.svids, LEAF_KEYS, strict=False):
        facts = check_chain_untrusted(svid.chain.encode(), desk.authority.root_pem.encode(), NOW)
        assert (facts.spiffe_id, facts.spki_hash) == (svid.spiffe_id, spki_hash_of_key(key))
    credential = desk.credential(issued)
    assert credential.spki_hashes == tuple(spki_hash_of_key(key) for key in LEAF_KEYS[:2])
    assert credential.service_patterns == ("shop/cart", "web/*")
    assert (credential.generation, credential.serial) == (NOW, NOW)
    assert credential.ends == NOW + CREDENTIAL_LIFE_S


def test_generations_rise_with_enrolments_and_serials_with_issues(desk: Desk) -> None:
    seen = []
    for _ in range(2):
        seen.append(desk.issued_as(desk.issuer.enrol(enrol_request(desk.token("shop/*")), NOW)))
        seen.append(desk.issued_as(desk.issuer.renew(renew_request(), NOW)))
    assert seen == [(NOW, NOW), (NOW, NOW + 1), (NOW + 1, NOW + 2), (NOW + 1, NOW + 3)]


def test_a_restored_authority_uses_no_number_again(desk: Desk) -> None:
    """Its ledger is a day old and does not know the node; its numbers stand above those of that day."""
    first = desk.issued_as(desk.issuer.enrol(enrol_request(desk.token("shop/cart")), NOW))
    (desk.authority.directory / "nodes" / "n1.json").unlink()
    later = WallSeconds(NOW + 60)
    second = desk.issued_as(desk.issuer.enrol(enrol_request(desk.token("shop/cart")), later))
    assert second[0] > first[0]
    assert second[1] > first[1]


def test_a_leaf_says_whose_it_is_and_when_it_was_issued(desk: Desk) -> None:
    """Serial numbers never repeat, and order the leaves of a node for who knows nothing else of it."""
    token = desk.token("shop/cart")
    enrolled = desk.issuer.enrol(enrol_request(token), NOW)
    for issued, serial in ((enrolled, NOW), (desk.issuer.renew(renew_request(), NOW), NOW + 1)):
        credential = desk.credential(issued)
        leaves = [x509.load_pem_x509_certificate(svid.chain.encode()) for svid in issued.svids]
        assert [decode_leaf_serial_untrusted(leaf.serial_number) for leaf in leaves] == [
            LeafSerial(credential.node_id[:8], credential.generation, serial, index) for index in range(2)
        ]


FOREIGN = "spiffe://evil.test/ns/shop/svc/cart"
ENROL_REFUSED: list[tuple[str, str, Callable[[JoinToken], EnrolRequest]]] = [
    ("another authority's", "token-foreign", lambda t: enrol_request(t, authority_instance="00")),
    ("an unknown token", "token-unknown", lambda t: enrol_request(t, token_id="0" * 16)),
    ("a path for an id", "token-unknown", lambda t: enrol_request(t, token_id="../nodes/n1")),
    ("a wrong secret", "token-unknown", lambda t: enrol_request(t, secret="0" * 64)),
    ("another node's name", "identity", lambda t: enrol_request(t, "spiffe://mesh.test/node/n2")),
    ("the authority's identity", "identity", lambda t: enrol_request(t, "spiffe://mesh.test/authority")),
    ("another node beside", "service", lambda t: enrol_request(t, NODE, "spiffe://mesh.test/node/n2")),
    (
        "a service not allowed",
        "service",
        lambda t: enrol_request(t, NODE, "spiffe://mesh.test/ns/shop/svc/db"),
    ),
    ("a service of another domain", "service", lambda t: enrol_request(t, NODE, FOREIGN)),
    ("one name twice", "malformed", lambda t: enrol_request(t, NODE, CART, CART)),
    ("no request", "malformed", lambda t: enrol_request(t, requests=())),
    ("noise for a request", "malformed", lambda t: enrol_request(t, requests=("noise",))),
    ("a signing key it does not hold", "proof", lambda t: enrol_request(t, signing_key=b"\x09" * 32)),
    ("a signing key of small order", "malformed", lambda t: enrol_request(t, signing_key=bytes(32))),
    ("a short exchange key", "malformed", lambda t: enrol_request(t, exchange_key=b"\x09")),
    (
        "a changed exchange key",
        "proof",
        lambda t: msgspec.structs.replace(enrol_request(t), exchange_key=b"\x09" * 32),
    ),
]


@pytest.mark.parametrize(
    ("code", "make"), [row[1:] for row in ENROL_REFUSED], ids=[row[0] for row in ENROL_REFUSED]
)
def test_refuses_and_does_not_spend_the_token(
    desk: Desk, code: str, make: Callable[[JoinToken], EnrolRequest]
) -> None:
    token = desk.token("shop/cart")
    before = desk.state()
    with pytest.raises(RequestRefused) as refusal:
        desk.issuer.enrol(make(token), NOW)
    assert refusal.value.code == code
    assert desk.state() == before
    desk.issuer.enrol(enrol_request(token), NOW)


def test_a_token_is_redeemed_once_even_by_another_process(desk: Desk) -> None:
    token = desk.token("shop/cart")
    desk.issuer.enrol(enrol_request(token), NOW)
    again = Issuer(desk.authority, Ledger(desk.authority.directory), random_bytes)
    with pytest.raises(RequestRefused, match=r"used already \(5 s ago\)"):
        again.enrol(enrol_request(token), WallSeconds(NOW + 5))


def test_a_token_expires(desk: Desk) -> None:
    token = desk.token("shop/cart")
    with pytest.raises(RequestRefused, match="expired 1 s ago"):
        desk.issuer.enrol(enrol_request(token), WallSeconds(NOW + 601))


def test_only_the_hash_of_a_secret_is_kept(desk: Desk) -> None:
    token = desk.token("shop/cart")
    everything = b"".join(p.read_bytes() for p in desk.authority.directory.rglob("*") if p.is_file())
    assert token.secret.encode() not in everything
    assert token.secret not in repr(token)


@pytest.mark.parametrize(
    ("node", "services", "ttl_s", "sentence"),
    [
        ("N1", (), 600, "cannot be a node's name"),
        ("../n1", (), 600, "cannot be a node's name"),
        ("n1", ("cart",), 600, "is not a service"),
        ("n1", ("*/cart",), 600, "is not a service"),
        ("n1", (), 0, "lives between"),
        ("n1", (), 30 * DAY_S, "lives between"),
    ],
)
def test_a_token_that_cannot_be_is_not_made(
    desk: Desk, node: str, services: tuple[str, ...], ttl_s: int, sentence: str
) -> None:
    with pytest.raises(OperatorError, match=sentence):
        desk.issuer.create_token(TokenOrder(Address("127.0.0.1", 1), node, services, ttl_s), NOW)
    assert desk.state() == []


class TestRenewal:
    @pytest.fixture
    def enrolled(self, desk: Desk) -> Desk:
        desk.issuer.enrol(enrol_request(desk.token("shop/*")), NOW)
        return desk

    def test_a_wildcard_allows_further_services(self, enrolled: Desk) -> None:
        issued = enrolled.issuer.renew(renew_request(NODE, "spiffe://mesh.test/ns/shop/svc/db"), NOW)
        assert issued.svids[1].spiffe_id == "spiffe://mesh.test/ns/shop/svc/db"

    def test_its_workloads_have_an_identity_of_their_own(self, enrolled: Desk) -> None:
        issued = enrolled.issuer.renew(renew_request(NODE, f"{NODE}/workloads"), NOW)
        assert issued.svids[1].spiffe_id == f"{NODE}/workloads"

    def test_a_renewal_may_bring_new_leaf_keys(self, enrolled: Desk) -> None:
        """The proof is the Ed25519 key's: TLS keys turn."""
        new = leaf_key_pem(b"\x09" * 48)
        issued = enrolled.issuer.renew(renew_request(requests=(make_request(new, NODE),)), NOW)
        chain = issued.svids[0].chain.encode()
        root = enrolled.authority.root_pem.encode()
        assert check_chain_untrusted(chain, root, NOW).spki_hash == spki_hash_of_key(new)

    @pytest.mark.parametrize(
        ("days", "kept"), [(0, True), (9, True), (10, False), (44, False), (45 + 29, False)]
    )
    def test_a_credential_is_signed_again_when_it_is_ten_days_old(
        self, enrolled: Desk, days: int, kept: bool
    ) -> None:
        """A node is let in up to thirty days after the end of its credential."""
        first = enrolled.issuer.renew(renew_request(), NOW)
        later = WallSeconds(NOW + days * DAY_S)
        issued = enrolled.issuer.renew(renew_request(issued=later, serial=later), later)
        assert (issued.credential == first.credential) is kept
        if not kept:
            assert enrolled.credential(issued).ends == later + CREDENTIAL_LIFE_S
            assert enrolled.credential(issued).serial >= later

    def test_a_credential_of_a_key_that_was_turned_is_signed_again(self, enrolled: Desk) -> None:
        held = enrolled.issuer.renew(renew_request(), NOW)
        turned = replace(enrolled.authority, credential_key=SigningKey(b"\x0a" * 32))
        issued = Issuer(turned, enrolled.ledger, random_bytes).renew(renew_request(), NOW)
        assert issued.credential != held.credential

    def test_a_node_of_0_2_gets_a_newer_credential_each_time(self, enrolled: Desk) -> None:
        """It names no serial, signs what it always signed, and reports a credential it has already."""
        serials = []
        for _ in range(2):
            request = renew_request(serial=msgspec.UNSET)
            fields = {"spiffe_id": NODE, "requests": request.requests, "issued": NOW, "proof": b""}
            assert request.proof_bytes() == PROOF_RENEW + msgspec.json.encode(fields)
            serials.append(enrolled.credential(enrolled.issuer.renew(request, NOW)).serial)
        assert serials[1] == serials[0] + 1

    @pytest.mark.parametrize(
        ("wanted", "got"),
        [(5, NOW + 1), (NOW + 500, NOW + 500), (2**62, NOW + DAY_S), (-(2**62), NOW + 1)],
    )
    def test_the_node_asks_for_a_serial_within_bounds(self, enrolled: Desk, wanted: int, got: int) -> None:
        issued = enrolled.issuer.renew(renew_request(serial=wanted), NOW)
        assert enrolled.issued_as(issued) == (NOW, got)

    def test_what_a_node_may_not_be_any_more_is_left_out_and_named(self, enrolled: Desk) -> None:
        """Its patterns became narrower: whoever serves two services does not end for one."""
        held = enrolled.ledger.enrolment("n1")
        assert held is not None
        enrolled.ledger.put_enrolment(msgspec.structs.replace(held, services=("shop/db",)))
        database, web = "spiffe://mesh.test/ns/shop/svc/db", "spiffe://mesh.test/ns/web/svc/front"
        issued = enrolled.issuer.renew(renew_request(NODE, CART, database, web), NOW)
        assert [svid.spiffe_id for svid in issued.svids] == [NODE, database]
        assert issued.left_out == (CART, web)
        assert enrolled.credential(issued).service_patterns == ("shop/db",)
        (deed,) = (deed for deed in enrolled.ledger.log.deeds() if deed.what == "renewed")
        assert f"left out: {CART}, {web}" in deed.detail

    def test_strangers_cannot_tell_a_name_that_is_enrolled_from_one_that_is_not(self, enrolled: Desk) -> None:
        said = []
        for name in ("n1", "n9"):
            request = renew_request(
                spiffe_id=f"spiffe://mesh.test/node/{name}", signed_by=SigningKey(b"\x09" * 32)
            )
            with pytest.raises(RequestRefused) as refusal:
                enrolled.issuer.renew(request, NOW)
            said.append((refusal.value.code, str(refusal.value).replace(name, "NAME")))
        assert said[0] == said[1]

    @pytest.mark.parametrize(
        ("code", "at_s", "make"),
        [
            ("proof", 0, lambda: renew_request(signed_by=SigningKey(b"\x09" * 32))),
            ("proof", 0, lambda: msgspec.structs.replace(renew_request(), issued=NOW + 1)),
            ("proof", 0, lambda: msgspec.structs.replace(renew_request(), serial=NOW + 1)),
            ("proof", 0, lambda: renew_request(spiffe_id="spiffe://mesh.test/node/n9")),
            ("proof", 0, lambda: renew_request(spiffe_id="spiffe://evil.test/node/n1")),
            ("malformed", 0, lambda: renew_request(spiffe_id="../../n1")),
            (
                "service",
                0,
                lambda: renew_request(NODE, "spiffe://mesh.test/ns/web/svc/front", serial=msgspec.UNSET),
            ),
            ("service", 0, lambda: renew_request(NODE, "spiffe://evil.test/ns/shop/svc/cart")),
            ("service", 0, lambda: renew_request(NODE, "spiffe://mesh.test/node/n2/workloads")),
            ("service", 0, lambda: renew_request(NODE, "spiffe://mesh.test/authority")),
            ("identity", 0, lambda: renew_request(f"{NODE}/workloads", NODE)),
            ("clock", 2 * HOUR_S, lambda: renew_request()),
            (
                "too-late",
                CREDENTIAL_LIFE_S + LATE_RENEWAL_S,
                lambda: renew_request(issued=NOW + CREDENTIAL_LIFE_S + LATE_RENEWAL_S),
            ),
        ],
    )
    def test_refuses_and_changes_nothing(
        self, enrolled: Desk, code: str, at_s: int, make: Callable[[], RenewRequest]
    ) -> None:
        before = enrolled.state()
        with pytest.raises(RequestRefused) as refusal:
            enrolled.issuer.renew(make(), WallSeconds(NOW + at_s))
        assert refusal.value.code == code
        assert enrolled.state() == before

    def test_a_name_enrolled_again_shuts_out_the_former_holder(self, enrolled: Desk) -> None:
        """A stolen disk cannot renew once its node was enrolled anew."""
        theirs = SigningKey(b"\x08" * 32)
        request = enrol_request(enrolled.token("shop/*"), signing_key=theirs.public)
        signed = msgspec.structs.replace(request, proof=theirs.sign(request.proof_bytes()))
        enrolled.issuer.enrol(signed, NOW)
        with pytest.raises(RequestRefused, match="another machine may"):
            enrolled.issuer.renew(renew_request(), NOW)


def test_one_process_serves_an_authority(desk: Desk) -> None:
    other = Ledger(desk.authority.directory)
    with desk.ledger.hold(), pytest.raises(OperatorError, match="another"), other.hold():
        pass
    with other.hold():
        pass


def test_tokens_long_gone_are_forgotten(desk: Desk) -> None:
    token = desk.token("shop/cart")
    assert desk.ledger.forget_tokens(WallSeconds(NOW + 10 * DAY_S)) == 0
    assert desk.ledger.forget_tokens(WallSeconds(NOW + 40 * DAY_S)) == 1
    assert desk.ledger.token(token.token_id) is None


def test_everything_done_is_on_record(desk: Desk) -> None:
    token = desk.token("shop/*")
    desk.issuer.enrol(enrol_request(token), NOW, "10.0.0.7")
    desk.issuer.renew(renew_request(), NOW, "10.0.0.8")
    for refused in (enrol_request(token), enrol_request(token, secret="0" * 64)):
        with pytest.raises(RequestRefused):
            desk.issuer.enrol(refused, NOW, "10.0.0.9")
    found = [(deed.what, deed.node, deed.peer, deed.serial) for deed in desk.ledger.log.deeds()]
    assert found == [
        ("token", "n1", "", 0),
        ("enrolled", "n1", "10.0.0.7", NOW),
        ("renewed", "n1", "10.0.0.8", NOW + 1),
        ("refused", "n1", "10.0.0.9", 0),
    ], "a token nobody holds is no line"
    details = [deed.detail for deed in desk.ledger.log.deeds()]
    assert details[1] == f"token {token.token_id}; node/n1, ns/shop/svc/cart"
    assert details[3].startswith("[token-used]")


def test_a_stranger_writes_nothing_and_a_known_one_a_few_lines(desk: Desk) -> None:
    token = desk.token("shop/*")
    desk.issuer.enrol(enrol_request(token), NOW)
    before = desk.ledger.log.count
    for attempt in range(50):
        for refused in (
            lambda: desk.issuer.enrol(enrol_request(token, secret="0" * 64), NOW),
            lambda: desk.issuer.renew(renew_request(signed_by=SigningKey(b"\x09" * 32)), NOW),
            lambda n=attempt: desk.issuer.renew(renew_request(issued=NOW - DAY_S - n), NOW),
        ):
            with pytest.raises(RequestRefused):
                refused()
    assert desk.ledger.log.count == before + REFUSALS_PER_DAY


def test_a_node_that_renews_without_end_is_put_off(desk: Desk) -> None:
    desk.issuer.enrol(enrol_request(desk.token("shop/*")), NOW)
    for _ in range(RENEWALS_AT_ONCE):
        desk.issuer.renew(renew_request(), NOW)
    with pytest.raises(RequestRefused, match="renewed too often"):
        desk.issuer.renew(renew_request(), NOW)
    later = WallSeconds(NOW + 60)
    desk.issuer.renew(renew_request(issued=later), later)


def test_nothing_is_answered_that_is_not_on_record(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    token = desk.token("shop/cart")

    def full(*_: object, **__: object) -> None:
        raise OperatorError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(AuditLog, "append", full)
        with pytest.raises(OperatorError):
            desk.issuer.enrol(enrol_request(token), NOW)
    desk.issuer.enrol(enrol_request(token), NOW)  # the token was not spent


def test_a_log_that_lost_its_newest_lines_is_told(desk: Desk) -> None:
    """Cutting off the end breaks no chain; the records know how far it went."""
    desk.issuer.enrol(enrol_request(desk.token("shop/cart")), NOW)
    assert Ledger(desk.authority.directory).check_log() is None
    path = desk.authority.directory / "log" / "000001.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    with pytest.raises(OperatorError, match="ends at line 1, and n1 was enrolled or renewed at line 2"):
        Ledger(desk.authority.directory).check_log()
