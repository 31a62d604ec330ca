"""How one record spreads among more nodes than there is memory for: a model, not the cores.

Ten thousand cores that each know ten thousand members would be a hundred million entries; here a node is
whether it knows. What it does then is the core's, by the core's own settings: it forwards at once to a few,
and sends again with each tick, each heartbeat and each ping until it has sent as often as `sends_max` says.
Links are the simulator's. Left out: what else fills packets, budgets (one record does not reach them), acks,
streams and repair, all of which the real cores have; the same model at 1,000 nodes stands beside them.
"""

import heapq
import random
from collections.abc import Iterator
from typing import Any, Final

from gossipmesh.gossip.base.settings import GossipSettings
from gossipmesh.gossip.dissemination.queue import sends_max
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.testing.simulator.network import LinkSettings

SIZES: Final = (1_000, 10_000)
RECORDS_COUNT: Final = 30
LOSS: Final = 0.05
MOST: Final = 0.999


def measure_models() -> list[dict[str, Any]]:
    """Spread some records among each number of nodes; return when most knew them, in seconds."""
    told = []
    for nodes in SIZES:
        times = [spread(nodes, LOSS, random.Random(f"{nodes}/{number}")) for number in range(RECORDS_COUNT)]
        told.append({"nodes": nodes, "loss": LOSS, "most_s": [round(time / SECOND_NS, 3) for time in times]})
    return told


def spread(nodes: int, loss: float, rng: random.Random) -> int:
    """Return when `MOST` of the nodes knew a record that one of them published at 0, in ns."""
    settings, link = GossipSettings(), LinkSettings()
    limit = sends_max(settings.transmit_mult, nodes)
    many = nodes > settings.eager_many_members
    fanout = settings.eager_fanout_many if many else settings.eager_fanout
    wanted = nodes - int(nodes * (1 - MOST) + 1e-6)
    knows = bytearray(nodes)
    heap: list[tuple[int, int]] = [(0, rng.randrange(nodes))]
    known = 0
    while heap:
        at_ns, node = heapq.heappop(heap)
        if knows[node]:
            continue
        knows[node] = 1
        known += 1
        if known >= wanted:
            return at_ns
        for sent_ns in _sendings(at_ns, fanout, limit, settings, rng):
            other = _other(node, nodes, rng)
            if not knows[other] and rng.random() >= loss:
                delay_ns = link.delay_ns + int(rng.random() * link.jitter_ns)
                heapq.heappush(heap, (sent_ns + delay_ns, other))
    raise AssertionError("a record died out before most knew it")


def _other(node: int, nodes: int, rng: random.Random) -> int:
    other = rng.randrange(nodes - 1)
    return other + (other >= node)


def _sendings(
    at_ns: int, fanout: int, limit: int, settings: GossipSettings, rng: random.Random
) -> Iterator[int]:
    """Yield when a node that learns a record at `at_ns` sends it on: at once, then as its packets leave."""
    yield from (at_ns for _ in range(fanout))
    monitor = settings.monitor
    packets = [(at_ns + settings.tick_interval_ns, settings.tick_interval_ns, settings.tick_fanout)]
    for interval_ns in (monitor.heartbeat_slot_ns, monitor.probe_interval_ns):
        packets.append((at_ns + rng.randrange(interval_ns), interval_ns, 1))
    while limit > 0:
        packets.sort()
        next_ns, interval_ns, count = packets.pop(0)
        packets.append((next_ns + interval_ns, interval_ns, count))
        yield from (next_ns for _ in range(min(count, limit)))
        limit -= count
