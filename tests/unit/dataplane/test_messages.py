"""HTTP/1.1 messages through two engines where time, pieces or a broken end decide, on real sockets."""

import errno
import struct
from pathlib import Path

import pytest
import trio

from gossipmesh.dataplane.reference import dialing
from gossipmesh.model import limits
from gossipmesh.model.member import Address
from gossipmesh.net.byte_stream import SEND_BYTES_MAX
from gossipmesh.net.turns import TURN
from tests.unit.dataplane.engine_kit import (
    Node,
    Peer,
    address_of,
    answering,
    bound,
    cart_pair,
    get,
    local,
    nobody_listening,
    workload,
)

GET = b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def reset(stream: trio.SocketStream) -> None:
    """Have `stream` end with RST."""
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))


async def ended_by_reset(peer: Peer) -> bool:
    """Read to the end; tell whether it was a reset. What came is in `peer.buffer`."""
    try:
        while data := await peer.stream.receive_some():
            peer.buffer += data
    except trio.BrokenResourceError as error:
        return isinstance(error.__cause__, ConnectionResetError)
    return False


class Pieces:
    """Counts the pieces a chunked body came in."""

    def __init__(self) -> None:
        self.count = 0
        self.size = 0

    async def read(self, peer: Peer) -> None:
        while size := int(await peer.line(), 16):
            self.count += 1
            self.size += len(await peer.exactly(size + 2)) - 2
        assert await peer.line() == b""


async def test_a_request_of_one_byte_chunks_arrives_in_large_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.6 MB of 600,000 chunks: joined at each hop, in turns that let others run."""
    count, came = 600_000, Pieces()
    monkeypatch.setattr(TURN, "_spent_bytes_max", 0)  # other tests' heads are longer pieces

    async def counting(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.head()
        await came.read(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with workload(counting) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream, trio.open_nursery() as nursery:
            head = b"POST / HTTP/1.1\r\nHost: cart.shop\r\nTransfer-Encoding: chunked\r\n\r\n"
            nursery.start_soon(peer.send, head + b"1\r\na\r\n" * count + b"0\r\n\r\n")
            assert (await peer.head()).startswith(b"HTTP/1.1 200 ")
    assert came.size == count
    assert came.count <= count // 500
    assert TURN.spent_bytes_max <= limits.TURN_BYTES_MAX + SEND_BYTES_MAX + limits.TURN_CALL_BYTES


@pytest.mark.parametrize("extension", [b"", b";a=b"], ids=["plain", "with extensions"])
async def test_an_answer_of_one_byte_chunks_arrives_in_large_ones(tmp_path: Path, extension: bytes) -> None:
    count = 100_000

    async def dripping(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(CHUNKED + (b"1" + extension + b"\r\na\r\n") * count + b"0\r\n\r\n")

    async with workload(dripping) as address, cart_pair(tmp_path, address) as (near, _far):
        peer, came = await Peer.connect(near.at("proxy")), Pieces()
        async with peer.stream:
            await peer.send(GET)
            await peer.head()
            await came.read(peer)
    assert came.size == count
    assert came.count <= count // 500


BROKEN_ANSWERS = {
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello",
    "until close": b"HTTP/1.1 200 OK\r\n\r\nhello",
}


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("answer", BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS)
async def test_an_answer_that_is_reset_is_reset_for_the_client(
    tmp_path: Path, answer: bytes, version: bytes
) -> None:
    read = trio.Event()

    async def resetting(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(answer)
        await read.wait()
        reset(stream)
        await stream.aclose()

    async with workload(resetting) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(b"GET / HTTP/" + version + b"\r\nHost: cart.shop\r\n\r\n")
            await peer.head()
            assert b"hello" in await peer.exactly(5 if b"hello" in peer.buffer[:5] else 8)
            read.set()
            assert await ended_by_reset(peer)
            assert b"0\r\n\r\n" not in peer.buffer


async def test_a_chunked_answer_cut_short_is_a_reset_where_the_client_has_no_chunks(tmp_path: Path) -> None:
    """HTTP/1.0 without a length: a clean end would say that this was all."""

    async def cutting(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(BROKEN_ANSWERS["chunked"])

    async with workload(cutting) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(b"GET / HTTP/1.0\r\nHost: cart.shop\r\n\r\n")
            assert await ended_by_reset(peer)


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 500000\r\n", b"Transfer-Encoding: chunked\r\n"], ids=["length", "chunked"]
)
async def test_an_upload_that_is_reset_is_reset_for_the_workload(tmp_path: Path, framing: bytes) -> None:
    begun, was_reset = trio.Event(), trio.Event()

    async def receiving(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.head()
        await peer.exactly(3)
        begun.set()
        if await ended_by_reset(peer):
            was_reset.set()

    async with workload(receiving) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        await peer.send(b"POST / HTTP/1.1\r\nHost: cart.shop\r\n" + framing + b"\r\n")
        await peer.send(b"3\r\nabc\r\n")
        await begun.wait()
        reset(peer.stream)
        await peer.stream.aclose()
        await was_reset.wait()


class Late:
    """A workload that sends a body nobody asked for, behind an answer that has none by rule."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.connections = 0

    async def handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        peer = Peer(stream)
        if (await peer.head()).startswith(b"GET /later"):
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue")
            return
        await peer.send(self._answer)
        await peer.head()  # the latest moment: the next request is on its way
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray")


