"""One HTTP exchange: a request in, one try at a connection, an answer out. Both directions use it.

Responsible for streaming bodies and for saying how a try ended. Ends at decisions: whether to try
again, where, and as whom is `outbound.py`'s and `inbound.py`'s. Rules:

1. Bodies are streamed; only what a replay may need is kept, and no more than the snapshot allows.
2. Errors of the two sides are different types from where they arise, so that an endpoint is never
   blamed for a client that left.
3. After a byte of an answer has gone downstream, the exchange ends with it, whole or cut. What is cut
   shows by its framing or ends with a reset, and what was reset is, in either direction.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from gossipmesh.dataplane.reference.body import ConnectionCut, MessageBody, MessageReader, chunk, last_chunk
from gossipmesh.dataplane.reference.http1 import (
    BadMessage,
    HeaderList,
    RequestHead,
    ResponseHead,
    parse_response_untrusted,
    write_response,
)
from gossipmesh.dataplane.reference.passing import (
    announced_trailers,
    passed_trailers,
    reflected,
    without_engine_words,
)
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.model import limits
from gossipmesh.net.byte_stream import ByteStream
from gossipmesh.traffic.outcomes import Outcome

CONTINUE_WAIT_S: Final = 1.0  # RFC 9110 section 10.1.1: a client need not wait for 100 for ever
BODY_STALL_S: Final = 60.0  # nginx: client_body_timeout
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_REASONS: Final = {
    200: b"OK",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    414: b"URI Too Long",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    508: b"Loop Detected",
}


class DownstreamGone(Exception):
    """The client left or its connection broke; nobody is there to be answered."""


class DownstreamBad(Exception):
    """The client's body is unreadable; answer 400 if nothing was answered yet."""


class RequestBody:
    """A request's body: streamed, and kept whole while it is small enough to be sent again."""

    __slots__ = (
        "_body",
        "_chunked",
        "_kept",
        "_kept_bytes",
        "_kept_bytes_max",
        "_reader",
        "finished",
        "received_bytes",
    )

    def __init__(self, reader: MessageReader, head: RequestHead, kept_bytes_max: int) -> None:
        self._reader = reader
        self._chunked = head.chunked
        self._body: MessageBody | None = None  # None: there is none
        self.finished = True
        """Whether all of it has been read."""
        if head.chunked or head.content_length:
            length = None if head.chunked else head.content_length
            self._body = MessageBody(reader, content_length=length, chunked=head.chunked)
            self.finished = False
        self._kept: list[bytes] | None = []
        self._kept_bytes = 0
        self._kept_bytes_max = kept_bytes_max
        self.received_bytes = 0

    @property
    def replayable(self) -> bool:
        """Tell whether everything read so far is kept."""
        return self._kept is not None

    @property
    def whole(self) -> bytes | None:
        """Return all of it, None unless all has been read and is kept."""
        if self._kept is None or not self.finished:
            return None
        return b"".join(self._kept) if self._kept else b""

    @property
    def trailers(self) -> HeaderList:
        """Return what came behind a chunked body that has been read to its end, and may go on."""
        trailers = None if self._body is None else self._body.trailers
        return passed_trailers(trailers) if trailers else []

    @property
    def kept(self) -> bytes:
        """Return what has been read so far, for a body that is replayable."""
        return b"".join(self._kept or ())

    async def read_small(self, head: RequestHead) -> None:
        """Read all of a body that fits what may be kept, so that it goes out with its head in one piece.

        Raises:
            DownstreamGone, DownstreamBad: see there.
        """
        small = head.content_length is not None and head.content_length <= self._kept_bytes_max
        if small and not head.expects_continue:
            while not self.finished:
                await self.next()

    async def next(self) -> bytes:
        """Return the next bytes, `b""` at the end. A cancelled call loses nothing.

        Raises:
            DownstreamGone, DownstreamBad: see there.
        """
        body = self._body
        if body is None:
            return b""
        try:
            # Half a chunk that has arrived may be waited for as long as one that has not begun.
            if self._reader.pending_bytes and not self._chunked:
                data = await body.next()
            else:
                with trio.fail_after(BODY_STALL_S):
                    data = await body.next()
        except trio.TooSlowError:
            raise DownstreamGone("the request's body stalled") from None
        except BadMessage as error:
            raise DownstreamBad(str(error)) from None
        except OSError as error:
            raise DownstreamGone(str(error)) from None
        self.finished = body.finished
        self.received_bytes += len(data)
        if self._kept is not None and data:
            self._kept_bytes += len(data)
            if self._kept_bytes > self._kept_bytes_max:
                self._kept = None
            else:
                self._kept.append(data)
        return data


