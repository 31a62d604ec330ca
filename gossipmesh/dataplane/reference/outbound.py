"""From a local caller to the mesh: HTTP on explicit ports and on the shared proxy port.

Responsible for one request's path: identity, route, endpoint, tries, answer. Every decision is a call
into `gossipmesh.traffic`; bytes are `forward.py`'s. Rules:

1. Nothing is sent under a guessed identity: a socket no process holds is refused, and an explicit port
   refuses every uid but its own.
2. The answer to a request that no endpoint answered is the last try's failure, with its flag.
"""

import trio

from gossipmesh.dataplane.protocol import Ejection
from gossipmesh.dataplane.reference.dialing import DialFailed, endpoint_connection
from gossipmesh.dataplane.reference.forward import Downstream, DownstreamBad, DownstreamGone, Exchange, TryEnd
from gossipmesh.dataplane.reference.http1 import ResponseHead, write_request
from gossipmesh.dataplane.reference.journal import Entry, Journal
from gossipmesh.dataplane.reference.passing import (
    TooManyHops,
    announced_trailers,
    may_go_on,
    passed_headers,
)
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.dataplane.reference.state import EngineState, UpstreamState, endpoint_key, now
from gossipmesh.dataplane.reference.tries import Attempt, Stop
from gossipmesh.dataplane.reference.upgrade import splice
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import NEVER, SECOND_NS, Instant
from gossipmesh.model.service import Protocol
from gossipmesh.model.snapshot import Route, SnapshotEndpoint
from gossipmesh.traffic.balance import Try
from gossipmesh.traffic.outcomes import Outcome
from gossipmesh.traffic.retries import RetryDecision, is_idempotent, may_retry, try_timeout_ns
from gossipmesh.traffic.routing import ServiceRouter, pick_backend, service_of_host


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
        self._caller = entry.caller
        self._tried: list[SnapshotEndpoint] = []
        self._deadline = NEVER
        self._decision: RetryDecision | None = None
        self._answered_at: Instant | None = None

    async def run(self) -> None:
        """Answer the request.

        Raises:
            DownstreamGone, DownstreamBad: the client is to blame. State: written down; close it.
        """
        entry, downstream = self._entry, self._downstream
        entry.head = downstream.head
        try:
            await self._answered()
        except DownstreamGone:
            entry.flag("DC")
            raise
        except DownstreamBad:
            entry.flag("DPE")
            downstream.status = downstream.status or 400
            raise
        finally:
            entry.status = downstream.status
            entry.sent_bytes = downstream.sent_bytes
            entry.received_bytes = downstream.body.received_bytes
            self._journal.end(entry, now())

    async def _refuse(self, status: int, flag: str, details: str, reason: str) -> None:
        self._entry.flag(flag)
        self._entry.details = details
        await self._downstream.answer(status, flag, reason)

    async def _answered(self) -> None:
        head = self._downstream.head
        service = self._service or service_of_host(head.host.decode("latin-1"))
        if not head.host:
            if service is None:
                await self._refuse(400, "DPE", "host_missing", "neither Host nor target names a service")
                return
            namespace, _, name = service.partition("/")
            head.name_host(f"{name}.{namespace}".encode())
        if service is None:
            await self._refuse(404, "NR", "route_not_found", "no service of the mesh has this name")
            return
        router = await self._state.router_for(service)
        if router is None:
            await self._refuse(503, "NC", "service_not_known", "this node knows no routes of the service")
            return
        self._entry.service = service
        if router.section.protocol != Protocol.HTTP:
            await self._refuse(400, "DPE", "service_is_tcp", "the service is opaque TCP; use CONNECT")
            return
        await self._routed(router)

    async def _routed(self, router: ServiceRouter) -> None:
        downstream, state, head = self._downstream, self._state, self._downstream.head
        try:
            route = router.find_untrusted(head.host.decode("latin-1"), head.path, head.method, head.texts())
            goes_on = may_go_on(head)
            headers, trace = passed_headers(head, state.rng)
        except MalformedInput as error:
            await self._refuse(400, "DPE", f"ambiguous_path: {error}", "the path can be read in two ways")
            return
        except TooManyHops:
            await self._refuse(508, "LR", "hop_limit", "the request went in a circle")
            return
        self._entry.traceparent = trace.decode("latin-1") or None
        if not goes_on:
            self._entry.details = "max_forwards"
            await downstream.answer_as_last()
            return
        if route is None:
            await self._refuse(404, "NR", "route_not_found", "no route takes this request")
            return
        self._entry.route = route.name
        name = pick_backend(route, state.rng.random())
        upstream = None if name is None else state.upstream(name)
        if name is None or upstream is None:
            await self._refuse(500, "NC", "no_backend", "the route leads nowhere")
            return
        self._entry.upstream = name
        await downstream.body.read_small(head)
        if not upstream.admission.admit_request():
            await self._refuse(503, "UO", "upstream_requests_overflow", "too many requests to the service")
            return
        try:
            instant = now()
            if route.request_timeout_ns is not None:
                self._deadline = Instant(instant + route.request_timeout_ns)
            upstream.budget.add_request(instant)
            raw = write_request(head, headers, announced_trailers(head.trailer))
            await self._tries(route, upstream, raw, instant)
        finally:
            upstream.admission.release_request()

    async def _tries(self, route: Route, upstream: UpstreamState, head: bytes, began: Instant) -> None:
        state, entry = self._state, self._entry
        while True:
            endpoint = upstream.balancer.pick(state.rng, began, self._tried)
            if endpoint is None:
                await self._refuse(503, "UH", "no_healthy_upstream", "no endpoint of the service is healthy")
                return
            entry.attempts += 1
            entry.upstream_host = str(endpoint.address)
            entry.callee = endpoint.spiffe_id
            entry.server_name = endpoint.server_name
            end = await self._one_try(route, upstream, endpoint, head, began)
            decision = self._decision
            if decision is None or not decision.retry:
                await self._finish(end, decision)
                return
            state.counters.add("retries")
            self._tried.append(endpoint)
            if decision.backoff_ns:
                await trio.sleep(min(decision.backoff_ns, max(0, self._deadline - now())) / SECOND_NS)
            began = now()

    async def _one_try(
        self, route: Route, upstream: UpstreamState, endpoint: SnapshotEndpoint, head: bytes, began: Instant
    ) -> TryEnd:
        """Make one try; `_decision` says afterwards whether another follows."""
        self._decision = self._answered_at = None
        state, method = self._state, self._downstream.head.method
        attempt = Attempt(self._downstream, self._entry.upstream, endpoint_key(endpoint))
        attempt.movable = is_idempotent(method)
        state.attempts.begin(attempt)
        balanced = upstream.balancer.started(endpoint, began)
        timeout_ns = try_timeout_ns(route, method)
        deadline = self._deadline if timeout_ns is None else min(self._deadline, Instant(began + timeout_ns))
        state.attempts.set_deadline(attempt, deadline)
        outcome = Outcome.CANCELLED
        try:
            end = await self._exchange(route, upstream, endpoint, head, attempt)
            if attempt.stopped is not None:
                end = self._stopped_end(attempt.stopped)
                if attempt.stopped is not Stop.GONE:
                    self._ask(route, upstream, end, None)
            outcome = end.outcome
        finally:
            state.attempts.finish(attempt)
            self._settle(upstream, balanced, outcome)
        return end

    def _stopped_end(self, why: Stop) -> TryEnd:
        if why is Stop.GONE:
            return TryEnd(Outcome.CANCELLED, 0, "DC", "downstream_disconnect")
        if why is Stop.REMOVED:
            return TryEnd(Outcome.RESET, 503, "UF", "endpoint_removed")
        if self._downstream.response_started:
            self._downstream.keep_alive = False
        return TryEnd(Outcome.TIMEOUT, 504, "UT", "upstream_timeout")

    async def _exchange(
        self,
        route: Route,
        upstream: UpstreamState,
        endpoint: SnapshotEndpoint,
        head: bytes,
        attempt: Attempt,
    ) -> TryEnd:
        connection: PooledConnection | None = None
        kept = False
        try:
            connection = await endpoint_connection(self._state, upstream, endpoint, self._caller, attempt)
            exchange = Exchange(
                self._downstream,
                connection,
                on_head=lambda response: self._takes(route, upstream, response, attempt),
                on_progress=lambda: self._push_deadline(attempt),
            )
            end = await exchange.run(head)
            if self._downstream.status == 101 and not end.flag:
                self._state.attempts.set_deadline(attempt, NEVER)
                await splice(self._state, self._downstream, connection)
            elif end.reusable and attempt.stopped is None:
                kept = upstream.keep(connection)
        except DialFailed as error:
            end = TryEnd(error.outcome or Outcome.CANCELLED, 503, error.flag, error.detail)
        finally:
            if connection is not None and not kept:
                connection.close()
        failed = end.flag and not end.abandoned and end.outcome is not Outcome.CANCELLED
        if failed and attempt.stopped is None:
            self._ask(route, upstream, end, None)
        return end

    def _takes(self, route: Route, upstream: UpstreamState, response: ResponseHead, attempt: Attempt) -> bool:
        """Tell whether an answer is relayed; from here on the try is only bounded by idleness."""
        self._answered_at = now()
        if response.status >= 500 or response.status in route.retry.statuses:
            outcome = Outcome.SERVER_ERROR if response.status >= 500 else Outcome.SUCCESS
            self._ask(route, upstream, TryEnd(outcome, response.status, "", ""), response.status)
            if self._decision is not None and self._decision.retry:
                return False
        attempt.movable = False
        length, connection = response.content_length, attempt.connection
        if length is None or connection is None or length > connection.reader.pending_bytes:
            self._push_deadline(attempt)
        return True

    def _push_deadline(self, attempt: Attempt) -> None:
        """Once an answer is on its way only the request's own timeout and idleness bound it."""
        if self._answered_at is not None:
            applied = self._state.applied
            idle_ns = 300 * SECOND_NS if applied is None else applied.limits.idle_timeout_http_ns
            deadline = min(self._deadline, Instant(now() + idle_ns))
            self._state.attempts.set_deadline(attempt, deadline)

    def _ask(self, route: Route, upstream: UpstreamState, end: TryEnd, status: int | None) -> None:
        """Ask whether to try again; time that is up forbids it before anything else."""
        instant = now()
        if instant >= self._deadline:
            self._decision = None
            return
        self._decision = may_retry(
            route.retry,
            method=self._downstream.head.method,
            outcome=end.outcome,
            status=status,
            attempt=self._entry.attempts,
            response_started=self._downstream.response_started,
            body_replayable=self._downstream.body.replayable,
            budget=upstream.budget,
            now=instant,
            random=self._state.rng.random(),
        )

    def _settle(self, upstream: UpstreamState, balanced: Try, outcome: Outcome) -> None:
        # An endpoint's latency is the time to its answer's head: a long download is no slow endpoint.
        answered = self._answered_at if outcome is Outcome.SUCCESS else None
        reason = upstream.balancer.finished(balanced, answered or now(), outcome)
        if reason is not None:
            endpoint = balanced.endpoint
            self._state.counters.add("ejections")
            self._state.emit(
                Ejection(
                    upstream.balancer.section.upstream, endpoint.registration, endpoint.node, reason, True
                )
            )

    async def _finish(self, end: TryEnd, decision: RetryDecision | None) -> None:
        """Answer with a failed last try, unless an answer has gone out already."""
        entry, downstream = self._entry, self._downstream
        entry.details = end.detail
        if end.flag:
            entry.flag(end.flag)
        if decision is not None and decision.reason == "attempts":
            entry.flag("URX")
        if end.flag == "DC":
            raise DownstreamGone(end.detail)
        if downstream.response_started:
            if end.flag:
                downstream.keep_alive = False
                raise DownstreamGone(end.detail)  # a cut answer must not look whole
            return
        reason = _REASONS.get(end.flag, "the try failed")
        if end.flag == "UPE":
            reason = f"{reason}: {end.detail.partition(': ')[2]}"
        await downstream.answer(end.status, ",".join(entry.flags), reason)


_REASONS = {
    "UF": "no connection to the service could be made",
    "UC": "the service ended the connection before it answered",
    "UT": "the service did not answer in time",
    "UPE": "the service's answer is not HTTP",
    "UO": "too many connections to the service",
    "DPE": "the request is unreadable",
}
