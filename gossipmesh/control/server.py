"""`authority serve`: enrolment and renewal over TLS 1.3, one request per connection.

A thin shell around `control.desk`, which decides. The server is `spiffe://TRUST-DOMAIN/authority` under the
root that tokens pin. Nobody is asked for a certificate: the proof in a request says whose it is. Sources of
connections take turns at handshakes and at decisions. Everything is bounded: connections, time, and bytes.
Nothing a stranger sends is more than one line in the log.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import h11
import msgspec
import trio

from gossipmesh.control.backup import require_asked
from gossipmesh.control.certificates import SERIAL_BYTES, make_svid, random_serial, to_pem
from gossipmesh.control.desk import Answer, Desk, Request
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.ledger import Ledger
from gossipmesh.control.loaded import LoadedAuthority
from gossipmesh.control.paced_stream import PacedStream, Turns
from gossipmesh.control.roots import Authority, Entropy, offline_keys_here
from gossipmesh.model.enrolment import (
    LEAF_LIFE_S,
    REQUEST_BYTES_MAX,
    EnrolRequest,
    Issued,
    OpenNoted,
    OpenReport,
    Refusal,
    RenewRequest,
)
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.identity import authority_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.member import Address
from gossipmesh.net.descriptors import descriptors_max
from gossipmesh.net.places import Party, Place, source_of
from gossipmesh.net.reception import Reception
from gossipmesh.net.streams import listen
from gossipmesh.net.tls import server_context
from gossipmesh.net.turns import TURN
from gossipmesh.trust.svid import (
    LEAF_ENTROPY_BYTES,
    leaf_key_pem,
    read_leaf_key_untrusted,
)

_LOOK_S: Final = 1.0  # how long a change on disk may go unseen
CONNECTIONS_MAX: Final = 512
BACKLOG: Final = 1_024  # a second's crowd, while a disk or another process holds us up
ACCEPTS_PER_TURN: Final = 64
_DESCRIPTORS_KEPT: Final = 64
HANDSHAKE_TIMEOUT_S: Final = 5.0
REQUEST_TIMEOUT_S: Final = 5.0
DECISION_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 1.0
RECEIVE_BYTES: Final = 16_384
HEAD_BYTES_MAX: Final = 16_384

T = TypeVar("T")
Tls = trio.SSLStream[PacedStream]
_SHAPES: Final[dict[str, type[Request]]] = {
    "/v1/enrol": EnrolRequest,
    "/v1/renew": RenewRequest,
    "/v1/open": OpenReport,
}


@dataclass(frozen=True)
class ServerPair:
    """The authority's own SVID."""

    chain_pem: bytes
    key_pem: bytes


