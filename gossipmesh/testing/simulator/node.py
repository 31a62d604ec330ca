"""Builds the real gossip core of a simulated host from its disk, as the agent does at its start."""

import random
from functools import partial

from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.gossip.base.settings import (
    GossipSettings,
    NodeKeys,
    NodeProfile,
    RestoredState,
)
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS, Instant, WallSeconds
from gossipmesh.model.opening import KeptOpening, Unconfirmed, unconfirmed_at_start
from gossipmesh.model.records import SignedRecord
from gossipmesh.testing.builders import VALID_UNTIL_S, TrustDomainBuilder
from gossipmesh.testing.simulator.host import Host
from gossipmesh.trust.documents import TrustedDocuments, decode_policy_set_untrusted
from gossipmesh.trust.keys import Verifier
from gossipmesh.wire.codec import decode_untrusted
from gossipmesh.wire.versions import FEATURES

EPOCH_BYTES_MAX = 16
FLOOR_BYTES_MAX = 64


class NodeFactory:
    """Makes cores; one memo of pure signature checks serves them all, and is counted.

    `features` are what nodes say of themselves; `documents` holds what each host's current run believes, for
    the checks of scenarios; `renewed` the credentials that hosts were given since, by (name, generation): an
    agent keeps its own on its disk.
    """

    def __init__(
        self, domain: TrustDomainBuilder, verifier: Verifier, settings: GossipSettings | None = None
    ) -> None:
        self.domain = domain
        self.verifier = verifier
        self.settings = settings or GossipSettings()
        self.node_class: type[GossipNode] = GossipNode
        self.documents_class: type[TrustedDocuments] = TrustedDocuments
        self.documents: dict[str, TrustedDocuments] = {}
        self.credential_ends = VALID_UNTIL_S
        self.features: tuple[str, ...] = FEATURES
        self.renewed: dict[tuple[str, int], SignedRecord] = {}
        self._enrolled: dict[str, int] = {}

    def __call__(self, host: Host, rng: random.Random, now: Instant, wall_offset_s: int) -> GossipNode:
        """Read the disk and build a core that was not started yet."""
        documents = self.documents[host.name] = self._restore_documents(host)
        epochs = host.disk.entries(PersistKind.EPOCH)
        unconfirmed = _unconfirmed(host, now // SECOND_NS + wall_offset_s)
        if epochs:
            epoch = decode_untrusted(epochs[0][1], int, bytes_max=EPOCH_BYTES_MAX)
        else:  # a disk that was lost may have held any epoch: civil time is above them all
            is_new = self._enrolled.get(host.name) != host.generation
            epoch = 0 if is_new else now // SECOND_NS + wall_offset_s
        if host.disk.is_damaged:
            epoch, host.disk.is_damaged = max(epoch, now // SECOND_NS + wall_offset_s), False
        self._enrolled[host.name] = host.generation
        members = tuple(host.disk.entries(PersistKind.MEMBER))
        roll = tuple(piece for _, piece in host.disk.entries(PersistKind.ROLL))
        restored = RestoredState(epoch, members, unconfirmed=unconfirmed, roll=roll)
        return self.build(host, documents, restored, rng, now, wall_offset_s)

    def build(
        self,
        host: Host,
        documents: TrustedDocuments,
        restored: RestoredState,
        rng: random.Random,
        now: Instant,
        wall_offset_s: int,
    ) -> GossipNode:
        """Build a core from what was restored."""
        keys = self.domain.node(host.identity, generation=host.generation, ends=self.credential_ends)
        credential = self.renewed.get((host.identity, host.generation), keys.credential)
        make = self.node_class if host.recorder is None else partial(host.recorder.build, self.node_class)
        return make(
            settings=self.settings,
            trust_domain=self.domain.trust_domain,
            keys=NodeKeys(credential, keys.signing, keys.exchange),
            profile=NodeProfile(host.identity, (host.address,), (host.mesh_address,), "sim", self.features),
            documents=documents,
            verifier=self.verifier,
            restored=restored,
            rng=rng,
            now=now,
            wall_offset_s=wall_offset_s,
        )

    def _restore_documents(self, host: Host) -> TrustedDocuments:
        documents = self.documents_class(
            trust_domain=self.domain.trust_domain, verifier=self.verifier, features=FEATURES
        )
        documents.load_trust_untrusted(self.domain.trust_envelope)
        for _, envelope in host.disk.entries(PersistKind.TRUST):
            documents.load_trust_untrusted(envelope)
        for scope, value in host.disk.entries(PersistKind.FLOOR):
            version, manifest_hash = decode_untrusted(value, tuple[int, bytes], bytes_max=FLOOR_BYTES_MAX)
            documents.restore_floor(scope.decode(), version, manifest_hash)
        for _, value in host.disk.entries(PersistKind.POLICY_SET):
            try:
                documents.restore_untrusted(decode_policy_set_untrusted(value))
            except MalformedInput:
                continue  # a set older than its floor: written before a crash between the two
        return documents


def _unconfirmed(host: Host, wall_s: int) -> Unconfirmed | None:
    """Return what a host begins with, as an agent reads it from its disk; most stories begin open."""
    if host.enrolled is None:
        return None
    found = host.disk.entries(PersistKind.OPENING)
    value = decode_untrusted(found[0][1], KeptOpening, bytes_max=FLOOR_BYTES_MAX) if found else None
    has_run = bool(host.disk.entries(PersistKind.EPOCH))
    return unconfirmed_at_start(
        value, host.enrolled, WallSeconds(wall_s), has_run=has_run, is_damaged=host.disk.is_damaged
    )
