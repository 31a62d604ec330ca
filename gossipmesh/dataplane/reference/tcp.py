"""Opaque tunnels: bytes both ways, each direction ended on its own."""

import trio

from gossipmesh.net.byte_stream import ByteStream


class TunnelEnd:
    """How a tunnel ended. `flag` is empty, `UC` (far side broke) or `SI` (idle too long)."""

    __slots__ = ("flag", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.received_bytes = 0  # from downstream
        self.sent_bytes = 0  # to downstream
        self.flag = ""


async def tunnel(
    downstream: ByteStream,
    upstream: ByteStream,
    *,
    downstream_first: bytes = b"",
    upstream_first: bytes = b"",
    idle_timeout_s: float,
    scope: trio.CancelScope | None = None,
) -> TunnelEnd:
    """Carry bytes until both directions have ended, one breaks, or nothing moves for `idle_timeout_s`.

    `*_first` are bytes already read from that side. Both streams are left for the caller to close.
    """
    end = TunnelEnd()
    idle = trio.CancelScope(deadline=trio.current_time() + idle_timeout_s)
    with scope or trio.CancelScope(), idle:
        async with trio.open_nursery() as nursery:

            async def carry(source: ByteStream, sink: ByteStream, first: bytes, outwards: bool) -> None:
                data = first
                try:
                    while True:
                        if data:
                            await sink.send_all(data)
                            if outwards:
                                end.received_bytes += len(data)
                            else:
                                end.sent_bytes += len(data)
                            idle.deadline = trio.current_time() + idle_timeout_s
                        data = await source.receive()
                        if not data:
                            await sink.send_eof()
                            return
                except OSError:
                    end.flag = end.flag or "UC"
                    nursery.cancel_scope.cancel()

            nursery.start_soon(carry, downstream, upstream, downstream_first, True)
            nursery.start_soon(carry, upstream, downstream, upstream_first, False)
    if idle.cancelled_caught:
        end.flag = "SI"
    return end
