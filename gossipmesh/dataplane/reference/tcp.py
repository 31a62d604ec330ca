"""Opaque tunnels: bytes both ways, each direction ended on its own.

Rule: an end is passed on as what it was. A direction that ended cleanly ends cleanly on the other side; if
a side breaks, falls silent or is cut off, both are reset, so that nobody takes what came for all there is.
"""

from typing import Final

import trio

from gossipmesh.net.byte_stream import ByteStream

BROKEN_GRACE_S: Final = 1.0  # for what a broken side had sent and the other has not taken yet


class TunnelEnd:
    """How a tunnel ended.

    `flag` is empty, `UC` (upstream broke), `DC` (downstream broke) or `SI` (idle too long). `broken_by` is
    `upstream`, `downstream` or empty: whose reset, or end without close_notify, was passed on.
    """

    __slots__ = ("broken_by", "flag", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.received_bytes = 0  # from downstream
        self.sent_bytes = 0  # to downstream
        self.flag = ""
        self.broken_by = ""

    def broke(self, side: str) -> None:
        """Remember who broke first."""
        if not self.broken_by:
            self.broken_by = side
            self.flag = "UC" if side == "upstream" else "DC"


async def tunnel(
    downstream: ByteStream,
    upstream: ByteStream,
    *,
    downstream_first: bytes = b"",
    upstream_first: bytes = b"",
    idle_timeout_s: float,
    scope: trio.CancelScope | None = None,
    end: TunnelEnd | None = None,
) -> TunnelEnd:
    """Carry bytes until both directions have ended, one breaks, or nothing moves for `idle_timeout_s`.

    `*_first` are bytes already read from that side. Both streams are left for the caller to close; unless
    both directions ended cleanly they have been reset, also when this is cancelled. `end` is filled in while
    bytes move, whoever ends the tunnel.
    """
    carrying = _Tunnel(downstream, upstream, idle_timeout_s, end or TunnelEnd())
    try:
        with scope or trio.CancelScope(), carrying.idle:
            await carrying.run(downstream_first, upstream_first)
        if carrying.idle.cancelled_caught and not carrying.end.broken_by:
            carrying.end.flag = "SI"
    finally:
        if carrying.ended_count < 2:
            downstream.abort()
            upstream.abort()
    return carrying.end


class _Tunnel:
    """One tunnel while it lasts."""

    __slots__ = ("_downstream", "_idle_timeout_s", "_upstream", "end", "ended_count", "idle")

    def __init__(
        self, downstream: ByteStream, upstream: ByteStream, idle_timeout_s: float, end: TunnelEnd
    ) -> None:
        self._downstream = downstream
        self._upstream = upstream
        self._idle_timeout_s = idle_timeout_s
        self.idle = trio.CancelScope(deadline=trio.current_time() + idle_timeout_s)
        self.end = end
        self.ended_count = 0  # directions that ended cleanly

    async def run(self, downstream_first: bytes, upstream_first: bytes) -> None:
        """Carry both ways."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._outwards, downstream_first, nursery.cancel_scope)
            await self._inwards(upstream_first, nursery.cancel_scope)

    async def _outwards(self, data: bytes, both: trio.CancelScope) -> None:
        end, source, sink = self.end, self._downstream, self._upstream
        while data or (data := await self._read(source, "downstream", both)):
            if not await self._send(sink, "upstream", data):
                return
            end.received_bytes += len(data)
            data = b""
        await self._finish(sink, "upstream")

    async def _inwards(self, data: bytes, both: trio.CancelScope) -> None:
        end, source, sink = self.end, self._upstream, self._downstream
        while data or (data := await self._read(source, "upstream", both)):
            if not await self._send(sink, "downstream", data):
                return
            end.sent_bytes += len(data)
            data = b""
        await self._finish(sink, "downstream")

    async def _read(self, source: ByteStream, side: str, both: trio.CancelScope) -> bytes:
        try:
            data = await source.receive()
        except OSError:
            self.end.broke(side)
            data = b""
        if not data and self.end.broken_by:
            both.cancel()  # nothing that can still be passed on is left
        return data

    async def _send(self, sink: ByteStream, side: str, data: bytes) -> bool:
        """Send on; False when the sink broke. What it had sent before is then still carried, for a moment."""
        try:
            await sink.send_all(data)
        except OSError:
            self._break(side)
            return False
        if not self.end.broken_by:
            self.idle.deadline = trio.current_time() + self._idle_timeout_s
        return True

    async def _finish(self, sink: ByteStream, side: str) -> None:
        if self.end.broken_by:
            return
        try:
            await sink.send_eof()
        except OSError:
            self._break(side)
            return
        self.ended_count += 1

    def _break(self, side: str) -> None:
        self.end.broke(side)
        self.idle.deadline = min(self.idle.deadline, trio.current_time() + BROKEN_GRACE_S)
