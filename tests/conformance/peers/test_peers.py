"""Who a peer is, by every vector: asked of the function, and of an engine at its real ports.

`vectors/peers.json`: what a peer shows (chain, its key, the path OpenSSL verifies), what is known of members,
whom a caller dialled, and the verdict: `identity` and `ground`, or `refused` with its code. Certificates are
PEM or stand in `certificates` by name. `openssl_refuses`: the handshake itself ends, the code is of who asks
nonetheless (`handshake`: the leaf alone is as it should be).
"""

import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.dataplane.reference import peers
from gossipmesh.model.errors import PeerRefused
from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import UpstreamSection
from gossipmesh.net.byte_stream import connect
from gossipmesh.net.tls import ALPN_HTTP, TlsStream, client_context, select_by_name, server_context
from gossipmesh.testing.peer_sections import peer_sections
from gossipmesh.traffic.sections import Snapshot, encode_section, make_snapshot
from gossipmesh.trust.carrier import carrier_leaf_pem, carrier_root_pem
from gossipmesh.trust.peer_identity import Dialled, PeerFacts, Presented, identify_untrusted
from gossipmesh.trust.peer_tables import CredentialTable, PinTable
from gossipmesh.trust.svid import leaf_key_pem
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted
from tests.unit.dataplane.certificates import TRUST_DOMAIN
from tests.unit.dataplane.engine_kit import (
    CART,
    WEB,
    Node,
    address_of,
    answering,
    bound,
    counted,
    endpoint,
    get,
    local,
    nodes,
    until,
    workload,
)

FILE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "peers.json").read_text())
VECTORS: list[dict[str, Any]] = FILE["vectors"]
SNI = "cart.cart.shop.mesh.test"


def pem(named: str) -> str:
    """Return a certificate the file writes out or names."""
    return named if named.startswith("-----") else str(FILE["certificates"][named])


def der(named: str) -> bytes:
    (found,) = certificates_in_pem_untrusted(pem(named).encode())
    return found


def told(vector: dict[str, Any]) -> dict[str, bytes]:
    """Return the sections an engine is told, encoded."""
    facts = vector["facts"]
    if facts["intermediates"] is None:
        return {}
    sections = peer_sections(
        tuple(pem(name) for name in facts["intermediates"]),
        {bytes.fromhex(pin): bytes.fromhex(node) for pin, node in facts["pins"].items()},
        {bytes.fromhex(node): tuple(numbers) for node, numbers in facts["credentials"].items()},
        hears=not facts["alone"],
    )
    return {name: encode_section(section) for name, section in sections.items()}


def facts_of(vector: dict[str, Any]) -> PeerFacts:
    facts = vector["facts"]
    sections = peer_sections(
        (),
        {bytes.fromhex(pin): bytes.fromhex(node) for pin, node in facts["pins"].items()},
        {bytes.fromhex(node): tuple(numbers) for node, numbers in facts["credentials"].items()},
    )

    def shards(kind: str) -> dict[int, bytes]:
        return {
            int(name[-2:], 16): section.entries  # type: ignore[union-attr]
            for name, section in sections.items()
            if name.startswith(kind)
        }

    intermediates = facts["intermediates"]
    return PeerFacts(
        facts["trust_domain"],
        frozenset(der(name) for name in facts["roots"]),
        None if intermediates is None else frozenset(der(name) for name in intermediates),
        PinTable(shards("pins/")),
        CredentialTable(shards("credentials/")),
        facts["alone"],
    )


def dialled_of(vector: dict[str, Any]) -> Dialled | None:
    asked = vector["dialled"]
    if asked is None:
        return None
    pins = None if asked["pins"] is None else tuple(bytes.fromhex(one) for one in asked["pins"])
    return Dialled(asked["spiffe_id"], bytes.fromhex(asked["node"]), pins)


JUDGED = [vector for vector in VECTORS if vector.get("refused") != "handshake"]


@pytest.mark.parametrize("vector", JUDGED, ids=lambda vector: vector["name"])
def test_the_function(vector: dict[str, Any]) -> None:
    shown = vector["shown"]
    presented = Presented(der(shown["chain"][0]), [der(name) for name in shown["issuers"]])
    if "refused" in vector:
        with pytest.raises(PeerRefused) as caught:
            identify_untrusted(presented, facts_of(vector), dialled_of(vector))
        assert caught.value.code == vector["refused"]
        assert str(caught.value)
    else:
        peer = identify_untrusted(presented, facts_of(vector), dialled_of(vector))
        assert (peer.spiffe_id, peer.ground) == (vector["identity"], vector["ground"])


def pair_of(vector: dict[str, Any]) -> Identity:
    chain = "".join(pem(name) for name in vector["shown"]["chain"])
    return Identity("", chain.encode(), vector["shown"]["key"].encode())


