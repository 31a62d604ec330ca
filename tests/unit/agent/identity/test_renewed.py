"""An answer that brings another credential key is taken in an order the core can follow."""

from collections.abc import Sequence

import msgspec
import pytest

from gossipmesh.agent.identity.renewed import CoreStep, RenewedIdentity
from gossipmesh.model.documents import Signer, SignerRole
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.records import SignedRecord
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.keys import Verifier


class Mesh:
    """Two nodes at rest, one of which renews: a credential of the key in Trust 1, or of the next one."""

    def __init__(self, disk_ns: int = 0) -> None:
        self.run = Run(1, nodes_count=2, loss_ratio=0.0, verifier=Verifier(10_000))
        self.run.boot_and_settle()
        self.host = self.run.hosts[1]
        self.host.disk.latency_ns = disk_ns
        domain, trust = self.run.domain, self.run.domain.trust
        self.next_key = domain.signing_key("credential again")
        signer = Signer("credential-2", SignerRole.CREDENTIAL, self.next_key.public.hex())
        named = msgspec.structs.replace(trust, version=2, signers=(*trust.signers, signer))
        kept = [one for one in named.signers if one.name != "credential"]
        dropped = msgspec.structs.replace(named, version=3, signers=tuple(kept))
        self.trust = [domain.trust_envelope, domain.sign_trust(named), domain.sign_trust(dropped)]
        self.steps = 0
        self.renewed = RenewedIdentity(self.run.factory.documents[self.host.name], self.step)

    def step(self, step: CoreStep) -> None:
        self.steps += 1
        self.run.invariants.disturbed(self.run.world, [])
        self.run.world.call(self.host, step)

    def credential(self, *, by_next: bool) -> SignedRecord:
        domain = self.run.domain
        former = domain.credential_key
        domain.credential_key = self.next_key if by_next else former
        try:
            return domain.node(self.host.identity, serial=5).credential
        finally:
            domain.credential_key = former

    def serial_at(self, other: Host) -> int:
        keys = self.run.core(other).keys_of(self.run.node_id(self.host))
        return int(keys.serial)

    def everywhere(self, serial: int) -> bool:
        self.run.world.run_for(3 * SECOND_NS)
        return [self.serial_at(host) for host in self.run.hosts] == [serial] * 2


def take(mesh: Mesh, trust: Sequence[bytes], *, by_next: bool) -> None:
    mesh.renewed.take(trust, mesh.credential(by_next=by_next))


def test_an_answer_under_the_trust_in_force_is_one_step() -> None:
    mesh = Mesh()
    take(mesh, mesh.trust[:1], by_next=False)
    assert mesh.steps == 1
    assert not mesh.renewed.waits
    assert mesh.everywhere(5)


def test_a_credential_of_a_key_that_came_while_we_were_away_follows_its_trust() -> None:
    mesh = Mesh()
    take(mesh, mesh.trust, by_next=True)
    assert not mesh.renewed.waits
    assert mesh.run.trust_version(mesh.host) == 3
    assert mesh.serial_at(mesh.host) == 5


def test_it_waits_until_trust_is_on_disk() -> None:
    mesh = Mesh(disk_ns=200 * MILLISECOND_NS)
    take(mesh, mesh.trust, by_next=True)
    assert mesh.renewed.waits
    mesh.renewed.go_on()
    assert mesh.renewed.waits
    mesh.run.world.run_for(SECOND_NS)
    mesh.renewed.go_on()
    assert not mesh.renewed.waits
    assert mesh.serial_at(mesh.host) == 5


def test_trust_that_does_not_follow_ours_is_told_and_the_credential_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mesh = Mesh()
    with caplog.at_level("ERROR", "gossipmesh.agent.identity.renewed"):
        take(mesh, mesh.trust[2:], by_next=True)
    assert mesh.renewed.waits
    take(mesh, mesh.trust[:1], by_next=False)
    assert not mesh.renewed.waits, "a later answer takes its place"
    assert mesh.everywhere(5)
