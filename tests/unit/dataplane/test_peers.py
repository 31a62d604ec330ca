"""Two engines of a fleet whose nodes sign key sets: who is let through, and what is written down of a thief.

Every rule is a vector (tests/conformance/peers); here are whole engines, their logs and their counters.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.dataplane.reference import peers as module
from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.peers import ALONE_AFTER_NS, KnownPeers, Peers
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import HAS_KEY_SETS, REVOKED
from gossipmesh.net.byte_stream import connect
from gossipmesh.net.tls import ALPN_HTTP, TlsPeerRefused, TlsStream, client_context
from gossipmesh.trust.peer_tables import CredentialTable, PinTable
from tests.unit.dataplane.engine_kit import (
    CART,
    Node,
    answering,
    counted,
    endpoint,
    get,
    local,
    logged,
    nodes,
    until,
    workload,
)
from tests.unit.dataplane.key_sets import CARRIER, GENERATION, ROOT, Fleet, carried_only, identity

REQUEST = b"GET / HTTP/1.1\r\nhost: cart.shop\r\n\r\n"
THIEFS = 77  # the label of a key that nobody lists


@asynccontextmanager
async def fleet_of_two(directory: Path) -> AsyncIterator[tuple[Fleet, Node, Node, Address]]:
    """Run a caller's node and a node serving shop/cart, which know each other's keys."""
    fleet = Fleet({"near": 1, "far": 2, "third": 3})
    async with workload(answering()) as serves, nodes(directory, "near", "far") as (near, far):
        for node in (near, far):
            await fleet.identify(node)
        await tell(fleet, near, far, serves)
        yield fleet, near, far, serves


async def tell(fleet: Fleet, near: Node, far: Node, serves: Address) -> None:
    """Tell both engines what is known of the fleet now."""
    await fleet.tell(far, far.compile(local=(local(serves),), catalog=(endpoint(far),)))
    await fleet.tell(near, near.compile(catalog=(endpoint(far),), wanted=("shop/cart",)))


def refusals(node: Node) -> Counter[str]:
    """Return what an engine has counted of its peers."""
    return counted(node, "peers_")


async def test_members_reach_one_another_by_either_leaf(tmp_path: Path) -> None:
    async with fleet_of_two(tmp_path) as (fleet, near, far, _serves):
        assert (await get(near.at("proxy")))[0] == 200
        for node in (near, far):
            await fleet.identify(node, *(carried_only(one) for one in fleet.identities(node.name)))
        near.engine._state.upstreams["shop/cart"].pool.close_all()
        assert (await get(near.at("proxy")))[0] == 200
        assert not refusals(near) + refusals(far)


@pytest.mark.parametrize(
    ("shows", "code"),
    [
        (carried_only(identity("spiffe://mesh.test/node/near", "near", THIEFS)), "carried"),
        (identity("spiffe://mesh.test/node/near", "near", THIEFS), "unlisted"),
        (identity("spiffe://mesh.test/node/near", "near", THIEFS, generation=GENERATION + 9), "unlisted"),
        (identity("spiffe://mesh.test/node/near", "third", THIEFS), "other-node"),
    ],
    ids=["a carrier leaf", "a stolen intermediate", "a later generation", "another node's number"],
)
async def test_a_caller_with_a_key_nobody_lists(tmp_path: Path, shows: Identity, code: str) -> None:
    async with fleet_of_two(tmp_path) as (fleet, near, far, _serves):
        await fleet.identify(near, shows)
        assert (await get(near.at("proxy")))[0] == 503
        line = await logged(far, f"peer_refused[{code}]")
        assert (line["response_flags"], line["downstream_peer_uri_san"]) == ("UAEX", "")
        await until(lambda: refusals(far)[f"peers_refused_{code.replace('-', '_')}"] >= 1)


@pytest.mark.parametrize(
    ("shows", "code"),
    [
        (carried_only(identity(CART, "far", THIEFS)), "carried"),
        (identity(CART, "far", THIEFS), "unlisted"),
        (identity(CART, "far", THIEFS, generation=GENERATION + 9), "unlisted"),
        (carried_only(identity(CART, "third", 3)), "carried"),
        (identity(CART, "third", 3), "other-node"),
    ],
    ids=[
        "a carrier leaf",
        "a stolen intermediate",
        "a later generation",
        "another node's listed key",
        "the same by the authority",
    ],
)
async def test_a_callee_with_a_key_its_node_does_not_list(
    tmp_path: Path, shows: Identity, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet_of_two(tmp_path) as (fleet, near, far, _serves):
        await fleet.identify(far, shows)
        assert (await get(near.at("proxy")))[0] == 503
        assert (await logged(near, f"peer_refused[{code}]"))["response_flags"].startswith("UF")
        await until(lambda: refusals(near)[f"peers_refused_{code.replace('-', '_')}"] >= 1)
        told = [
            record.getMessage() for record in caplog.records if f"peer_refused[{code}]" in record.getMessage()
        ]
        assert told
        assert " for far is nobody: " in told[0]


async def test_a_key_that_its_node_has_dropped_comes_back_for_nobody(tmp_path: Path) -> None:
    """A thief plays an older key: what lists it is older than what is known."""
    async with fleet_of_two(tmp_path) as (fleet, near, far, serves):
        fleet.labels["far"] = 20
        await tell(fleet, near, far, serves)
        assert (await get(near.at("proxy")))[0] == 503
        await logged(near, "peer_refused[unlisted]")
        await fleet.identify(far)
        assert (await get(near.at("proxy")))[0] == 200


def known(*, hears: bool) -> KnownPeers:
    return KnownPeers("mesh.test", frozenset(), hears, PinTable(), CredentialTable())


def test_an_engine_is_alone_when_it_has_been_left_for_a_minute() -> None:
    """An agent's restart opens no door: not its absence, and not the moment before it hears others again."""
    peers = Peers(Counters())
    peers.attend(attached=True)
    peers.learn(known(hears=True))
    assert not peers.alone(Instant(1))
    peers.attend(attached=False)
    assert not peers.alone(Instant(2))
    assert not peers.alone(Instant(ALONE_AFTER_NS + 1))
    peers.attend(attached=True)
    peers.learn(known(hears=False))
    assert peers.alone(Instant(ALONE_AFTER_NS + 2))
    facts = peers.facts(Instant(ALONE_AFTER_NS + 2))
    assert facts is not None
    assert facts.alone
    peers.learn(known(hears=True))
    again = peers.facts(Instant(ALONE_AFTER_NS + 3))
    assert again is not None
    assert not again.alone
    peers.learn(known(hears=False))
    assert not peers.alone(Instant(ALONE_AFTER_NS + 4))
    assert not peers.alone(Instant(2 * ALONE_AFTER_NS))


