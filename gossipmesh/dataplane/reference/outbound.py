"""From a local caller to the mesh: HTTP on explicit ports and on the shared proxy port.

Responsible for one request's path: identity, route, endpoint, tries, answer. Every decision is a call
into `gossipmesh.traffic`; bytes are `forward.py`'s, one try is `outbound_try.py`'s. Rules:

1. Nothing is sent under a guessed identity: a socket no process holds is refused, and an explicit port
   refuses every uid but its own.
2. The answer to a request that no endpoint answered is the last try's failure, with its flag.
"""

from collections.abc import Awaitable

import trio

from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.forward import Downstream, DownstreamGone, TryEnd
from gossipmesh.dataplane.reference.http1 import HeaderList, write_request
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.outbound_try import Asked, OutboundTry
from gossipmesh.dataplane.reference.passing import (
    TooManyHops,
    announced_trailers,
    may_go_on,
    passed_headers,
)
from gossipmesh.dataplane.reference.request_life import Refused, written_down
from gossipmesh.dataplane.reference.state import EngineState, now
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.service import Protocol
from gossipmesh.model.snapshot import Route
from gossipmesh.traffic.retries import RetryDecision
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

    def run(self) -> Awaitable[None]:
        """Return what answers the request, to be awaited.

        Raises:
            DownstreamGone, DownstreamBad: the client is to blame. State: written down; close it.
        """
        self._entry.head = self._downstream.head
        return written_down(self._journal, self._downstream, self._entry, self._answered())

    async def _answered(self) -> None:
        state, entry, downstream = self._state, self._entry, self._downstream
        service = self._named_service()
        router = state.router(service) or await state.demands.wait(service)
        if router is None:
            raise Refused(503, "NC", "service_not_known", "this node knows no routes of the service")
        entry.service = service
        if router.section.protocol != Protocol.HTTP:
            raise Refused(400, "DPE", "service_is_tcp", "the service is opaque TCP; use CONNECT")
        route, headers, goes_on = self._matched(router)
        if not goes_on:
            entry.details = "max_forwards"
            await downstream.answer_as_last()
            return
        if route is None:
            raise Refused(404, "NR", "route_not_found", "no route takes this request")
        entry.route = route.name
        name = pick_backend(route, state.rng.random())
        upstream = None if name is None else state.upstream(name)
        if name is None or upstream is None:
            raise Refused(500, "NC", "no_backend", "the route leads nowhere")
        entry.upstream = name
        if not downstream.body.finished:
            await downstream.body.read_small(downstream.head)
        if not upstream.admission.admit_request(entry.uid):
            raise Refused(503, "UO", "upstream_requests_overflow", "too many requests to the service")
        try:
            instant = now()
            upstream.budget.add_request(instant)
            raw = write_request(downstream.head, headers, announced_trailers(downstream.head.trailer))
            asked = Asked(downstream, entry, route, upstream, raw)
            if route.request_timeout_ns is not None:
                asked.deadline = Instant(instant + route.request_timeout_ns)
            await self._tries(asked, instant)
        finally:
            upstream.admission.release_request(entry.uid)

    def _named_service(self) -> str:
        """Return the service that is asked for; the request then has a Host.

        Raises:
            Refused: nothing names a service of the mesh. State unchanged.
        """
        head = self._downstream.head
        service = self._service or service_of_host(head.host.decode("latin-1"))
        if not head.host:
            if service is None:
                raise Refused(400, "DPE", "host_missing", "neither Host nor target names a service")
            namespace, _, name = service.partition("/")
            head.name_host(f"{name}.{namespace}".encode())
        if service is None:
            raise Refused(404, "NR", "route_not_found", "no service of the mesh has this name")
        return service

    def _matched(self, router: ServiceRouter) -> tuple[Route | None, HeaderList, bool]:
        """Return the rule that takes the request, None for none, the headers that go on, and whether it may.

        Raises:
            Refused: it can be read in two ways, or goes in a circle. State unchanged.
        """
        head = self._downstream.head
        try:
            route = router.find_untrusted(head.host.decode("latin-1"), head.path, head.method, head.texts())
            goes_on = may_go_on(head)
            headers, trace = passed_headers(head, self._state.rng)
        except MalformedInput as error:
            raise Refused(
                400, "DPE", f"ambiguous_path: {error}", "the path can be read in two ways"
            ) from None
        except TooManyHops:
            raise Refused(508, "LR", "hop_limit", "the request went in a circle") from None
        self._entry.traceparent = trace.decode("latin-1") or None
        return route, headers, goes_on

    async def _tries(self, asked: Asked, began: Instant) -> None:
        state, entry, upstream = self._state, self._entry, asked.upstream
        while True:
            endpoint = state.pick(upstream, began, asked.tried)
            if endpoint is None:
                raise Refused(503, "UH", "no_healthy_upstream", "no endpoint of the service is healthy")
            entry.attempts += 1
            entry.upstream_host = str(endpoint.address)
            entry.callee = endpoint.spiffe_id
            entry.server_name = endpoint.server_name
            attempt = OutboundTry(state, asked, endpoint)
            end = await attempt.run(began)
            decision = attempt.decision
            if decision is None or not decision.retry:
                await self._finish(end, decision)
                return
            asked.tried.append(endpoint)
            if decision.backoff_ns:
                await trio.sleep(min(decision.backoff_ns, max(0, asked.deadline - now())) / SECOND_NS)
            began = now()

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
    "UO": "too many connections to the service, or this node lacks what a connection takes",
    "DPE": "the request is unreadable",
}
