"""Frames and descriptors over one Unix stream socket; both ends of the engine protocol use it.

Ends where bytes become frames: what a frame means is the client's and the server's.
"""

import array
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Final

import trio

from gossipmesh.dataplane.protocol import FrameBuffer
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.net.turns import TURN

# Under 65,536, from which on the C library maps pages anew for each buffer (MALLOC_MMAP_THRESHOLD_).
_READ_BYTES: Final = 49_152
_SEND_BYTES_MAX: Final = 131_072
_DESCRIPTOR_BYTES: Final = array.array("i").itemsize
_CREDENTIALS: Final = struct.Struct("3i")


def peer_uid(sock: socket.socket) -> int:
    """Return the uid of the process at the other end of a Unix socket (SO_PEERCRED)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(raw)
    return int(uid)


def peer_pid(sock: socket.socket) -> int:
    """Return the process at the other end of a Unix socket: who listens there, or who connected."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, _uid, _gid = _CREDENTIALS.unpack(raw)
    return int(pid)


def peer_may_hold_keys(sock: socket.socket) -> bool:
    """Tell whether the other end runs as this user or as root, who could read our memory anyway."""
    return peer_uid(sock) in (os.geteuid(), 0)


class FrameSocket:
    """One connection. Frames go out whole, one sender at a time; descriptors are owned by the receiver."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._buffer = FrameBuffer()
        self._descriptors: deque[int] = deque()
        self._send_lock = trio.Lock()
        self._closed = False

    async def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send one encoded frame; `descriptors` ride on its first byte.

        Raises:
            OSError: the other end is gone. State: closed.
        """
        async with self._send_lock:
            if self._closed:
                raise BrokenPipeError("connection closed")
            try:
                await self._send_whole(data, descriptors)
            except BaseException:
                self.close()  # half a frame leaves the stream unreadable
                raise

    async def _send_whole(self, data: bytes, descriptors: Sequence[int]) -> None:
        ancillary = []
        if descriptors:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
        view = memoryview(data)
        while view:
            if TURN.over():
                await TURN.rest()
            try:
                sent = self.socket.sendmsg([view[:_SEND_BYTES_MAX]], ancillary)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.socket.fileno())
                TURN.begin()
                continue
            TURN.spend(sent)
            ancillary = []
            view = view[sent:]

    async def receive_untrusted(self) -> bytes | None:
        """Return the next frame's body, None at the end of the stream.

        Raises:
            MalformedInput: lengths or descriptors beyond their limits. Remote's fault. State: close it.
        """
        while True:
            if TURN.over():
                await TURN.rest()
            body = self._buffer.next_body()
            if body is not None:
                TURN.spend(0)  # its bytes were counted when they came
                return body
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                data = self._receive_some()
                TURN.spend(len(data))
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.socket.fileno())
                TURN.begin()
                continue
            except OSError:
                return None
            if not data:
                return None
            self._buffer.feed_untrusted(data)

    def _receive_some(self) -> bytes:
        space = socket.CMSG_SPACE(limits.ENGINE_DESCRIPTORS_PER_FRAME_MAX * _DESCRIPTOR_BYTES)
        data, ancillary, flags, _address = self.socket.recvmsg(_READ_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % _DESCRIPTOR_BYTES])
                self._descriptors.extend(received)
        if flags & socket.MSG_CTRUNC or len(self._descriptors) > limits.ENGINE_DESCRIPTORS_PER_FRAME_MAX:
            raise MalformedInput("more descriptors than a frame may carry")
        return data

    def claim_sockets_untrusted(self, count: int) -> list[socket.socket]:
        """Take the `count` descriptors that came with a frame, as listening stream sockets.

        Raises:
            MalformedInput: fewer came, or one is no listening TCP socket. State: those claimed are closed.
        """
        if len(self._descriptors) < count:
            raise MalformedInput(f"{count} descriptors named, {len(self._descriptors)} came")
        claimed = [self._descriptors.popleft() for _ in range(count)]
        sockets: list[socket.socket] = []
        try:
            while claimed:
                sockets.append(_listening_socket_untrusted(claimed.pop(0)))
        except MalformedInput:
            for sock in sockets:
                sock.close()
            for descriptor in claimed:
                os.close(descriptor)
            raise
        return sockets

    def close(self) -> None:
        """Close the socket and every descriptor nobody claimed. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        trio.lowlevel.notify_closing(self.socket.fileno())
        self.socket.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())


def _listening_socket_untrusted(descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        os.close(descriptor)
        raise MalformedInput(f"a descriptor is no socket: {error}") from None
    listening = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    if not listening or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise MalformedInput("a descriptor is no listening TCP socket")
    sock.setblocking(False)
    return sock
