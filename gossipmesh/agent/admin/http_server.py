"""A small HTTP/1.1 server over h11, for the admin API and the metrics; not for traffic.

Rules:
1. One request per connection at a time, heads and bodies bounded, a slow client is dropped; each connection
   has a place, of which one user or address has half at most, and who asks nothing makes way for who does.
2. A handler raises `Refused` for an answer of 4xx; anything unforeseen is a 500 and logged, never a crash.
"""

import json
import logging
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import h11
import msgspec
import trio

from gossipmesh.model import limits
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.member import Address
from gossipmesh.net.places import Party, Place, source_of, uid_party
from gossipmesh.net.reception import Reception
from gossipmesh.net.socket_owner import SocketOwners
from gossipmesh.net.turns import TURN

log = logging.getLogger("gossipmesh.agent.http")

_RECEIVE_BYTES: Final = 65_536
_HEAD_BYTES_MAX: Final = 16_384
CONNECTIONS_MAX: Final = 128
_IDLE_TIMEOUT_S: Final = 30.0
_ROWS_PER_PIECE: Final = 25  # of members: a millisecond to make, 5 when the machine is busy
_CREDENTIALS: Final = struct.Struct("3i")


class Request(msgspec.Struct, frozen=True):
    """One request; `headers` are lower-case, the last of a name wins; `peer` is the socket it came by."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    peer: Any


class Response(msgspec.Struct, frozen=True):
    """One answer; `more` follows `body`, made and sent piece by piece: lists as long as the mesh is large."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    more: AsyncIterator[bytes] | None = None


