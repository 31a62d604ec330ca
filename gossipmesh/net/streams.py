"""TCP streams for the gossip core: bytes in any chunking, framing is the core's.

Rules:
1. Streams we accept get odd ids, those the core opens even ones; ids are never used twice.
2. Everything is bounded: streams, connect time, silence, bytes waiting to be sent.
3. `send_nowait` and `close_nowait` never wait; a stream whose queue is over its limit is closed and told of.
4. What the core closed itself is not told back to it.
"""

import errno
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from gossipmesh.model import limits
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import Address

_RECEIVE_BYTES: Final = 65_536
_BACKLOG: Final = 128
_HEADER_TIMEOUT_S: Final = limits.STREAM_HEADER_TIMEOUT_NS / SECOND_NS
_IDLE_TIMEOUT_S: Final = limits.STREAM_IDLE_TIMEOUT_NS / SECOND_NS
_CONNECT_TIMEOUT_S: Final = 2.0
_FLUSH_TIMEOUT_S: Final = 2.0
_CLOSING_MAX: Final = 16  # the core closes a silent stranger for a newcomer; closing takes a moment
_ACCEPT_RETRY_S: Final = 0.1
_LISTENER_GONE: Final = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class StreamEvents(Protocol):
    """Who is told what streams do; called synchronously from the stream's own task."""

    def stream_accepted(self, stream: int, peer: Address) -> None:
        """Tell that a peer connected."""

    def stream_opened(self, stream: int) -> None:
        """Tell that our connect succeeded."""

    def receive_stream(self, stream: int, data: bytes) -> None:
        """Tell what arrived, at least one byte."""

    def stream_closed(self, stream: int) -> None:
        """Tell that a stream the core did not close is gone."""


@dataclass(slots=True)
class StreamStatistics:
    """What the pool did so far, in plain counts."""

    accepted_count: int = 0
    opened_count: int = 0
    refused_count: int = 0
    connect_failed_count: int = 0
    overflowed_count: int = 0
    silent_count: int = 0


