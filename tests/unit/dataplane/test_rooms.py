"""A port somebody fills: others are served, what is full says so, and nothing under way is ended."""

import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from gossipmesh.model.identity import service_spiffe_id
from gossipmesh.model.member import Address
from gossipmesh.net.byte_stream import connect
from gossipmesh.net.engine_probe import Trusted, probe_engine
from gossipmesh.net.tls import ALPN_HTTP, TlsStream, client_context
from gossipmesh.traffic.compiler import DEFAULT_LIMITS
from gossipmesh.trust.peer_identity import Dialled
from tests.unit.dataplane.certificates import TRUST_DOMAIN
from tests.unit.dataplane.engine_kit import (
    CART,
    Node,
    Peer,
    answering,
    cart_pair,
    get,
    until,
    workload,
)

PLACES = 8  # in each room; half of them for one party
FEW = msgspec.structs.replace(DEFAULT_LIMITS, downstream_connections=2 * PLACES)
REQUEST = b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"
FOREIGN_UID = 54_321


class Crowd:
    """Raw connections to one port, that another user or another machine may be said to hold."""

    def __init__(self, node: Node, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address = node.at(port)
        self.sockets: list[socket.socket] = []
        self.ports: set[int] = set()
        own = node.engine._owners.uid_of

        def uid_of(local: Address, remote: Address) -> int | None:
            return FOREIGN_UID if local.port in self.ports else own(local, remote)

        monkeypatch.setattr(node.engine._owners, "uid_of", uid_of)

    async def come(self, count: int, say: bytes = b"") -> None:
        """Connect `count` times, in turns with the engine, which is in this thread."""
        for _ in range(count):
            sock = socket.socket()
            self.sockets.append(sock)
            sock.setblocking(False)
            sock.bind((self.address.host, 0))
            self.ports.add(sock.getsockname()[1])
            sock.connect_ex((self.address.host, self.address.port))
            await trio.lowlevel.wait_writable(sock)
            if say:
                sock.send(say)

    def alive_count(self) -> int:
        """Return how many the engine has not ended."""
        return sum(1 for sock in self.sockets if not ended(sock))

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def counted(node: Node, name: str) -> int:
    """Return how often something was counted, whether it was handed to an agent or not."""
    told = sum(event.counters.get(name, 0) for event in node.events if hasattr(event, "counters"))
    return int(told) + node.engine._counters._counts.get(name, 0)


@asynccontextmanager
async def crowded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, near: str | None = None, far: str | None = None
) -> AsyncIterator[tuple[Node, Node, Crowd]]:
    """Run a pair of nodes with few places, and a crowd before one port."""
    with ExitStack() as stack:
        async with workload(answering()) as address, cart_pair(tmp_path, address) as (one, other):
            for node in (one, other):
                await node.apply(limits=FEW)
            target, port = (one, near) if near is not None else (other, far)
            crowd = Crowd(target, port or "", monkeypatch)
            stack.callback(crowd.close)
            yield one, other, crowd


