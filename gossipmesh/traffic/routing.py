"""Which rule takes a request, and which of its backends.

Spec: Gateway API HTTPRoute matching; routes arrive in match order (the compiler's work), so the first
that matches is the one. Ends at the name of an upstream; balancing is `balance`. Rules:

1. A service is found in one dictionary; inside it only rules on the path's own ancestors are looked at.
2. Host names know no case; port and trailing dot are dropped; `cart.shop` and `cart.shop.mesh` are
   `shop/cart`. An explicit upstream port names its service itself; hostnames then narrow.
3. Header names know no case, values do; a repeated header is one value, joined by commas (Envoy's way).

Deviation: a doubled header match with one name counts once, the first, as the Gateway API says.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from gossipmesh.model.identity import is_label
from gossipmesh.model.limits import HOSTS_REMEMBERED_MAX
from gossipmesh.model.snapshot import HeaderMatch, Route, RoutesSection
from gossipmesh.traffic.paths import matched_path_untrusted

MESH_SUFFIX: Final = "mesh"
_HOST_CHARS_MAX: Final = 300  # two labels, `mesh`, a dot and a port are fewer
Headers = Iterable[tuple[str, str]]


def normal_host(host: str) -> str:
    """Return `host` in lower case without port and trailing dot; empty when it is not a host."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, "0"
    if (port and not (port.isascii() and port.isdigit())) or (":" in name and not name.endswith("]")):
        return ""
    return name.lower().removesuffix(".")


def service_of_host(host: str) -> str | None:
    """Return `namespace/name` when a `Host` names a service of the mesh, None otherwise."""
    return _service_of_host(host) if len(host) <= _HOST_CHARS_MAX else None


# A pure function of a short text, remembered because one service is asked for many times.
@lru_cache(maxsize=HOSTS_REMEMBERED_MAX)
def _service_of_host(host: str) -> str | None:
    labels = normal_host(host).split(".")
    if len(labels) == 3 and labels[2] == MESH_SUFFIX:
        labels.pop()
    # A top label of digits only is an IPv4 address's (WHATWG URL); no service may look like one.
    if len(labels) != 2 or not all(is_label(label) for label in labels) or labels[1].isdigit():
        return None
    return f"{labels[1]}/{labels[0]}"


def host_matches(pattern: str, host: str) -> bool:
    """Tell whether a normal host is `pattern`, or lies under it when it begins with `*.`."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


class ServiceRouter:
    """The rules of one service, indexed by path at first use."""

    def __init__(self, section: RoutesSection) -> None:
        self.section = section
        self._exact: dict[str, list[int]] = {}
        self._prefix: dict[str, list[int]] = {}
        self._any: list[int] = []
        self._prefix_chars_max = 0
        self._indexed = False

    def find_untrusted(self, host: str, path: str, method: str, headers: Headers) -> Route | None:
        """Return the first rule that takes the request, None when none does.

        Args:
            host: the `Host` as received.
            path: the target as received (origin form), query included or not.
            headers: (name, value) in order; read only when a rule asks for a header.

        Raises:
            MalformedInput: a path that can be read in two ways; answer 400. State unchanged.
        """
        matched = matched_path_untrusted(path)
        if not self._indexed:
            self._index()
        name: str | None = None
        routes = self.section.routes
        for index in self._candidates(matched):
            route = routes[index]
            if route.match.method is not None and route.match.method != method:
                continue
            if route.hostnames:
                name = normal_host(host) if name is None else name
                if not any(host_matches(pattern, name) for pattern in route.hostnames):
                    continue
            if route.match.headers and not _headers_match(route.match.headers, headers):
                continue
            return route
        return None

    def _index(self) -> None:
        for index, route in enumerate(self.section.routes):
            path = route.match.path
            if path is None or (path.kind == "prefix" and path.value == "/"):
                self._any.append(index)
            elif path.kind == "exact":
                self._exact.setdefault(path.value, []).append(index)
            else:
                self._prefix.setdefault(path.value, []).append(index)
                self._prefix_chars_max = max(self._prefix_chars_max, len(path.value))
        self._indexed = True

    def _candidates(self, path: str) -> Sequence[int]:
        if not self._exact and not self._prefix:
            return self._any
        found = [self._any, self._exact.get(path, [])]
        if self._prefix:
            # Ancestors longer than the longest prefix are skipped: a path of thousands of elements
            # costs no more than a short one.
            longest = self._prefix_chars_max
            end = len(path) if len(path) <= longest else path.rfind("/", 0, longest + 1)
            while end > 0:
                found.append(self._prefix.get(path[:end], []))
                end = path.rfind("/", 0, end)
        lists = [indexes for indexes in found if indexes]
        if len(lists) == 1:
            return lists[0]
        return sorted(index for indexes in lists for index in indexes)


class RouteTable:
    """All services a snapshot routes; immutable, swapped as a whole."""

    def __init__(self, routers: dict[str, ServiceRouter] | None = None) -> None:
        self._routers = routers or {}

    @classmethod
    def build(cls, sections: Iterable[RoutesSection], previous: "RouteTable | None" = None) -> "RouteTable":
        """Return a table of `sections`; routers of sections that are the same objects are kept."""
        routers: dict[str, ServiceRouter] = {}
        for section in sections:
            old = previous.router(section.service) if previous is not None else None
            keep = old is not None and old.section is section
            routers[section.service] = old if old is not None and keep else ServiceRouter(section)
        return cls(routers)

    def router(self, service: str) -> ServiceRouter | None:
        """Return the rules of `service`, None when the snapshot has none (a reason for `demand`)."""
        return self._routers.get(service)

    def find(self, host: str, path: str, method: str, headers: Headers) -> Route | None:
        """Return the rule that takes a request addressed by `Host`; None for no service or no rule.

        Raises:
            MalformedInput: a path that can be read in two ways; answer 400. State unchanged.
        """
        service = service_of_host(host)
        router = None if service is None else self._routers.get(service)
        return None if router is None else router.find_untrusted(host, path, method, headers)


def pick_backend(route: Route, random: float) -> str | None:
    """Return the upstream whose share of the weights `random` (0 <= random < 1) falls into.

    Returns:
        None when the rule has no backend with a weight: answer 500 `NC`.
    """
    backends = route.backends
    if len(backends) == 1 and backends[0].weight > 0:
        return backends[0].upstream
    total = sum(backend.weight for backend in backends)
    point = random * total
    for backend in backends:
        if point < backend.weight:
            return backend.upstream
        point -= backend.weight
    # Rounding may leave the point on the far edge: the last backend with a weight owns it.
    return next((backend.upstream for backend in reversed(backends) if backend.weight > 0), None)


def _headers_match(wanted: Sequence[HeaderMatch], headers: Headers) -> bool:
    present: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        present[key] = f"{present[key]},{value}" if key in present else value
    return all(present.get(header.name) == header.value for header in wanted)
