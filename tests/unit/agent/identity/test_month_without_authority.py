"""Thirty days with no signer alive, in virtual time: real keys, real certificates, real files.

Keys turn weekly, services come, nodes restart; each quarter of a day every node judges every other by the
one function that engines judge by, at the date it is then.
"""

import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from gossipmesh.agent.engine.pin_index import PinIndex, listed_pins
from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.agent.identity.identity_store import fresh_key, load_identity, write_identity
from gossipmesh.agent.identity.key_turning import KeyTurning, LeafKey
from gossipmesh.model.errors import PeerRefused
from gossipmesh.model.identity import SHORT_ID_BYTES, parse_spiffe_id, service_spiffe_id
from gossipmesh.model.instant import DAY_S, SECOND_NS, Instant, WallSeconds
from gossipmesh.model.member_keys import MemberKeys
from gossipmesh.model.records import IdentityPins
from gossipmesh.net.clock import wall_seconds
from gossipmesh.trust.carrier import carrier_root_pem
from gossipmesh.trust.peer_identity import Dialled, Ground, PeerFacts, Presented, identify_untrusted
from gossipmesh.trust.peer_tables import CredentialTable, PinTable
from gossipmesh.trust.svid import check_chain_untrusted
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted
from tests.unit.enrolment_kit import running_authority

DOMAIN: Final = "mesh.test"
NAMES: Final = ("n1", "n2", "n3", "n4")
STEP_S: Final = DAY_S // 4
DAYS: Final = 30
PERIOD_S: Final = 7 * DAY_S


