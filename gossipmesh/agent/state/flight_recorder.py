"""The flight recorder of an agent: makes a file of what `gossip.replay.recorder` holds, off the loop.

The file holds no key. It does hold what members say to this node, what this node drew at random until now,
and its members' records: it is for the operator's eyes, 0600. What the node draws afterwards cannot be told
from it.
"""

import trio

from gossipmesh import __version__
from gossipmesh.agent.identity.identity_store import NodeIdentity
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.recorder import FlightRecorder
from gossipmesh.gossip.replay.recording import code_fingerprint, state_of
from gossipmesh.gossip.replay.rekeying import Own, make_recording
from gossipmesh.net.clock import wall_offset_s
from gossipmesh.net.entropy import random_bytes

_SEED_BYTES = 32


def build_name() -> str:
    """Return what names this build in a file: only the same code replays it. Taken at the agent's start."""
    return f"{__version__}+{code_fingerprint()}"


async def record(recorder: FlightRecorder, node: GossipNode, identity: NodeIdentity, build: str) -> bytes:
    """Return a file of the last minutes. Cost: 20 us an input, in a thread."""
    tape, ending = recorder.tape(), state_of(node)
    recorder.stir(random_bytes(_SEED_BYTES))
    own = Own(
        name=identity.name,
        node_id=node.own_node_id,
        runs=node.runs,
        trust_domain=identity.trust_domain,
        exchange=identity.exchange,
        throwaway_seed=random_bytes(_SEED_BYTES),
        signing_public=identity.signing.public,
    )
    offset_s = wall_offset_s()
    return await trio.to_thread.run_sync(
        lambda: make_recording(tape, own, build=build, wall_offset_s=offset_s, ending=ending)
    )
