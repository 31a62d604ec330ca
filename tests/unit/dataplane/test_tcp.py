"""Opaque TCP through two engines: explicit ports, CONNECT, half-close, authorization."""

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from gossipmesh.dataplane.protocol import Statistics
from gossipmesh.model.member import Address
from gossipmesh.model.policy import API_VERSIONS, MeshPolicy, MeshPolicySpec, Metadata, Unregistered
from gossipmesh.testing.builders import access_policy
from gossipmesh.traffic.inputs import PolicyInput
from tests.unit.dataplane.engine_kit import (
    Node,
    Peer,
    address_of,
    answering,
    bound,
    endpoint,
    get,
    local,
    nobody_listening,
    nodes,
    policies,
    until,
    workload,
)

OTHER_UID = 54_321


async def echo_then_farewell(stream: trio.SocketStream) -> None:
    """Echo until the client ends its direction, then say more on the one that is left."""
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_all(b"farewell")
    await stream.send_eof()


@asynccontextmanager
async def database(directory: Path, workload_address: Address) -> AsyncIterator[tuple[Node, Node, Address]]:
    """Run a node with an explicit port to shop/db, and a node serving it."""
    async with nodes(directory, "near", "far") as (near, far):
        there = endpoint(far, registration="db", service="shop/db", protocol="tcp")
        served = local(workload_address, registration="db", service="shop/db", protocol="tcp")
        await far.apply(local=(served,), catalog=(there,))
        port = bound()
        address = address_of(port)
        web = local(Address("127.0.0.1", 9), registration="web", service="shop/web")
        web = msgspec.structs.replace(web, upstreams=(("shop/db", address),))
        near.port(f"upstream/shop/db/{address}", port)
        await near.client.give_listeners({f"upstream/shop/db/{address}": port})
        await near.apply(local=(web,), catalog=(there,))
        yield near, far, address


async def test_explicit_port_carries_bytes_and_half_close(tmp_path: Path) -> None:
    async with workload(echo_then_farewell) as address, database(tmp_path, address) as (_near, _far, port):
        stream = await trio.open_tcp_stream(port.host, port.port)
        async with stream:
            big = os.urandom(700_000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, big)
                assert await Peer(stream).exactly(len(big)) == big
            await stream.send_eof()
            assert await Peer(stream).rest() == b"farewell"


def moved(node: Node) -> tuple[int, int, int, int]:
    """Return what a node's engine told of TCP: opened, closed, bytes received and sent."""
    told = [one for event in node.events if isinstance(event, Statistics) for one in event.connections]
    return (
        sum(one.opened_count for one in told),
        sum(one.closed_count for one in told),
        sum(one.received_bytes for one in told),
        sum(one.sent_bytes for one in told),
    )


async def test_bytes_are_told_while_the_connection_lasts_and_once(tmp_path: Path) -> None:
    async with workload(echo_then_farewell) as address, database(tmp_path, address) as (near, far, port):
        stream = await trio.open_tcp_stream(port.host, port.port)
        async with stream:
            await stream.send_all(b"x" * 5_000)
            await Peer(stream).exactly(5_000)
            await until(lambda: moved(near) == moved(far) == (1, 0, 5_000, 5_000))
            await stream.send_all(b"y" * 100)
            await stream.send_eof()
            assert await Peer(stream).rest() == b"y" * 100 + b"farewell"
        await until(lambda: moved(near) == moved(far) == (1, 1, 5_100, 5_108))
    lines = [json.loads(line) for node in (near, far) for line in node.log_path.read_text().splitlines()]
    assert [(line["bytes_received"], line["bytes_sent"]) for line in lines] == [(5_100, 5_108)] * 2


async def test_half_close_while_bytes_come_the_other_way_loses_none(tmp_path: Path) -> None:
    """The client ends its direction in the middle of a long answer."""

    async def pouring(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        for _ in range(60):
            await stream.send_all(b"x" * 50_000)
        await stream.send_eof()

    async with workload(pouring) as address, database(tmp_path, address) as (_near, _far, port):
        stream = await trio.open_tcp_stream(port.host, port.port)
        async with stream:
            await stream.send_all(b"go")
            first = await stream.receive_some()
            await stream.send_eof()
            assert len(first) + len(await Peer(stream).rest()) == 60 * 50_000


async def test_connect_tunnels_to_a_tcp_service(tmp_path: Path) -> None:
    async with workload(echo_then_farewell) as address, database(tmp_path, address) as (near, _far, _port):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(b"CONNECT db.shop:5432 HTTP/1.1\r\nHost: db.shop:5432\r\n\r\nearly")
            assert (await peer.head()).startswith(b"HTTP/1.1 200 ")
            assert await peer.exactly(5) == b"early"
        assert (await get(near.at("proxy"), host="db.shop"))[0] == 400


async def test_refused_endpoint_is_replaced_before_the_tunnel_begins(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gone = stack.enter_context(nobody_listening())
        address = await stack.enter_async_context(workload(echo_then_farewell))
        near, _far, port = await stack.enter_async_context(database(tmp_path, address))
        there = near.catalog[0]
        await near.apply(catalog=(there, msgspec.structs.replace(there, node="dead", address=gone)))
        for _ in range(8):
            stream = await trio.open_tcp_stream(port.host, port.port)
            async with stream:
                await stream.send_all(b"hello")
                assert await Peer(stream).exactly(5) == b"hello"


async def test_denied_connection_is_closed_and_a_narrowed_rule_closes_open_ones(tmp_path: Path) -> None:
    async with workload(echo_then_farewell) as address, database(tmp_path, address) as (_near, far, port):
        stream = await trio.open_tcp_stream(port.host, port.port)
        async with stream:
            await stream.send_all(b"hello")
            assert await Peer(stream).exactly(5) == b"hello"
            await far.apply(policies=policies(access_policy("bank", service="db", namespaces=("bank",))))
            with pytest.raises((trio.BrokenResourceError, EOFError)):
                await Peer(stream).exactly(1)
        again = await trio.open_tcp_stream(port.host, port.port)
        async with again:
            with pytest.raises((trio.BrokenResourceError, EOFError)):
                await Peer(again).exactly(1)
        await until(lambda: sum(1 for event in far.events if getattr(event, "caller", "")) == 2)


@pytest.mark.namespace
async def test_explicit_tcp_port_closes_on_another_uid(tmp_path: Path) -> None:
    async with workload(echo_then_farewell) as address, database(tmp_path, address) as (_near, _far, port):
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket_of(OTHER_UID)))
        await stream.socket.connect((port.host, port.port))
        async with stream:
            with pytest.raises((trio.BrokenResourceError, EOFError)):
                await Peer(stream).exactly(1)


