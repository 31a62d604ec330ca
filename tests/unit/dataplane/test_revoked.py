"""A node that is revoked, forgotten or enrolled again: what is open to it, and from it, ends at once."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from gossipmesh.dataplane.reference import dialing, peers
from gossipmesh.dataplane.reference.peers import ABSENT_AFTER_NS as MINUTE_NS
from gossipmesh.dataplane.reference.peers import KnownPeers, Peers
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.dataplane.reference.state import UpstreamState
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import node_id_of, node_spiffe_id
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import (
    HAS_KEY_SETS,
    REVOKED,
    CredentialsSection,
    PinsSection,
    TrustSection,
)
from gossipmesh.net.tls import TlsStream
from gossipmesh.traffic.sections import Snapshot
from gossipmesh.trust.leaf_serial import encode_leaf_serial
from gossipmesh.trust.peer_identity import Ground
from gossipmesh.trust.peer_identity import Peer as PeerIdentity
from gossipmesh.trust.peer_tables import CredentialTable, PinTable
from tests.unit.dataplane.engine_kit import (
    CART,
    Node,
    Peer,
    counted,
    endpoint,
    get,
    local,
    logged,
    nodes,
    until,
    waiting,
    workload,
)
from tests.unit.dataplane.key_sets import GENERATION, SERIAL, Fleet, identity


@pytest.fixture(autouse=True)
def absent_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a node of which nothing is known any more be gone at the next second, not within a minute."""
    monkeypatch.setattr(peers, "ABSENT_AFTER_NS", 0)


WHAT = [
    pytest.param((GENERATION + 1, SERIAL, REVOKED), id="revoked"),
    pytest.param((GENERATION + 1, SERIAL, HAS_KEY_SETS), id="enrolled again"),
    pytest.param(None, id="known no more"),
]
Said = tuple[int, int, int] | None
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: cart.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


class Scene:
    """Two engines of one fleet, an HTTP service (`shop/cart`) and a TCP one (`shop/db`) behind `far`."""

    def __init__(self, near: Node, far: Node, cart: Address, db: Address) -> None:
        self.fleet = Fleet({"near": 10, "far": 20})
        self.near, self.far = near, far
        self._local = (local(cart), local(db, registration="db", service="shop/db", protocol="tcp"))
        there = (endpoint(far), endpoint(far, registration="db", service="shop/db", protocol="tcp"))
        self._catalog = there

    async def begin(self) -> None:
        for node in (self.near, self.far):
            await self.fleet.identify(node)
        await self.tell_far()
        await self.tell_near()

    async def tell_far(self) -> None:
        await self.fleet.tell(self.far, self.far.compile(local=self._local, catalog=self._catalog))

    async def tell_near(self) -> None:
        await self.fleet.tell(self.near, self.near_compiled())

    def near_compiled(self) -> Snapshot:
        return self.near.compile(catalog=self._catalog, wanted=("shop/cart", "shop/db"))

    def say(self, node: str, said: Said) -> None:
        """Have this known of a node; who is enrolled again has other keys."""
        if said is None:
            del self.fleet.said[node]
        else:
            self.fleet.said[node] = said
            self.fleet.labels[node] += said[0] - GENERATION


@asynccontextmanager
async def scene(
    directory: Path, cart: Callable[[trio.SocketStream], Awaitable[None]]
) -> AsyncIterator[Scene]:
    async def echo(stream: trio.SocketStream) -> None:
        while data := await stream.receive_some():
            await stream.send_all(data)

    async with (
        workload(cart) as cart_at,
        workload(echo) as db_at,
        nodes(directory, "near", "far") as (near, far),
    ):
        made = Scene(near, far, cart_at, db_at)
        await made.begin()
        yield made


async def switching(stream: trio.SocketStream) -> None:
    """Accept an upgrade, then send back whatever comes."""
    peer = Peer(stream)
    await peer.head()
    await peer.send(SWITCHED)
    while data := await stream.receive_some():
        await peer.send(data)


async def ended(peer: Peer) -> bool:
    """Wait until a connection brings nothing more, cut or closed."""
    with trio.fail_after(5):
        try:
            await peer.rest()
        except trio.BrokenResourceError:
            pass
    return True


async def cut_count(node: Node, count: int) -> None:
    await until(lambda: counted(node, "peers_cut")["peers_cut"] == count)