LATE = {
    "head": (b"HEAD / ", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n"),
    "head of chunks": (b"HEAD / ", CHUNKED),
    "head without a length": (b"HEAD / ", b"HTTP/1.1 200 OK\r\n\r\n"),
    "204": (b"GET / ", b"HTTP/1.1 204 X\r\n\r\n"),
    "304": (b"GET / ", b"HTTP/1.1 304 X\r\ncontent-length: 5\r\n\r\n"),
    "more than its length": (b"GET / ", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
}


async def ports_of(near: Node, *services: str) -> list[Address]:
    """Give each service a port to shop/cart, on which it calls by its own identity; return the ports."""
    sockets = [bound() for _ in services]
    ports = [address_of(sock) for sock in sockets]
    names = [f"upstream/shop/cart/{port}" for port in ports]
    for name, sock in zip(names, sockets, strict=True):
        near.port(name, sock)
    near_services = [
        local(
            Address("127.0.0.1", 1),
            registration=service[5:],
            service=service,
            upstreams=(("shop/cart", port),),
        )
        for service, port in zip(services, ports, strict=True)
    ]
    await near.apply(local=tuple(near_services))
    await near.client.give_listeners(dict(zip(names, sockets, strict=True)))
    return ports


@pytest.mark.parametrize(("line", "answer"), LATE.values(), ids=LATE)
async def test_late_bytes_never_reach_another_caller(tmp_path: Path, line: bytes, answer: bytes) -> None:
    late = Late(answer)
    async with workload(late.handle) as address, cart_pair(tmp_path, address) as (near, _far):
        web, db = await ports_of(near, "shop/web", "shop/db")
        first = await Peer.connect(web)
        async with first.stream:
            await first.send(line + b"HTTP/1.1\r\nHost: cart.shop\r\n\r\n")
            await first.head()
            other = await Peer.connect(db)
            async with other.stream:
                await other.send(b"GET /later HTTP/1.1\r\nHost: cart.shop\r\n\r\n")
                assert await other.body(await other.head()) == b"true"
    assert late.connections == 2


@pytest.mark.parametrize(
    ("line", "answer"),
    [pair for name, pair in LATE.items() if name != "more than its length"],
    ids=[name for name in LATE if name != "more than its length"],
)
async def test_late_bytes_never_reach_the_same_callers_next_request(
    tmp_path: Path, line: bytes, answer: bytes
) -> None:
    late = Late(answer)
    async with workload(late.handle) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(line + b"HTTP/1.1\r\nHost: cart.shop\r\n\r\n")
            await peer.head()
            await peer.send(b"GET /later HTTP/1.1\r\nHost: cart.shop\r\n\r\n")
            assert await peer.body(await peer.head()) == b"true"
    assert late.connections == 2


async def test_a_clean_workload_keeps_its_connection_after_204(tmp_path: Path) -> None:
    """It rests for a moment and is used again."""
    accepted = 0

    async def empty(stream: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        peer = Peer(stream)
        while await peer.head():
            await peer.send(b"HTTP/1.1 204 X\r\n\r\n")

    async with workload(empty) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            for _ in range(3):
                await peer.send(GET)
                await peer.head()
                await trio.sleep(2 * limits.WORKLOAD_REST_NS / 1e9)
    assert accepted == 1


async def test_a_workload_that_refuses_is_said_to_have_been_reached_by_nothing(tmp_path: Path) -> None:
    with nobody_listening() as nobody:
        async with cart_pair(tmp_path, nobody) as (near, _far):
            status, head, _ = await get(near.at("proxy"))
        assert status == 503
        assert b"x-gossipmesh-flag: UF" in head


async def test_own_shortage_towards_a_workload_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def exhausted(*_args: object, **_more: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        monkeypatch.setattr(dialing, "connect", exhausted)
        status, head, _ = await get(near.at("proxy"))
    assert status == 503
    assert b"x-gossipmesh-flag: UO" in head
    assert b"this node lacks" in head


async def test_http_1_0_without_host_on_an_explicit_port_is_served(tmp_path: Path) -> None:
    seen: list[bytes] = []
    async with workload(answering(seen=seen)) as address, cart_pair(tmp_path, address) as (near, _far):
        (web,) = await ports_of(near, "shop/web")
        peer = await Peer.connect(web)
        async with peer.stream:
            await peer.send(b"GET /x HTTP/1.0\r\n\r\n")
            assert (await peer.rest()).endswith(b"hello")
    assert b"host: cart.shop\r\n" in seen[0]


async def test_early_hints_come_before_the_answer_is_ready(tmp_path: Path) -> None:
    """They are of use only if they do not wait for what follows."""
    hinted = trio.Event()

    async def hinting(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        await hinted.wait()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with workload(hinting) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(GET)
            assert b"link: </style.css>" in await peer.head()
            hinted.set()
            assert (await peer.head()).startswith(b"HTTP/1.1 200 ")


async def test_trailers_come_behind_a_streamed_answer_and_the_connection_goes_on(tmp_path: Path) -> None:
    async def trailing(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        while head := await peer.head():
            assert b"te: trailers" in head
            await peer.body(head)
            await peer.send(CHUNKED + b"5\r\nhello\r\n0\r\n" + b"\r\n".join(peer.trailers) + b"\r\n\r\n")

    async with workload(trailing) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            for number in (b"1", b"2"):
                head = b"POST / HTTP/1.1\r\nHost: cart.shop\r\nTE: trailers\r\n"
                head += b"Transfer-Encoding: chunked\r\n\r\n"
                _, _, body = await peer.ask(head + b"3\r\nabc\r\n0\r\nX-Sum: " + number + b"\r\n\r\n")
                assert (body, peer.trailers) == (b"hello", [b"x-sum: " + number])
