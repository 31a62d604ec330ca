"""The engine protocol between a real client and a real engine."""

import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio

from gossipmesh.dataplane.client import (
    EngineClient,
    EngineGone,
    EngineRefused,
    EngineUnavailable,
    SnapshotRefused,
)
from gossipmesh.dataplane.frame_socket import FrameSocket
from gossipmesh.dataplane.protocol import Identity, Statistics
from gossipmesh.dataplane.reference.engine import ReferenceEngine
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.member import Address
from gossipmesh.net.byte_stream import connect
from gossipmesh.net.engine_probe import Trusted, probe_engine
from gossipmesh.net.tls import ALPN_HTTP, ALPN_PROBE, ALPN_TCP, TlsStream, client_context
from gossipmesh.traffic.sections import Snapshot, make_snapshot
from gossipmesh.trust.peer_identity import Dialled
from tests.unit.dataplane.certificates import Authority
from tests.unit.dataplane.engine_kit import (
    CART,
    Node,
    Peer,
    address_of,
    answering,
    bound,
    cart_pair,
    endpoint,
    get,
    local,
    nodes,
    until,
    workload,
)


async def test_engine_outlives_its_agent_and_the_next_finds_the_same_version(
    tmp_path: Path,
) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        version = near.compile().version
        await near.client.aclose()
        assert (await get(near.at("proxy")))[0] == 200
        async with trio.open_nursery() as nursery:
            client = await near.attach(nursery)
            assert client.hello.snapshot_version == version
            assert client.hello.listeners == ("mesh", "proxy", "readiness")
            await client.apply_snapshot(near.compile())
            nursery.cancel_scope.cancel()


async def test_new_agent_replaces_the_one_attached(tmp_path: Path) -> None:
    async with nodes(tmp_path, "near") as (near,):
        first = near.client
        async with trio.open_nursery() as nursery:
            await near.attach(nursery)
            with pytest.raises(EngineGone):
                await first.take_listeners()
            assert await taken_names(near) == {"mesh", "proxy", "readiness"}
            nursery.cancel_scope.cancel()


async def test_refused_snapshot_leaves_the_old_one_serving(tmp_path: Path) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        good = near.compile()
        broken = {name: good.sections[digest] for name, digest in good.root.items()}
        for bad in (
            {**broken, "limits": b"\x01"},
            {**broken, "telepathy/shop/cart": b"\x80"},
            {name: data for name, data in broken.items() if name != "callers"},
        ):
            with pytest.raises(SnapshotRefused):
                await near.client.apply_snapshot(make_snapshot(bad))
        lying = Snapshot("0" * 64, good.root, good.sections)
        with pytest.raises(SnapshotRefused):
            await near.client.apply_snapshot(lying)
        assert (await get(near.at("proxy")))[0] == 200
        await near.client.apply_snapshot(good)


async def test_only_sections_the_engine_lacks_are_sent(tmp_path: Path) -> None:
    async with nodes(tmp_path, "near", "far") as (near, far):
        await near.apply(catalog=(endpoint(far),), wanted=("shop/cart",))
        sent: list[int] = []
        original = near.client._frames.send

        async def counting(data: bytes, descriptors: tuple[int, ...] = ()) -> None:
            sent.append(len(data))
            await original(data, descriptors)

        near.client._frames.send = counting  # type: ignore[method-assign,assignment]
        many = tuple(endpoint(far, registration=f"c{n}", service="shop/other") for n in range(200))
        await near.apply(catalog=(endpoint(far), *many), wanted=("shop/cart", "shop/other"))
        whole = sum(sent)
        sent.clear()
        await near.apply(catalog=(endpoint(far, weight=50), *many))
        assert sum(sent) < whole / 10


async def test_listeners_are_given_taken_and_outlive_an_attachment(tmp_path: Path) -> None:
    async with nodes(tmp_path, "near") as (near,):
        taken = await near.client.take_listeners()
        assert {name: address_of(sock) for name, sock in taken.items()} == {
            name: near.at(name) for name in near.sockets
        }
        for sock in taken.values():
            sock.close()
        with socket.socket() as unbound, pytest.raises(EngineRefused):
            await near.client.give_listeners({"mesh": unbound})
        assert await taken_names(near) == set(near.sockets)


async def test_more_listeners_than_a_frame_carries(tmp_path: Path) -> None:
    async with nodes(tmp_path, "near") as (near,):
        many = {f"upstream/shop/s{number}/x": bound() for number in range(150)}
        await near.client.give_listeners(many)
        taken = await near.client.take_listeners()
        assert set(taken) == set(many) | set(near.sockets)
        for sock in [*many.values(), *taken.values()]:
            sock.close()


