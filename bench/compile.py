"""What a snapshot costs: 10,000 endpoints and 2,000 routes cold, then after one endpoint changed.

`python -m bench.run --only compile` prints milliseconds. The aims: cold within 1,000 ms, one change
within 20 ms.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

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
from gossipmesh.testing.builders import OneEndpoint, serving
from gossipmesh.traffic.compiler import (
    DEFAULT_LIMITS,
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
        OneEndpoint(
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
    return SnapshotInputs("mesh.example", "n0", (), serving(catalog), policies, wanted, DEFAULT_LIMITS)


def _route(name: str, service: str, path: str) -> HTTPRoute:
    rule = HTTPRouteRule(
        backendRefs=(BackendRef(service),), matches=(HTTPRouteMatch(path=PathMatchSpec(value=path)),)
    )
    spec = HTTPRouteSpec(parentRefs=(ParentRef(service),), rules=(rule,))
    return HTTPRoute(API_VERSIONS["HTTPRoute"], Metadata(name, "shop"), spec)


def _changed(inputs: SnapshotInputs, service: str, weight: int) -> SnapshotInputs:
    """Return inputs in which the first endpoint of a service has another weight."""
    first, *others = inputs.serving[service]
    entries = (msgspec.structs.replace(first.entries[0], weight=weight),)
    members = (msgspec.structs.replace(first, entries=entries), *others)
    return msgspec.structs.replace(inputs, serving={**inputs.serving, service: members})


def measure(services: int) -> dict[str, float | int]:
    """Compile cold, then CHANGES times with one endpoint changed; return milliseconds."""
    inputs = make_inputs(services)
    compiler = SnapshotCompiler()
    began = time.perf_counter()
    snapshot = compiler.compile(inputs)
    cold_ms = (time.perf_counter() - began) * 1_000
    changes_ms = []
    for number in range(CHANGES):
        inputs = _changed(inputs, f"shop/s{number % services}", 50 + number)
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


async def measure_compile(say: Callable[[str], None]) -> dict[str, Any]:
    """Measure meshes of many small services and of one large one."""
    results = [measure(services) for services in (1_000, 1)]
    for result in results:
        say(
            f"compile {result['services']} services: cold {result['cold_ms']} ms (aim 1000), one endpoint"
            f" changed {result['change_median_ms']} ms (worst {result['change_max_ms']}, aim 20)"
        )
    return {"meshes": results}