class Downstream:
    """One request on a client's connection, and what has been answered to it."""

    __slots__ = (
        "_draining",
        "body",
        "head",
        "keep_alive",
        "reader",
        "response_started",
        "sent_bytes",
        "status",
        "stream",
    )

    def __init__(
        self, reader: MessageReader, head: RequestHead, kept_bytes_max: int, draining: trio.Event
    ) -> None:
        self.reader = reader
        self.stream: ByteStream = reader.stream
        self.head = head
        self.body = RequestBody(reader, head, kept_bytes_max)
        self._draining = draining
        self.keep_alive = head.keep_alive
        self.response_started = False
        self.sent_bytes = 0
        self.status = 0

    def settle_keep_alive(self) -> None:
        """Decide, before an answer's head is written, whether the connection goes on after it.

        Not when bytes of the request were left unread, and not when the engine is going.
        """
        self.keep_alive = self.keep_alive and self.body.finished and not self._draining.is_set()

    async def send(self, data: bytes) -> None:
        """Send bytes of an answer.

        Raises:
            DownstreamGone: the client is not there any more. State: close it.
        """
        self.response_started = True
        try:
            await self.stream.send_all(data)
        except OSError as error:
            raise DownstreamGone(str(error)) from None

    async def send_interim(self, head: bytes = _CONTINUE) -> None:
        """Send an answer that is not the last one: consent to the body, or whatever came.

        Raises:
            DownstreamGone: the client is not there any more. State: close it.
        """
        try:
            await self.stream.send_all(head)
        except OSError as error:
            raise DownstreamGone(str(error)) from None

    async def answer(self, status: int, flag: str, reason: str) -> None:
        """Answer for the engine itself; the connection goes on only if the request was read to its end.

        Not after CONNECT: what follows one that was refused is no request.

        Raises:
            DownstreamGone: the client is not there any more. State: close it.
        """
        self.status = status
        self.settle_keep_alive()
        self.keep_alive = self.keep_alive and status != 400 and self.head.method != "CONNECT"
        content = b"" if self.head.method == "HEAD" else reason.encode() + b"\n"
        self.sent_bytes = len(content)
        await self.send(engine_answer(status, flag, reason, content, keep_alive=self.keep_alive))

    async def answer_as_last(self) -> None:
        """Answer OPTIONS or TRACE that may not go further (Max-Forwards).

        Raises:
            DownstreamGone: the client is not there any more. State: close it.
        """
        self.status = 200
        self.settle_keep_alive()
        content = reflected(self.head) if self.head.method == "TRACE" else b""
        kind = b"content-type: message/http\r\n" if content else b""
        framing = kind + b"content-length: %d\r\n" % len(content)
        self.sent_bytes = len(content)
        head = write_response(200, _REASONS[200], [], framing=framing, keep_alive=self.keep_alive)
        await self.send(head + content)


def engine_answer(status: int, flag: str, reason: str, content: bytes, *, keep_alive: bool) -> bytes:
    """Return a whole answer made by the engine."""
    framing = b"content-type: text/plain\r\ncontent-length: %d\r\n" % (len(content) or len(reason) + 1)
    headers = [(b"x-gossipmesh-flag", flag.encode()), (b"x-gossipmesh-reason", reason.encode("latin-1"))]
    head = write_response(
        status, _REASONS.get(status, b"Error"), headers, framing=framing, keep_alive=keep_alive
    )
    return head + content


class TryEnd:
    """How a try ended.

    `flag` is the response flag, empty for none; `status` what the answer would be if this is the last
    try; `abandoned`: an answer came and was not relayed, so that another try can be made; `reusable`: the
    connection can be used again; `bodiless`: nothing but a rule says that no body follows the answer.
    """

    __slots__ = ("abandoned", "bodiless", "detail", "flag", "outcome", "reusable", "status")

    def __init__(self, outcome: Outcome, status: int, flag: str, detail: str) -> None:
        self.outcome = outcome
        self.status = status
        self.flag = flag
        self.detail = detail
        self.abandoned = False
        self.bodiless = False
        self.reusable = False


def _takes_any(_response: ResponseHead) -> bool:
    return True


def _nothing() -> None:
    pass


