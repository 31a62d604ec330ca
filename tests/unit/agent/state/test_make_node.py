"""What a node says of itself from its first state on."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.agent.state.make_node import make_node
from gossipmesh.gossip.base.settings import RestoredState
from gossipmesh.model.member import Address
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import Verifier
from gossipmesh.wire.versions import KEY_SETS, MEMBER_FEATURES, POLICY_FEATURES
from tests.unit.enrolment_kit import running_authority

CONFIG: Any = SimpleNamespace(
    gossip_bind=Address("127.0.0.1", 7948),
    gossip_advertise=None,
    mesh_bind=Address("127.0.0.1", 15008),
    mesh_advertise=None,
    profile="fast",
)


@pytest.mark.parametrize(("turned", "says"), [(0, False), (1_800_000_000, True)])
async def test_a_node_that_0_2_ran_says_that_it_signs_key_sets_by_its_first_set_alone(
    tmp_path: Path, turned: int, says: bool
) -> None:
    """Its endpoints are in use: the word without the set would have all others refuse its keys."""
    async with running_authority(tmp_path / "authority") as authority:
        identity = await enrol(tmp_path / "identity", authority.token(tmp_path / "token", "n1", ()))
    identity = replace(identity, holding=msgspec.structs.replace(identity.holding, turned=turned))
    verifier = Verifier()
    documents = TrustedDocuments(
        trust_domain=identity.trust_domain, verifier=verifier, features=POLICY_FEATURES
    )
    for envelope in identity.trust_envelopes:
        documents.load_trust_untrusted(envelope)
    node = make_node(CONFIG, identity, documents, verifier, restored=RestoredState(), seeds=(), recorder=None)
    unsaid = set() if says else {KEY_SETS}
    assert set(node.own_state.features) == set(MEMBER_FEATURES) - unsaid
