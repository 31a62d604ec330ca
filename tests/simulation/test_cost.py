"""What a packet costs a core of a mesh at rest: calls of functions, which no busy machine changes."""

import sys
from collections.abc import Callable
from types import FrameType, SimpleNamespace
from typing import Any

from gossipmesh.gossip.replay.recorded_inputs import RecordedInputs, Told
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.testing.simulator.priming import boot_known
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.keys import Verifier

NODES = 12
# For each packet sent and received, with all that timers do between them. What was reached is the bound, and
# a little; it may fall, and what lets it rise is paid by every agent at rest.
CALLS_PER_PACKET_MAX = 88


class Counter:
    """Counts calls of our own functions within inputs of cores."""

    def __init__(self) -> None:
        self.calls_count = 0

    def take(self, now: Instant, call: Callable[..., Told], *arguments: Any) -> Told:
        """Have a core take an input."""
        sys.setprofile(self._count)
        try:
            return call(*arguments)
        finally:
            sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and "/gossipmesh/" in frame.f_code.co_filename:
            self.calls_count += 1


def test_a_packet_of_a_mesh_at_rest_takes_few_calls() -> None:
    counter = Counter()
    run = Run(1, nodes_count=NODES, loss_ratio=0.0, verifier=Verifier(100_000))
    boot_known(run)
    run.world.run_for(10 * SECOND_NS)
    for host in run.hosts:
        recorder: Any = SimpleNamespace(inputs=RecordedInputs(run.core(host), counter))
        host.recorder = recorder
    packets_before = run.world.datagrams_count
    run.world.run_for(20 * SECOND_NS)
    packets_count = run.world.datagrams_count - packets_before
    assert packets_count > 20 * 4 * NODES  # each sends four beats a second
    assert counter.calls_count / packets_count <= CALLS_PER_PACKET_MAX