class Exchange:
    """One try at one connection."""

    __slots__ = (
        "_connection",
        "_cut_shows",
        "_downstream",
        "_from_workload",
        "_go",
        "_on_head",
        "_on_progress",
        "_on_sent",
        "_problem",
        "response",
    )

    def __init__(
        self,
        downstream: Downstream,
        connection: PooledConnection,
        *,
        on_head: Callable[[ResponseHead], bool] = _takes_any,
        on_progress: Callable[[], None] = _nothing,
        from_workload: bool = False,
        on_sent: Callable[[], None] = _nothing,
    ) -> None:
        """Args:
        from_workload: the answer is an application's, which may not speak as an engine.
        on_head: called once with the final head; False abandons the answer.
        on_progress: called after each piece of the answer.
        on_sent: called once the request is out whole.
        """
        self._downstream = downstream
        self._connection = connection
        self._on_head = on_head
        self._on_progress = on_progress
        self._from_workload = from_workload
        self._cut_shows = True  # to the client, once its answer's head went out
        self._on_sent = on_sent
        self._go: trio.Event | None = None  # to send a body that waits for consent
        self._problem: DownstreamGone | DownstreamBad | None = None
        self.response: ResponseHead | None = None

    def run(self, head: bytes) -> Awaitable[TryEnd]:
        """Return what sends the request with `head` and relays the answer; it raises only if cancelled."""
        body = self._downstream.body
        kept = body.whole
        if kept is None:
            return self._stream(head)
        if self._downstream.head.chunked:
            kept = (chunk(kept) if kept else b"") + last_chunk(body.trailers)
        return self._relayed(head + kept)

    async def _stream(self, head: bytes) -> TryEnd:
        body = self._downstream.body
        self._go = trio.Event()
        try:
            await self._connection.stream.send_all(head)
        except OSError:
            return await self._relayed()
        ends: list[TryEnd] = []  # stays empty when the pump cancels the nursery
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, nursery.cancel_scope, self._go)
                ends.append(await self._relayed())
                nursery.cancel_scope.cancel()
        finally:
            if self._problem is not None or not (ends or body.finished):
                self._connection.stream.abort()  # half a request must not look whole
        if self._problem is not None and not self._downstream.response_started:
            return _downstream_end(self._problem)
        if not ends:
            return _downstream_end(self._problem or DownstreamGone("cancelled"))
        end = ends[0]
        if not body.finished:
            self._downstream.keep_alive = end.reusable = False
        return end

    async def _pump(self, scope: trio.CancelScope, go: trio.Event) -> None:
        """Carry the request's body; a client that fails ends the try."""
        downstream, stream = self._downstream, self._connection.stream
        body = downstream.body
        try:
            if downstream.head.expects_continue and not body.received_bytes:
                with trio.move_on_after(CONTINUE_WAIT_S) as waiting:
                    await go.wait()
                if waiting.cancelled_caught:
                    go.set()  # consent is given once
                    await downstream.send_interim()
            data = body.kept
            chunked = downstream.head.chunked
            while True:
                if data:
                    await stream.send_all(chunk(data) if chunked else data)
                    self._on_progress()
                if body.finished:
                    break
                data = await body.next()
            if chunked:
                await stream.send_all(last_chunk(body.trailers))
            self._on_sent()
        except (DownstreamGone, DownstreamBad) as error:
            # Without its frames: they hold this exchange, and a cycle would keep both streams for months.
            self._problem = type(error)(str(error))
            scope.cancel()
        except OSError:
            pass  # the far side stopped reading; its answer, or its end, is what counts

    async def _relayed(self, request: bytes = b"") -> TryEnd:
        """Send `request`, if any, and relay the answer."""
        connection = self._connection
        if request:
            try:
                await connection.stream.send_all(request)
            except OSError:
                pass  # an answer may have come before the connection closed
            self._on_sent()
        try:
            response = self._understood(await connection.reader.read_head_untrusted())
            if response.status < 200 and response.status != 101:
                response = await self._final_head(response)
        except BadMessage as error:
            return TryEnd(Outcome.RESET, 502, "UPE", f"upstream_protocol_error: {error}")
        except OSError as error:
            return TryEnd(Outcome.RESET, 503, "UC", f"upstream_reset_before_response: {error}")
        except DownstreamGone as error:
            return _downstream_end(error)
        self.response = response
        outcome = Outcome.SERVER_ERROR if response.status >= 500 else Outcome.SUCCESS
        end = TryEnd(outcome, response.status, "", "via_upstream")
        if response.status == 101 and self._downstream.head.upgrade is None:
            return TryEnd(Outcome.RESET, 502, "UPE", "upstream_protocol_error: 101 nobody asked for")
        if not self._on_head(response):
            end.abandoned = True
            return end
        self._downstream.status = response.status
        try:
            end.bodiless = self._is_bodiless(response)
            end.reusable = await self._relay(response, end.bodiless)
        except DownstreamGone as error:
            gone = _downstream_end(error)
            gone.status = response.status
            return gone
        except (OSError, BadMessage) as error:
            self._downstream.keep_alive = False
            # Framing that is left open shows where an answer was cut; what a reset takes away it cannot say.
            if not (self._cut_shows and isinstance(error, ConnectionCut | BadMessage)):
                self._downstream.stream.abort()
            return TryEnd(Outcome.RESET, response.status, "UC", f"upstream_reset_after_response: {error}")
        return end

    def _is_bodiless(self, response: ResponseHead) -> bool:
        return self._downstream.head.method == "HEAD" or response.status in (204, 304, 101)

    async def _final_head(self, response: ResponseHead) -> ResponseHead:
        """Pass on an interim answer, and others behind it; return the head of the one that is none."""
        reader = self._connection.reader
        with trio.move_on_after(limits.HTTP_INTERIM_TIMEOUT_S):
            while response.status < 200 and response.status != 101:
                await self._pass_interim(response)
                response = self._understood(await reader.read_head_untrusted())
            return response
        raise BadMessage(f"interim answers only for {limits.HTTP_INTERIM_TIMEOUT_S} s")

    def _understood(self, raw: bytes | None) -> ResponseHead:
        if raw is None:
            raise OSError("closed without an answer")
        response = parse_response_untrusted(raw, self._connection.reader.head_limits)
        if self._from_workload:
            response.headers = without_engine_words(response.headers)
        return response

    async def _pass_interim(self, response: ResponseHead) -> None:
        """Pass a 1xx on to whoever may be sent one (RFC 9110 section 15.2); 100 to whoever waits for it."""
        downstream = self._downstream
        if response.status == 100:
            if self._go is not None and not self._go.is_set():
                if downstream.head.expects_continue:
                    await downstream.send_interim()
                self._go.set()
        elif downstream.head.version == "1.1":
            await downstream.send_interim(
                write_response(
                    response.status, response.reason, response.headers, framing=b"", keep_alive=True
                )
            )

    async def _relay(self, response: ResponseHead, bodiless: bool) -> bool:
        """Send the answer on; True when the connection it came by can be used again."""
        downstream, reader = self._downstream, self._connection.reader
        old_client = downstream.head.version == "1.0"
        framing = b""
        chunked = False
        if bodiless:
            length: int | None = 0
            if response.content_length is not None and response.status not in (204, 101):
                framing = b"content-length: %d\r\n" % response.content_length
        else:
            length = None if response.chunked else response.content_length
            if length is not None:
                framing = b"content-length: %d\r\n" % length
            elif old_client:
                downstream.keep_alive = False
            else:
                chunked = True
                framing = b"transfer-encoding: chunked\r\n"
                if downstream.head.takes_trailers:
                    framing += announced_trailers(response.trailer)
        self._cut_shows = chunked or length is not None
        if response.status == 101:
            framing = b"connection: upgrade\r\nupgrade: " + (response.upgrade or b"websocket") + b"\r\n"
        downstream.settle_keep_alive()
        head = write_response(
            response.status,
            response.reason,
            response.headers,
            framing=framing,
            keep_alive=downstream.keep_alive or response.status == 101,
        )
        if response.status == 101:
            await downstream.send(head)
            return False
        if old_client and downstream.keep_alive:
            head = head[:-2] + b"connection: keep-alive\r\n\r\n"
        whole = None if length is None else reader.take_whole(length)
        if whole is not None:  # what came with the head goes on with the head
            await downstream.send(head + whole)
            downstream.sent_bytes += len(whole)
            return response.keep_alive and not reader.pending_bytes
        body = MessageBody(reader, content_length=length, chunked=response.chunked and not bodiless)
        first = b""
        if length and reader.pending_bytes:
            first = await body.next()  # what came with the head goes on with the head
        await downstream.send(head + first)
        downstream.sent_bytes += len(first)
        await self._relay_body(body, chunked)
        ended_by_close = length is None and not response.chunked
        return response.keep_alive and not ended_by_close and not reader.pending_bytes

    async def _relay_body(self, body: MessageBody, chunked: bool) -> None:
        downstream = self._downstream
        while not body.finished:
            data = await body.next()
            if data:
                await downstream.send(chunk(data) if chunked else data)
                downstream.sent_bytes += len(data)
                self._on_progress()
        if chunked:
            passed = passed_trailers(body.trailers) if downstream.head.takes_trailers else []
            await downstream.send(last_chunk(passed))


def _downstream_end(error: DownstreamGone | DownstreamBad) -> TryEnd:
    if isinstance(error, DownstreamBad):
        return TryEnd(Outcome.CANCELLED, 400, "DPE", f"downstream_protocol_error: {error}")
    return TryEnd(Outcome.CANCELLED, 0, "DC", f"downstream_disconnect: {error}")
