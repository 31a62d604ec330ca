"""UDP sockets: arrival by the kernel, bounded batches, sends that never block."""

import socket
from contextlib import closing

import pytest
import trio

from gossipmesh.model import limits
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import Address
from gossipmesh.net.clock import monotonic, wall_ns
from gossipmesh.net.udp import _TIMESPEC, UdpSocket, _delay_ns

_ANY_PORT = Address("127.0.0.1", 0)


async def _receive(udp: UdpSocket) -> list[bytes]:
    with trio.fail_after(10):
        await udp.wait_readable()
    return [datagram.payload for datagram in udp.receive_nowait()]


async def _until_the_kernel_stamps(here: UdpSocket, there: UdpSocket) -> None:
    """Send until a packet bears the time it came: the kernel begins some time after the first socket asks.

    What comes before is stamped when it is read, and so looks as if it had not waited at all.
    """
    with trio.fail_after(10):
        while True:
            here.send_nowait(b"?", there.address)
            await there.wait_readable()
            await trio.sleep(0.02)
            before_read = monotonic()
            (datagram,) = there.receive_nowait()
            if before_read - datagram.arrival > SECOND_NS // 100:
                return


async def test_arrival_is_when_the_kernel_had_it_and_not_when_it_was_read() -> None:
    with closing(UdpSocket(_ANY_PORT)) as here, closing(UdpSocket(_ANY_PORT)) as there:
        await _until_the_kernel_stamps(here, there)
        before = monotonic()
        assert here.send_nowait(b"hello", there.address)
        with trio.fail_after(10):
            await there.wait_readable()
        arrived = monotonic()
        await trio.sleep(0.05)
        read = monotonic()
        (datagram,) = there.receive_nowait()
        assert datagram.payload == b"hello"
        assert datagram.sender == here.address
        assert before - SECOND_NS // 100 <= datagram.arrival <= arrived + SECOND_NS // 100 < read


