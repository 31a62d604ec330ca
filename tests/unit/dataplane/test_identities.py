"""Which leaf an engine shows: the authority's while it holds, the carrier's of the same key after it."""

import socket

import pytest
import trio

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.dataplane.reference import identities as module
from gossipmesh.dataplane.reference.identities import SHOWN_MARGIN_S, Identities, IdentitiesRefused
from gossipmesh.model.instant import WallSeconds
from gossipmesh.net.tls import ALPN_HTTP, TlsStream, client_context, select_by_name
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted, read_leaf_untrusted
from tests.unit.dataplane.engine_kit import CART, WEB
from tests.unit.dataplane.key_sets import CARRIER, ROOT, carried_only, identity

ROOTS = ROOT.pem.encode()
OURS = identity(CART, "far", 1)
THEIRS = identity(WEB, "near", 2)
LEAF = read_leaf_untrusted(certificates_in_pem_untrusted(OURS.chain_pem)[0])


def at(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    monkeypatch.setattr(module, "wall_seconds", lambda: WallSeconds(seconds))


async def shown(identities: Identities) -> bytes:
    """Shake hands with who serves as CART; return the leaf it shows."""
    left, right = socket.socketpair()
    front = identities.front()
    assert front is not None
    select_by_name(front, lambda _name: identities.server(CART))
    server = TlsStream(left, front, server_name=None, server_side=True)
    context = client_context(THEIRS, ROOTS + CARRIER, ALPN_HTTP)
    client = TlsStream(right, context, server_name="cart", server_side=False)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.handshake)
            await client.handshake()
        return client.presented().leaf
    finally:
        client.close()
        server.close()


def first(pem: bytes) -> bytes:
    return certificates_in_pem_untrusted(pem)[0]


@pytest.mark.parametrize(
    ("seconds", "chain"),
    [
        (LEAF.not_before - 1, False),
        (LEAF.not_before + SHOWN_MARGIN_S, True),
        (LEAF.not_after - SHOWN_MARGIN_S, True),
        (LEAF.not_after - SHOWN_MARGIN_S + 1, False),
        (LEAF.not_after + 1, False),
    ],
)
async def test_it_changes_over_by_itself(monkeypatch: pytest.MonkeyPatch, seconds: int, chain: bool) -> None:
    """With some minutes to spare: a peer's clock may be ahead or behind."""
    at(monkeypatch, seconds)
    identities = Identities([OURS], ROOTS, CARRIER)
    assert await shown(identities) == first(OURS.chain_pem if chain else OURS.carrier_pem)


async def test_one_set_changes_over_while_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """No agent is asked; a client's contexts change over as well."""
    at(monkeypatch, LEAF.not_before + SHOWN_MARGIN_S)
    identities = Identities([OURS], ROOTS, CARRIER)
    before = identities.client(CART, ALPN_HTTP)
    assert identities.client(CART, ALPN_HTTP) is before
    at(monkeypatch, LEAF.not_after)
    assert identities.client(CART, ALPN_HTTP) is not before
    assert await shown(identities) == first(OURS.carrier_pem)


async def test_what_is_alone_is_shown_whether_it_holds_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, LEAF.not_after + 1)
    bare = Identity(CART, OURS.chain_pem, OURS.key_pem)
    assert await shown(Identities([bare], ROOTS, CARRIER)) == first(OURS.chain_pem)
    assert await shown(Identities([carried_only(OURS)], ROOTS, CARRIER)) == first(OURS.carrier_pem)


@pytest.mark.parametrize(
    ("identity", "why"),
    [
        (Identity(CART, b"", OURS.key_pem), "neither a chain nor a carrier leaf"),
        (Identity(CART, THEIRS.chain_pem, THEIRS.key_pem), "its certificate is of"),
        (Identity(CART, OURS.chain_pem, OURS.key_pem, THEIRS.carrier_pem), "its certificate is of"),
        (Identity(CART, OURS.chain_pem, THEIRS.key_pem), "does not load"),
        (Identity(CART, OURS.chain_pem, OURS.key_pem, identity(CART, "far", 3).carrier_pem), "does not load"),
        (Identity(CART, b"no certificate", OURS.key_pem), "without a certificate"),
    ],
)
def test_what_does_not_fit_is_refused_whole(identity: Identity, why: str) -> None:
    with pytest.raises(IdentitiesRefused, match=why):
        Identities([OURS, identity], ROOTS, CARRIER)
