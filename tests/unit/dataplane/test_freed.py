"""What served a connection is freed when it ends, not at a full collection, which comes once in months."""

import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from gossipmesh.model.member import Address
from tests.unit.dataplane.engine_kit import Peer, answering, cart_pair, get, until, workload

COUNT = 20
OURS = (
    "TlsStream",
    "PlainStream",
    "SSLObject",
    "_NamedObject",
    "MemoryBIO",
    "Connection",
    "Place",
    "Downstream",
)


async def silent(where: Address) -> None:
    peer = await Peer.connect(where)
    await trio.testing.wait_all_tasks_blocked()
    await peer.stream.aclose()


async def garbage(where: Address) -> None:
    peer = await Peer.connect(where)
    await peer.send(b"\x16\x03\x01\x00\x05hello")
    await peer.rest()
    await peer.stream.aclose()


async def request(where: Address) -> None:
    assert (await get(where))[0] == 200


ANSWERS = {
    b"/garbage": b"SSH-2.0-OpenSSH\r\n",
    b"/cut": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
    b"/chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"/websocket": b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nabc",
    b"/nothing": b"",
}
_HOST = b" HTTP/1.1\r\nHost: cart.shop\r\n"
_CHUNKED = b"POST /" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n"
_CONNECT = b"CONNECT cart.shop:80 HTTP/1.1\r\nHost: cart.shop:80\r\n\r\n"
BROKEN = {
    "an upload that ends": b"POST /" + _HOST + b"Content-Length: 900000\r\n\r\n" + bytes(100_000),
    "chunks that end": _CHUNKED + b"3\r\nabc\r\n" + b"4\r\na",
    "bad chunks": _CHUNKED + b"3\r\nabc\r\nzz\r\n",
    "half a head": b"GET /" + _HOST,
    "no head": b"nonsense\r\n\r\n",
    "a service nobody knows": b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n",
    "a refused tunnel": b"CONNECT nobody:1 HTTP/1.1\r\nHost: nobody:1\r\n\r\n",
    "requests in a tunnel": _CONNECT + b"GET /" + _HOST + b"Connection: close\r\n\r\n",
    "nonsense in a tunnel": _CONNECT + b"nonsense\r\n\r\n",
    "websocket": b"GET /websocket" + _HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    **{f"an answer: {path[1:].decode()}": b"GET " + path + _HOST + b"\r\n" for path in ANSWERS},
}


async def odd(stream: trio.SocketStream) -> None:
    """Answer as the path asks for, then end; take what is sent and say nothing otherwise."""
    head = await Peer(stream).head()
    if head.startswith(b"GET "):
        await stream.send_all(ANSWERS.get(head.split(b" ")[1], b"HTTP/1.1 204 X\r\n\r\n"))
        return
    while await stream.receive_some():
        pass


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
async def test_nothing_of_what_broke_outlives_it(tmp_path: Path, sent: bytes) -> None:
    async def once(near: Address) -> None:
        peer = await Peer.connect(near)
        async with peer.stream:
            try:
                await peer.send(sent)
                await peer.stream.send_eof()
                await peer.rest()
            except trio.BrokenResourceError:
                pass  # the engine had had enough

    async with workload(odd) as address, cart_pair(tmp_path, address) as (near, far):
        await once(near.at("proxy"))
        await until(lambda: far.engine._rooms.mesh.held_count <= 1)
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(COUNT):
                await once(near.at("proxy"))
            await until(lambda: all((alive() - before)[name] < COUNT // 4 for name in OURS))
        finally:
            gc.enable()


def alive() -> Counter[str]:
    kinds = Counter(type(thing).__name__ for thing in gc.get_objects())
    return Counter({name: kinds[name] for name in OURS})


@pytest.mark.parametrize(
    ("port", "what"), [("mesh", silent), ("mesh", garbage), ("proxy", silent), ("proxy", request)]
)
async def test_nothing_of_a_connection_outlives_it(
    tmp_path: Path, port: str, what: Callable[[Address], Awaitable[None]]
) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, far):
        where = (far if port == "mesh" else near).at(port)
        await what(where)  # what is made once
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(COUNT):
                await what(where)
            await until(lambda: all((alive() - before)[name] < COUNT // 4 for name in OURS))
        finally:
            gc.enable()