class _Stream:
    """One connection's queue and its end: the scope's deadline moves with every byte."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.scope = trio.CancelScope()
        self.queue = bytearray()
        self.wakeup = trio.Event()
        self.closing = False

    def extend(self, seconds: float) -> None:
        if not self.closing:
            self.scope.deadline = trio.current_time() + seconds


class StreamPool:
    """All gossip streams of one agent."""

    def __init__(self, events: StreamEvents, nursery: trio.Nursery) -> None:
        """Streams run in `nursery`, and end with it."""
        self.statistics = StreamStatistics()
        self._events = events
        self._nursery = nursery
        self._streams: dict[int, _Stream] = {}
        self._accepted_next = 1

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled; `listener` is bound and listening."""
        accepting = trio.socket.from_stdlib_socket(listener)
        while True:
            try:
                connection, _ = await accepting.accept()
            except OSError as error:
                if error.errno in _LISTENER_GONE:
                    raise
                # Anything else (a connection reset while it waited) concerns one peer only.
                if error.errno in _OUT_OF_RESOURCES:
                    await trio.sleep(_ACCEPT_RETRY_S)
                continue
            peer = _peer_of(connection)
            accepted = sum(1 for number in self._streams if number % 2 == 1)
            if peer is None or accepted >= limits.STREAMS_ACCEPTED_MAX + _CLOSING_MAX:
                self.statistics.refused_count += 1
                connection.close()
                continue
            self.statistics.accepted_count += 1
            stream = self._add(self._accepted_next)
            self._accepted_next += 2
            self._nursery.start_soon(self._run_accepted, stream, connection, peer)

    def open_nowait(self, number: int, destination: Address) -> None:
        """Connect in the background; `stream_opened` or `stream_closed` follows."""
        opened = sum(1 for known in self._streams if known % 2 == 0)
        stream = self._add(number)
        if opened >= limits.STREAMS_OPENED_MAX:
            self.statistics.refused_count += 1
            stream.scope.cancel()
        self._nursery.start_soon(self._run_opened, stream, destination)

    def send_nowait(self, number: int, data: bytes) -> None:
        """Queue bytes; a stream that is gone already has been told of and is ignored."""
        stream = self._streams.get(number)
        if stream is None or stream.closing:
            return
        if len(stream.queue) + len(data) > limits.STREAM_QUEUE_BYTES_MAX:
            self.statistics.overflowed_count += 1
            stream.scope.cancel()
            return
        stream.queue += data
        stream.wakeup.set()

    def close_nowait(self, number: int) -> None:
        """Flush what is queued, then close."""
        stream = self._streams.get(number)
        if stream is not None and not stream.closing:
            stream.extend(_FLUSH_TIMEOUT_S)
            stream.closing = True
            stream.wakeup.set()

    def _add(self, number: int) -> _Stream:
        stream = self._streams[number] = _Stream(number)
        return stream

    async def _run_accepted(self, stream: _Stream, connection: trio.socket.SocketType, peer: Address) -> None:
        with stream.scope, connection:
            stream.extend(_HEADER_TIMEOUT_S)
            self._events.stream_accepted(stream.number, peer)
            await self._carry(stream, connection)
        self._finish(stream)

    async def _run_opened(self, stream: _Stream, destination: Address) -> None:
        with stream.scope:
            connection = await _connect(destination)
            if connection is None:
                self.statistics.connect_failed_count += 1
            else:
                with connection:
                    self.statistics.opened_count += 1
                    stream.extend(_IDLE_TIMEOUT_S)
                    self._events.stream_opened(stream.number)
                    await self._carry(stream, connection)
        self._finish(stream)

    def _finish(self, stream: _Stream) -> None:
        """Forget a stream; not reached when the whole pool is being cancelled."""
        del self._streams[stream.number]
        if stream.scope.cancelled_caught and trio.current_time() >= stream.scope.deadline:
            self.statistics.silent_count += 1
        if not stream.closing:
            self._events.stream_closed(stream.number)

    async def _carry(self, stream: _Stream, connection: trio.socket.SocketType) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, stream, connection)
            await self._read(stream, connection)
            nursery.cancel_scope.cancel()

    async def _read(self, stream: _Stream, connection: trio.socket.SocketType) -> None:
        """Read to the peer's end; after our own close, what still comes is dropped."""
        while True:
            try:
                data = await connection.recv(_RECEIVE_BYTES)
            except OSError:
                return
            if not data:
                return
            stream.extend(_IDLE_TIMEOUT_S)
            if not stream.closing:
                self._events.receive_stream(stream.number, data)

    async def _write(self, stream: _Stream, connection: trio.socket.SocketType) -> None:
        try:
            while stream.queue or not stream.closing:
                if not stream.queue:
                    stream.wakeup = trio.Event()
                    await stream.wakeup.wait()
                    continue
                sent = await connection.send(bytes(stream.queue[:_RECEIVE_BYTES]))
                del stream.queue[:sent]
                stream.extend(_IDLE_TIMEOUT_S)
            # Half-closed first: closing with bytes unread would reset the connection under the peer,
            # and take from it what we have just sent.
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            stream.scope.cancel()


def listen(bind: Address, backlog: int = _BACKLOG) -> socket.socket:
    """Return a listening, non-blocking TCP socket.

    Raises:
        OSError: the address is taken, not ours, or not allowed. State unchanged.
    """
    family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bind.host != "::"))
        listener.bind(bind.socket_address())
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


async def _connect(destination: Address) -> trio.socket.SocketType | None:
    """Return a connection; None when none can be had.

    A member names its own addresses: of a family this machine may not have, and in IPv6 with a zone that may
    be any text, which Python refuses in ways of its own.
    """
    family = socket.AF_INET6 if ":" in destination.host else socket.AF_INET
    try:
        with ExitStack() as unfinished:
            connection = unfinished.enter_context(trio.socket.socket(family, socket.SOCK_STREAM))
            with trio.fail_after(_CONNECT_TIMEOUT_S):
                await connection.connect(destination.socket_address())
            unfinished.pop_all()
            return connection
    except (OSError, TypeError, ValueError, trio.TooSlowError):
        return None


def _peer_of(connection: trio.socket.SocketType) -> Address | None:
    try:
        name = connection.getpeername()
    except OSError:
        return None
    host = str(name[0]).partition("%")[0]
    return Address(host.removeprefix("::ffff:") if "." in host else host, int(name[1]))
