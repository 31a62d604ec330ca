"""Draining: other nodes are refused first, applications here served to the end, what is left is cut."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from gossipmesh.dataplane.client import EngineGone
from gossipmesh.dataplane.protocol import Statistics
from gossipmesh.model.member import Address
from gossipmesh.model.service import Protocol
from tests.unit.dataplane.engine_kit import (
    Node,
    Peer,
    answering,
    cart_pair,
    endpoint,
    get,
    local,
    nodes,
    until,
    workload,
)

ASK = b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"


class Streaming:
    """A workload that begins an answer and goes on when told."""

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.go = trio.Event()

    async def handle(self, stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        while head := await peer.head():
            if head.startswith(b"GET /stream"):
                await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
                self.arrived.set()
                await self.go.wait()
                await peer.send(b"1\r\nb\r\n0\r\n\r\n")
            else:
                content = await peer.body(head)
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(content), content))


@asynccontextmanager
async def both_ways(tmp_path: Path, serve: Streaming) -> AsyncIterator[tuple[Node, Node]]:
    """Run two nodes: `leaving` serves shop/cart, and its applications call shop/web at `staying`."""
    async with (
        workload(serve.handle) as cart,
        workload(answering()) as web,
        nodes(tmp_path, "staying", "leaving") as (staying, leaving),
    ):
        catalog = (endpoint(leaving), endpoint(staying, registration="web", service="shop/web"))
        wanted = ("shop/cart", "shop/web")
        web_local = local(web, registration="web", service="shop/web")
        await staying.apply(local=(web_local,), catalog=catalog, wanted=wanted)
        await leaving.apply(local=(local(cart),), catalog=catalog, wanted=wanted)
        yield staying, leaving


async def drain(node: Node, timeout_s: float, done: trio.Event) -> None:
    node.sockets["mesh"].close()  # as the agent does with its duplicate
    try:
        await node.client.drain(timeout_s)
    except EngineGone:
        pass
    done.set()


async def refused(address: Address) -> bool:
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
    except OSError:
        return True
    await stream.aclose()
    return False


async def test_applications_are_served_until_other_nodes_requests_have_ended(tmp_path: Path) -> None:
    serve, done = Streaming(), trio.Event()
    async with both_ways(tmp_path, serve) as (staying, leaving), trio.open_nursery() as nursery:
        mesh = leaving.at("mesh")
        slow = await Peer.connect(staying.at("proxy"))
        await slow.send(
            b"POST / HTTP/1.1\r\nHost: cart.shop\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
        )
        stream = await Peer.connect(staying.at("proxy"))
        await stream.send(ASK.replace(b"GET /", b"GET /stream"))
        await serve.arrived.wait()
        nursery.start_soon(drain, leaving, 15.0, done)
        await until(lambda: "mesh" not in leaving.engine.listener_sockets)
        assert await refused(mesh), "at once, and not after a queue nobody reads"
        for _ in range(20):
            assert (await get(leaving.at("proxy"), "web.shop"))[0] == 200
        await slow.send(b"2\r\ncd\r\n0\r\n\r\n")
        head = await slow.head()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert await slow.body(head) == b"abcd", "a slow POST at the leaving node finishes"
        local_slow = await Peer.connect(leaving.at("proxy"))
        await local_slow.send(b"POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 4\r\n\r\nab")
        await trio.sleep(0.05)
        serve.go.set()
        assert b"b\r\n0\r\n\r\n" in await until_ended(stream)
        await until(lambda: not leaving.engine._listeners.accepting("proxy"))  # type: ignore[union-attr]
        await local_slow.send(b"cd")
        assert (await local_slow.head()).startswith(b"HTTP/1.1 200 "), "one it made itself as well"
        await done.wait()
        for peer in (slow, stream, local_slow):
            await peer.stream.aclose()


async def until_ended(peer: Peer) -> bytes:
    """Return what comes until the last chunk."""
    while b"0\r\n\r\n" not in peer.buffer:
        data = await peer.stream.receive_some()
        if not data:
            break
        peer.buffer += data
    return peer.buffer


async def test_a_long_stream_is_cut_with_a_reset_when_the_time_is_up(tmp_path: Path) -> None:
    """Nobody may take what came for all there is."""
    serve, done = Streaming(), trio.Event()
    async with both_ways(tmp_path, serve) as (staying, leaving), trio.open_nursery() as nursery:
        stream = await Peer.connect(staying.at("proxy"))
        await stream.send(ASK.replace(b"GET /", b"GET /stream"))
        await serve.arrived.wait()
        nursery.start_soon(drain, leaving, 0.3, done)
        await done.wait()
        cut = False
        try:
            whole = await until_ended(stream)
        except trio.BrokenResourceError:
            cut = True
        assert cut or b"0\r\n\r\n" not in whole
        await stream.stream.aclose()


async def test_a_connection_kept_open_gets_its_last_answer_and_the_word_to_go(tmp_path: Path) -> None:
    serve, done = Streaming(), trio.Event()
    async with both_ways(tmp_path, serve) as (staying, leaving), trio.open_nursery() as nursery:
        kept = await Peer.connect(staying.at("proxy"))
        await kept.send(ASK)
        stream = await Peer.connect(staying.at("proxy"))
        await stream.send(ASK.replace(b"GET /", b"GET /stream"))
        await serve.arrived.wait()
        assert (await kept.head()).startswith(b"HTTP/1.1 200 ")
        nursery.start_soon(drain, leaving, 15.0, done)
        await until(lambda: "mesh" not in leaving.engine.listener_sockets)
        assert (await kept.ask(ASK))[0] == 200, "by the connection that is there"
        assert (await kept.ask(ASK))[0] == 503, "which was told to go"
        serve.go.set()
        await done.wait()
        await kept.stream.aclose()
        await stream.stream.aclose()


async def test_leaving_with_open_tunnels_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is cancelled at the end is told as an end, and not as a failure with a traceback."""
    done, arrived = trio.Event(), trio.Event()

    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")
        arrived.set()
        await stream.receive_some()

    async with workload(greet) as address, nodes(tmp_path, "near", "far") as (near, far):
        db = endpoint(far, registration="db", service="shop/db", protocol="tcp")
        tcp = local(address, registration="db", service="shop/db", protocol=str(Protocol.TCP))
        await far.apply(local=(tcp,), catalog=(db,))
        await near.apply(catalog=(db,), wanted=("shop/db",))
        peer = await Peer.connect(near.at("proxy"))
        await peer.send(b"CONNECT db.shop:5432 HTTP/1.1\r\nHost: db.shop:5432\r\n\r\n")
        assert (await peer.head()).startswith(b"HTTP/1.1 200 ")
        await arrived.wait()
        with caplog.at_level(logging.WARNING):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain, far, 0.2, done)
                await done.wait()
        await peer.stream.aclose()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_eviction_while_draining_ends_nothing_under_way(tmp_path: Path) -> None:
    serve, done = Streaming(), trio.Event()
    async with both_ways(tmp_path, serve) as (staying, leaving), trio.open_nursery() as nursery:
        stream = await Peer.connect(staying.at("proxy"))
        await stream.send(ASK.replace(b"GET /", b"GET /stream"))
        await serve.arrived.wait()
        nursery.start_soon(drain, leaving, 15.0, done)
        await until(lambda: "mesh" not in leaving.engine.listener_sockets)
        leaving.engine._rooms.resize(2)
        silent = [
            await trio.open_tcp_stream(leaving.at("proxy").host, leaving.at("proxy").port) for _ in "abcdef"
        ]
        assert leaving.engine._rooms.mesh.shed(10) == 0
        assert (await get(leaving.at("proxy"), "web.shop"))[0] == 200
        serve.go.set()
        assert b"0\r\n\r\n" in await until_ended(stream)
        await done.wait()
        for one in (*silent, stream.stream):
            await one.aclose()


