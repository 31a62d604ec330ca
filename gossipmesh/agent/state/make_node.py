"""Make the gossip core of an agent: from configuration, identity and disk to a node that can start."""

from collections.abc import Sequence
from functools import partial

from gossipmesh import __version__
from gossipmesh.agent.config import AgentConfig
from gossipmesh.agent.identity.identity_store import NodeIdentity
from gossipmesh.agent.state.restore import own_address, restore_state
from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.gossip.base.settings import (
    FAST,
    STEADY,
    GossipSettings,
    NodeKeys,
    NodeProfile,
    RestoredState,
)
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.recorder import FlightRecorder
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.member import Address
from gossipmesh.net.clock import monotonic, wall_offset_s, wall_seconds
from gossipmesh.net.entropy import seeded_random
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import Verifier
from gossipmesh.wire.versions import KEY_SETS, MEMBER_FEATURES


def restored_state(identity: NodeIdentity, store: StateStore, *, enrolled_now: bool) -> RestoredState:
    """Return what this node knew when it ended, as far as its credential is good for it."""
    credential = identity.credential_body
    # A clock below the date that the authority signed last counts as that date.
    now = WallSeconds(max(wall_seconds(), credential.not_before))
    return restore_state(
        store,
        now,
        ends=WallSeconds(credential.ends),
        enrolled_now=enrolled_now,
        enrolled=identity.enrolled,
    )


def make_node(
    config: AgentConfig,
    identity: NodeIdentity,
    documents: TrustedDocuments,
    verifier: Verifier,
    *,
    restored: RestoredState,
    seeds: Sequence[Address],
    recorder: FlightRecorder | None,
) -> GossipNode:
    """Return the core; with a recorder, one whose inputs are recorded from the first on.

    Raises:
        OperatorError: the credential does not verify under Trust. State unchanged.
    """
    gossip = own_address(config.gossip_bind, config.gossip_advertise, seeds, "gossip")
    mesh = own_address(config.mesh_bind, config.mesh_advertise, seeds, "mesh")
    make = GossipNode if recorder is None else partial(recorder.build, GossipNode)
    try:
        return make(
            settings=GossipSettings(monitor=STEADY if config.profile == "steady" else FAST),
            trust_domain=identity.trust_domain,
            keys=NodeKeys(identity.credential, identity.signing, identity.exchange),
            profile=NodeProfile(identity.name, (gossip,), (mesh,), __version__, _features(identity)),
            documents=documents,
            verifier=verifier,
            restored=restored,
            rng=seeded_random(),
            now=monotonic(),
            wall_offset_s=wall_offset_s(),
        )
    except MalformedInput as error:
        raise OperatorError(
            f"the credential of {identity.name} cannot be used ({error}); enrol this node again"
        ) from None


def _features(identity: NodeIdentity) -> tuple[str, ...]:
    """Return what the node says of itself.

    Whoever reads that it publishes key sets takes no other key than a listed one. A node that an older build
    ran has endpoints in use and no set yet: its first set says so, and never comes after the word.
    """
    if identity.holding.turned:
        return MEMBER_FEATURES
    return tuple(feature for feature in MEMBER_FEATURES if feature != KEY_SETS)
