"""Enemies inside: members with a good credential that forge records and offer bad policy.

They reach into their own core on purpose; the honest cores get nothing but their bytes.
"""

import hashlib
from typing import Any

import msgspec

from gossipmesh.gossip import rehearsal
from gossipmesh.model.documents import Manifest
from gossipmesh.model.identity import NodeId
from gossipmesh.model.member import MemberStatus, NodePhase
from gossipmesh.model.records import NodeState, RecordKind, ServiceSet, SignedRecord
from gossipmesh.testing.builders import http_route, seal_policy_set, service_entry
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import Run
from gossipmesh.testing.swim.claims import CLAIM, Claim
from gossipmesh.trust.documents import AcceptedSet, PolicyRefusal, PolicySet, TrustedDocuments
from gossipmesh.trust.envelope import MANIFEST_PAYLOAD_TYPE, decode_envelope_untrusted, seal_envelope
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.datagram import encode_message

EPOCH_FAR = 2**62


class GullibleDocuments(TrustedDocuments):
    """Documents of a hostile member: everything decodable is accepted."""

    def check_untrusted(self, policy_set: PolicySet) -> AcceptedSet:
        """Accept the set unseen."""
        payload = decode_envelope_untrusted(policy_set.manifest).payload
        manifest = msgspec.json.decode(payload, type=Manifest)
        digest = hashlib.sha256(payload).digest()
        return AcceptedSet(manifest.scope, manifest.version, digest, manifest, (), policy_set)

    def adopt(self, accepted: AcceptedSet) -> None:
        """Put it in force whatever the floor says."""
        self._floors[accepted.scope] = accepted.floor
        self._in_force[accepted.scope] = accepted


def make_gullible(run: Run, host: Host) -> None:
    """Make a member accept, announce and serve whatever it is given."""
    run.factory.documents[host.name].__class__ = GullibleDocuments
    run.invariants.hostile.append(host.name)
    run.invariants.expects_convergence = False


def replace(run: Run, host: Host) -> None:
    """Replace a hostile machine by an honest one of its name, enrolled anew."""
    run.world.kill_agent(host)
    run.world.replace_disk(host)
    run.invariants.hostile.remove(host.name)
    run.world.start(host, run.seeds())
    run.invariants.expects_convergence = True


def bad_policy_sets(run: Run, base_version: int) -> list[tuple[str, PolicySet]]:
    """Return sets nobody may take, each with the code it must be refused by."""
    domain = run.domain
    evil = [http_route("evil")]
    good = domain.policy_set(base_version + 1, evil)
    envelope = decode_envelope_untrusted(good.manifest)
    manifest = msgspec.json.decode(envelope.payload, type=Manifest)
    stolen = msgspec.structs.replace(manifest, version=base_version + 3)
    unsigned = seal_envelope(MANIFEST_PAYLOAD_TYPE, envelope.payload, [])
    altered = msgspec.structs.replace(
        envelope, payload=envelope.payload.replace(b'"requires":[]', b'"requires":[ ]')
    )
    return [
        ("hash", PolicySet(good.manifest, tuple(body + b" " for body in good.bodies))),
        ("unsigned", PolicySet(unsigned.to_bytes(), good.bodies)),
        ("signature", PolicySet(altered.to_bytes(), good.bodies)),
        ("signature", seal_policy_set(stolen, evil, [domain.signing_key("thief")])),
        ("scope", domain.policy_set(base_version + 4, evil, signers=["other"])),
        ("features", domain.policy_set(base_version + 5, evil, requires=["teleport"])),
        ("older", domain.policy_set(base_version - 1, [http_route("old")])),
    ]


def refused_at_the_door(run: Run, host: Host, code: str, policy_set: PolicySet) -> None:
    """An honest node refuses the set with the expected code when it is offered in person."""
    try:
        run.offer(host, policy_set)
    except PolicyRefusal as refusal:
        run.require(refusal.code == code, f"{host.name} refused by {refusal.code!r}, not {code!r}")
        return
    run.require(False, f"{host.name} took a set that had to be refused: {code}")


def require_refusals_everywhere(run: Run, hostile: Host) -> None:
    """Every honest node says in its own record that it refused something."""
    for host in run.running():
        if host is not hostile:
            refused = any(p.refused_version for p in run.core(host).own_state.policies)
            run.require(refused, f"{host.name} does not say that it refused anything")


def forged_records(run: Run, hostile: Host, victim: Host) -> list[SignedRecord]:
    """Return records about `victim` that `victim` never signed; the thief's key signed them all."""
    keys = run.domain.node(hostile.name, generation=hostile.generation)
    state: NodeState = run.core(victim).own_state
    node_id = NodeId(state.node_id)
    above = msgspec.structs.replace(state, sequence=state.sequence + 5)
    far = msgspec.structs.replace(state, epoch=EPOCH_FAR)
    services = ServiceSet(
        node_id, state.generation, state.epoch, state.sequence + 9, (service_entry("shop/evil"),)
    )
    other = run.pick(but_not=[hostile, victim])
    claim = Claim(
        node_id,
        state.generation,
        state.epoch,
        state.sequence,
        MemberStatus.DEAD,
        run.core(other).own_node_id,
    )
    values: list[tuple[int, Any]] = [
        (RecordKind.NODE_STATE, msgspec.structs.replace(above, phase=int(NodePhase.LEFT))),
        (RecordKind.NODE_STATE, far),
        (RecordKind.SERVICE_SET, services),
        (RecordKind.SERVICE_SET, msgspec.structs.replace(services, epoch=EPOCH_FAR)),
        (CLAIM, claim),
        (CLAIM, msgspec.structs.replace(claim, epoch=EPOCH_FAR)),
    ]
    forged = [sign_record(run.domain.trust_domain, kind, value, keys.signing) for kind, value in values]
    unknown = SignedRecord(200, forged[3].body, forged[3].signature)
    lie = msgspec.structs.replace(claim, epoch=EPOCH_FAR, accuser=keys.node_id)
    return [*forged, unknown, sign_record(run.domain.trust_domain, CLAIM, lie, keys.signing)]


def send_records(run: Run, hostile: Host, target: Host, records: list[SignedRecord]) -> None:
    """Send records from one member to another in properly sealed packets."""
    node_id = run.core(target).own_node_id
    messages = [encode_message(record) for record in records]
    run.world.call(hostile, lambda core, now: rehearsal.say(core, node_id, messages))
