"""TCP streams of the gossip core on real loopback sockets."""

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
import trio

from gossipmesh.model import limits
from gossipmesh.model.member import Address
from gossipmesh.net.streams import StreamPool, listen


class Recorder:
    """A core that writes down what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.received: dict[int, bytes] = {}
        self._changed = trio.Event()

    def stream_accepted(self, stream: int, peer: Address) -> None:
        self._tell("accepted", stream)

    def stream_opened(self, stream: int) -> None:
        self._tell("opened", stream)

    def receive_stream(self, stream: int, data: bytes) -> None:
        self.received[stream] = self.received.get(stream, b"") + data
        self._tell("data", stream)

    def stream_closed(self, stream: int) -> None:
        self._tell("closed", stream)

    def _tell(self, what: str, stream: int) -> None:
        self.told.append((what, stream))
        self._changed.set()

    async def wait(self, what: str, stream: int) -> None:
        with trio.fail_after(5):
            while (what, stream) not in self.told:
                self._changed = trio.Event()
                await self._changed.wait()

    async def wait_bytes(self, stream: int, count: int) -> bytes:
        with trio.fail_after(5):
            while len(self.received.get(stream, b"")) < count:
                self._changed = trio.Event()
                await self._changed.wait()
        return self.received[stream]


class Pair:
    """Two pools, the second one listening at `address`."""

    def __init__(self, nursery: trio.Nursery, host: str = "127.0.0.1") -> None:
        self.here, self.there = Recorder(), Recorder()
        self.opener, self.acceptor = StreamPool(self.here, nursery), StreamPool(self.there, nursery)
        self.listener = listen(Address(host, 0))
        self.address = Address(host, self.listener.getsockname()[1])
        nursery.start_soon(self.acceptor.serve, self.listener)


@asynccontextmanager
async def pair(host: str = "127.0.0.1") -> AsyncIterator[Pair]:
    async with trio.open_nursery() as nursery:
        both = Pair(nursery, host)
        yield both
        nursery.cancel_scope.cancel()
    both.listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_bytes_both_ways_then_a_close_that_loses_nothing(host: str) -> None:
    async with pair(host) as both:
        both.opener.open_nowait(2, both.address)
        await both.here.wait("opened", 2)
        both.opener.send_nowait(2, b"ask")
        assert await both.there.wait_bytes(1, 3) == b"ask"
        answer = b"a" * 1_000_000
        both.acceptor.send_nowait(1, answer)
        both.acceptor.close_nowait(1)
        assert await both.here.wait_bytes(2, len(answer)) == answer
        await both.here.wait("closed", 2)
    assert ("closed", 1) not in both.there.told


async def test_a_refused_connect_is_told_as_closed() -> None:
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))  # held, or another server could be given its port
        async with pair() as both:
            both.opener.open_nowait(2, Address("127.0.0.1", held.getsockname()[1]))
            await both.here.wait("closed", 2)
            assert both.opener.statistics.connect_failed_count == 1


@pytest.mark.parametrize(
    "zone", ["a\0b", "é" * 100, "eth99", "a" * 3_000], ids=["nul", "letters", "name", "long"]
)
async def test_an_address_no_kernel_knows_is_told_as_closed(zone: str) -> None:
    """A member names its own addresses, and `fe80::1%ANYTHING` is an IPv6 literal."""
    async with pair() as both:
        both.opener.open_nowait(2, Address(f"fe80::1%{zone}", 7_948))
        await both.here.wait("closed", 2)
        assert both.opener.statistics.connect_failed_count == 1


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EMFILE])
async def test_a_socket_that_cannot_be_had_is_told_as_closed(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without IPv6 has no socket for a member that names an IPv6 address."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    async with pair() as both:
        monkeypatch.setattr(trio.socket, "socket", refuse)
        both.opener.open_nowait(2, both.address)
        await both.here.wait("closed", 2)
        assert both.opener.statistics.connect_failed_count == 1


async def test_a_queue_over_its_limit_ends_the_stream() -> None:
    async with pair() as both:
        both.opener.open_nowait(2, both.address)
        await both.here.wait("opened", 2)
        both.opener.send_nowait(2, bytes(limits.STREAM_QUEUE_BYTES_MAX + 1))
        await both.here.wait("closed", 2)
        assert both.opener.statistics.overflowed_count == 1


async def test_more_streams_than_allowed_are_refused() -> None:
    async with pair() as both:
        for number in range(limits.STREAMS_OPENED_MAX):
            both.opener.open_nowait(2 * number, both.address)
            await both.here.wait("opened", 2 * number)
        both.opener.open_nowait(1_000, both.address)
        await both.here.wait("closed", 1_000)
        assert both.opener.statistics.refused_count == 1


async def test_who_connects_and_says_nothing_is_dropped_after_a_second(autojump_clock: object) -> None:
    async with pair() as both:
        client = await trio.open_tcp_stream("127.0.0.1", both.address.port)
        await both.there.wait("closed", 1)
        assert both.acceptor.statistics.silent_count == 1
        await client.aclose()
