"""What one endpoint costs an agent on its way from a signed record to the bytes its engine is given.

`python -m bench.endpoint_path [MEMBERS]`: a core that knows MEMBERS signed members of three services each,
one of which all of them serve, and the feed and compiler of an agent behind it; no sockets, no timers. A
record comes in which one endpoint fails its check, or passes it again. CPU is of this process; bytes are what
Python allocated: `peak` at most at one time during the change, `kept` after it. Ends with one JSON object.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from bench.gossip_swarm import START, Swarm, paper_swarm
from gossipmesh.agent.engine.catalog_feed import CatalogFeed
from gossipmesh.agent.engine.peer_facts import PeerFacts
from gossipmesh.dataplane.protocol import SnapshotOffer, encode_frame
from gossipmesh.gossip import rehearsal
from gossipmesh.gossip.base.effects import MemberChanged, Notify, ServicesChanged
from gossipmesh.model.engine_features import SECTION_FEATURES
from gossipmesh.model.identity import node_id_of, node_spiffe_id
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.records import RecordKind, ServiceSet, SignedRecord
from gossipmesh.model.service import ServiceEntry
from gossipmesh.traffic.sections import Snapshot
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import Verifier
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.datagram import decode_body_untrusted, encode_body, encode_message
from gossipmesh.wire.versions import FEATURES

NAMES: Final = 100
WANTED: Final = 20
CHANGES: Final = 60
_OWN: Final = 2_000_001


def services_of(number: int) -> tuple[str, ...]:
    """Return what a member serves: what all serve, and two of the two hundred."""
    return ("all", f"s{number % NAMES}", f"t{number % NAMES}")


class Agent:
    """A core, and behind it what an agent has, up to the bytes of a frame."""

    def __init__(self, swarm: Swarm, members: tuple[tuple[bytes, bytes], ...], folder: Path) -> None:
        self.swarm = swarm
        self.node = swarm.node(_OWN, members)
        documents = TrustedDocuments(trust_domain=swarm.domain, verifier=Verifier(1), features=FEATURES)
        self.feed = CatalogFeed(
            trust_domain=swarm.domain,
            node="node-own",
            catalog=self.node,
            documents=documents,
            local=lambda: (),
            snapshot_path=folder / "snapshot.bin",
            deliver=self._deliver,
            peers=PeerFacts(self.node, documents, features=lambda: SECTION_FEATURES, hears=lambda: True),
            clock=lambda: Instant(self.now),
        )
        self.now = START + SECOND_NS
        self.frame_bytes = 0
        self.deliveries = 0
        self._held: frozenset[bytes] = frozenset()
        self._sequence = 10

    def _deliver(self, snapshot: Snapshot) -> None:
        lacking = tuple(data for digest, data in snapshot.sections.items() if digest not in self._held)
        self._held = frozenset(snapshot.sections)
        offer = SnapshotOffer(1, snapshot.version, dict(snapshot.root), lacking)
        try:
            self.frame_bytes = len(encode_frame(offer))
        except ValueError:  # longer than a frame: an agent sends it in several
            self.frame_bytes = sum(map(len, lacking))
        self.deliveries += 1

    def demand(self, *services: str) -> None:
        """Have these compiled."""
        for service in services:
            self.feed.demand(service)

    def record(self, number: int, changed: str, health: int) -> bytes:
        """Return a packet's body with a record in which one service of a member is of that health."""
        self._sequence += 1
        who = self.swarm.identity(number)
        entries = tuple(
            ServiceEntry(
                name, f"shop/{name}", "http", health if name == changed else 1, False, 100, (("zone", "a"),)
            )
            for name in services_of(number)
        )
        node_id = node_id_of(node_spiffe_id(self.swarm.domain, who.name))
        services = ServiceSet(node_id, 1, 1, self._sequence, entries)
        record = sign_record(self.swarm.domain, RecordKind.SERVICE_SET, services, who.signing)
        return encode_body([encode_message(record)])

    async def take(self, body: bytes) -> None:
        """Take a packet's body, and do what follows."""
        self.now += SECOND_NS
        (record,) = decode_body_untrusted(body)
        assert isinstance(record, SignedRecord)
        for effect in rehearsal.hear(self.node, record, Instant(self.now)):
            if isinstance(effect, Notify) and isinstance(effect.event, MemberChanged | ServicesChanged):
                self.feed.endpoints_changed(effect.event.endpoints)
        if self.feed.has_changes:
            await self.feed.compile()  # as it does when its quiet is over


async def one_change(agent: Agent, changed: Callable[[int], str]) -> dict[str, Any]:
    """Change one endpoint again and again; return what each cost."""
    bodies = [
        agent.record(7 + NAMES * (turn // 2 % 5), changed(7), 2 if turn % 2 == 0 else 1)
        for turn in range(CHANGES)
    ]
    await agent.take(bodies[0])
    spent, deliveries = [], agent.deliveries
    for body in bodies[1:-10]:
        began = time.process_time_ns()
        await agent.take(body)
        spent.append((time.process_time_ns() - began) / 1e3)
    counted = agent.deliveries - deliveries
    tracemalloc.start()
    peaks, kept = [], []
    for body in bodies[-10:]:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        await agent.take(body)
        after, peak = tracemalloc.get_traced_memory()
        peaks.append(peak - before)
        kept.append(after - before)
    tracemalloc.stop()
    return {
        "cpu_us": round(statistics.median(spent)),
        "peak_bytes": round(statistics.median(peaks)),
        "kept_bytes": round(statistics.median(kept)),
        "snapshots_a_change": round(counted / len(spent), 2),
        "frame_bytes": agent.frame_bytes,
    }


async def measure(members_count: int, folder: Path) -> dict[str, Any]:
    """Load a whole catalog, compile for it, then change one endpoint of services small, large and unasked."""
    swarm = dataclasses.replace(paper_swarm(), services_of=services_of)
    kept = tuple(swarm.records_of(number) for number in range(members_count))
    began = time.process_time_ns()
    agent = Agent(swarm, kept, folder)
    loaded = time.process_time_ns()
    agent.demand("shop/all", *(f"shop/s{number}" for number in range(WANTED)))
    await agent.feed.compile()
    compiled = time.process_time_ns()
    result: dict[str, Any] = {
        "members": members_count,
        "load_ms": round((loaded - began) / 1e6, 1),
        "first_compile_ms": round((compiled - loaded) / 1e6, 1),
        "large": await one_change(agent, lambda number: "all"),
        "small": await one_change(agent, lambda number: f"s{number % NAMES}"),
        "unasked": await one_change(agent, lambda number: f"t{number % NAMES}"),
    }
    tracemalloc.start()
    agent = Agent(swarm, kept, folder)
    result["core_bytes_a_member"] = round(tracemalloc.get_traced_memory()[0] / members_count)
    agent.demand("shop/all", *(f"shop/s{number}" for number in range(WANTED)))
    await agent.feed.compile()
    result["all_bytes_a_member"] = round(tracemalloc.get_traced_memory()[0] / members_count)
    tracemalloc.stop()
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("members", type=int, nargs="?", default=1_000)
    options = parser.parse_args()
    if options.members < 1:
        parser.error(f"members is a number from 1 up, not {options.members}")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(trio.run(measure, options.members, Path(folder))))


if __name__ == "__main__":
    try:
        main()
    except* KeyboardInterrupt:
        sys.exit("endpoint_path: stopped; nothing was measured")