class Judge:
    """One engine, told what each vector knows; it is called, and it calls."""

    def __init__(self, node: Node, serves: Address) -> None:
        self.node = node
        self._serves = serves

    async def learn(self, vector: dict[str, Any], snapshot: Snapshot) -> None:
        """Tell the engine the vector's facts; its own certificates are the carrier's."""
        keys = {
            name: leaf_key_pem(bytes([label]) * 48)
            for label, name in enumerate((CART, WEB, self.node.spiffe_id), 40)
        }
        own = [
            Identity(name, b"", key, carrier_leaf_pem(TRUST_DOMAIN, name, key, 1))
            for name, key in keys.items()
        ]
        roots = "".join(pem(name) for name in vector["facts"]["roots"]).encode()
        carrier = FILE["certificates"]["carrier"].encode()
        await self.node.client.apply_identities(own, roots, carrier)
        plain = {name: snapshot.sections[digest] for name, digest in snapshot.root.items()}
        await self.node.client.apply_snapshot(make_snapshot({**plain, **told(vector)}))

    def counted(self) -> Counter[str]:
        """Return what the engine has counted of handshakes and peers so far."""
        return counted(self.node, "tls_", "peers_")

    async def moved(self, before: Counter[str], side: str) -> Counter[str]:
        """Return what one handshake was counted as, once it is: in one step."""
        ends = (f"tls_{side}_failures", f"tls_{side}_handshakes")
        await until(lambda: any((self.counted() - before)[name] for name in ends))
        return self.counted() - before

    async def is_called(self, vector: dict[str, Any]) -> bool:
        """Call the mesh port as the vector's peer; tell whether a request was answered."""
        await self.learn(
            vector, self.node.compile(local=(local(self._serves),), catalog=(endpoint(self.node),))
        )
        context = client_context(pair_of(vector), carrier_root_pem(TRUST_DOMAIN), ALPN_HTTP)
        sock = await connect(self.node.at("mesh"), mesh=True)
        stream = TlsStream(sock, context, server_name=SNI, server_side=False)
        try:
            await stream.handshake()
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: cart.shop\r\n\r\n")
            return (await stream.receive()).startswith(b"HTTP/1.1 200")
        except OSError:
            return False
        finally:
            stream.close()


def verdict(moved: Counter[str], *, served: bool) -> str:
    """Return `served`, the code of the refusal, or `handshake` for one that ended before anyone was asked."""
    (code, *more) = [name for name in moved if name.startswith("peers_refused_")] or ["handshake"]
    assert not more
    assert not served or code == "handshake"
    return "served" if served else code.removeprefix("peers_refused_").replace("_", "-")


@pytest.fixture
def alone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an engine whose agent hears nobody be alone without a minute's wait."""
    monkeypatch.setattr(peers, "ALONE_AFTER_NS", 0)


@pytest.mark.usefixtures("alone_at_once")
async def test_an_engine_that_is_called(tmp_path: Path) -> None:
    """Nobody is served who is to be refused, and each refusal has its vector's code."""
    asked = [vector for vector in VECTORS if vector["dialled"] is None]
    async with workload(answering()) as serves, nodes(tmp_path, "far") as (far,):
        judge = Judge(far, serves)
        wrong = []
        for vector in asked:
            before = judge.counted()
            served = await judge.is_called(vector)
            found = verdict(await judge.moved(before, "server"), served=served)
            if found != wanted_of(vector):
                wrong.append((vector["name"], wanted_of(vector), found))
        assert not wrong


def wanted_of(vector: dict[str, Any]) -> str:
    """Return which verdict is right."""
    if vector["openssl_refuses"]:
        return "handshake"
    return str(vector.get("refused", "served"))


class Answerer:
    """A mesh port of our own, showing what a vector's peer shows, for an engine that calls."""

    def __init__(self) -> None:
        self._listener = bound()
        self.address = address_of(self._listener)
        self.vector: dict[str, Any] = VECTORS[0]

    async def run(self) -> None:
        """Answer one connection after another."""
        with self._listener:
            while True:
                await trio.lowlevel.wait_readable(self._listener.fileno())
                await self._answer(self._listener.accept()[0])

    async def _answer(self, accepted: socket.socket) -> None:
        context = server_context(pair_of(self.vector), carrier_root_pem(TRUST_DOMAIN))
        select_by_name(context, lambda _name: context)
        stream = TlsStream(accepted, context, server_name=None, server_side=True)
        try:
            await stream.handshake()
            while await stream.receive():
                await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        except OSError:
            pass  # refused, as most are to be
        finally:
            stream.close()


def leading_to(node: Node, vector: dict[str, Any], address: Address) -> Snapshot:
    """Return a snapshot whose one endpoint is whom the vector dials, at `address`."""
    dialled = dialled_of(vector)
    assert dialled is not None
    there = msgspec.structs.replace(endpoint(node), node="n1", address=address)
    snapshot = node.compile(catalog=(there,), wanted=("shop/cart",))
    upstream = snapshot.section("upstream/shop/cart")
    assert isinstance(upstream, UpstreamSection)
    (one,) = upstream.endpoints
    with_pins = msgspec.structs.replace(one, spiffe_id=dialled.spiffe_id, pins=dialled.pins)
    changed = encode_section(msgspec.structs.replace(upstream, endpoints=(with_pins,)))
    plain = {name: snapshot.sections[digest] for name, digest in snapshot.root.items()}
    return make_snapshot({**plain, "upstream/shop/cart": changed})


@pytest.mark.usefixtures("alone_at_once")
async def test_an_engine_that_calls(tmp_path: Path) -> None:
    """It sends nothing to who is not the endpoint it dialled, and each refusal has its vector's code."""
    asked = [one for one in VECTORS if one["dialled"] and one["dialled"]["node"]]
    async with nodes(tmp_path, "near") as (near,), trio.open_nursery() as nursery:
        answerer = Answerer()
        nursery.start_soon(answerer.run)
        judge = Judge(near, answerer.address)
        wrong = []
        for vector in asked:
            answerer.vector = vector
            await judge.learn(vector, leading_to(near, vector, answerer.address))
            before = judge.counted()
            status, head, _body = await get(near.at("proxy"))
            found = verdict(await judge.moved(before, "client"), served=status == 200)
            if found != wanted_of(vector):
                wrong.append((vector["name"], wanted_of(vector), found, head))
        assert not wrong
        nursery.cancel_scope.cancel()
