"""HTTP/1.1 on one accepted connection: requests one after another, each handed to a handler.

Responsible for the connection: idle timeout, pipelining (serial), 400, 414 and 431 for what is no request,
closing so that the last answer arrives. Ends at the request.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from gossipmesh.dataplane.reference.body import MessageReader
from gossipmesh.dataplane.reference.connections import Connection
from gossipmesh.dataplane.reference.forward import (
    Downstream,
    DownstreamBad,
    DownstreamGone,
    engine_answer,
)
from gossipmesh.dataplane.reference.http1 import BadMessage, parse_request_untrusted
from gossipmesh.dataplane.reference.state import EngineState
from gossipmesh.model import limits
from gossipmesh.net.byte_stream import ByteStream
from gossipmesh.net.turns import TURN

LINGER_S: Final = 1.0
LINGER_BYTES_MAX: Final = 1_048_576

Handler = Callable[[Downstream], Awaitable[None]]
OnBad = Callable[[int, str], None]


async def serve_http(
    state: EngineState,
    connection: Connection,
    stream: ByteStream | MessageReader,
    handler: Handler,
    on_bad: OnBad,
) -> None:
    """Serve requests until either side ends the connection. The caller closes the stream.

    Args:
        state: the engine's.
        connection: whose idleness is told.
        stream: a new connection, or a reader of one that something came by already.
        handler: answers one request.
        on_bad: told the status and why when something was no request, after which the connection ends.
    """
    reader = stream if isinstance(stream, MessageReader) else MessageReader(stream)
    stream = reader.stream
    while True:
        try:
            raw = await _next_head_untrusted(connection, reader)
            if raw is None:
                return
            TURN.spend(limits.TURN_REQUEST_BYTES + limits.TURN_HEAD_FACTOR * len(raw))
            if TURN.over():
                await TURN.rest()
            head = parse_request_untrusted(raw, reader.head_limits)
        except BadMessage as error:
            state.counters.add("http_bad_requests")
            on_bad(error.status, str(error))
            await _refuse(stream, error.status, "DPE", str(error))
            return
        except OSError:
            return
        if connection.full:
            await _refuse(stream, 503, "UO", "this port is full")
            return
        connection.begin_request()
        applied = state.applied
        kept_bytes_max = 0 if applied is None else applied.limits.replay_body_bytes
        downstream = Downstream(
            reader,
            head,
            min(kept_bytes_max, limits.HTTP_REPLAY_BODY_BYTES_MAX),
            state.draining,
        )
        try:
            await handler(downstream)
        except DownstreamBad as error:
            if not downstream.response_started:
                await _refuse(stream, 400, "DPE", str(error))
            return
        except DownstreamGone:
            return
        if not downstream.keep_alive:
            await linger(stream)
            return


async def _next_head_untrusted(connection: Connection, reader: MessageReader) -> bytes | None:
    """Return the next request's head, None when the connection ended or stayed idle too long.

    Raises:
        BadMessage: no head can come of it, or it took too long. Remote's fault. State: close it.
        OSError: the connection broke. State: close it.
    """
    if not reader.pending_bytes:
        connection.begin_idle(reader.stream)
        if not reader.took(await reader.stream.receive()):
            return None
        connection.end_idle()
    return reader.take_head() or await reader.read_head_untrusted()


async def _refuse(stream: ByteStream, status: int, flag: str, reason: str) -> None:
    """Answer and close, however much of the request is still on its way."""
    printable = reason.encode("ascii", "replace").decode().replace("\r", " ").replace("\n", " ")[:200]
    with trio.move_on_after(LINGER_S):
        try:
            content = printable.encode() + b"\n"
            await stream.send_all(engine_answer(status, flag, printable, content, keep_alive=False))
        except OSError:
            return
    await linger(stream)


async def linger(stream: ByteStream) -> None:
    """End our direction and read on a little: a close with unread bytes would reset the answer away."""
    with trio.move_on_after(LINGER_S):
        try:
            await stream.send_eof()
            size = 0
            while size < LINGER_BYTES_MAX:
                data = await stream.receive()
                if not data:
                    return
                size += len(data)
        except OSError:
            return
