"""Long-lived connections under test: WebSockets, tunnels and streams that exchange something all the time.

Each is opened again when it ends, and each end is told with how it came about: `asked` (we closed it),
`told` (the other end closed or reset it), `silent` (nothing came for SILENCE_S though something was due),
`refused` (it could not be opened). A session that is merely cut must show as one of the last three: whoever
waits on a dead connection for minutes is worse off than one who is told.
"""

import base64
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio

from gossipmesh.model.instant import SECOND_NS
from gossipmesh.net import clock

EXCHANGE_INTERVAL_S: Final = 0.25
SILENCE_S: Final = 5.0
REOPEN_PAUSE_S: Final = 0.2
LIFE_S_MAX: Final = 3_600.0
HEAD_BYTES_MAX: Final = 65_536
CHUNK_BYTES: Final = 65_536
WEBSOCKET_KEY: Final = base64.b64encode(b"gossipmesh-tests").decode()
# A masked text frame with a mask of zeros, and its unmasked echo (RFC 6455 section 5.2).
MESSAGE: Final = b"hello"
FRAME: Final = bytes([0x81, 0x80 | len(MESSAGE), 0, 0, 0, 0]) + MESSAGE
ECHO: Final = bytes([0x81, len(MESSAGE)]) + MESSAGE


class SessionTarget(msgspec.Struct, frozen=True):
    """What is held open: `kind` is websocket, tcp or stream; `node` is where it enters the mesh."""

    kind: str
    node: str
    host: str
    port: int
    authority: str

    @classmethod
    def parse(cls, text: str) -> "SessionTarget":
        """Read `KIND:NODE,ADDRESS:PORT,HOST`; raises ValueError when it is not that."""
        name, address, authority = text.split(",", 2)
        kind, _, node = name.partition(":")
        host, _, port = address.rpartition(":")
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no session; known are {', '.join(KINDS)}")
        return cls(kind, node, host.strip("[]"), int(port), authority)

    def __str__(self) -> str:
        return f"{self.kind}:{self.node},{self.host}:{self.port},{self.authority}"


class SessionEnd(msgspec.Struct):
    """One session from its opening to its end; times are monotonic seconds of this machine."""

    kind: str
    node: str
    authority: str
    opened_s: float
    ended_s: float = 0.0
    served_by: str = ""
    exchanges: int = 0
    how: str = "asked"
    detail: str = ""


class Ended(Exception):
    """The other end closed, or refused with a status."""


class Lines:
    """Reads heads, lines and counts of bytes from a stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def until(self, mark: bytes) -> bytes:
        """Return everything up to and with `mark`."""
        while mark not in self._buffer:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise Ended("a line without end")
            await self._more()
        return self._take(self._buffer.index(mark) + len(mark))

    async def exactly(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        while len(self._buffer) < count:
            await self._more()
        return self._take(count)

    async def line(self) -> bytes:
        """Return the next line."""
        return await self.until(b"\n")

    async def connect(self, authority: str) -> tuple[int, str]:
        """Ask for a tunnel; return the status and the flag of the answer."""
        request = f"CONNECT {authority}:80 HTTP/1.1\r\nHost: {authority}:80\r\n\r\n"
        await self.stream.send_all(request.encode())
        return await self.head()

    async def head(self, wanted: str = "x-gossipmesh-flag") -> tuple[int, str]:
        """Read the head of an answer; return its status and one field."""
        first, *fields = (await self.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        values = {
            name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)
        }
        try:
            return int(first.split(" ", 2)[1]), values.get(wanted, "")
        except (IndexError, ValueError):
            raise Ended(f"no answer: {first[:80]!r}") from None

    async def _more(self) -> None:
        data = await self.stream.receive_some(CHUNK_BYTES)
        if not data:
            raise Ended("closed by the other end")
        self._buffer += data

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


class Session:
    """One open session: `open`, then `exchange` over and over."""

    def __init__(self, target: SessionTarget, stream: trio.abc.Stream, life_s: float) -> None:
        self._target = target
        self._stream = stream
        self._lines = Lines(stream)
        self._life_s = life_s

    async def open(self) -> str:
        """Set it up; return the node that serves it. Raises Ended when it is refused."""
        if self._target.kind == "tcp":
            status, flag = await self._lines.connect(self._target.authority)
            if status == 200:
                await self._stream.send_all(b"hello\n")
                return str(msgspec.json.decode(await self._lines.line())["node"])
            raise Ended(f"status {status} {flag}".strip())
        upgrade = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n"
        fields = f"{upgrade}Sec-WebSocket-Version: 13\r\n" if self._target.kind == "websocket" else ""
        path = f"/stream/{self._life_s:g}" if self._target.kind == "stream" else "/echo"
        request = f"GET {path} HTTP/1.1\r\nHost: {self._target.authority}\r\n{fields}\r\n"
        await self._stream.send_all(request.encode())
        status, node = await self._lines.head("x-node")
        if status != (101 if fields else 200):
            raise Ended(f"status {status}")
        return node

    async def exchange(self) -> bool:
        """Exchange one message; False when the session came to its natural end."""
        if self._target.kind == "stream":
            size = int(await self._lines.line(), 16)
            await self._lines.exactly(size + 2)
            return size > 0
        await trio.sleep(EXCHANGE_INTERVAL_S)
        if self._target.kind == "tcp":
            await self._stream.send_all(b"hello\n")
            msgspec.json.decode(await self._lines.line())
            return True
        await self._stream.send_all(FRAME)
        answer = await self._lines.exactly(len(ECHO))
        if answer != ECHO:
            raise Ended(f"not the echo: {answer!r}")
        return True


KINDS: Final = ("websocket", "tcp", "stream")


def now_s() -> float:
    """Return monotonic seconds, the same for all processes of this machine."""
    return clock.monotonic() / SECOND_NS


async def keep_open(target: SessionTarget, life_s: float, report: Callable[[dict[str, Any]], None]) -> None:
    """Hold a session of `target` open until cancelled, each for `life_s` at most (0: as long as it lasts)."""
    while True:
        end = SessionEnd(target.kind, target.node, target.authority, opened_s=now_s())
        try:
            await _live(target, life_s or LIFE_S_MAX, end)
        except trio.TooSlowError:
            end.how, end.detail = "silent", f"nothing for {SILENCE_S:g} s"
        except (Ended, OSError, trio.BrokenResourceError, ValueError) as error:
            end.how = "told" if end.served_by else "refused"
            end.detail = str(error.__cause__ or error)
        finally:
            end.ended_s = now_s()
            report({"type": "session", **msgspec.to_builtins(end)})
        await trio.sleep(REOPEN_PAUSE_S if end.how != "asked" else 0)


async def _live(target: SessionTarget, life_s: float, end: SessionEnd) -> None:
    """Open a session and exchange until it has lived `life_s` or ends."""
    with trio.fail_after(SILENCE_S):
        stream = await trio.open_tcp_stream(target.host, target.port)
    try:
        session = Session(target, stream, life_s)
        with trio.fail_after(SILENCE_S):
            end.served_by = await session.open()
        while now_s() - end.opened_s < life_s or target.kind == "stream":
            with trio.fail_after(SILENCE_S + EXCHANGE_INTERVAL_S):
                if not await session.exchange():
                    return
            end.exchanges += 1
    finally:
        await trio.aclose_forcefully(stream)
