"""From a local caller to the mesh: HTTP on explicit ports and on the shared proxy port.

Responsible for carrying out what one request's exchange asks for, and telling it how that went. Every
decision is `gossipmesh.traffic.exchange`'s; bytes are `forward.py`'s. Rules:

1. Nothing is sent under a guessed identity: a socket no process holds is refused, and an explicit port
   refuses every uid but its own.
2. What is known of the request when it ends is its exchange's word, the last try's included.
"""

from collections.abc import Awaitable

import trio

from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.dialing import DialFailed, wait_for_connection
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.forward import Downstream, DownstreamCut, Forwarding, StreamEnd
from gossipmesh.dataplane.reference.http1 import HeaderList, write_request
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.passing import (
    TooManyHops,
    announced_trailers,
    may_go_on,
    passed_headers,
)
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.dataplane.reference.request_life import written_down
from gossipmesh.dataplane.reference.state import EngineState, UpstreamState
from gossipmesh.dataplane.reference.tries import OutboundAttempt
from gossipmesh.dataplane.reference.upgrade import splice
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.snapshot import SnapshotEndpoint
from gossipmesh.traffic import endings
from gossipmesh.traffic.actions import Action, Answer, Ask, Connect, Cut, Finish, Request, TakeBody, Wait
from gossipmesh.traffic.endpoints import key_of
from gossipmesh.traffic.exchange import Exchange


class OutboundRequest:
    """One request on its way out."""

    def __init__(
        self, state: EngineState, journal: Journal, downstream: Downstream, entry: Entry, service: str | None
    ) -> None:
        """`service` is the explicit port's, None for the proxy port, where the Host names it."""
        self._state = state
        self._journal = journal
        self._downstream = downstream
        self._entry = entry
        self._service = service
        self._upstream: UpstreamState | None = None
        self._raw = b""

    def run(self) -> Awaitable[None]:
        """Return what answers the request, to be awaited.

        Raises:
            DownstreamGone, DownstreamBad: the client is to blame. State: written down; close it.
        """
        self._entry.head = self._downstream.head
        return written_down(self._journal, self._downstream, self._entry, self._answered())

    async def _answered(self) -> None:
        request, headers = self._asked()
        exchange = Exchange(self._state.ground, request)
        instant = self._entry.began
        try:
            action = exchange.begin(instant)
            while True:
                if self._state.ground.effects:
                    self._state.heed()
                if isinstance(action, Connect):
                    action = await self._try(exchange, action.endpoint, headers, instant)
                elif isinstance(action, Finish):
                    return
                elif isinstance(action, Answer):
                    await self._answer(exchange, action)
                    return
                elif isinstance(action, Cut):
                    self._downstream.keep_alive = False
                    raise DownstreamCut(exchange.details)
                else:
                    action = await self._waited(exchange, action)
                instant = now()
        finally:
            exchange.close(instant)
            if self._state.ground.effects:
                self._state.heed()
            self._note(exchange)

    def _asked(self) -> tuple[Request, HeaderList]:
        """Return what is asked, and the headers that go on."""
        head, entry = self._downstream.head, self._entry
        if self._service is not None and not head.host:
            namespace, _, name = self._service.partition("/")
            head.name_host(f"{name}.{namespace}".encode())
        goes_on, looped = may_go_on(head), False
        headers: HeaderList = []
        try:
            headers, trace = passed_headers(head, self._state.rng)
            entry.traceparent = trace.decode("latin-1") or None
        except TooManyHops:
            looped = True
        request = Request(
            service=self._service,
            host=head.host.decode("latin-1"),
            path=head.path,
            method=head.method,
            headers=head.texts(),
            uid=entry.uid,
            waits_for_body=not self._downstream.body.finished,
            looped=looped,
            last_stop=not goes_on,
        )
        return request, headers

    async def _waited(self, exchange: Exchange, action: Action) -> Action:
        """Wait for what an exchange waits for; return what it asks for then."""
        if isinstance(action, Wait):
            return await rested(exchange, action)
        if isinstance(action, TakeBody):
            await self._downstream.body.read_small(self._downstream.head)
            return exchange.body_taken(now())
        assert isinstance(action, Ask)
        await self._state.demands.wait(action.service)
        return exchange.routes_came(now())

    async def _try(
        self, exchange: Exchange, endpoint: SnapshotEndpoint, headers: HeaderList, instant: Instant
    ) -> Action:
        state, entry, upstream = self._state, self._entry, self._upstream
        if upstream is None:
            head = self._downstream.head
            self._raw = write_request(head, headers, announced_trailers(head.trailer))
            upstream = self._upstream = state.connections(exchange)
        key = key_of(endpoint)
        entry.upstream_host = str(endpoint.address)
        entry.callee, entry.server_name = endpoint.spiffe_id, endpoint.server_name
        attempt = OutboundAttempt(state.attempts, exchange, self._downstream, endpoint.node)
        state.attempts.begin(attempt)
        try:
            connection = upstream.pool.take(entry.caller, key, instant)
            if connection is None:
                connection = await wait_for_connection(state, upstream, endpoint, entry.caller, attempt)
                instant = now()
            exchange.connected(instant)
            end = await self._streamed(attempt, connection, upstream)
        except DialFailed as error:
            failed = error
        else:
            return exchange.ended(end.ending, end.more, now())
        finally:
            state.attempts.finish(attempt)
        return exchange.unconnected(failed.ending, failed.more, now(), unreached=failed.unreached)

    async def _streamed(
        self, attempt: OutboundAttempt, connection: PooledConnection, upstream: UpstreamState
    ) -> StreamEnd:
        """Send the request by `connection`, and its answer on; keep what can be used again."""
        attempt.connection = connection
        kept = False
        try:
            end = await Forwarding(self._downstream, connection, attempt).run(self._raw)
            if self._downstream.status == 101 and not end.ending.flag:
                await splice(self._state, self._downstream, connection)
            elif end.reusable and attempt.exchange.stopped is None:
                kept = upstream.keep(connection)
        finally:
            if not kept:
                connection.close()
        return end

    async def _answer(self, exchange: Exchange, action: Answer) -> None:
        if action.ending is endings.MAX_FORWARDS:
            await self._downstream.answer_as_last()
            return
        await self._downstream.answer(action.ending.status, ",".join(exchange.flags), action.reason)

    def _note(self, exchange: Exchange) -> None:
        """Write down what has become known of the request."""
        entry = self._entry
        entry.service = exchange.service
        entry.upstream = exchange.upstream_name
        entry.route = "" if exchange.route is None else exchange.route.name
        entry.attempts = exchange.attempts
        entry.details = exchange.details
        entry.flags[:] = exchange.flags


async def rested(exchange: Exchange, action: Wait) -> Action:
    """Wait as long as an exchange wants to; return what it asks for then."""
    following: Action | None = None
    until = action.until
    while following is None:
        await trio.sleep_until(until / SECOND_NS)
        following = exchange.due(max(now(), until))
    return following
