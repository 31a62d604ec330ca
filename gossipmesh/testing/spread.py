"""How evenly requests spread over endpoints, in virtual time: `python -m gossipmesh.testing.spread`.

One caller's balancer, `concurrency` requests under way at any time, service times drawn anew for each
request (log-normal around one median, now and then ten times as long), answered in order of their end.
"""

import argparse
import json
import random
import sys
from heapq import heappop, heappush

from gossipmesh.model.instant import MILLISECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import SnapshotEndpoint, UpstreamSection
from gossipmesh.traffic.balance import Balancer, Try
from gossipmesh.traffic.compiler import DEFAULT_LIMITS
from gossipmesh.traffic.endpoints import EndpointStates
from gossipmesh.traffic.outcomes import Outcome

NOISE_SIGMA = 0.35  # a quarter of the requests take 1.3 times the median and more
HICCUP_SHARE = 0.01
HICCUP_FACTOR = 10
LINE = "{endpoints:3} endpoints, {concurrency:2} at once: {median:6.1%} median, {worst:6.1%} worst"


def shares(
    weights: list[int],
    concurrency: int,
    *,
    requests: int,
    seed: int,
    slowness: list[float] | None = None,
    median_ns: int = 2 * MILLISECOND_NS,
) -> list[float]:
    """Return each endpoint's share of the requests.

    Args:
        slowness: by how much each endpoint's service times are longer than the median; 1 by default.
    """
    rng = random.Random(seed)
    slow = slowness or [1.0] * len(weights)
    balancer = Balancer(_upstream(weights), DEFAULT_LIMITS, EndpointStates())
    places = {endpoint.node: at for at, endpoint in enumerate(balancer.section.endpoints)}
    counts = [0] * len(weights)
    under_way: list[tuple[int, int, Try]] = []
    now = 0
    for number in range(requests):
        while len(under_way) >= concurrency:
            now, _, attempt = heappop(under_way)
            balancer.answered(attempt, Instant(now))
            balancer.finished(attempt, Instant(now), Outcome.SUCCESS)
        endpoint = balancer.pick(rng, Instant(now))
        assert endpoint is not None
        at = places[endpoint.node]
        counts[at] += 1
        took = median_ns * slow[at] * rng.lognormvariate(0, NOISE_SIGMA)
        took *= HICCUP_FACTOR if rng.random() < HICCUP_SHARE else 1
        heappush(under_way, (now + int(took), number, balancer.started(endpoint, Instant(now))))
    return [count / requests for count in counts]


def worst_error(weights: list[int], concurrency: int, *, requests: int, seed: int) -> float:
    """Return the largest relative distance of a share from its weight's."""
    total = sum(weights)
    got = shares(weights, concurrency, requests=requests, seed=seed)
    return max(abs(share * total / weight - 1) for share, weight in zip(got, weights, strict=True))


def _upstream(weights: list[int]) -> UpstreamSection:
    endpoints = tuple(
        SnapshotEndpoint(
            registration="cart",
            node=f"n{at:02d}",
            address=Address(f"10.0.0.{at + 1}", 15008),
            server_name="cart.cart.shop.mesh.example",
            spiffe_id="spiffe://mesh.example/ns/shop/svc/cart",
            tier=0,
            weight=weight,
        )
        for at, weight in enumerate(weights)
    )
    return UpstreamSection("shop/cart", "shop/cart", "http", endpoints)


def main() -> int:
    """Print, for equal endpoints, how far the shares are from even: median and worst of the seeds."""
    parser = argparse.ArgumentParser(prog="gossipmesh.testing.spread", description=main.__doc__)
    parser.add_argument("--requests", type=int, default=200, help="requests per endpoint (200)")
    parser.add_argument("--seeds", type=int, default=21, help="runs of each kind (21)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args()
    for count in (2, 3, 30):
        for concurrency in (1, 2, 32):
            errors = sorted(
                worst_error([100] * count, concurrency, requests=options.requests * count, seed=seed)
                for seed in range(options.seeds)
            )
            row = {
                "endpoints": count,
                "concurrency": concurrency,
                "requests": options.requests * count,
                "median": round(errors[len(errors) // 2], 4),
                "worst": round(errors[-1], 4),
            }
            sys.stdout.write((json.dumps(row) if options.json else LINE.format(**row)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
