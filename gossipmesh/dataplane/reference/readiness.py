"""Readiness: 200 while a snapshot is applied and the node's ports are up, else 503 with the reason.

A port that is full is said in words and stays 200: the node serves as much as it can, and whoever fills one
port must not be able to have the whole node taken out of use.
"""

import socket
from collections.abc import Callable

import trio

from gossipmesh.dataplane.reference.body import MessageReader
from gossipmesh.dataplane.reference.connections import Connection
from gossipmesh.dataplane.reference.http1 import BadMessage, parse_request_untrusted, write_response
from gossipmesh.net.byte_stream import PlainStream

_TIMEOUT_S = 2.0


class Readiness:
    """Answers every request alike, one per connection."""

    def __init__(self, problem: Callable[[], str | None], full: Callable[[], list[str]]) -> None:
        self._problem = problem
        self._full = full

    async def accept(self, _connection: Connection, client: socket.socket) -> None:
        """Serve one connection."""
        stream = PlainStream(client)
        try:
            with trio.move_on_after(_TIMEOUT_S):
                raw = await MessageReader(stream).read_head_untrusted()
                if raw is not None:
                    head = parse_request_untrusted(raw)
                    await stream.send_all(self._answer(head.method == "HEAD"))
                    await stream.send_eof()
        except (BadMessage, OSError):
            pass  # whoever asks so gets no answer
        finally:
            stream.close()

    def _answer(self, head_only: bool) -> bytes:
        problem = self._problem()
        content = (problem or "; full: ".join(["ready", *self._full()])).encode() + b"\n"
        status, reason = (200, b"OK") if problem is None else (503, b"Service Unavailable")
        framing = b"content-type: text/plain\r\ncontent-length: %d\r\n" % len(content)
        head = write_response(status, reason, [], framing=framing, keep_alive=False)
        return head if head_only else head + content