@pytest.mark.parametrize("say", [b"", b"G", b"GET / HTTP/1.1\r\nHost: cart.shop\r\n"])
async def test_another_users_idle_connections_leave_places_at_the_proxy_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: bytes
) -> None:
    """Silent, with half a line, with half a head."""
    async with crowded(tmp_path, monkeypatch, near="proxy") as (near, _far, crowd):
        kept = await Peer.connect(near.at("proxy"))
        assert (await kept.ask(REQUEST))[0] == 200
        await crowd.come(5 * PLACES, say)
        await until(lambda: crowd.alive_count() <= PLACES // 2)
        assert (await get(near.at("proxy")))[0] == 200
        assert (await kept.ask(REQUEST))[0] == 200, "who was there before goes on"
        assert (await get(near.at("readiness")))[0] == 200
        assert near.engine._rooms.local.held_by(("uid", str(FOREIGN_UID))) <= PLACES // 2
        assert counted(near, "local_evicted_unfinished") >= 4 * PLACES
        await kept.stream.aclose()


async def test_who_evicts_its_own_is_served_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with crowded(tmp_path, monkeypatch, near="proxy") as (near, _far, crowd):
        crowd.ports.clear()
        silent = [socket.create_connection((near.at("proxy").host, near.at("proxy").port)) for _ in range(40)]
        assert (await get(near.at("proxy")))[0] == 200
        for sock in silent:
            sock.close()


async def test_silent_connections_to_the_mesh_port_leave_places_for_nodes_and_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crowded(tmp_path, monkeypatch, far="mesh") as (near, far, crowd):
        await crowd.come(5 * PLACES)
        await until(lambda: crowd.alive_count() <= PLACES // 2)
        assert (await get(near.at("proxy")))[0] == 200
        assert await probed(far)
        assert (await get(far.at("readiness")))[0] == 200


async def probed(node: Node) -> bool:
    pair = node.authority.identity(node.spiffe_id)
    trusted = Trusted.of_roots(TRUST_DOMAIN, node.authority.bundle_pem)
    name = f"{node.name}.node.{TRUST_DOMAIN}"
    return await probe_engine([node.at("mesh")], name, Dialled(node.spiffe_id), pair, trusted, 5.0)


async def test_a_client_hello_byte_by_byte_holds_no_more_than_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crowded(tmp_path, monkeypatch, far="mesh") as (near, far, crowd):
        hello = client_hello(near)
        await crowd.come(3 * PLACES, hello[:1])
        for byte in hello[1:20]:
            for sock in crowd.sockets:
                if not ended(sock):
                    sock.send(bytes([byte]))
            await trio.lowlevel.checkpoint()
        assert (await get(near.at("proxy")))[0] == 200
        assert far.engine._rooms.mesh.held_by(("uid", str(FOREIGN_UID))) <= PLACES // 2
        there = far.engine._connections._open[far.engine._rooms.mesh]
        begun = [connection for connection in there if connection._stream is not None]
        assert len(begun) <= 1, "no TLS is made of half a hello"


@pytest.mark.parametrize("first", [1, 4, 5, 6, 200])
async def test_a_hello_in_two_pieces_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    async with crowded(tmp_path, monkeypatch, far="mesh") as (near, far, _crowd):
        hello = client_hello(near)
        async with await trio.open_tcp_stream(far.at("mesh").host, far.at("mesh").port) as stream:
            await stream.send_all(hello[:first])
            await trio.sleep(0.02)
            await stream.send_all(hello[first:])
            with trio.fail_after(5):
                assert (await stream.receive_some())[0] in (21, 22), "an alert or a ServerHello"


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\x16\x03\x01\xff\xff" + b"a" * 9_000]
)
async def test_what_is_no_hello_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    async with crowded(tmp_path, monkeypatch, far="mesh") as (_near, far, _crowd):
        async with await trio.open_tcp_stream(far.at("mesh").host, far.at("mesh").port) as stream:
            await stream.send_all(said)
            await stream.send_eof()
            with trio.fail_after(5):
                try:
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
        await until(lambda: far.engine._rooms.mesh.held_count == 0)


def client_hello(node: Node, name: str = "x") -> bytes:
    context = client_context(node.authority.identity(CART), node.authority.bundle_pem, ALPN_HTTP)
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name.encode())
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


async def held_open(near: Node, count: int, nursery: trio.Nursery) -> list[Peer]:
    """Begin requests whose bodies never end."""
    peers = []
    for _ in range(count):
        peer = await Peer.connect(near.at("proxy"))
        await peer.send(b"POST / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 9\r\n\r\n12")
        peers.append(peer)
    return peers


