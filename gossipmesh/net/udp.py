"""Gossip datagrams on one raw, non-blocking UDP socket.

Ends at bytes, an address and an arrival time; what they mean is the core's to say.
Rules:
1. Arrival is the kernel's (SO_TIMESTAMPNS), so time spent waiting for our loop is not the sender's delay.
2. Sending never blocks: what the kernel does not take is dropped and counted.
3. Whoever judges a deadline drains the socket first (`receive_nowait` until it answers less than a batch).
4. Ports that refuse (ICMP, by IP_RECVERR) are told by address; a hint only, since anybody can forge it.
Spec: docs/GOSSIP.md, "Packets". Deviation: none.
"""

import errno
import select
import socket
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

import trio

from gossipmesh.model import limits
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.net.clock import monotonic, wall_ns

_SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h; Python 3.11's socket module has no name for it
_SO_RCVBUFFORCE: Final = 33  # the same; needs CAP_NET_ADMIN and passes net.core.rmem_max
_TIMESPEC: Final = struct.Struct("@qq")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_DELAY_NS_MAX: Final = 5 * SECOND_NS
_WALL_STEP_NS_MIN: Final = SECOND_NS // 10
_RECEIVE_BUFFER_BYTES: Final = 4_194_304
_MAPPED_PREFIX: Final = "::ffff:"
_IP_RECVERR: Final = 11  # linux/in.h and in6.h; Python 3.11's socket module has no names for them
_IPV6_RECVERR: Final = 25
_EXTENDED_ERROR: Final = struct.Struct("=IBBBBII")  # struct sock_extended_err
_ERROR_BYTES: Final = socket.CMSG_SPACE(_EXTENDED_ERROR.size + 28)  # and a sockaddr_in6
_ORIGIN_ICMP: Final = (2, 3)
_ERRORS_PER_WAKEUP_MAX: Final = 64
_ASKED_FIRST: Final = 2
_TRUNCATED: Final = int(socket.MSG_TRUNC)  # as an enum's member it would cost a call for each packet


class Datagram(NamedTuple):
    """One payload, whence it came, and when the kernel had it."""

    payload: bytes
    sender: Address
    arrival: Instant


@dataclass(slots=True)
class UdpStatistics:
    """What a socket did so far, in plain counts."""

    received_count: int = 0
    received_bytes: int = 0
    sent_count: int = 0
    sent_bytes: int = 0
    oversized_count: int = 0
    receive_errors_count: int = 0
    send_full_count: int = 0
    send_errors_count: int = 0
    refused_count: int = 0