@asynccontextmanager
async def in_flight(made: Scene, path: bytes) -> AsyncIterator[Peer]:
    """Have a request under way whose answer does not come."""
    peer = await Peer.connect(made.near.at("proxy"))
    async with peer.stream:
        await peer.send(b"POST %s HTTP/1.1\r\nHost: cart.shop\r\ncontent-length: 0\r\n\r\n" % path)
        yield peer


@pytest.mark.parametrize("said", WHAT)
async def test_a_request_of_its(tmp_path: Path, said: Said) -> None:
    """The callee cuts it off; the workload may have done it, so nobody does it again."""
    started: list[str] = []
    async with (
        scene(tmp_path, waiting("cart", started, trio.Event())) as made,
        in_flight(made, b"/x") as peer,
    ):
        await until(lambda: bool(started))
        made.say("near", said)
        await made.tell_far()
        head = await peer.head()
        assert head.startswith(b"HTTP/1.1 503")
        line = await logged(made.far, "rbac_access_denied_matched_policy[revoked]")
        assert line["response_flags"].startswith("UAEX")
        assert line["path"] == "/x"
        await cut_count(made.far, 1)
        assert (await get(made.near.at("proxy")))[0] == 503  # and nothing new is answered
        assert len(started) == 1


@pytest.mark.parametrize("said", WHAT)
async def test_a_request_to_it(tmp_path: Path, said: Said) -> None:
    """The caller cuts it off; it does not know what became of it, and says so."""
    started: list[str] = []
    async with (
        scene(tmp_path, waiting("cart", started, trio.Event())) as made,
        in_flight(made, b"/x") as peer,
    ):
        await until(lambda: bool(started))
        made.say("far", said)
        await made.tell_near()
        head = await peer.head()
        assert head.startswith(b"HTTP/1.1 503")
        line = await logged(made.near, "endpoint_revoked")
        assert (line["response_flags"], line["upstream_request_attempt_count"]) == ("UF", 1)
        await cut_count(made.near, 1)


@pytest.mark.parametrize("who", ["near", "far"])
@pytest.mark.parametrize("said", WHAT)
async def test_an_upgraded_connection(tmp_path: Path, who: str, said: Said) -> None:
    async with scene(tmp_path, switching) as made:
        peer = await Peer.connect(made.near.at("proxy"))
        async with peer.stream:
            await peer.send(UPGRADE)
            assert (await peer.head()).startswith(b"HTTP/1.1 101")
            await peer.send(b"ping")
            assert await peer.exactly(4) == b"ping"
            made.say(who, said)
            await (made.tell_far if who == "near" else made.tell_near)()
            assert await ended(peer)
        judge, words = (made.far, "[revoked]") if who == "near" else (made.near, "endpoint_revoked")
        await cut_count(judge, 1)
        await logged(judge, words)


@pytest.mark.parametrize("who", ["near", "far"])
@pytest.mark.parametrize("said", WHAT)
async def test_a_tcp_connection(tmp_path: Path, who: str, said: Said) -> None:
    async with scene(tmp_path, switching) as made:
        peer = await Peer.connect(made.near.at("proxy"))
        async with peer.stream:
            await peer.send(b"CONNECT db.shop:1 HTTP/1.1\r\nHost: db.shop:1\r\n\r\nping")
            assert (await peer.head()).startswith(b"HTTP/1.1 200")
            assert await peer.exactly(4) == b"ping"
            made.say(who, said)
            await (made.tell_far if who == "near" else made.tell_near)()
            assert await ended(peer)
        judge, words = (made.far, "[revoked]") if who == "near" else (made.near, "endpoint_revoked")
        await cut_count(judge, 1)
        await logged(judge, words)