async def test_upstream_port_closes_when_the_snapshot_drops_it(tmp_path: Path) -> None:
    async with nodes(tmp_path, "near") as (near,):
        port = bound()
        address = address_of(port)
        name = f"upstream/shop/cart/{address}"
        web = local(
            Address("127.0.0.1", 9),
            registration="web",
            service="shop/web",
            upstreams=(("shop/cart", address),),
        )
        await near.client.give_listeners({name: port})
        port.close()
        await near.apply(local=(web,))
        (await connect(address, mesh=False)).close()
        await near.apply(local=())
        with pytest.raises(ConnectionRefusedError):
            await connect(address, mesh=False)


async def test_identities_that_do_not_load_change_nothing(tmp_path: Path) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        stranger, other = near.authority.identity(CART), near.authority.identity(CART)
        mixed = Identity(CART, stranger.chain_pem, other.key_pem)
        for identities, bundle in (([mixed], near.authority.bundle_pem), ([stranger], b"no pem")):
            with pytest.raises(EngineRefused):
                await near.client.apply_identities(identities, bundle)
        assert (await get(near.at("proxy")))[0] == 200


async def test_renewed_identities_keep_open_connections_and_serve_new_ones(tmp_path: Path) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            assert (await peer.ask(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"))[0] == 200
            await far.identify()
            await near.identify()
            assert (await peer.ask(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"))[0] == 200


async def test_strangers_are_refused_both_ways(tmp_path: Path) -> None:
    """Another authority's engine, and an endpoint that proves to be another service."""
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, far):
        foreign = Authority("foreign")
        trusted, near.authority = near.authority, foreign
        await near.identify()
        assert (await get(near.at("proxy")))[0] == 503
        near.authority = trusted
        await near.identify()
        impostor = endpoint(far, service="shop/web")
        await near.apply(catalog=(impostor,), wanted=("shop/web",))
        status, head, _ = await get(near.at("proxy"), host="web.shop")
        assert (status, b"UF" in head) == (503, True)


async def test_readiness_says_why_not(tmp_path: Path) -> None:
    async with nodes(tmp_path, "near") as (near,):
        status, _, body = await get(near.at("readiness"))
        assert (status, body) == (503, b"no snapshot applied\n")
        await near.apply()
        assert (await get(near.at("readiness")))[0] == 200
        address = Address("127.0.0.1", 9)
        web = local(address, registration="web", service="shop/web", upstreams=(("shop/cart", address),))
        await near.apply(local=(web,))
        assert (await get(near.at("readiness")))[0] == 503


async def test_probe_is_answered_by_the_node_it_asks_for_only(tmp_path: Path) -> None:
    async with nodes(tmp_path, "near", "far") as (near, far):
        await far.apply()
        ours = near.authority.identity(near.spiffe_id)

        async def probe(name: str, spiffe_id: str) -> bool:
            where = [Address("127.0.0.1", 9), far.at("mesh")]
            trusted = Trusted.of_roots("mesh.test", near.authority.bundle_pem)
            return await probe_engine(where, name, Dialled(spiffe_id), ours, trusted, 2.0)

        assert await probe("far.node.mesh.test", far.spiffe_id)
        assert not await probe("far.node.mesh.test", near.spiffe_id)
        assert not await probe("near.node.mesh.test", far.spiffe_id)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("cart.cart.shop.mesh.test", ALPN_TCP),
        ("cart.cart.shop.mesh.test", ALPN_PROBE),
        ("far.node.mesh.test", ALPN_HTTP),
        ("cart2.cart.shop.mesh.test", ALPN_HTTP),
        ("cart.cart.shop.other.test", ALPN_HTTP),
    ],
)
async def test_name_and_protocol_must_both_fit_the_registration(
    tmp_path: Path, name: str, protocol: str
) -> None:
    """Whatever is asked for that this node does not serve gets not one byte of an answer."""
    seen: list[bytes] = []
    async with workload(answering(seen=seen)) as address, cart_pair(tmp_path, address) as (near, far):
        context = client_context(near.authority.identity(near.spiffe_id), near.authority.bundle_pem, protocol)
        stream = TlsStream(
            await connect(far.at("mesh"), mesh=True), context, server_name=name, server_side=False
        )
        try:
            await stream.handshake()
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n")
            assert await stream.receive() == b""
        except OSError:
            pass  # an alert or a reset says the same
        finally:
            stream.close()
    assert seen == []


async def test_drain_finishes_what_is_in_flight_and_resets_nobody(tmp_path: Path) -> None:
    go, arrived = trio.Event(), trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.head()
        arrived.set()
        await go.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")

    async with workload(slow) as address, cart_pair(tmp_path, address) as (near, _far):
        answers: list[tuple[int, bytes, bytes]] = []
        drained = trio.Event()

        async def ask() -> None:
            answers.append(await get(near.at("proxy")))

        async def drain() -> None:
            await near.client.drain(5.0)
            drained.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await arrived.wait()
            nursery.start_soon(drain)
            queued = await Peer.connect(near.at("proxy"))  # waits in a queue the test holds a duplicate of
            await until(lambda: near.engine.problem() == "draining")
            assert not drained.is_set()
            go.set()
            with trio.fail_after(5):
                await drained.wait()
            await queued.stream.aclose()
        status, head, body = answers[0]
        assert (status, body) == (200, b"done")
        assert b"connection: close" in head


async def test_statistics_say_who_asked_whom_and_how_it_ended(tmp_path: Path) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        for _ in range(3):
            await get(near.at("proxy"))

        def counted() -> int:
            frames = [event for event in near.events if isinstance(event, Statistics)]
            return sum(
                delta.requests_count
                for frame in frames
                for delta in frame.requests
                if (delta.direction, delta.caller, delta.service) == ("outbound", near.spiffe_id, "shop/cart")
                if (delta.upstream, delta.response_code, delta.response_flags) == ("shop/cart", 200, "-")
            )

        await until(lambda: counted() == 3)


async def test_an_agent_of_before_is_told_traffic_as_it_knows_it(tmp_path: Path) -> None:
    """Its hello has no features; the next agent's has, and is told requests."""
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        frames = FrameSocket(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        frames.socket.connect(str(near.socket_path))
        hello = {"type": "hello", "node_id": b"n" * 16, "boot_id": "b", "protocol_min": 1, "protocol_max": 1}
        body = msgpack.packb(hello)
        await frames.send(len(body).to_bytes(4, "big") + body)
        await get(near.at("proxy"))
        told: list[Any] = []
        with trio.fail_after(10):
            while not told:
                received = await frames.receive_untrusted()
                assert received is not None
                frame = msgpack.unpackb(received)
                if frame["type"] == "statistics":
                    assert "requests" not in frame
                    told += [one for one in frame["traffic"] if one["service"] == "shop/cart"]
        frames.close()
        assert told[0]["outcomes"] == [["2xx", "", 1]]
        assert (len(told[0]["latency_counts"]), sum(told[0]["latency_counts"])) == (26, 1)


async def test_access_log_has_a_line_per_request_and_follows_rotation(tmp_path: Path) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        await get(near.at("proxy"), path="/first")
        await until(lambda: near.log_path.stat().st_size > 0)
        rotated = tmp_path / "rotated.log"
        near.log_path.rename(rotated)
        near.engine._log.reopen()
        await get(near.at("proxy"), path="/second")
        await get(near.at("proxy"), extra="Host: twice\r\n")
        await until(lambda: near.log_path.exists() and near.log_path.stat().st_size > 0)
    line = json.loads(rotated.read_text().splitlines()[0])
    assert (line["path"], line["response_code"], line["response_flags"]) == ("/first", 200, "-")
    assert line["upstream_peer_uri_san"] == CART
    second, bad = map(json.loads, near.log_path.read_text().splitlines())
    assert second["path"] == "/second"
    assert (bad["response_code"], bad["response_flags"]) == (400, "DPE")
    assert "Host" in bad["response_code_details"]


async def test_control_socket_is_private_and_not_shared(tmp_path: Path) -> None:
    async with nodes(tmp_path, "near") as (near,):
        assert stat.S_IMODE(near.socket_path.stat().st_mode) == 0o600
        with pytest.raises(OperatorError, match="Another engine"):
            ReferenceEngine(near.socket_path, AccessLogSettings(tmp_path / "second.log"))
    assert not near.socket_path.exists()


async def test_nobody_listening_is_engine_unavailable(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable):
        await EngineClient.attach(tmp_path / "nothing.sock", node_id=b"", boot_id="")


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A folder other users may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.namespace
async def test_engine_and_client_refuse_another_users_process(public_path: Path) -> None:
    async with nodes(public_path, "near") as (near,):
        near.socket_path.chmod(0o666)
        # SO_PEERCRED is the uid at connect(2) or listen(2).
        os.seteuid(54_321)
        try:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(os.fspath(near.socket_path))
        finally:
            os.seteuid(0)
        sock.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        async with stream:
            with trio.fail_after(10):
                assert await stream.receive_some() == b""
    listener = socket.socket(socket.AF_UNIX)
    (public_path / "open").mkdir(mode=0o777)
    (public_path / "open").chmod(0o777)
    path = public_path / "open" / "fake.sock"
    os.seteuid(54_321)
    try:
        listener.bind(os.fspath(path))
        listener.listen()
    finally:
        os.seteuid(0)
    with listener, pytest.raises(EngineUnavailable, match="another user"):
        await EngineClient.attach(path, node_id=b"", boot_id="")


async def taken_names(node: Node) -> set[str]:
    """Return the names of the listeners an engine gives back."""
    taken = await node.client.take_listeners()
    for sock in taken.values():
        sock.close()
    return set(taken)