class Refused(Exception):
    """An answer that is an error: `status` is HTTP's, `code` stable, the message a sentence."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code


Handler = Callable[[Request], Awaitable[Response]]


def json_response(value: Any, status: int = 200) -> Response:
    """Return `value` as JSON."""
    return Response(_json(value) + b"\n", status=status)


def json_rows_response(
    rows: Iterable[Any], around: Mapping[str, Any] | None = None, name: str = ""
) -> Response:
    """Return a list as JSON, made a few rows at a time; with `around` as an object's last field, `name`.

    A row that is None is left out: whoever looks for few among many yields it for those passed over.
    """
    head, tail = b"[", b"]\n"
    if around is not None:
        head, tail = _json(around)[:-1] + b"," + _json(name) + b":[", b"]}\n"

    async def pieces() -> AsyncIterator[bytes]:
        walk, separator = iter(rows), b""
        while looked_at := list(islice(walk, _ROWS_PER_PIECE)):
            some = [row for row in looked_at if row is not None]
            if some:
                yield separator + _json(some)[1:-1]
                separator = b","
            else:
                await trio.lowlevel.checkpoint()
        yield tail

    return Response(head, more=pieces())


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def error_response(status: int, code: str, sentence: str) -> Response:
    """Return an error as every client of this server reads it."""
    return json_response({"error": sentence, "code": code}, status)


class HttpServer:
    """Serves one listening socket with one handler."""

    def __init__(self, listener: socket.socket, handler: Handler) -> None:
        """`listener` does not block, and is closed when `run` ends."""
        self._listener = listener
        self._handler = handler
        self._reception = Reception("http", log.warning, places_max=CONNECTIONS_MAX)
        self._owners: SocketOwners | None = None

    @property
    def counts(self) -> Counter[str]:
        """Return what happened to places, by name."""
        return self._reception.counts

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            await self._reception.run(self._listener, self._party_of, self._converse)
        finally:
            if self._owners is not None:
                self._owners.close()

    def close(self) -> None:
        """Close the listening socket of a server that never ran."""
        self._listener.close()

    def _party_of(self, stream: trio.SocketStream) -> Party:
        """Return who a connection is: a user of this machine, or an address."""
        sock = stream.socket
        if sock.family == socket.AF_UNIX:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return uid_party(_CREDENTIALS.unpack(raw)[1])
        peer, own = sock.getpeername(), sock.getsockname()
        if peer[0] != own[0]:
            return source_of(peer[0])
        try:
            self._owners = self._owners or SocketOwners()
            return uid_party(self._owners.uid_of(Address(peer[0], peer[1]), Address(own[0], own[1])))
        except OSError:
            return uid_party(None)

    async def _converse(self, stream: trio.SocketStream, place: Place) -> None:
        async with stream:
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES_MAX)
            try:
                while await self._serve_one(stream, connection, place):
                    place.end()
                    connection.start_next_cycle()
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.LocalProtocolError):
                pass  # the client went away, or never finished its request

    async def _serve_one(self, stream: trio.SocketStream, connection: h11.Connection, place: Place) -> bool:
        """Answer one request; tell whether another may follow."""
        try:
            with trio.fail_after(_IDLE_TIMEOUT_S):
                request = await _receive_untrusted(stream, connection)
        except h11.RemoteProtocolError as error:
            if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                return False
            response = error_response(error.error_status_hint, "malformed", f"unreadable request: {error}")
        except Refused as refused:
            response = error_response(refused.status, refused.code, str(refused))
        else:
            if request is None:
                return False
            place.begin()
            response = await self._answer(request)
        with trio.fail_after(_IDLE_TIMEOUT_S):
            await _send(stream, connection, response)
        if response.more is not None and not await _send_more(stream, connection, response.more):
            return False
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except Refused as refused:
            return error_response(refused.status, refused.code, str(refused))
        except OperatorError:
            raise  # the agent itself is in trouble, such as a full disk: it must end
        except Exception:
            log.exception("a request failed: %s %s", request.method, request.path)
            return error_response(500, "internal", "the agent failed on this request; see its log")


async def _receive_untrusted(stream: trio.SocketStream, connection: h11.Connection) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        if TURN.over():
            await TURN.rest()
        event = connection.next_event()
        TURN.spend(0)
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                go_on = connection.send(h11.InformationalResponse(status_code=100, headers=[]))
                await stream.send_all(go_on or b"")
            connection.receive_data(await stream.receive_some(_RECEIVE_BYTES))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > limits.ADMIN_REQUEST_BYTES_MAX:
                allowed = limits.ADMIN_REQUEST_BYTES_MAX
                raise Refused(413, "too-large", f"a request of more than {allowed} bytes")
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _request_of(head, bytes(body), stream)
        else:
            return None


def _request_of(head: h11.Request, body: bytes, stream: trio.SocketStream) -> Request:
    try:
        target = urlsplit(head.target.decode("ascii"))
        query = dict(parse_qsl(target.query, max_num_fields=16, errors="strict"))
    except ValueError:
        raise Refused(400, "malformed", "an unreadable request target") from None
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    method = head.method.decode("ascii")
    return Request(method, target.path, query, headers, body, stream.socket)


async def _send(stream: trio.SocketStream, connection: h11.Connection, response: Response) -> None:
    headers = [
        ("Content-Type", response.content_type),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    if response.more is None:
        headers.append(("Content-Length", str(len(response.body))))
    head = connection.send(h11.Response(status_code=response.status, headers=headers)) or b""
    content = connection.send(h11.Data(data=response.body)) or b""
    end = b"" if response.more is not None else connection.send(h11.EndOfMessage()) or b""
    await stream.send_all(head + content + end)


async def _send_more(
    stream: trio.SocketStream, connection: h11.Connection, more: AsyncIterator[bytes]
) -> bool:
    """Send the rest as it is made; False when it could not be made, so that the client sees it cut."""
    try:
        async for piece in more:
            with trio.fail_after(_IDLE_TIMEOUT_S):
                await stream.send_all(connection.send(h11.Data(data=piece)) or b"")
    except (OSError, trio.BrokenResourceError, trio.TooSlowError):
        raise
    except Exception:
        log.exception("an answer failed on its way")
        return False
    with trio.fail_after(_IDLE_TIMEOUT_S):
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
    return True