async def test_a_share_of_busy_requests_is_told_of_and_readiness_stays_200(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port is full for one user; others have their places, and no request under way is ended."""
    async with crowded(tmp_path, monkeypatch, near="proxy") as (near, _far, crowd):
        await crowd.come(PLACES // 2, b"POST / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 9\r\n\r\n12")
        local = near.engine._rooms.local
        await until(lambda: local.held_by(("uid", str(FOREIGN_UID))) == PLACES // 2)
        await until(lambda: next(local._all.evictable(), None) is None)  # each request has begun
        await crowd.come(1, REQUEST)
        with trio.fail_after(5):
            await trio.lowlevel.wait_readable(crowd.sockets[-1])
        told = crowd.sockets[-1].recv(1000)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"x-gossipmesh-flag: UO" in told
        assert (await get(near.at("proxy")))[0] == 200
        await until(lambda: near.engine._counters.gauges.get("local_full") == 1)
        status, _, body = await get(near.at("readiness"))
        assert (status, body) == (200, b"ready; full: local\n")
        for sock in crowd.sockets[:-1]:
            sock.send(b"3456789")
        for sock in crowd.sockets[:-1]:
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(sock)
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")


async def test_a_full_mesh_port_answers_probes_and_tells_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crowded(tmp_path, monkeypatch, far="mesh") as (near, far, _crowd):
        async with AsyncExitStack() as stack:
            for number in range(PLACES + 2):
                name = service_spiffe_id(TRUST_DOMAIN, f"shop/s{number}")
                stream = await mesh_connection(far, name)
                stack.callback(stream.close)
                await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n12")
            status, head, _ = await get(near.at("proxy"))
            assert (status, b"x-gossipmesh-flag: UO" in head) == (503, True)
            assert await probed(far)
            assert far.engine._rooms.mesh.held_count <= PLACES + 4
            assert (await get(far.at("readiness")))[0] == 200
        await until(lambda: far.engine._rooms.mesh.held_count == 0)
        assert (await get(near.at("proxy")))[0] == 200


async def mesh_connection(far: Node, spiffe_id: str) -> TlsStream:
    """Return a connection as another node's engine has it, for a request to shop/cart."""
    context = client_context(far.authority.identity(spiffe_id), far.authority.bundle_pem, ALPN_HTTP)
    name = f"cart.{far.name}.node.{TRUST_DOMAIN}"
    names = list(far.engine._state.applied.tables.inbounds)  # type: ignore[union-attr]
    sock = await connect(far.at("mesh"), mesh=True)
    stream = TlsStream(sock, context, server_name=names[0] if names else name, server_side=False)
    await stream.handshake()
    return stream


async def test_a_full_proxy_port_does_not_touch_mesh_traffic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crowded(tmp_path, monkeypatch, near="proxy") as (near, far, crowd):
        crowd.address = far.at("proxy")
        await crowd.come(6 * PLACES)
        assert (await get(near.at("proxy")))[0] == 200
        crowd.address = near.at("mesh")
        await crowd.come(6 * PLACES)
        assert (await get(near.at("proxy")))[0] == 200


async def test_a_lookup_that_fails_leaves_those_nobody_knows_one_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crowded(tmp_path, monkeypatch, near="proxy") as (near, _far, crowd):
        own = near.engine._owners.uid_of

        def broken(local: Address, remote: Address) -> int | None:
            if own(local, remote) == FOREIGN_UID:
                raise OSError(5, "netlink is broken")
            return own(local, remote)

        monkeypatch.setattr(near.engine._owners, "uid_of", broken)
        await crowd.come(4 * PLACES)
        assert (await get(near.at("proxy")))[0] == 200
        assert near.engine._rooms.local.held_by(("uid", "unknown")) <= PLACES // 2
        assert counted(near, "owner_lookup_errors") == 4 * PLACES


async def test_idle_clients_at_the_readiness_port_are_evicted_for_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crowded(tmp_path, monkeypatch, near="readiness") as (near, _far, crowd):
        await crowd.come(200)
        assert (await get(near.at("readiness")))[0] == 200
        await crowd.come(20, b"GET /")
        assert (await get(near.at("readiness")))[0] == 200


async def test_a_connection_idle_between_requests_goes_after_those_that_never_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crowded(tmp_path, monkeypatch, near="proxy") as (near, _far, crowd):
        crowd.ports.clear()
        idle = [await Peer.connect(near.at("proxy")) for _ in range(2)]
        for peer in idle:
            assert (await peer.ask(REQUEST))[0] == 200
        for _ in range(2 * PLACES):
            await crowd.come(1)
            crowd.ports.clear()
            await trio.lowlevel.checkpoint()
        for peer in idle:
            assert (await peer.ask(REQUEST))[0] == 200
            await peer.stream.aclose()


async def test_what_was_evicted_gives_its_memory_and_descriptors_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crowded(tmp_path, monkeypatch, near="proxy") as (near, _far, crowd):
        await get(near.at("proxy"))
        before = len(os.listdir("/proc/self/fd"))
        await crowd.come(100)
        await until(lambda: crowd.alive_count() <= PLACES // 2)
        crowd.close()
        await until(lambda: near.engine._connections.count == 0)
        assert len(os.listdir("/proc/self/fd")) <= before
        assert near.engine._rooms.local.held_count == 0
