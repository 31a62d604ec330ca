"""Asking the authority: wherever it is, and only if it is the one this node trusts.

Rules:
1. Its addresses are tried in turn, each within its time; names are resolved anew at each use, off the loop.
2. Who answers must be `spiffe://TRUST-DOMAIN/authority` below the roots given; nothing is sent to others.
3. Who reads a request and refuses it is not the last one asked only if it says that it cannot answer now.
Ends at answers as bytes and values; what is asked is `agent.identity.enrolment`'s.
"""

import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import h11
import msgspec
import trio

from gossipmesh.model.enrolment import ANSWER_BYTES_MAX, AUTHORITIES_MAX, Issued, Refusal
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.host_port import split_host_port
from gossipmesh.model.identity import authority_spiffe_id
from gossipmesh.model.member import Address
from gossipmesh.net.resolver import ANY_FAMILY, resolve
from gossipmesh.net.tls import AnonymousContext
from gossipmesh.trust.peer_identity import Dialled, PeerFacts, identify_untrusted

CONNECT_TIMEOUT_S: Final = 5.0
REQUEST_TIMEOUT_S: Final = 15.0
LOOKUP_TIMEOUT_S: Final = 3.0
RECEIVE_BYTES: Final = 65_536
HEAD_BYTES_MAX: Final = 16_384
_LOOKUPS_MAX: Final = 4  # threads of the system's resolver, those included that were given up
_ADDRESSES_PER_NAME_MAX: Final = 4
_ASK_ANOTHER: Final = ("busy", "unavailable")

Lookup = Callable[[str, int, int, trio.CapacityLimiter, float], Awaitable[list[Address]]]


class AuthorityRefused(OperatorError):
    """A request the authority read and does not grant; `code` is stable."""

    def __init__(self, sentence: str, code: str) -> None:
        super().__init__(sentence)
        self.code = code


class AuthorityClient:
    """Asks one mesh's authority."""

    def __init__(self, lookup: Lookup = resolve) -> None:
        self._lookup = lookup
        self._limiter = trio.CapacityLimiter(_LOOKUPS_MAX)

    async def ask(
        self,
        authorities: Sequence[str],
        context: AnonymousContext,
        facts: PeerFacts,
        target: str,
        body: bytes,
    ) -> Issued:
        """POST `body` and return what was issued.

        Raises:
            AuthorityRefused: read, and not granted. State unchanged.
            OperatorError: unreachable at every address, or someone else. State unchanged.
        """
        answer = await self.post(authorities, context, facts, target, body)
        try:
            return msgspec.json.decode(answer, type=Issued)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise OperatorError(f"the authority answered with nothing readable ({error})"[:300]) from None

    async def post(
        self,
        authorities: Sequence[str],
        context: AnonymousContext,
        facts: PeerFacts,
        target: str,
        body: bytes,
    ) -> bytes:
        """POST `body` to the first of `authorities` (HOST:PORT) that answers, and return its answer.

        Raises:
            AuthorityRefused: read, and not granted. State unchanged.
            OperatorError: unreachable at every address, or someone else. State unchanged.
        """
        failures: list[OperatorError] = []
        for place in authorities[:AUTHORITIES_MAX]:
            try:
                addresses = await self.addresses_of(place)
            except OSError as error:
                reason = error.strerror or error
                failures.append(OperatorError(f"the authority's {place} does not resolve ({reason})"))
                continue
            for address in addresses:
                try:
                    return await _ask_one(address, context, facts, target, body)
                except AuthorityRefused as refusal:
                    if refusal.code not in _ASK_ANOTHER:
                        raise
                    failures.append(refusal)
                except OperatorError as error:
                    failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        told = "; ".join(str(failure) for failure in failures)
        raise OperatorError(f"no authority answered, {len(failures)} addresses were tried: {told}"[:2_000])

    async def addresses_of(self, place: str) -> list[Address]:
        """Return the addresses that HOST:PORT stands for now, at most four.

        Raises:
            OSError: a name that does not resolve. State unchanged.
        """
        named = split_host_port(place)
        if named is None:
            return [Address.parse(place)]
        host, port = named
        found = await self._lookup(host, port, ANY_FAMILY, self._limiter, LOOKUP_TIMEOUT_S)
        return found[:_ADDRESSES_PER_NAME_MAX]


