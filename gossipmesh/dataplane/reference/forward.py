"""One try's stream: a request out by one connection, its answer in, and on. Both directions use it.

Responsible for streaming bodies and for saying how a try's stream ended. Ends at decisions, which are its
exchange's: that is told of every step and says whether an answer is for the client. Rules:

1. Bodies are streamed; only what a replay may need is kept, and no more than the snapshot allows.
2. Errors of the two sides are different types from where they arise, so that an endpoint is never
   blamed for a client that left.
3. After a byte of an answer has gone downstream, the request ends with it, whole or cut. What is cut
   shows by its framing or ends with a reset, and what was reset is, in either direction.
"""

from collections.abc import Awaitable
from typing import Final, Protocol

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
from gossipmesh.traffic import endings
from gossipmesh.traffic.endings import Ending

CONTINUE_WAIT_S: Final = 1.0  # RFC 9110 section 10.1.1: a client need not wait for 100 for ever
BODY_STALL_S: Final = 60.0  # nginx: client_body_timeout
_FLAG: Final = b"x-gossipmesh-flag"
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


class DownstreamCut(DownstreamGone):
    """The client's connection is ended by us: what it has must not look whole."""


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


def engine_flag(response: ResponseHead) -> str:
    """Return the flag of an answer that an engine made, empty when a workload made it."""
    for name, value in response.headers:
        if name == _FLAG:
            return value.partition(b",")[0].decode("latin-1")
    return ""


class StreamEnd:
    """How a try's stream ended.

    `ending` is why, `more` what the log is told beside it; `reusable`: the connection can be used again;
    `bodiless`: nothing but a rule says that no body follows the answer.
    """

    __slots__ = ("bodiless", "ending", "more", "reusable")

    def __init__(self, ending: Ending, more: str = "") -> None:
        self.ending = ending
        self.more = more
        self.bodiless = False
        self.reusable = False


class Told(Protocol):
    """Who is told how a try goes on."""

    def sent(self) -> None:
        """The request is out whole."""

    def head(self, response: ResponseHead) -> bool:
        """The final head is there; False: nothing of the answer is passed on."""
        ...

    def passed(self) -> None:
        """A piece of the answer has moved on."""

    def outgrew(self) -> None:
        """The request's body is more than what is kept."""

    def client_owes(self, *, begins: bool) -> None:
        """We begin, or end, to wait for the client: for its body, or that it takes its answer."""