class AuthorityServer:
    """Serves one authority; `report` gets a line for each thing worth knowing."""

    def __init__(
        self,
        authority: Authority,
        *,
        clock: Callable[[], WallSeconds],
        entropy: Entropy,
        report: Callable[[str], None],
    ) -> None:
        self._loaded = LoadedAuthority(authority, report)
        self._served = authority
        self._ledger = Ledger(authority.directory)
        self._desk = Desk(Issuer(authority, self._ledger, entropy), clock, report, self._loaded.look)
        self._turns = Turns()
        self._clock = clock
        self._entropy = entropy
        self._report = report
        self._context: ssl.SSLContext | None = None
        self._context_until = WallSeconds(0)
        self.statistics = self._desk.statistics
        places_max = max(1, min(CONNECTIONS_MAX, descriptors_max() - _DESCRIPTORS_KEPT))
        self.reception = Reception(
            "authority", report, places_max=places_max, accepts_per_turn=ACCEPTS_PER_TURN
        )

    async def run(self, bind: Address, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; reports `listening on ADDRESS`, and starts with that address.

        Raises:
            OperatorError: the address cannot be had, another process serves this authority, or the
                intermediate has run out.
        """
        require_asked(self._served.directory)
        with self._ledger.hold():
            torn = await trio.to_thread.run_sync(self._ledger.check_log)
            if torn is not None:
                self._report(torn)
            for warning in offline_keys_here(self._served):
                self._report(warning)
            self._ledger.forget_tokens(self._clock())
            self._tls_context()
            try:
                listener = listen(bind, BACKLOG)
            except OSError as error:
                raise OperatorError(
                    f"cannot listen on {bind}: {error.strerror or error}; choose another --bind, "
                    "or stop what uses it"
                ) from None
            name = listener.getsockname()
            address = Address(name[0], name[1])
            self._report(f"listening on {address}")
            task_status.started(address)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._turns.run)
                nursery.start_soon(self._desk.run)
                nursery.start_soon(self._look_around)
                nursery.start_soon(self.reception.run, listener, _source, self._converse)

    async def _look_around(self) -> None:
        """Take up what a command changed though nobody asks: who trusts the new root alone cannot ask."""
        while True:
            await trio.sleep(_LOOK_S)
            await trio.to_thread.run_sync(self._loaded.look)

    def _tls_context(self) -> ssl.SSLContext:
        """Return the context of the server's own SVID, issued anew at half life or by a new intermediate."""
        now, authority = self._clock(), self._loaded.authority
        if self._context is None or now >= self._context_until or authority is not self._served:
            self._served = authority
            intermediate = authority.intermediate
            if int(intermediate.not_valid_after_utc.timestamp()) <= now:
                raise OperatorError(
                    f"the intermediate of {authority.directory} has run out; it can issue nothing"
                )
            key_pem = leaf_key_pem(self._entropy(LEAF_ENTROPY_BYTES))
            leaf = make_svid(
                read_leaf_key_untrusted(key_pem).public_key(),
                authority_spiffe_id(authority.trust_domain),
                intermediate,
                authority.intermediate_key,
                now,
                random_serial(self._entropy(SERIAL_BYTES)),
            )
            pair = ServerPair(to_pem(leaf) + to_pem(intermediate), key_pem)
            context = server_context(pair, authority.root_pem.encode())
            context.verify_mode = ssl.CERT_NONE  # a request's own proof says who asks, no certificate does
            context.set_alpn_protocols(["http/1.1"])
            self._context = context
            self._context_until = WallSeconds(now + LEAF_LIFE_S // 2)
        return self._context

    async def _converse(self, stream: trio.SocketStream, place: Place) -> None:
        """Shake hands, take a request, answer it; each has its time, or the connection ends."""
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                await trio.lowlevel.wait_readable(stream.socket)  # who says nothing costs no TLS
                paced = PacedStream(stream, self._turns, _source(stream))
                tls = trio.SSLStream(paced, self._tls_context(), server_side=True, https_compatible=True)
                await tls.do_handshake()
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
            with trio.fail_after(REQUEST_TIMEOUT_S):
                request = await _take_request(tls, connection)
            place.begin()
            if request is not None:
                with trio.fail_after(DECISION_TIMEOUT_S):
                    status, answer = await self._answer_to(request, stream)
                with trio.fail_after(ANSWER_TIMEOUT_S):
                    await _respond(tls, connection, status, answer)
            with trio.move_on_after(CLOSE_TIMEOUT_S):
                await tls.aclose()
        except (
            OSError,  # ssl.SSLError is one
            h11.ProtocolError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
        ):
            self.statistics.broken += 1

    async def _answer_to(self, request: Request | Answer, stream: trio.SocketStream) -> Answer:
        """Return status and answer; what is no request has its own already."""
        if isinstance(request, tuple):
            self.statistics.refused += 1
            return request
        return await self._desk.decide(request, _source(stream), _peer_of(stream))


def _source(stream: trio.SocketStream) -> Party:
    return source_of(stream.socket.getpeername()[0])


def _peer_of(stream: trio.SocketStream) -> str:
    """Return the address of a peer as it is put on record; IPv4 as such."""
    host = str(stream.socket.getpeername()[0]).partition("%")[0]
    return host.removeprefix("::ffff:") if "." in host else host


async def _take_request(tls: Tls, connection: h11.Connection) -> Request | Answer | None:
    """Return the one request, or the answer to what is none; None when the peer just left."""
    try:
        method, target, body = await _read_request(tls, connection)
        if connection.their_state is h11.ERROR or not method:
            return None
        shape = _SHAPES.get(target)
        if shape is None:
            return 404, Refusal(f"no {target[:80]!r} here", "not-found")
        if method != "POST":
            return 405, Refusal("only POST is answered", "method")
        return _decode_untrusted(body, shape)
    except MalformedInput as error:
        return 400, Refusal(str(error)[:300], "malformed")


async def _read_request(tls: Tls, connection: h11.Connection) -> tuple[str, str, bytes]:
    """Return method, target and body of the one request; an empty method when the peer just left.

    Raises:
        MalformedInput: not HTTP, or more bytes than any request has. Remote's fault. State: answer, close.
    """
    method, target, body = "", "", bytearray()
    while True:
        if TURN.over():
            await TURN.rest()
        try:
            TURN.spend(0)
            event: Any = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise MalformedInput(f"not a request: {error}"[:200]) from None
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await tls.receive_some(RECEIVE_BYTES)))
        elif isinstance(event, h11.Request):
            method, target = event.method.decode("ascii"), event.target.decode("ascii")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > REQUEST_BYTES_MAX:
                raise MalformedInput(f"more than {REQUEST_BYTES_MAX} bytes in a request")
        else:
            return method, target, bytes(body)


async def _respond(
    tls: Tls,
    connection: h11.Connection,
    status: int,
    answer: Issued | OpenNoted | Refusal,
) -> None:
    body = msgspec.json.encode(answer)
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("connection", "close"),
    ]
    response = connection.send(h11.Response(status_code=status, headers=headers))
    data = connection.send(h11.Data(data=body))
    end = connection.send(h11.EndOfMessage())
    await tls.send_all(b"".join(part for part in (response, data, end) if part))


def _decode_untrusted(body: bytes, shape: type[T]) -> T:
    """Read a request's JSON.

    Raises:
        MalformedInput: not such a request. Remote's fault. State unchanged.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedInput(f"not a request: {error}"[:200]) from None
