"""A client that closed while it waited takes its request along; one that ended its direction is answered."""

import socket
from pathlib import Path

import pytest
import trio

from tests.unit.dataplane.engine_kit import Peer, cart_pair, until, workload

REQUESTS = {
    "get": b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n",
    "post": b"POST / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 3\r\n\r\nabc",
    "http 1.0": b"GET / HTTP/1.0\r\nHost: cart.shop\r\n\r\n",
    "inside a tunnel": b"CONNECT cart.shop:80 HTTP/1.1\r\nHost: cart.shop:80\r\n\r\n"
    b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS)
async def test_a_request_nobody_waits_for_ends_at_the_workload(tmp_path: Path, request_bytes: bytes) -> None:
    asked, left = trio.Event(), trio.Event()

    async def hang(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.body(await peer.head())
        asked.set()
        assert await stream.receive_some() == b""
        left.set()

    async with workload(hang) as cart, cart_pair(tmp_path, cart) as (near, far):
        client = await Peer.connect(near.at("proxy"))
        await client.send(request_bytes)
        await asked.wait()
        await client.stream.aclose()
        await left.wait()
        await until(lambda: not near.engine._state.attempts.all() and not far.engine._state.attempts.all())


async def test_who_passed_its_end_to_another_process_still_waits(tmp_path: Path) -> None:
    """As a shell does: what counts is that somebody holds it."""
    asked, go = trio.Event(), trio.Event()

    async def late(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.head()
        asked.set()
        await go.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with workload(late) as cart, cart_pair(tmp_path, cart) as (near, _far):
        address = near.at("proxy")
        with socket.create_connection((address.host, address.port)) as client:
            held = client.dup()
        held.sendall(REQUESTS["get"])
        held.shutdown(socket.SHUT_WR)
        await asked.wait()
        near.engine._state.maintain(near.engine._owners.holds_other_end)
        go.set()
        held.settimeout(5)
        answer = await trio.to_thread.run_sync(held.recv, 100)
        held.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