class UdpSocket:
    """A bound UDP socket, IPv4 or IPv6; `[::]` carries both."""

    def __init__(self, bind: Address) -> None:
        """Bind.

        Raises:
            OSError: the address is taken, not ours, or not allowed. State unchanged.
        """
        self.statistics = UdpStatistics()
        self._family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
        self._socket = socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.setblocking(False)
            self._dual = self._family == socket.AF_INET6 and bind.host == "::"
            if self._family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not self._dual))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if self._family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            if self._family == socket.AF_INET or self._dual:
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            self._enlarge_receive_buffer()
            self._socket.bind(bind.socket_address())
        except OSError:
            self._socket.close()
            raise
        name = self._socket.getsockname()
        self.address = Address(name[0], name[1])
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)  # and errors, always
        self._refused: dict[Address, None] = {}
        self._woken = False
        self._wall_offset_ns = wall_ns() - monotonic()

    @property
    def receive_buffer_bytes(self) -> int:
        """Return what the kernel granted (it counts its own overhead in)."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    async def wait_readable(self) -> None:
        """Wait until `receive_nowait` would answer something.

        Raises:
            trio.ClosedResourceError: closed, before or while waiting.
        """
        if self._socket.fileno() == -1:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._socket.fileno())
        self._woken = True

    def receive_nowait(self) -> list[Datagram]:
        """Return what lies in the socket, at most `limits.DATAGRAMS_PER_WAKEUP_MAX`, oldest first.

        A shorter answer means the socket was empty when this returned.
        """
        batch: list[Datagram] = []
        errors_count = 0
        now = now_wall_ns = 0
        stamps_hold = True
        room = limits.DATAGRAM_BYTES_MAX + 1
        for number in range(limits.DATAGRAMS_PER_WAKEUP_MAX):
            # At rest one packet comes at a time, and an exception is the dearer way to learn that no other is
            # there. An error is something to read as well.
            if number < _ASKED_FIRST and not (number == 0 and self._woken) and not self._poll.poll(0):
                break
            try:
                payload, ancillary, flags, sender = self._socket.recvmsg(room, _ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except OSError:
                # An ICMP error for something sent earlier; whose it is stands in the error queue.
                errors_count += 1
                continue
            if not now:  # the same for all of a batch; none for an empty socket, which is what deadlines find
                now, now_wall_ns = monotonic(), wall_ns()
                # Stamps are civil time: were that set since, what came before would look as old as the step
                # is wide.
                offset_ns = now_wall_ns - now
                stamps_hold = abs(offset_ns - self._wall_offset_ns) < _WALL_STEP_NS_MIN
                self._wall_offset_ns = offset_ns
            if len(payload) > limits.DATAGRAM_BYTES_MAX or flags & _TRUNCATED:
                self.statistics.oversized_count += 1
                continue
            self.statistics.received_count += 1
            self.statistics.received_bytes += len(payload)
            delay_ns = _delay_ns(ancillary, now_wall_ns) if stamps_hold else 0
            batch.append(Datagram(payload, _address_of(sender), Instant(now - delay_ns)))
        # The error queue tells of itself by an error here; one that a send met, by waking us for nothing.
        if errors_count or (self._woken and not batch):
            self.statistics.receive_errors_count += max(0, errors_count - self._read_errors())
        self._woken = False
        return batch

    def send_nowait(self, payload: bytes, destination: Address) -> bool:
        """Send one datagram; False when the kernel did not take it (counted, never raised)."""
        host = destination.host
        if self._dual and ":" not in host:
            host = _MAPPED_PREFIX + host
        try:
            self._send(payload, (host, destination.port))
        except BlockingIOError:
            self.statistics.send_full_count += 1
            return False
        except (OSError, TypeError, ValueError) as error:
            # ENOBUFS is the full queue of an interface; the rest is an address we cannot reach, or a filter.
            # A member names its own: in IPv6 with a zone that may be any text, which Python itself refuses.
            if isinstance(error, OSError) and error.errno == errno.ENOBUFS:
                self.statistics.send_full_count += 1
            else:
                self.statistics.send_errors_count += 1
            return False
        self.statistics.sent_count += 1
        self.statistics.sent_bytes += len(payload)
        return True

    def _send(self, payload: bytes, destination: tuple[str, int]) -> None:
        try:
            self._socket.sendto(payload, destination)
        except ConnectionRefusedError:
            # What an earlier packet met is reported by the next call, which then sent nothing.
            self._read_errors()
            self._socket.sendto(payload, destination)

    def _read_errors(self) -> int:
        """Empty the error queue, as long as it would wake us: note whose ports refused; return its length."""
        for count in range(_ERRORS_PER_WAKEUP_MAX):
            try:
                _, ancillary, _, sent_to = self._socket.recvmsg(0, _ERROR_BYTES, socket.MSG_ERRQUEUE)
            except OSError:
                return count
            if sent_to and _is_refusal(ancillary) and len(self._refused) < _ERRORS_PER_WAKEUP_MAX:
                self.statistics.refused_count += 1
                self._refused[_address_of(sent_to)] = None
        return _ERRORS_PER_WAKEUP_MAX

    @property
    def refused_pending(self) -> bool:
        """Tell whether `take_refused` would return any."""
        return bool(self._refused)

    def take_refused(self) -> list[Address]:
        """Return whose ports refused packets of ours since the last call."""
        refused, self._refused = list(self._refused), {}
        return refused

    def close(self) -> None:
        """Close; a task in `wait_readable` gets `trio.ClosedResourceError`."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._socket.close()

    def _enlarge_receive_buffer(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        except OSError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)


def _delay_ns(ancillary: list[tuple[int, int, bytes]], now_wall_ns: int) -> int:
    """Return how long ago the kernel stamped a packet, within 0 and 5 s; 0 when it did not."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds: int
            nanoseconds: int
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return min(max(now_wall_ns - seconds * SECOND_NS - nanoseconds, 0), _DELAY_NS_MAX)
    return 0


def _is_refusal(ancillary: list[tuple[int, int, bytes]]) -> bool:
    """Tell whether an error is an ICMP "port unreachable"."""
    for _, kind, data in ancillary:
        if kind in (_IP_RECVERR, _IPV6_RECVERR) and len(data) >= _EXTENDED_ERROR.size:
            number, origin, *_ = _EXTENDED_ERROR.unpack_from(data)
            return number == errno.ECONNREFUSED and origin in _ORIGIN_ICMP
    return False


def _address_of(sender: tuple[str, int]) -> Address:
    host = sender[0].partition("%")[0]
    return Address(host.removeprefix(_MAPPED_PREFIX) if "." in host else host, sender[1])
