"""A reset at one end of two engines is one at the other, never a clean end: TCP, CONNECT, WebSocket."""

import socket
import struct
from pathlib import Path

import pytest
import trio

from gossipmesh.testing.builders import access_policy
from tests.unit.dataplane.engine_kit import Peer, cart_pair, policies, workload
from tests.unit.dataplane.test_tcp import database

UPGRADE = b"GET /chat HTTP/1.1\r\nHost: cart.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
UPLOAD = b"PUT / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 10000000\r\n\r\n"
CONNECT = b"CONNECT db.shop:5432 HTTP/1.1\r\nHost: db.shop:5432\r\n\r\n"


def reset(stream: trio.SocketStream) -> None:
    """End a connection with RST."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def partly(stream: trio.SocketStream) -> None:
    """Answer with a part, and break."""
    await stream.receive_some()
    await stream.send_all(b"a part")
    await stream.receive_some()
    reset(stream)


async def meets_a_reset(peer: Peer) -> None:
    """Read to the end, which must not be a clean one."""
    with pytest.raises(trio.BrokenResourceError):
        await peer.rest()


@pytest.mark.parametrize("way", ["explicit port", "CONNECT"])
async def test_workload_that_resets_is_a_reset_for_the_client(tmp_path: Path, way: str) -> None:
    async with workload(partly) as address, database(tmp_path, address) as (near, _far, port):
        peer = await Peer.connect(port if way == "explicit port" else near.at("proxy"))
        async with peer.stream:
            if way == "CONNECT":
                await peer.send(CONNECT)
                await peer.head()
            await peer.send(b"question")
            assert await peer.exactly(6) == b"a part"
            await peer.send(b"now")
            await meets_a_reset(peer)


async def test_client_that_resets_is_a_reset_for_the_workload(tmp_path: Path) -> None:
    met: list[BaseException | bytes] = []
    over = trio.Event()

    async def listening(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")
        try:
            while data := await stream.receive_some():
                assert data
            met.append(b"a clean end")
        except trio.BrokenResourceError as error:
            met.append(error)
        over.set()

    async with workload(listening) as address, database(tmp_path, address) as (_near, _far, port):
        peer = await Peer.connect(port)
        assert await peer.exactly(5) == b"hello"
        await peer.send(b"half a sent")
        reset(peer.stream)
        await over.wait()
    assert isinstance(met[0], trio.BrokenResourceError)


async def test_websocket_whose_workload_resets_is_a_reset_for_the_client(tmp_path: Path) -> None:
    async def chatting(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(SWITCHED + b"a part")
        await stream.receive_some()
        reset(stream)

    async with workload(chatting) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(UPGRADE)
            assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
            assert await peer.exactly(6) == b"a part"
            await peer.send(b"now")
            await meets_a_reset(peer)


async def test_connection_that_is_no_longer_allowed_is_reset(tmp_path: Path) -> None:
    async with workload(partly) as address, database(tmp_path, address) as (_near, far, port):
        peer = await Peer.connect(port)
        async with peer.stream:
            await peer.send(b"question")
            assert await peer.exactly(6) == b"a part"
            await far.apply(policies=policies(access_policy("bank", service="db", namespaces=("bank",))))
            await meets_a_reset(peer)


@pytest.mark.parametrize("way", ["tcp", "websocket", "upload"])
@pytest.mark.parametrize("who", ["near", "far"])
async def test_what_a_leaving_node_cuts_is_a_reset_for_the_workload(
    tmp_path: Path, way: str, who: str
) -> None:
    """Whichever of the two nodes leaves with it: what the workload got is not all there was to be."""
    met: list[BaseException | bytes] = []
    arrived, over = trio.Event(), trio.Event()

    async def listening(stream: trio.SocketStream) -> None:
        if way == "websocket":
            await Peer(stream).head()
            await stream.send_all(SWITCHED)
        try:
            while data := await stream.receive_some():
                if b"part" in data:
                    arrived.set()
            met.append(b"a clean end")
        except trio.BrokenResourceError as error:
            met.append(error)
        over.set()

    pair = database if way == "tcp" else cart_pair
    async with workload(listening) as address, pair(tmp_path, address) as (near, far, *_):
        peer = await Peer.connect(near.at("proxy"))
        await peer.send({"tcp": CONNECT, "websocket": UPGRADE, "upload": UPLOAD}[way])
        if way != "upload":
            await peer.head()
        await peer.send(b"a part")
        await arrived.wait()
        await (far if who == "far" else near).client.drain(0.1)
        await over.wait()
        await peer.stream.aclose()
    assert isinstance(met[0], trio.BrokenResourceError)
