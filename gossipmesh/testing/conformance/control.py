"""An agent's end of the engine protocol, by the page alone: frames as maps, descriptors beside them.

Ends at frames: nothing of the engine under test, nor of the agent's own client, is used here.
Spec: docs/ENGINE.md.
"""

import array
import os
import socket
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgpack
import trio

from gossipmesh.testing.conformance.outcome import Departed
from gossipmesh.testing.conformance.shapes import Shapes
from gossipmesh.testing.conformance.waiting import PATIENCE_S, until

NODE_ID: Final = b"conformance-node"
_READ_BYTES: Final = 65_536
_DESCRIPTORS_MAX: Final = 64
_CREDENTIALS: Final = struct.Struct("3i")
_ANSWERS: Final = ("ack", "nack", "need", "listeners", "hello")
Frame = dict[str, Any]


def encoded(frame: Mapping[str, Any]) -> bytes:
    """Return a frame's bytes, length first."""
    body: bytes = msgpack.packb(frame, use_bin_type=True)
    return len(body).to_bytes(4, "big") + body


class Control:
    """One connection to an engine's control socket; what comes is kept until it is asked for."""

    def __init__(self, stream: trio.SocketStream, shapes: Shapes) -> None:
        self._socket = stream.socket
        self._shapes = shapes
        self._buffer = bytearray()
        self._descriptors: list[int] = []
        self._request = 0
        self.answers: list[Frame] = []
        self.events: list[Frame] = []
        self.statistics: list[Frame] = []
        self.counters: Counter[str] = Counter()
        self.misshapen = ""
        self.ended = False

    @classmethod
    async def connect(cls, path: Path, nursery: trio.Nursery, shapes: Shapes) -> "Control":
        """Connect, and keep reading in `nursery`; nothing is said yet."""
        control = cls(await trio.open_unix_socket(path), shapes)
        nursery.start_soon(control._read)
        return control

    def peer_uid(self) -> int:
        """Return who listens there."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(raw)[1])

    async def hello(self, features: Sequence[str] = ("requests",), **more: Any) -> Frame:
        """Say hello; return the engine's."""
        greeting = {
            "type": "hello", "node_id": NODE_ID, "boot_id": "conformance", "protocol_min": 1,
            "protocol_max": 1, "features": list(features), **more,
        }  # fmt: skip
        await self.send(greeting)
        return await self.answer("hello")

    def next_request(self) -> int:
        """Return a number for a request."""
        self._request += 1
        return self._request

    async def ask(self, frame: Frame, descriptors: Sequence[int] = ()) -> Frame:
        """Send a request under a new number; return its answer."""
        number = self.next_request()
        await self.send({**frame, "request": number}, descriptors)
        return await self.answer(number=number)

    async def send(self, frame: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a frame; descriptors ride on its first byte."""
        await self.send_raw(encoded(frame), descriptors)

    async def send_raw(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send bytes as they are. An engine that has hung up is found by what it does not answer."""
        rights = []
        if descriptors:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
        view = memoryview(data)
        try:
            while view:
                sent = await self._socket.sendmsg([view], rights)
                view, rights = view[sent:], []
        except (OSError, trio.ClosedResourceError):
            self.ended = True

    async def answer(
        self, kind: str | None = None, number: int | None = None, patience_s: float = PATIENCE_S
    ) -> Frame:
        """Return the next answer, of a kind or to a request where that is said.

        Raises:
            Departed: none came, or the connection ended. State: whatever else came is kept.
        """

        def fits(frame: Frame) -> bool:
            return (kind is None or frame["type"] == kind) and number in (None, frame.get("request"))

        await until(lambda: self.ended or any(map(fits, self.answers)), patience_s)
        for frame in self.answers:
            if fits(frame):
                self.answers.remove(frame)
                return frame
        what = "the connection ended" if self.ended else "nothing came"
        raise Departed(f"{what} where {kind or 'an answer'} was due; {self.answers} came")

    def taken_descriptors(self, count: int) -> list[socket.socket]:
        """Return as many descriptors as a frame named, as sockets.

        Raises:
            Departed: fewer came. State: those that came are kept.
        """
        if len(self._descriptors) < count:
            raise Departed(f"{len(self._descriptors)} descriptors came, {count} were named")
        taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return [socket.socket(fileno=descriptor) for descriptor in taken]

    async def close(self) -> None:
        """Detach."""
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        self._socket.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    async def _read(self) -> None:
        space = socket.CMSG_SPACE(_DESCRIPTORS_MAX * 4)
        try:
            while True:
                data, rights, _, _ = await self._socket.recvmsg(_READ_BYTES, space)
                for _level, _kind, payload in rights:
                    received = array.array("i")
                    received.frombytes(payload[: len(payload) - len(payload) % 4])
                    self._descriptors.extend(received)
                if not data:
                    break
                self._buffer += data
                self._cut()
        except (OSError, trio.ClosedResourceError):
            pass  # hung up: what was sent before counts
        finally:
            self.ended = True
            self._close()

    def _cut(self) -> None:
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[4:end])
            del self._buffer[:end]
            self._take(body)

    def _take(self, body: bytes) -> None:
        try:
            frame = msgpack.unpackb(body, strict_map_key=False)
            kind = frame["type"]
            fault = self._shapes.fault(f"engine.{kind}", frame)
            if next(iter(frame)) != "type":
                fault = "`type` is not the first key"
        except (ValueError, KeyError, TypeError) as error:
            self.misshapen = self.misshapen or f"a frame that is none: {error!r}: {body[:80].hex()}"
            return
        self.misshapen = self.misshapen or (f"{kind}: {fault}" if fault else "")
        if kind in _ANSWERS:
            self.answers.append(frame)
        elif kind == "statistics":
            self.statistics.append(frame)
            self.counters.update(frame["counters"])
        else:
            self.events.append(frame)