class Forwarding:
    """One try at one connection."""

    __slots__ = (
        "_connection",
        "_cut_shows",
        "_downstream",
        "_from_workload",
        "_go",
        "_problem",
        "_told",
        "response",
    )

    def __init__(
        self, downstream: Downstream, connection: PooledConnection, told: Told, *, from_workload: bool = False
    ) -> None:
        """`from_workload`: the answer is an application's, which may not speak as an engine."""
        self._downstream = downstream
        self._connection = connection
        self._told = told
        self._from_workload = from_workload
        self._cut_shows = True  # to the client, once its answer's head went out
        self._go: trio.Event | None = None  # to send a body that waits for consent
        self._problem: DownstreamGone | DownstreamBad | None = None
        self.response: ResponseHead | None = None

    def run(self, head: bytes) -> Awaitable[StreamEnd]:
        """Return what sends the request with `head` and relays the answer; it raises only if cancelled."""
        body = self._downstream.body
        kept = body.whole
        if kept is None:
            return self._stream(head)
        if self._downstream.head.chunked:
            kept = (chunk(kept) if kept else b"") + last_chunk(body.trailers)
        return self._relayed(head + kept)

    async def _stream(self, head: bytes) -> StreamEnd:
        body = self._downstream.body
        self._go = trio.Event()
        try:
            await self._connection.stream.send_all(head)
        except OSError:
            return await self._relayed()
        ends: list[StreamEnd] = []  # stays empty when the pump cancels the nursery
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
                    self._told.passed()
                if body.finished:
                    break
                data = await self._next_of_body()
            if chunked:
                await stream.send_all(last_chunk(body.trailers))
            self._told.sent()
        except (DownstreamGone, DownstreamBad) as error:
            # Without its frames: they hold this exchange, and a cycle would keep both streams for months.
            self._problem = type(error)(str(error))
            scope.cancel()
        except OSError:
            pass  # the far side stopped reading; its answer, or its end, is what counts

    async def _next_of_body(self) -> bytes:
        """Return the next bytes of the request's body; waiting for them is the client's to answer for."""
        self._told.client_owes(begins=True)
        try:
            data = await self._downstream.body.next()
        finally:
            self._told.client_owes(begins=False)
        if not self._downstream.body.replayable:
            self._told.outgrew()
        return data

    async def _send(self, data: bytes) -> None:
        """Send bytes of an answer; who does not take them has itself to answer for.

        If that fails the try has ended, and nobody is owed anything.
        """
        self._told.client_owes(begins=True)
        await self._downstream.send(data)
        self._told.client_owes(begins=False)

    async def _relayed(self, request: bytes = b"") -> StreamEnd:
        """Send `request`, if any, and relay the answer."""
        connection = self._connection
        if request:
            try:
                await connection.stream.send_all(request)
            except OSError:
                pass  # an answer may have come before the connection closed
            self._told.sent()
        try:
            response = self._understood(await connection.reader.read_head_untrusted())
            if response.status < 200 and response.status != 101:
                response = await self._final_head(response)
        except BadMessage as error:
            return StreamEnd(endings.PROTOCOL_ERROR, str(error))
        except OSError as error:
            return StreamEnd(endings.RESET_BEFORE_RESPONSE, str(error))
        except DownstreamGone as error:
            return _downstream_end(error)
        self.response = response
        if response.status == 101 and self._downstream.head.upgrade is None:
            return StreamEnd(endings.PROTOCOL_ERROR, "101 nobody asked for")
        end = StreamEnd(endings.VIA_UPSTREAM)
        if not self._told.head(response):
            return end
        self._downstream.status = response.status
        try:
            end.bodiless = self._is_bodiless(response)
            end.reusable = await self._relay(response, end.bodiless)
        except DownstreamGone as error:
            return _downstream_end(error)
        except (OSError, BadMessage) as error:
            self._downstream.keep_alive = False
            # Framing that is left open shows where an answer was cut; what a reset takes away it cannot say.
            if not (self._cut_shows and isinstance(error, ConnectionCut | BadMessage)):
                self._downstream.stream.abort()
            return StreamEnd(endings.RESET_AFTER_RESPONSE, str(error))
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
            await self._send(head)
            return False
        if old_client and downstream.keep_alive:
            head = head[:-2] + b"connection: keep-alive\r\n\r\n"
        whole = None if length is None else reader.take_whole(length)
        if whole is not None:  # what came with the head goes on with the head
            await self._send(head + whole)
            downstream.sent_bytes += len(whole)
            return response.keep_alive and not reader.pending_bytes
        body = MessageBody(reader, content_length=length, chunked=response.chunked and not bodiless)
        first = b""
        if length and reader.pending_bytes:
            first = await body.next()  # what came with the head goes on with the head
        await self._send(head + first)
        downstream.sent_bytes += len(first)
        await self._relay_body(body, chunked)
        ended_by_close = length is None and not response.chunked
        return response.keep_alive and not ended_by_close and not reader.pending_bytes

    async def _relay_body(self, body: MessageBody, chunked: bool) -> None:
        downstream = self._downstream
        while not body.finished:
            data = await body.next()
            if data:
                await self._send(chunk(data) if chunked else data)
                downstream.sent_bytes += len(data)
                self._told.passed()
        if chunked:
            passed = passed_trailers(body.trailers) if downstream.head.takes_trailers else []
            await self._send(last_chunk(passed))


def _downstream_end(error: DownstreamGone | DownstreamBad) -> StreamEnd:
    bad = isinstance(error, DownstreamBad)
    return StreamEnd(endings.DOWNSTREAM_ERROR if bad else endings.DISCONNECT, str(error))