async def test_a_certificate_that_is_revoked_by_its_serial_number(tmp_path: Path) -> None:
    """What is open to whoever showed it ends, and the same keys go on with another certificate."""
    async with scene(tmp_path, switching) as made:
        peer = await Peer.connect(made.near.at("proxy"))
        async with peer.stream:
            await peer.send(b"CONNECT db.shop:1 HTTP/1.1\r\nHost: db.shop:1\r\n\r\nping")
            assert (await peer.head()).startswith(b"HTTP/1.1 200")
            assert await peer.exactly(4) == b"ping"
            number = encode_leaf_serial(
                node_id_of(node_spiffe_id("mesh.test", "near")), GENERATION, SERIAL, 0
            )
            made.fleet.revoked_leaves = (f"{number:x}",)
            await made.tell_far()
            assert await ended(peer)
        await cut_count(made.far, 1)
        assert (await get(made.near.at("proxy")))[0] == 503
        await logged(made.far, "peer_refused[revoked-leaf]")
        label = made.fleet.labels["near"]
        names = [one.spiffe_id for one in made.fleet.identities("near")]
        again = [identity(name, "near", label, serial=SERIAL + 1) for name in names]
        await made.fleet.identify(made.near, *again)
        peer = await Peer.connect(made.near.at("proxy"))
        async with peer.stream:
            await peer.send(b"CONNECT db.shop:1 HTTP/1.1\r\nHost: db.shop:1\r\n\r\nping")
            assert (await peer.head()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("serials", [("",), ("xyz",), ("1", "-")])
def test_a_serial_number_that_is_none_is_no_snapshot(serials: tuple[str, ...]) -> None:
    with pytest.raises(MalformedInput, match="serial number"):
        KnownPeers.of_sections("mesh.test", {"trust": TrustSection((), True, serials)}, None)


@pytest.mark.parametrize("said", WHAT[:2])
async def test_a_connection_that_is_being_made_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    """The news come between the first byte of a dial and its last; it was begun by what was known before."""
    started: list[str] = []
    release = trio.Event()
    release.set()
    async with scene(tmp_path, waiting("cart", started, release)) as made:
        real = dialing.open_tls

        async def late(*given: Any, **named: Any) -> TlsStream:
            stream = await real(*given, **named)
            made.say("far", said)
            await made.tell_near()
            return stream

        monkeypatch.setattr(dialing, "open_tls", late)
        assert (await get(made.near.at("proxy")))[0] == 503
        assert not started
        assert made.near.engine._state.upstreams["shop/cart"].pool.idle_count == 0
        await cut_count(made.near, 1)


@pytest.mark.parametrize("said", WHAT[:2])
async def test_a_connection_on_its_way_to_who_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    """It is made, and handed over; before the request goes on the news come."""
    started: list[str] = []
    release = trio.Event()
    release.set()
    async with scene(tmp_path, waiting("cart", started, release)) as made:
        real = UpstreamState.deliver

        def deliver(upstream: UpstreamState, connection: PooledConnection) -> None:
            real(upstream, connection)
            made.say("far", said)
            made.near.engine.apply_snapshot(made.fleet.told(made.near_compiled()))

        monkeypatch.setattr(UpstreamState, "deliver", deliver)
        assert (await get(made.near.at("proxy")))[0] == 503
        assert not started
        await cut_count(made.near, 1)


def test_who_was_taken_for_an_intermediate_goes_with_it() -> None:
    """Trust drops one whose key is stolen: what it vouched for ends, what members list does not."""
    one = Peers(Counters())

    def learn(*intermediates: bytes) -> bool:
        none: CredentialTable = CredentialTable()
        return one.learn(KnownPeers("mesh.test", frozenset(intermediates), True, PinTable(), none))

    learn(b"stolen", b"good")
    taken = {who: PeerIdentity(CART, Ground.ISSUED, issuer=who) for who in (b"stolen", b"good")}
    listed = PeerIdentity(CART, Ground.LISTED)
    assert not any(map(one.gone, (*taken.values(), listed)))
    assert learn(b"good"), "who was taken is looked at"
    assert one.gone(taken[b"stolen"])
    assert not one.gone(taken[b"good"])
    assert not one.gone(listed)


@pytest.mark.parametrize("name", ["pins/10", "credentials/10"])
def test_members_keys_are_not_read_without_who_may_issue(name: str) -> None:
    """Read as a snapshot of 0.2, which says neither, it would open what they close."""
    pins, credential = PinsSection(b"\x10" * 24), CredentialsSection(b"\x10" * 25)
    section = pins if name.startswith("pins") else credential
    with pytest.raises(MalformedInput, match="without Trust"):
        KnownPeers.of_sections("mesh.test", {name: section}, None)
    told = KnownPeers.of_sections("mesh.test", {name: section, "trust": TrustSection((), True)}, None)
    assert told.intermediates == frozenset()
    assert KnownPeers.of_sections("mesh.test", {}, None).intermediates is None


async def test_what_rests_between_requests(tmp_path: Path) -> None:
    """Kept connections end on both sides; a later request is refused as a new one."""
    started: list[str] = []
    release = trio.Event()
    release.set()
    async with scene(tmp_path, waiting("cart", started, release)) as made:
        assert (await get(made.near.at("proxy")))[0] == 200
        made.say("near", None)
        await made.tell_far()
        await cut_count(made.far, 1)
        made.say("far", None)
        made.fleet.said["near"] = (GENERATION, SERIAL, HAS_KEY_SETS)
        await made.tell_near()
        assert (await get(made.near.at("proxy")))[0] == 503
        await logged(made.near, "peer_refused[no-credential]")


async def test_an_agent_that_knows_nobody_yet_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lost its disk, say; what it says within a minute counts."""
    monkeypatch.setattr(peers, "ABSENT_AFTER_NS", 2**62)
    started: list[str] = []
    release = trio.Event()
    async with scene(tmp_path, waiting("cart", started, release)) as made, in_flight(made, b"/x") as peer:
        await until(lambda: bool(started))
        all_said = dict(made.fleet.said)
        made.fleet.said.clear()
        await made.tell_far()
        await made.tell_near()
        made.fleet.said.update(all_said)
        await made.tell_far()
        await made.tell_near()
        release.set()
        assert (await peer.head()).startswith(b"HTTP/1.1 200")
        assert not counted(made.near, "peers_") + counted(made.far, "peers_")


def test_absence_counts_a_minute_after_it_was_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: what changes meanwhile is part of it, what changes later is noticed anew."""
    monkeypatch.setattr(peers, "ABSENT_AFTER_NS", MINUTE_NS)
    one = Peers(Counters())
    peer = PeerIdentity(CART, Ground.LISTED, b"\x10nnnnnnn", 5, was_known=True)

    def learn() -> None:
        one.learn(KnownPeers("mesh.test", frozenset(), True, PinTable(), CredentialTable({})))

    learn()
    assert not one.absence_counts(Instant(1))
    learn()
    assert [one.absence_counts(Instant(at)) for at in (2, 3, MINUTE_NS)] == [False] * 3
    assert not one.gone(peer)
    learn()
    assert [one.absence_counts(Instant(MINUTE_NS + at)) for at in (2, 3)] == [True, False]
    assert one.gone(peer)
    learn()
    assert not one.gone(peer)


async def test_a_credential_that_was_signed_again_ends_nothing(tmp_path: Path) -> None:
    started: list[str] = []
    release = trio.Event()
    async with scene(tmp_path, waiting("cart", started, release)) as made, in_flight(made, b"/x") as peer:
        await until(lambda: bool(started))
        for node in ("near", "far"):
            made.say(node, (GENERATION, SERIAL + 100, HAS_KEY_SETS))
        made.fleet.said["other"] = (GENERATION + 1, SERIAL, REVOKED)
        await made.tell_far()
        await made.tell_near()
        release.set()
        assert (await peer.head()).startswith(b"HTTP/1.1 200")
        assert not counted(made.near, "peers_") + counted(made.far, "peers_")


async def test_an_idempotent_request_is_made_elsewhere(tmp_path: Path) -> None:
    """Its endpoint is revoked while it waits; there is another."""
    started: list[str] = []
    release = trio.Event()
    slow = waiting("slow", started, trio.Event())
    release.set()
    async with (
        workload(slow) as slow_at,
        workload(waiting("quick", started, release)) as quick_at,
        nodes(tmp_path, "near", "far", "third") as (near, far, third),
    ):
        fleet = Fleet({"near": 1, "far": 2, "third": 3})
        for node in (near, far, third):
            await fleet.identify(node)
        for node, serves in ((far, slow_at), (third, quick_at)):
            await fleet.tell(node, node.compile(local=(local(serves),), catalog=(endpoint(node),)))
        await fleet.tell(near, near.compile(catalog=(endpoint(far),), wanted=("shop/cart",)))
        answers: list[int] = []

        async def ask() -> None:
            answers.append((await get(near.at("proxy")))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: started == ["slow"])
            both = (endpoint(far), endpoint(third))
            await fleet.tell(near, near.compile(catalog=both, wanted=("shop/cart",)))
            fleet.said["far"] = (GENERATION + 1, SERIAL, REVOKED)
            gone = (msgspec.structs.replace(both[0], draining=True), both[1])
            await fleet.tell(near, near.compile(catalog=gone, wanted=("shop/cart",)))
        assert answers == [200]
        assert started == ["slow", "quick"]
