"""A simulated mesh one of whose nodes has a flight recorder: `... simulator record FILE [--nodes N]`.

The mesh knows itself from the start, a checkpoint is taken, one member is killed, and the file says how the
recorded node saw that. `... simulator replay FILE` does it again.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.checkpoint import take_checkpoint
from gossipmesh.gossip.replay.recorder import FlightRecorder
from gossipmesh.gossip.replay.recording import state_of
from gossipmesh.gossip.replay.rekeying import Own, make_recording
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.simulator.priming import boot_known
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.keys import Verifier

RECORDED: Final = "n3"
_VERIFIER: Final = Verifier(4_000_000)
_CHECKPOINT_INTERVAL_NS: Final = 4 * SECOND_NS
_WINDOW_NS: Final = 8 * SECOND_NS
_DEATH_NS_MAX: Final = 60 * SECOND_NS


class RecordedMesh:
    """A run of a scenario's mesh whose node `RECORDED` is recorded."""

    def __init__(self, run: Run, recorder: FlightRecorder) -> None:
        self.run = run
        self.host = run.world.hosts[RECORDED]
        self.recorder = self.host.recorder = recorder

    @property
    def core(self) -> GossipNode:
        """Return the recorded core."""
        core = self.run.core(self.host)
        assert isinstance(core, GossipNode)
        return core

    def kill_another(self) -> str:
        """Kill a node, wait until everyone holds it dead, and return its name."""
        victim = self.run.hosts[4]
        self.run.world.kill_node(victim)
        self.run.wait_status(victim, MemberStatus.DEAD, _DEATH_NS_MAX)
        return victim.name

    def file(self) -> bytes:
        """Return what the flight recorder's file of this moment is."""
        keys = self.run.domain.node(RECORDED)
        own = Own(
            name=RECORDED,
            node_id=self.core.own_node_id,
            runs=self.core.runs,
            trust_domain=self.run.domain.trust_domain,
            exchange=keys.exchange,
            throwaway_seed=random.Random(7).randbytes(32),
            signing_public=keys.signing.public,
        )
        ending = state_of(self.core)
        return make_recording(self.recorder.tape(), own, build="simulated", wall_offset_s=0, ending=ending)


def record_a_kill(nodes_count: int, seed: int = 1) -> RecordedMesh:
    """Return a primed mesh in which a member was killed while its recorder had a checkpoint before that."""
    recorder = FlightRecorder(
        checkpoint=take_checkpoint, checkpoint_interval_ns=_CHECKPOINT_INTERVAL_NS, window_ns=_WINDOW_NS
    )
    run = Run(seed, nodes_count=nodes_count, loss_ratio=0.05, verifier=_VERIFIER)
    mesh = RecordedMesh(run, recorder)
    boot_known(run)
    # What priming did to the core is no input; only a checkpoint after it begins something that replays.
    run.world.run_for(_WINDOW_NS + 2 * _CHECKPOINT_INTERVAL_NS)
    mesh.kill_another()
    return mesh


def main(words: Sequence[str]) -> int:
    """Record a kill as `words` say and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gossipmesh.testing.simulator record")
    parser.add_argument("file", type=Path)
    parser.add_argument("--nodes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(words)
    mesh = record_a_kill(options.nodes, options.seed)
    data = mesh.file()
    options.file.write_bytes(data)
    tape = mesh.recorder.tape()
    print(  # noqa: T201
        f"{options.file}: {len(data)} bytes, {len(tape.entries)} inputs over "
        f"{(tape.ended - tape.began) / SECOND_NS:.1f} s since a checkpoint of "
        f"{len(tape.beginning) if isinstance(tape.beginning, bytes) else 0} bytes with "
        f"{len(mesh.core.members())} members"
    )
    return 0
