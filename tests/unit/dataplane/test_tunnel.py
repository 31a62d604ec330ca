"""How a tunnel ends: a clean end stays clean; whatever else befalls one side is a reset for the other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from gossipmesh.dataplane.reference.tcp import TunnelEnd, tunnel
from gossipmesh.net.byte_stream import ByteStream, PlainStream, connect
from gossipmesh.net.tls import TlsStream
from tests.unit.dataplane.engine_kit import address_of, bound
from tests.unit.net.tls_pair import shaken


async def tcp_pair() -> tuple[PlainStream, PlainStream]:
    listener = bound()
    near = PlainStream(await connect(address_of(listener), mesh=False))
    far = PlainStream(listener.accept()[0])
    listener.close()
    return near, far


class Tunnel:
    """A tunnel between a client and a server; TLS or not on each side."""

    def __init__(self, client: ByteStream, server: ByteStream) -> None:
        self.client = client
        self.server = server
        self.ends: list[TunnelEnd] = []

    @property
    def end(self) -> TunnelEnd:
        return self.ends[0]


@asynccontextmanager
async def running(
    sides: str = "plain plain", idle_timeout_s: float = 3_600, scope: trio.CancelScope | None = None
) -> AsyncIterator[Tunnel]:
    """Run a tunnel; leave once it has ended."""
    down, up = sides.split()
    async with _pair(down) as (client, downstream), _pair(up) as (server, upstream):
        held = Tunnel(client, server)

        async def carry() -> None:
            held.ends.append(await tunnel(downstream, upstream, idle_timeout_s=idle_timeout_s, scope=scope))
            downstream.close()
            upstream.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry)
            yield held


@asynccontextmanager
async def _pair(kind: str) -> AsyncIterator[tuple[ByteStream, ByteStream]]:
    if kind == "tls":
        async with shaken(tcp=True) as (server, client):
            yield client, server
        return
    near, far = await tcp_pair()
    try:
        yield near, far
    finally:
        near.close()
        far.close()


SIDES = ["plain plain", "tls plain", "plain tls", "tls tls"]


async def rest_of(stream: ByteStream) -> bytes:
    pieces = []
    while data := await stream.receive():
        pieces.append(data)
    return b"".join(pieces)


@pytest.mark.parametrize("sides", SIDES)
async def test_each_direction_ends_on_its_own(sides: str) -> None:
    async with running(sides) as held:
        await held.client.send_all(b"question")
        await held.client.send_eof()
        assert await rest_of(held.server) == b"question"
        await held.server.send_all(b"answer")
        await held.server.send_eof()
        assert await rest_of(held.client) == b"answer"
    assert (held.end.flag, held.end.broken_by) == ("", "")
    assert (held.end.received_bytes, held.end.sent_bytes) == (8, 6)


@pytest.mark.parametrize("half_closed", [False, True], ids=["both open", "the other had ended"])
@pytest.mark.parametrize("broken", ["client", "server"])
@pytest.mark.parametrize("sides", SIDES)
async def test_a_reset_is_a_reset_for_the_other_side(sides: str, broken: str, half_closed: bool) -> None:
    async with running(sides) as held:
        breaking, other = (held.client, held.server)[:: 1 if broken == "client" else -1]
        await breaking.send_all(b"so far")
        assert await other.receive() == b"so far"
        if half_closed:
            await other.send_eof()
            assert await breaking.receive() == b""
        breaking.abort()
        with pytest.raises(OSError):
            await rest_of(other)
    side = "downstream" if broken == "client" else "upstream"
    assert (held.end.flag, held.end.broken_by) == ("DC" if broken == "client" else "UC", side)


@pytest.mark.parametrize("broken", ["client", "server"])
async def test_an_end_of_tcp_without_close_notify_is_a_reset_for_the_other_side(broken: str) -> None:
    async with running("tls tls") as held:
        breaking, other = (held.client, held.server)[:: 1 if broken == "client" else -1]
        assert isinstance(breaking, TlsStream)
        await breaking.send_all(b"so far")
        assert await other.receive() == b"so far"
        breaking.socket.close()  # a FIN, and no word of TLS before it
        with pytest.raises(ConnectionResetError):
            await rest_of(other)
        breaking._closed = True
    assert held.end.broken_by == ("downstream" if broken == "client" else "upstream")


async def test_a_record_that_was_tampered_with_is_a_reset_for_the_other_side() -> None:
    async with running("tls plain") as held:
        held.client.socket.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ConnectionResetError):
            await rest_of(held.server)
    assert held.end.broken_by == "downstream"


async def test_last_words_before_a_reset_arrive() -> None:
    """The server answers and closes with bytes unread, so that its end is a reset; the client sends on."""
    async with running() as held:
        for _ in range(20):
            await held.client.send_all(b"x" * 1_000)
        await trio.testing.wait_all_tasks_blocked()
        await held.server.send_all(b"that is too much")
        held.server.close()
        assert await held.client.receive() == b"that is too much"
        with pytest.raises(OSError):
            await _talk_on(held.client)
    assert held.end.broken_by == "upstream"


async def _talk_on(stream: ByteStream) -> None:
    while True:
        await stream.send_all(b"still here")
        if not await stream.receive():
            raise AssertionError("a clean end")


async def test_a_side_that_takes_nothing_does_not_hold_up_the_others_reset(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as held:
        await held.server.send_all(b"y" * 50)
        await held.client.receive()
        with trio.move_on_after(1):  # the client reads nothing of it
            await held.server.send_all(b"z" * 30_000_000)
        held.server.abort()
        with pytest.raises(OSError):
            await _talk_on(held.client)
    assert held.end.broken_by == "upstream"


@pytest.mark.parametrize("sides", SIDES)
async def test_an_idle_tunnel_is_reset_on_both_sides(
    sides: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(sides, idle_timeout_s=2) as held:
        for stream in (held.client, held.server):
            with pytest.raises(OSError):
                await rest_of(stream)
    assert (held.end.flag, held.end.broken_by) == ("SI", "")


@pytest.mark.parametrize("sides", SIDES)
async def test_a_tunnel_that_is_cut_off_is_reset_on_both_sides(sides: str) -> None:
    scope = trio.CancelScope()
    async with running(sides, scope=scope) as held:
        await held.client.send_all(b"hello")
        assert await held.server.receive() == b"hello"
        scope.cancel()
        for stream in (held.client, held.server):
            with pytest.raises(OSError):
                await rest_of(stream)
    assert held.end.flag == ""
