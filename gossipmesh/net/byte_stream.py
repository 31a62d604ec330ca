"""Bytes over TCP: the small stream interface the data plane drives, and plain sockets behind it.

Ends where bytes mean something. Rules:

1. Whatever breaks a connection is an OSError (ssl.SSLError is one); the end of the stream is `b""`.
2. Writes are tried first and wait only when they must. So are reads, but for the one after a small
   message: silence follows it, and asking would cost as much as waiting. A task that never has to wait
   lets others run when its turn is over (`turns.py`).
3. `close` is synchronous and may be repeated; a task waiting on a closed stream gets OSError.
"""

import errno
import os
import select
import socket
import struct
from typing import Final, Protocol
from weakref import WeakSet

import trio

from gossipmesh.model.member import Address
from gossipmesh.net.turns import TURN

# Our own command line sets MALLOC_MMAP_THRESHOLD_=65536: a buffer of that size, its object's head included,
# is mapped and unmapped at each read, which took half of TCP's throughput. And it is three full TLS records,
# which the next engine then gets whole.
RECEIVE_BYTES: Final = 49_152
SEND_BYTES_MAX: Final = 131_072  # of one call: the kernel might take megabytes at once
SMALL_MESSAGE_BYTES: Final = 8_192
USER_TIMEOUT_MS: Final = 10_000
MESH_SOCKETS: Final[WeakSet[socket.socket]] = WeakSet()
"""Those that have this timeout, for who looks after them (`slow_readers.py`)."""
_KEEPALIVE_IDLE_S: Final = 5
_KEEPALIVE_INTERVAL_S: Final = 2
TCP_USER_TIMEOUT: Final = 18  # linux/tcp.h; the socket module names it only since 3.6 on some builds


class ByteStream(Protocol):
    """What forwarding and tunnels need of a connection, plain or TLS."""

    @property
    def socket(self) -> socket.socket:
        """Return the TCP socket beneath."""
        ...

    async def receive(self) -> bytes:
        """Return up to about RECEIVE_BYTES bytes, `b""` at the end of the stream."""
        ...

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything."""
        ...

    async def send_eof(self) -> None:
        """End our direction; the other stays open."""
        ...

    def is_stale(self) -> bool:
        """Tell whether an idle connection has ended or has bytes nobody asked for."""
        ...

    def close(self) -> None:
        """Close now."""
        ...

    def abort(self) -> None:
        """Close with a reset, so that nobody takes what was sent for all there is."""
        ...


class PlainStream:
    """A non-blocking TCP socket."""

    __slots__ = ("_closed", "_descriptor", "_drained", "_stale_check", "socket")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._descriptor = sock.fileno()
        self._closed = False
        self._drained = False
        self._stale_check = StaleCheck(sock)

    async def receive(self) -> bytes:
        """Return what has arrived, `b""` at the end.

        Raises:
            OSError: the connection broke or was closed here. State: close it.
        """
        if TURN.over():
            await TURN.rest()
        while True:
            if self._drained:
                await wait_readable(self._descriptor, self._closed)
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                self._drained = True
                continue
            TURN.spend(len(data))
            self._drained = 0 < len(data) < SMALL_MESSAGE_BYTES
            return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything.

        Raises:
            OSError: the connection broke or was closed here. State: close it.
        """
        sent = 0
        size = len(data)
        while sent < size:
            if TURN.over():
                await TURN.rest()
            whole = size <= SEND_BYTES_MAX
            piece = data if whole and not sent else memoryview(data)[sent : sent + SEND_BYTES_MAX]
            try:
                taken = self.socket.send(piece)
            except BlockingIOError:
                await wait_writable(self._descriptor, self._closed)
                continue
            TURN.spend(taken)
            sent += taken

    async def send_eof(self) -> None:
        """Send FIN.

        Raises:
            OSError: the connection broke or was closed here. State: close it.
        """
        self.socket.shutdown(socket.SHUT_WR)
        await trio.lowlevel.checkpoint()

    def is_stale(self) -> bool:
        """Tell whether an idle connection has ended or has bytes nobody asked for."""
        return self._stale_check.answer()

    def close(self) -> None:
        """Close now; waiters get OSError."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._descriptor)
            self.socket.close()

    def abort(self) -> None:
        """Close with a reset; waiters get OSError."""
        if not self._closed:
            reset_on_close(self.socket)
            self.close()


def reset_on_close(sock: socket.socket) -> None:
    """Have `sock` end with RST and not FIN, whatever is unsent."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # gone already


class StaleCheck:
    """Tells of one socket whether a read on it would return at once: an end, an error or bytes."""

    # Asked of each connection that is used again. A read that would have to wait is an exception, which
    # costs as much again as the call.
    __slots__ = ("_asking", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._asking: select.poll | None = None  # most are used once and never asked about

    def answer(self) -> bool:
        """Tell it now; of a socket that was closed here, yes."""
        if self._socket.fileno() < 0:
            return True  # its number may be another's by now
        if self._asking is None:
            self._asking = select.poll()
            self._asking.register(self._socket, select.POLLIN)
        try:
            return bool(self._asking.poll(0))
        except OSError:
            return True


async def wait_readable(descriptor: int, closed: bool) -> None:
    """Wait until a read would not block; a close meanwhile is an OSError."""
    if closed:
        raise OSError(errno.EBADF, "closed")
    try:
        await trio.lowlevel.wait_readable(descriptor)
    except trio.ClosedResourceError:
        raise OSError(errno.EBADF, "closed while waiting") from None
    finally:
        TURN.begin()


async def wait_writable(descriptor: int, closed: bool) -> None:
    """Wait until a write would not block; a close meanwhile is an OSError."""
    if closed:
        raise OSError(errno.EBADF, "closed")
    try:
        await trio.lowlevel.wait_writable(descriptor)
    except trio.ClosedResourceError:
        raise OSError(errno.EBADF, "closed while waiting") from None
    finally:
        TURN.begin()


def family_of(host: str) -> socket.AddressFamily:
    """Return the address family of an IPv4 or IPv6 literal."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


async def connect(address: Address, *, mesh: bool) -> socket.socket:
    """Open a TCP connection; the caller bounds it with a cancel scope.

    `mesh` connections give up on a silent peer after USER_TIMEOUT_MS, idle or not.

    Raises:
        OSError: refused, unreachable, reset. State: nothing is left open.
    """
    sock = socket.socket(family_of(address.host), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        set_options(sock, mesh=mesh)
        code = _begin_to_connect(sock, address)
        if code == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock.fileno())
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, f"{os.strerror(code)}: {address}")
    except BaseException:
        sock.close()
        raise
    return sock


def _begin_to_connect(sock: socket.socket, address: Address) -> int:
    """Return what the kernel says to it; the zone of a member's IPv6 address may be any text."""
    try:
        return sock.connect_ex(address.socket_address())
    except (TypeError, ValueError):
        return errno.EADDRNOTAVAIL


def set_options(sock: socket.socket, *, mesh: bool) -> None:
    """Set what every connection of the data plane has: no delay, and on mesh connections timeouts."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if mesh:
        MESH_SOCKETS.add(sock)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