async def test_what_came_before_the_clock_was_set_is_not_old(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(UdpSocket(_ANY_PORT)) as here, closing(UdpSocket(_ANY_PORT)) as there:
        await _until_the_kernel_stamps(here, there)
        ahead_ns = 3 * SECOND_NS
        monkeypatch.setattr("gossipmesh.net.udp.wall_ns", lambda: wall_ns() + ahead_ns)
        for count in (1, 2):
            here.send_nowait(b"hello", there.address)
            with trio.fail_after(10):
                await there.wait_readable()
            before = monotonic()
            (datagram,) = there.receive_nowait()
            late_s = (before - datagram.arrival) / SECOND_NS
            assert late_s < 0.5 if count == 1 else late_s > 2.5, "only the read after the step can tell"


class Counted:
    """A socket that counts how often it was read."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.reads_count = 0

    def recvmsg(self, *given: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        self.reads_count += 1
        return self._socket.recvmsg(*given)

    def __getattr__(self, name: str) -> object:
        return getattr(self._socket, name)


async def test_one_packet_at_rest_is_one_read_and_an_empty_socket_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with closing(UdpSocket(_ANY_PORT)) as here, closing(UdpSocket(_ANY_PORT)) as there:
        counted = Counted(there._socket)
        monkeypatch.setattr(there, "_socket", counted)
        assert there.receive_nowait() == []
        assert counted.reads_count == 0
        here.send_nowait(b"alone", there.address)
        assert await _receive(there) == [b"alone"]
        assert counted.reads_count == 1
        for _ in range(4):
            here.send_nowait(b"many", there.address)
        assert await _receive(there) == [b"many"] * 4
        assert counted.reads_count == 1 + 4 + 1


async def test_a_batch_is_bounded_and_a_short_one_means_empty() -> None:
    here, there = UdpSocket(_ANY_PORT), UdpSocket(_ANY_PORT)
    count = limits.DATAGRAMS_PER_WAKEUP_MAX + 3
    for number in range(count):
        here.send_nowait(b"%d" % number, there.address)
    first, second = await _receive(there), await _receive(there)
    assert len(first) == limits.DATAGRAMS_PER_WAKEUP_MAX
    assert first + second == [b"%d" % number for number in range(count)]
    here.close()
    there.close()


async def test_a_datagram_over_the_limit_is_dropped_and_counted() -> None:
    here, there = UdpSocket(_ANY_PORT), UdpSocket(_ANY_PORT)
    here.send_nowait(b"x" * (limits.DATAGRAM_BYTES_MAX + 1), there.address)
    here.send_nowait(b"y" * limits.DATAGRAM_BYTES_MAX, there.address)
    assert await _receive(there) == [b"y" * limits.DATAGRAM_BYTES_MAX]
    assert there.statistics.oversized_count == 1
    here.close()
    there.close()


async def test_a_send_that_cannot_go_is_counted_and_not_raised() -> None:
    here = UdpSocket(_ANY_PORT)
    assert not here.send_nowait(b"x", Address("2001:db8::1", 7948))
    assert here.statistics.send_errors_count == 1
    here.close()


@pytest.mark.parametrize(("host", "peer"), [("::1", "::1"), ("::", "127.0.0.1"), ("::", "::1")])
async def test_ipv6_and_both_on_one_socket(host: str, peer: str) -> None:
    here, there = UdpSocket(Address(host, 0)), UdpSocket(Address(peer, 0))
    assert there.send_nowait(b"in", Address(peer, here.address.port))
    with trio.fail_after(10):
        await here.wait_readable()
    (datagram,) = here.receive_nowait()
    assert datagram.sender == there.address
    assert here.send_nowait(b"back", datagram.sender)
    assert await _receive(there) == [b"back"]
    here.close()
    there.close()


async def test_a_taken_port_is_an_error_at_once() -> None:
    here = UdpSocket(_ANY_PORT)
    with pytest.raises(OSError, match="in use"):
        UdpSocket(here.address)
    here.close()


def test_the_kernels_stamp_is_clamped() -> None:
    def stamped(seconds: int) -> list[tuple[int, int, bytes]]:
        return [(socket.SOL_SOCKET, 35, _TIMESPEC.pack(seconds, 0))]

    assert _delay_ns(stamped(100), 101 * SECOND_NS) == SECOND_NS
    assert _delay_ns(stamped(100), 500 * SECOND_NS) == 5 * SECOND_NS
    assert _delay_ns(stamped(100), 99 * SECOND_NS) == 0
    assert _delay_ns([], 99 * SECOND_NS) == 0


async def test_a_port_where_nobody_listens_is_told_by_address_and_costs_no_packet() -> None:
    first, gone, peer = UdpSocket(_ANY_PORT), UdpSocket(_ANY_PORT), UdpSocket(_ANY_PORT)
    refusing = gone.address
    gone.close()
    assert first.send_nowait(b"anybody?", refusing)
    with trio.fail_after(5):
        await first.wait_readable()
    # What the earlier packet met must not be taken for this one's fault.
    assert first.send_nowait(b"hello", peer.address)
    assert first.receive_nowait() == []
    assert first.take_refused() == [refusing]
    assert first.take_refused() == []
    with trio.fail_after(5):
        await peer.wait_readable()
    assert [datagram.payload for datagram in peer.receive_nowait()] == [b"hello"]
    first.close()
    peer.close()


async def test_an_error_that_a_send_met_does_not_wake_us_for_ever() -> None:
    """The error is taken by whoever comes first; what stays in the queue keeps the socket readable."""
    first, gone = UdpSocket(_ANY_PORT), UdpSocket(_ANY_PORT)
    refusing = gone.address
    gone.close()
    first.send_nowait(b"anybody?", refusing)
    with trio.fail_after(5):
        await first.wait_readable()
    assert first._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0  # as a send would take it
    assert first.receive_nowait() == []
    assert first.refused_pending
    assert first.take_refused() == [refusing]
    assert first.statistics.receive_errors_count == 0
    with trio.move_on_after(0.02) as waiting:
        await first.wait_readable()
    assert waiting.cancelled_caught
    first.close()


@pytest.mark.parametrize(
    "zone", ["a\0b", "é" * 100, "eth99", "a" * 3_000], ids=["nul", "letters", "name", "long"]
)
async def test_an_address_no_kernel_knows_is_counted_and_never_raised(zone: str) -> None:
    """A member names its own addresses, and `fe80::1%ANYTHING` is an IPv6 literal."""
    for bind in (_ANY_PORT, Address("::1", 0)):
        here = UdpSocket(bind)
        assert not here.send_nowait(b"hello", Address(f"fe80::1%{zone}", 7_948))
        assert here.statistics.send_errors_count == 1
        here.close()