async def test_asked_twice_it_goes_on_as_it_was_and_tells_both(tmp_path: Path) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        first, second = trio.Event(), trio.Event()
        near.engine.start_drain(5.0, first)
        near.engine.start_drain(5.0, second)
        with trio.fail_after(5):
            await first.wait()
            await second.wait()


async def test_an_engine_that_has_a_successor_refuses_nobody_and_finishes_what_it_has(tmp_path: Path) -> None:
    """Both accept on the same sockets until it is told; after that whoever comes is the successor's."""
    serve, done = Streaming(), trio.Event()
    async with both_ways(tmp_path, serve) as (staying, leaving), trio.open_nursery() as nursery:
        kept = {name: sock.dup() for name, sock in leaving.sockets.items()}
        stream = await Peer.connect(staying.at("proxy"))
        await stream.send(ASK.replace(b"GET /", b"GET /stream"))
        await serve.arrived.wait()
        own = await Peer.connect(leaving.at("proxy"))
        assert (await own.ask(ASK.replace(b"cart", b"web")))[0] == 200
        nursery.start_soon(succeed, leaving, 15.0, done)
        await until(lambda: not leaving.engine.listener_sockets)
        assert leaving.engine.draining
        for name, sock in kept.items():
            waiting = await trio.open_tcp_stream(*sock.getsockname())
            assert sock.accept()[0].close() is None, f"who comes to {name} waits for the successor"
            await waiting.aclose()
        serve.go.set()
        assert b"b\r\n0\r\n\r\n" in await until_ended(stream), "what it had is whole"
        await done.wait()
        for peer in (stream, own):
            await peer.stream.aclose()
        for sock in kept.values():
            sock.close()


async def test_what_a_drain_cuts_is_told_before_the_engine_ends(tmp_path: Path) -> None:
    serve, done = Streaming(), trio.Event()
    async with both_ways(tmp_path, serve) as (staying, leaving), trio.open_nursery() as nursery:
        stream = await Peer.connect(staying.at("proxy"))
        await stream.send(ASK.replace(b"GET /", b"GET /stream"))
        await serve.arrived.wait()
        nursery.start_soon(succeed, leaving, 0.3, done)
        await done.wait()
        await until(lambda: told(leaving, "connections_cut") == 1)
        await stream.stream.aclose()


async def succeed(node: Node, timeout_s: float, done: trio.Event) -> None:
    """Have an engine end whose sockets others hold too."""
    try:
        await node.client.drain(timeout_s, succeeded=True)
    except EngineGone:
        pass
    done.set()


def told(node: Node, name: str) -> int:
    """Return what an engine has told its agent of something it counts."""
    return sum(event.counters.get(name, 0) for event in node.events if isinstance(event, Statistics))