@pytest.mark.namespace
async def test_explicit_http_port_answers_403_to_another_uid(tmp_path: Path) -> None:
    async with workload(answering()) as address, nodes(tmp_path, "near", "far") as (near, far):
        await far.apply(local=(local(address),), catalog=(endpoint(far),))
        port = bound()
        where = address_of(port)
        web = local(Address("127.0.0.1", 9), registration="web", service="shop/web")
        web = msgspec.structs.replace(web, upstreams=(("shop/cart", where),))
        near.port(f"upstream/shop/cart/{where}", port)
        await near.apply(local=(web,), catalog=(endpoint(far),))
        await near.client.give_listeners({f"upstream/shop/cart/{where}": port})
        assert (await get(where, host="anything"))[0] == 200
        peer = Peer(trio.SocketStream(trio.socket.from_stdlib_socket(socket_of(OTHER_UID))))
        await peer.stream.socket.connect((where.host, where.port))
        async with peer.stream:
            status, head, _ = await peer.ask(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n")
        assert (status, b"UAEX" in head) == (403, True)


@pytest.mark.namespace
async def test_proxy_port_speaks_as_the_service_of_the_callers_uid(tmp_path: Path) -> None:
    seen: list[bytes] = []
    async with workload(answering(seen=seen)) as address, nodes(tmp_path, "near", "far") as (near, far):
        await far.apply(local=(local(address),), catalog=(endpoint(far),))
        web = local(Address("127.0.0.1", 9), registration="web", service="shop/web", uid=OTHER_UID)
        await near.apply(local=(web,), catalog=(endpoint(far),), wanted=("shop/cart",))
        peer = Peer(trio.SocketStream(trio.socket.from_stdlib_socket(socket_of(OTHER_UID))))
        await peer.stream.socket.connect((near.at("proxy").host, near.at("proxy").port))
        async with peer.stream:
            assert (await peer.ask(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"))[0] == 200
        assert (await get(near.at("proxy")))[0] == 200
    assert b"URI=spiffe://mesh.test/ns/shop/svc/web" in seen[0]
    assert b"URI=spiffe://mesh.test/node/near" in seen[1]


@pytest.mark.namespace
@pytest.mark.parametrize("word", list(Unregistered))
async def test_a_process_of_no_service_is_whom_the_mesh_policy_says(
    tmp_path: Path, word: Unregistered
) -> None:
    seen: list[bytes] = []
    policy = MeshPolicy(API_VERSIONS["MeshPolicy"], Metadata("mesh"), MeshPolicySpec(word))
    async with workload(answering(seen=seen)) as address, nodes(tmp_path, "near", "far") as (near, far):
        await far.apply(local=(local(address),), catalog=(endpoint(far),))
        web = local(Address("127.0.0.1", 9), registration="web", service="shop/web", uid=OTHER_UID)
        await near.apply(
            local=(web,),
            catalog=(endpoint(far),),
            wanted=("shop/cart",),
            policies=(PolicyInput(policy, 1),),
            workloads="spiffe://mesh.test/node/near",  # what this engine can show
        )
        peer = Peer(trio.SocketStream(trio.socket.from_stdlib_socket(socket_of(OTHER_UID))))
        await peer.stream.socket.connect((near.at("proxy").host, near.at("proxy").port))
        async with peer.stream:
            assert (await peer.ask(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"))[0] == 200
        status, head, body = await get(near.at("proxy"))
    assert b"URI=spiffe://mesh.test/ns/shop/svc/web" in seen[0]
    if word is Unregistered.WORKLOADS:
        assert status == 200
        assert b"URI=spiffe://mesh.test/node/near" in seen[1]
    else:
        assert (status, b"UAEX" in head, len(seen)) == (403, True, 1)
        assert b"belongs to no service registered on this node" in body
        told = near.engine._state.counters.take_due(1_000)
        assert told is not None
        assert told.counters["unregistered_refusals"] == 1


def socket_of(uid: int) -> socket.socket:
    """Return a socket the kernel holds to be another user's: ownership is the uid at its making."""
    os.seteuid(uid)
    try:
        sock = socket.socket()
    finally:
        os.seteuid(0)
    sock.setblocking(False)
    return sock
