"""What one snapshot says of traffic, indexed; immutable, and swapped as a whole.

Ends at what engines need beside it: who may be at the other end of a connection, and which local user speaks
as whom.
"""

from collections.abc import Iterable

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.snapshot import (
    InboundSection,
    LimitsSection,
    RoutesSection,
    Section,
    UpstreamSection,
)
from gossipmesh.traffic.routing import RouteTable, ServiceRouter


class Tables:
    """Routes by service, upstreams by name, local workloads by server name, and the limits."""

    __slots__ = ("inbounds", "limits", "node", "routes", "upstreams")

    def __init__(self, sections: Iterable[Section], node: str, previous: "Tables | None" = None) -> None:
        """Index decoded sections; routers of sections that `previous` has too are kept. `node` is our name.

        Raises:
            MalformedInput: there are no limits. Remote's fault. State unchanged.
        """
        self.node = node
        self.upstreams: dict[str, UpstreamSection] = {}
        self.inbounds: dict[str, InboundSection] = {}
        routes: list[RoutesSection] = []
        limits: LimitsSection | None = None
        for section in sections:
            if isinstance(section, RoutesSection):
                routes.append(section)
            elif isinstance(section, UpstreamSection):
                self.upstreams[section.upstream] = section
            elif isinstance(section, InboundSection):
                self.inbounds[section.server_name] = section
            elif isinstance(section, LimitsSection):
                limits = section
        if limits is None:
            raise MalformedInput("a snapshot without limits")
        self.limits = limits
        self.routes: RouteTable = RouteTable.build(routes, None if previous is None else previous.routes)

    def is_served(self, router: ServiceRouter) -> bool:
        """Tell whether anybody serves what the rules of a service lead to."""
        return any(
            self.upstreams[backend.upstream].endpoints
            for route in router.section.routes
            for backend in route.backends
            if backend.upstream in self.upstreams
        )
