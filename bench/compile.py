"""What a snapshot costs: 10,000 endpoints and 2,000 routes cold, then after one endpoint changed.

`python -m bench.compile [--services N]` prints milliseconds and, with --json, one object. The aims
are TRAFFIC.md's: cold within 1,000 ms, one change within 20 ms.
"""

import argparse
import json
import statistics
import time

import msgspec

from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.policy import (
    API_VERSIONS,
    BackendRef,
    HTTPRoute,
    HTTPRouteMatch,
    HTTPRouteRule,
    HTTPRouteSpec,
    Metadata,
    ParentRef,
    PathMatchSpec,
)
from gossipmesh.model.service import EndpointHealth
from gossipmesh.traffic.compiler import (
    DEFAULT_LIMITS,
    CatalogEndpoint,
    PolicyInput,
    SnapshotCompiler,
    SnapshotInputs,
)

ENDPOINTS = 10_000
ROUTES = 2_000
CHANGES = 20


def make_inputs(services: int) -> SnapshotInputs:
    """Return a mesh of ENDPOINTS endpoints spread over `services`, and ROUTES routes."""
    names = [f"s{number}" for number in range(services)]
    catalog = tuple(
        CatalogEndpoint(
            registration=names[number % services],
            service=f"shop/{names[number % services]}",
            protocol="http",
            labels={"version": f"v{number % 3}"},
            weight=100,
            health=EndpointHealth.PASSING,
            draining=False,
            node=f"n{number}",
            address=Address(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}", 15008),
            status=MemberStatus.ALIVE,
        )
        for number in range(ENDPOINTS)
    )
    policies = tuple(
        PolicyInput(_route(f"r{number}", names[number % services], f"/part/{number}"), number)
        for number in range(ROUTES)
    )
    wanted = tuple(f"shop/{name}" for name in names)
    return SnapshotInputs("mesh.example", "n0", (), catalog, policies, wanted, DEFAULT_LIMITS)


def _route(name: str, service: str, path: str) -> HTTPRoute:
    rule = HTTPRouteRule(
        backendRefs=(BackendRef(service),), matches=(HTTPRouteMatch(path=PathMatchSpec(value=path)),)
    )
    spec = HTTPRouteSpec(parentRefs=(ParentRef(service),), rules=(rule,))
    return HTTPRoute(API_VERSIONS["HTTPRoute"], Metadata(name, "shop"), spec)


def measure(services: int) -> dict[str, float | int]:
    """Compile cold, then CHANGES times with one endpoint changed; return milliseconds."""
    inputs = make_inputs(services)
    compiler = SnapshotCompiler()
    began = time.perf_counter()
    snapshot = compiler.compile(inputs)
    cold_ms = (time.perf_counter() - began) * 1_000
    changes_ms = []
    for number in range(CHANGES):
        catalog = list(inputs.catalog)
        catalog[number] = msgspec.structs.replace(catalog[number], weight=50 + number)
        inputs = msgspec.structs.replace(inputs, catalog=tuple(catalog))
        began = time.perf_counter()
        compiler.compile(inputs)
        changes_ms.append((time.perf_counter() - began) * 1_000)
    return {
        "services": services,
        "endpoints": ENDPOINTS,
        "routes": ROUTES,
        "bytes": sum(len(data) for data in snapshot.sections.values()),
        "cold_ms": round(cold_ms, 1),
        "change_median_ms": round(statistics.median(changes_ms), 1),
        "change_max_ms": round(max(changes_ms), 1),
    }


def main() -> None:
    """Measure meshes of many small services and of one large one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, action="append", help="may be repeated; default 1000 and 1")
    parser.add_argument("--json", action="store_true", help="print one object")
    options = parser.parse_args()
    results = [measure(services) for services in options.services or (1_000, 1)]
    if options.json:
        print(json.dumps({"compile": results}))
        return
    for result in results:
        print(
            f"{result['services']:>5} services: cold {result['cold_ms']} ms (aim 1000),"
            f" one endpoint changed {result['change_median_ms']} ms"
            f" (worst {result['change_max_ms']}, aim 20), {result['bytes']} bytes"
        )


if __name__ == "__main__":
    main()