class Mesh:
    """Nodes whose sets and credentials all hold at once, an engine each, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.began = wall_seconds()
        self.passed_s = 0
        self.known: dict[bytes, MemberKeys] = {}
        self.index = PinIndex(self)
        assert list(self.index.begin()) == []
        self.nodes = {name: Node(self, name) for name in NAMES}

    def each_keys(self) -> Iterator[MemberKeys]:
        yield from self.known.values()

    def keys_of(self, node_id: bytes) -> MemberKeys | None:
        return self.known.get(node_id)

    @property
    def wall(self) -> WallSeconds:
        return WallSeconds(self.began + self.passed_s)

    @property
    def now(self) -> Instant:
        return Instant(self.passed_s * SECOND_NS)

    def facts(self) -> PeerFacts:
        identity = next(iter(self.nodes.values())).identity
        pins = {int(shard, 16): entries for shard, entries in self.index.pins.items()}
        credentials = {int(shard, 16): entries for shard, entries in self.index.credentials.items()}
        roots = frozenset(certificates_in_pem_untrusted(identity.bundle_pem))
        return PeerFacts(DOMAIN, roots, frozenset(), PinTable(pins), CredentialTable(credentials))


class Node:
    """One node: a file on disk, the machine, and what its engine shows."""

    def __init__(self, mesh: Mesh, name: str) -> None:
        self.mesh = mesh
        self.services: list[str] = []
        self.folder = mesh.folder / name
        self.shown: dict[str, LeafKey] = {}
        self.turns_count = self.restarts_count = 0
        self.start()

    def start(self) -> None:
        """Start from what is on disk."""
        identity = load_identity(self.folder)
        assert identity is not None
        self.identity = identity
        self.turning = KeyTurning(
            identity.holding,
            period_s=PERIOD_S,
            make_key=fresh_key,
            now=self.mesh.now,
            wall=self.mesh.wall,
        )

    def restart(self) -> None:
        self.restarts_count += 1
        self.start()

    def step(self) -> None:
        """Do all that is to be done, as an agent would."""
        services = (service_spiffe_id(DOMAIN, service) for service in self.services)
        self.turning.want([self.identity.spiffe_id, *self.identity.holding.keys, *services])
        self.turns_count += self.turning.turn_if_due(self.mesh.now, self.mesh.wall)
        for _ in range(6):
            holding = self.turning.begin_write()
            if holding is not None:
                self.identity = replace(self.identity, holding=holding)
                write_identity(self.folder, self.identity)
                self.turning.written(is_on_disk=True)
            pins = self.turning.to_publish
            if pins is not None:
                self.publish()
                self.turning.published(pins)
            self.turning.heard(len(NAMES) - 1, len(NAMES) - 1)
            self.shown = self.turning.to_show
            self.turning.shown({name: key.pin for name, key in self.shown.items()})
        assert self.turning.is_settled

    def publish(self) -> None:
        body = self.identity.credential_body
        entries = tuple(
            IdentityPins(parse_spiffe_id(name)[1], keys.pins)
            for name, keys in self.identity.holding.keys.items()
        )
        keys = MemberKeys(
            body.node_id, self.identity.name, body.generation, body.serial, body.ends, True, False, entries
        )
        self.mesh.known[body.node_id] = keys
        self.mesh.index.take(body.node_id, keys)

    def chain(self, name: str) -> tuple[bytes, bytes]:
        """Return what the engine shows as `name` now, and the roots above it: PEM."""
        key, now = self.shown[name], self.mesh.wall
        if key.chain_pem and key.not_before <= now <= key.not_after:
            return key.chain_pem, self.identity.bundle_pem
        return self.identity.carrier_pem(name, key), carrier_root_pem(DOMAIN)

    def presented(self, name: str) -> Presented:
        chain_pem, root_pem = self.chain(name)
        leaf, *above = certificates_in_pem_untrusted(chain_pem)
        return Presented(leaf, (*above, *certificates_in_pem_untrusted(root_pem)))


@pytest.fixture
async def mesh(tmp_path: Path) -> Mesh:
    """Four nodes that were enrolled for shop/*; their authority is gone for good."""
    async with running_authority(tmp_path / "authority") as authority:
        for name in NAMES:
            await enrol(tmp_path / name, authority.token(tmp_path / f"{name}.token", name, ("shop/*",)))
    return Mesh(tmp_path)


def judge_everybody(mesh: Mesh) -> None:
    """Let every node be caller and callee under each of its identities, with our own code for dates."""
    facts = mesh.facts()
    for node in mesh.nodes.values():
        keys = mesh.keys_of(node.identity.credential_body.node_id)
        short_id = node.identity.credential_body.node_id[:SHORT_ID_BYTES]
        for name in node.shown:
            pins = listed_pins(keys, parse_spiffe_id(name)[1])
            for dialled in (None, Dialled(name, short_id, pins)):
                peer = identify_untrusted(node.presented(name), facts, dialled)
                assert (peer.spiffe_id, peer.ground, peer.node) == (name, Ground.LISTED, short_id)
            chain_pem, root_pem = node.chain(name)
            assert check_chain_untrusted(chain_pem, root_pem, mesh.wall).spiffe_id == name


def openssl_says(folder: Path, node: Node, wall: int) -> str:
    """Return what `openssl verify` says of the node's own chain at a date."""
    chain_pem, root_pem = node.chain(node.identity.spiffe_id)
    (folder / "chain.pem").write_bytes(chain_pem)
    (folder / "root.pem").write_bytes(root_pem)
    files = ["-CAfile", str(folder / "root.pem"), "-untrusted", str(folder / "chain.pem")]
    words = ["openssl", "verify", "-attime", str(wall), *files, str(folder / "chain.pem")]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


async def test_thirty_days_without_a_signer(mesh: Mesh, tmp_path: Path) -> None:
    rng = random.Random(30)
    first: dict[str, Presented] = {}
    for step in range(DAYS * DAY_S // STEP_S + 1):
        mesh.passed_s = step * STEP_S
        for node in mesh.nodes.values():
            if rng.random() < 0.1:
                node.restart()
            if rng.random() < 0.02:
                node.services.append(f"shop/service-{step}")
            node.step()
        judge_everybody(mesh)
        if step == 0:
            first = {name: node.presented(node.identity.spiffe_id) for name, node in mesh.nodes.items()}
        if step % 28 == 0:
            for node in mesh.nodes.values():
                assert "OK" in openssl_says(tmp_path, node, mesh.wall)
    for name, node in mesh.nodes.items():
        assert node.identity.credential_body.ends > mesh.wall, "credentials outlast the month"
        assert node.turns_count >= 3, f"{name} turned {node.turns_count} times"
        own = Dialled(node.identity.spiffe_id, node.identity.credential_body.node_id[:SHORT_ID_BYTES])
        with pytest.raises(PeerRefused):
            identify_untrusted(first[name], mesh.facts(), own)
    assert sum(node.restarts_count for node in mesh.nodes.values()) > 20
    assert sum(len(node.services) for node in mesh.nodes.values()) > 3