async def _connect(authority: Address) -> trio.SocketStream:
    family = socket.AF_INET6 if ":" in authority.host else socket.AF_INET
    connection = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            await connection.connect(authority.socket_address())
    except BaseException as error:
        connection.close()
        if isinstance(error, trio.TooSlowError):
            raise OSError(0, f"no answer within {CONNECT_TIMEOUT_S:g} s") from None
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, os.strerror(error.errno)) from None
        raise
    return trio.SocketStream(connection)


async def _ask_one(
    authority: Address, context: AnonymousContext, facts: PeerFacts, target: str, body: bytes
) -> bytes:
    """POST `body` to the authority at one address and return what it answered.

    Raises:
        OperatorError: unreachable, someone else, or refused. State unchanged.
    """
    try:
        with trio.fail_after(REQUEST_TIMEOUT_S):
            stream = await _connect(authority)
            tls = trio.SSLStream(stream, context, https_compatible=True)
            try:
                await _check_server(tls, context, authority, facts)
                status, answer = await _exchange(tls, authority, target, body)
            finally:
                await trio.aclose_forcefully(tls)
    except trio.TooSlowError:
        raise OperatorError(
            f"the authority at {authority} did not answer within {REQUEST_TIMEOUT_S:.0f} s; try again"
        ) from None
    except OSError as error:
        raise OperatorError(
            f"cannot reach the authority at {authority} ({error.strerror or error}); "
            "is `gossipmesh authority serve` running there?"
        ) from None
    except (trio.BrokenResourceError, MalformedInput, h11.ProtocolError) as error:
        raise OperatorError(
            f"the authority at {authority} broke off ({error.__cause__ or error or 'no reason'}); "
            "its log says why"
        ) from None
    return _granted(authority, status, answer)


async def _check_server(
    tls: trio.SSLStream[trio.SocketStream], context: AnonymousContext, authority: Address, facts: PeerFacts
) -> None:
    """Shake hands, and make sure that whoever answers is the authority."""
    expected = authority_spiffe_id(facts.trust_domain)
    try:
        await tls.do_handshake()
        identify_untrusted(context.presented(), facts, Dialled(expected))
    except (trio.BrokenResourceError, MalformedInput) as error:
        reason = error.__cause__ or error
        raise OperatorError(
            f"the server at {authority} is not the authority this node trusts, {expected} "
            f"({getattr(reason, 'verify_message', '') or reason}); check the address, nothing was sent to it"
        ) from None


async def _exchange(
    tls: trio.SSLStream[trio.SocketStream], authority: Address, target: str, body: bytes
) -> tuple[int, bytes]:
    """Send the one request of this connection; return status and body.

    Raises:
        MalformedInput: no HTTP, or more bytes than any answer has. Remote's fault. State: close it.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
    headers = [
        ("host", str(authority)),
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("connection", "close"),
    ]
    request = h11.Request(method="POST", target=target, headers=headers)
    parts = [connection.send(event) for event in (request, h11.Data(data=body), h11.EndOfMessage())]
    await tls.send_all(b"".join(part for part in parts if part))
    status, answer = 0, bytearray()
    while True:
        event: Any = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await tls.receive_some(RECEIVE_BYTES)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            answer += event.data
            if len(answer) > ANSWER_BYTES_MAX:
                raise MalformedInput(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return status, bytes(answer)


def _granted(authority: Address, status: int, answer: bytes) -> bytes:
    """Return the answer to a request that was granted.

    Raises:
        OperatorError: it was not. State unchanged.
    """
    if status == 200:
        return answer
    try:
        refusal = msgspec.json.decode(answer, type=Refusal)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise OperatorError(
            f"the authority at {authority} answered {status} with nothing readable ({error})"[:300]
        ) from None
    raise AuthorityRefused(f"the authority at {authority} refuses: {refusal.error[:400]}", refusal.code)