async def test_an_engine_whose_agent_is_gone_takes_what_was_issued_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest it goes on judging by what it knows."""
    monkeypatch.setattr(module, "ALONE_AFTER_NS", 0)
    newer = identity(CART, "far", THIEFS, generation=GENERATION + 1, serial=1)
    async with fleet_of_two(tmp_path) as (fleet, near, far, _serves):
        await fleet.identify(far, newer)
        assert (await get(near.at("proxy")))[0] == 503
        await near.client.aclose()
        await until(lambda: not near.engine._state.peers._attached)
        assert (await get(near.at("proxy")))[0] == 200
        await fleet.identify(far, identity(CART, "far", THIEFS))
        near.engine._state.upstreams["shop/cart"].pool.close_all()
        assert (await get(near.at("proxy")))[0] == 503
        await logged(near, "peer_refused[not-newer]")


async def test_an_agent_of_the_build_before_takes_over(tmp_path: Path) -> None:
    """Its snapshots say nothing of keys: roots decide again, and the carrier opens nothing."""
    async with fleet_of_two(tmp_path) as (fleet, near, far, serves):
        await far.client.apply_snapshot(far.compile(local=(local(serves),), catalog=(endpoint(far),)))
        await near.client.apply_snapshot(near.compile(catalog=(endpoint(far),), wanted=("shop/cart",)))
        await fleet.identify(near, identity(near.spiffe_id, "near", THIEFS))
        assert (await get(near.at("proxy")))[0] == 200
        await fleet.identify(near, carried_only(identity(near.spiffe_id, "near", 1)))
        near.engine._state.upstreams["shop/cart"].pool.close_all()
        assert (await get(near.at("proxy")))[0] == 503
        await logged(far, "peer_refused[carried]")


async def ask(node: Node, stream: TlsStream) -> bytes:
    try:
        await stream.handshake()
        await stream.send_all(REQUEST)
        return await stream.receive()
    except OSError:
        return b""


@pytest.mark.parametrize("said", [(GENERATION, 1, REVOKED), (GENERATION + 1, 1, HAS_KEY_SETS), None])
async def test_a_session_is_resumed_by_nobody(tmp_path: Path, said: tuple[int, int, int] | None) -> None:
    """Not by a caller that was revoked, enrolled again or forgotten: each handshake is a whole one."""
    async with fleet_of_two(tmp_path) as (fleet, near, far, serves):
        context = client_context(fleet.identities("third")[1], ROOT.pem.encode() + CARRIER, ALPN_HTTP)
        sni = "cart.cart.shop.mesh.test"

        async def connection() -> TlsStream:
            sock = await connect(far.at("mesh"), mesh=True)
            return TlsStream(sock, context, server_name=sni, server_side=False)

        first = await connection()
        assert (await ask(far, first)).startswith(b"HTTP/1.1 200")
        session = first._tls.session
        assert session is not None
        first.close()
        if said is None:
            del fleet.said["third"]
        else:
            fleet.said["third"] = said
            fleet.labels["third"] = 30  # its next key; the thief has the one before
        await tell(fleet, near, far, serves)
        again = await connection()
        again._tls.session = session
        assert await ask(far, again) == b""
        assert not again._tls.session_reused
        again.close()
        await until(lambda: bool(refusals(far)))


async def test_a_flood_of_refusals_fills_no_log(tmp_path: Path) -> None:
    """They are all counted, and ten a second are written down."""
    async with fleet_of_two(tmp_path) as (_fleet, _near, far, _serves):
        state = far.engine._state
        refusal, instant = TlsPeerRefused("unlisted", "nobody lists this key"), now()
        told = [state.peers.refused(refusal, instant) for _ in range(100)]
        assert sum(told) == 10
        await until(lambda: refusals(far)["peers_refused_unlisted"] == 100)
