"""What the vectors (tests/conformance/peers) do not hold: tables of any size, and who may stay."""

import random
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from gossipmesh.model.errors import PeerRefused
from gossipmesh.model.snapshot import HAS_KEY_SETS, REVOKED, CredentialsSection, PinsSection
from gossipmesh.testing.peer_sections import peer_sections
from gossipmesh.trust.peer_identity import (
    Ground,
    Peer,
    PeerFacts,
    Presented,
    identify_untrusted,
    still_holds,
)
from gossipmesh.trust.peer_tables import CredentialTable, Known, PinTable
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted, read_leaf_untrusted
from tests.conformance.peers.certificates import Leaf, ca, p256

NODE = b"\x10" + b"n" * 7


def tables(
    pins: dict[bytes, bytes], credentials: dict[bytes, tuple[int, int, int]]
) -> tuple[PinTable, CredentialTable]:
    sections = peer_sections((), pins, credentials)
    listed, known = {}, {}
    for name, section in sections.items():
        if isinstance(section, PinsSection):
            listed[int(name[-2:], 16)] = section.entries
        elif isinstance(section, CredentialsSection):
            known[int(name[-2:], 16)] = section.entries
    return PinTable(listed), CredentialTable(known)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1_000])
def test_whatever_is_in_a_table_is_found_and_nothing_else(count: int) -> None:
    rng = random.Random(count)
    pins = {rng.randbytes(16): rng.randbytes(8) for _ in range(count)}
    said = {
        rng.randbytes(8): (rng.randrange(2**40), rng.randrange(2**40), rng.randrange(4)) for _ in range(count)
    }
    listed, credentials = tables(pins, said)
    for pin, node in pins.items():
        assert listed.node_of(pin) == node
        assert listed.node_of(pin[:-1] + bytes([pin[-1] ^ 1])) is None
    for node, (generation, serial, flags) in said.items():
        known = Known(generation, serial, bool(flags & HAS_KEY_SETS), bool(flags & REVOKED))
        assert credentials.known(node) == known
        assert credentials.known(node[:-1] + bytes([node[-1] ^ 1])) is None
    assert listed.node_of(b"\xff" * 16) is None
    assert credentials.known(b"\xff" * 8) is None
    assert credentials.known(b"") is None


def test_whether_a_member_signs_no_key_sets_is_known_of_all() -> None:
    """A revoked node is no member: what it lacks opens nothing."""
    signs, lacks, revoked = (1, 1, HAS_KEY_SETS), (1, 1, 0), (1, 1, REVOKED)
    for said, lacking in [({}, False), ({b"a" * 8: signs}, False), ({b"a" * 8: revoked}, False)]:
        assert tables({}, said)[1].any_without_key_sets is lacking
    assert tables({}, {b"a" * 8: signs, b"z" * 8: lacks})[1].any_without_key_sets


@pytest.mark.parametrize(
    ("taken", "now", "stays"),
    [
        ((NODE, 5, True), (5, 9, HAS_KEY_SETS), True),
        ((NODE, 5, True), (6, 1, HAS_KEY_SETS), False),  # enrolled again
        ((NODE, 5, True), (5, 9, REVOKED), False),
        ((NODE, 5, True), (6, 0, REVOKED), False),
        ((NODE, 5, True), None, False),  # forgotten
        ((NODE, 5, False), None, True),  # a newcomer of whom nothing was known, and still is not
        ((NODE, 5, False), (4, 1, HAS_KEY_SETS), True),  # what is known of it is older
        ((NODE, 5, False), (6, 1, HAS_KEY_SETS), False),
        ((None, None, False), None, True),  # nobody can tell whose it is
    ],
)
def test_who_may_stay(
    taken: tuple[bytes | None, int | None, bool], now: tuple[int, int, int] | None, stays: bool
) -> None:
    node, generation, was_known = taken
    peer = Peer("spiffe://mesh.test/ns/shop/svc/cart", Ground.LISTED, node, generation, was_known)
    credentials = tables({}, {} if now is None else {NODE: now})[1]
    assert still_holds(peer, credentials, absent_holds=False) is stays
    assert still_holds(peer, credentials, absent_holds=True) is (stays or now is None)


def test_whoever_showed_a_certificate_that_is_revoked_may_not_stay() -> None:
    peer = Peer("spiffe://mesh.test/ns/shop/svc/cart", Ground.LISTED, NODE, 5, True, serial=7)
    credentials = tables({}, {NODE: (5, 9, HAS_KEY_SETS)})[1]
    assert still_holds(peer, credentials, None, frozenset({6, 8}), absent_holds=False)
    assert not still_holds(peer, credentials, None, frozenset({7}), absent_holds=False)


@pytest.mark.parametrize("listed", [True, False])
def test_a_certificate_that_is_revoked_is_refused_whatever_else_is_known(listed: bool) -> None:
    """Its key is listed, or a root vouches for it; another certificate of the same key is taken."""
    cart = "spiffe://mesh.test/ns/shop/svc/cart"
    issuing = ca("gossipmesh issuing", 102, root := ca("gossipmesh root", 101))
    for serial in (7, 8):
        chain = [one.public_bytes(Encoding.DER) for one in Leaf(cart, p256(5), serial).signed(issuing)]
        shown = Presented(chain[0], chain[1:])
        roots, *_ = certificates_in_pem_untrusted(root.pem.encode())
        pin = read_leaf_untrusted(chain[0]).pin
        pins, credentials = tables({pin: NODE}, {NODE: (5, 9, HAS_KEY_SETS)})
        facts = PeerFacts("mesh.test", frozenset({roots, *chain[1:]}), revoked_leaves=frozenset({7}))
        if listed:
            facts = replace(facts, intermediates=frozenset(), pins=pins, credentials=credentials)
        if serial == 7:
            with pytest.raises(PeerRefused, match="is revoked: 7") as caught:
                identify_untrusted(shown, facts)
            assert caught.value.code == "revoked-leaf"
        else:
            assert identify_untrusted(shown, facts).serial == 8
