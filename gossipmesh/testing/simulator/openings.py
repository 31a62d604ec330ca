"""Named scenarios of nodes that are closed: who may answer calls when, and what opens whom.

A part of `scenarios`. That a node whose core says that it is closed answers no call is its agent's part.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gossipmesh.gossip.base.effects import Persist, PersistKind
from gossipmesh.gossip.dissemination.opening import FEWER_AFTER_NS
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import Address
from gossipmesh.model.opening import CLOSED, OPENED_BY_HAND, Enrolled
from gossipmesh.testing.builders import http_route
from gossipmesh.testing.simulator import enemy
from gossipmesh.testing.simulator.host import GOSSIP_PORT, Host
from gossipmesh.testing.simulator.run import Run

NOBODY: Final = Address("10.9.9.9", GOSSIP_PORT)
OPENS_NS_MAX: Final = 5 * SECOND_NS
HELD_OFF_NS: Final = 35 * SECOND_NS
LONG_NS: Final = FEWER_AFTER_NS + 30 * SECOND_NS
LOOK_NS: Final = 10 * MILLISECOND_NS


def closed_joiners(run: Run) -> None:
    """One is kept off gossip, one has wrong seeds, one cannot verify the set in force: all closed."""
    run.boot_and_settle()
    run.push_policy(run.pick(), 1, [http_route("first")])
    run.settle()
    others = [host.name for host in run.hosts]
    rule = run.world.partition("kept-off", ["late"], others)
    late = _join(run, "late", run.seeds())
    _require_closed(run, late, HELD_OFF_NS)
    run.world.heal(rule)
    run.measure("kept_off_opened_s", _wait_open(run, late))
    run.invariants.expects_convergence = False
    lost = _join(run, "lost", [NOBODY])
    _require_closed(run, lost, LONG_NS)
    run.invariants.disturbed(run.world, [])
    run.world.call(lost, lambda core, now: core.seeds_changed(run.seeds(), now))
    run.measure("new_seeds_opened_s", _wait_open(run, lost))
    run.invariants.expects_convergence = True
    run.settle()
    _refuse_and_resign(run)


def _refuse_and_resign(run: Run) -> None:
    """Trust drops the signer of the set in force, which stays; who joins now waits for one it knows."""
    trust = run.domain.trust_document(2)
    signers = tuple(
        msgspec.structs.replace(one, scopes=("mesh",) if one.name == "other" else ("elsewhere",))
        if one.scopes
        else one
        for one in trust.signers
    )
    envelope = run.domain.sign_trust(msgspec.structs.replace(trust, signers=signers))
    run.invariants.disturbed(run.world, [])
    run.world.call(run.pick(), lambda core, now: core.offer_trust(envelope, now))
    run.settle()
    run.invariants.expects_convergence = False
    refusing = _join(run, "refusing", run.seeds(), [envelope])
    _require_closed(run, refusing, LONG_NS)
    refused = [status.refused_version for status in run.core(refusing).own_state.policies]
    run.require(refused == [1], f"{refusing.name} does not say which set it cannot verify, but {refused}")
    run.require(not _closed(run, run.hosts[:-1]), "a member that was open was closed")
    accepted = run.domain.policy_set(2, [http_route("second")], signers=["other"])
    documents = run.factory.documents[refusing.name].check_untrusted(accepted)
    run.invariants.signed("mesh", 2, documents.manifest_hash)
    run.invariants.disturbed(run.world, [])
    run.offer(run.hosts[0], accepted)
    run.measure("resigned_opened_s", _wait_open(run, refusing))
    run.invariants.expects_convergence = True
    run.settle()
    run.require_policy("mesh", 2)


def closed_claims(run: Run) -> None:
    """A member that believes anything runs what nobody can verify: it closes nobody, and keeps nobody out."""
    run.boot_and_settle()
    run.push_policy(run.hosts[0], 3, [http_route("good")])
    run.settle()
    hostile = run.pick(but_not=[run.hosts[0]])
    enemy.make_gullible(run, hostile)
    run.offer(hostile, dict(enemy.bad_policy_sets(run, 3))["unsigned"])
    run.invariants.expects_convergence = False
    run.world.run_for(3 * SECOND_NS)
    honest = [host for host in run.running() if host is not hostile]
    run.require(not _closed(run, honest), "a claim closed a member that was open")
    run.measure("opened_s", _wait_open(run, _join(run, "newcomer", run.seeds())))
    enemy.replace(run, hostile)
    run.publish(hostile)
    run.invariants.expects_convergence = True
    run.wait_all_alive(30 * SECOND_NS)
    run.settle()


def founding(run: Run) -> None:
    """The founder serves beside seeds that are not up; each enrolled after it opens by those before."""
    run.invariants.watch(run.world)
    worst_ns = 0
    for number, host in enumerate(run.hosts, 1):
        host.enrolled = Enrolled(number, number == 1)
        run.world.start(host, [other.address for other in run.hosts[:3] if other is not host])
        if number == 1:
            run.require(not run.core(host).opening.is_closed, f"{host.name} founds the mesh and is closed")
        worst_ns = max(worst_ns, _wait_open(run, host))
        run.publish(host)
    run.measure("opened_worst_s", worst_ns)
    run.wait_all_alive(30 * SECOND_NS)
    run.settle()


def restart_parted(run: Run) -> None:
    """All machines lose power and come back from their disks while halves are parted: everybody serves."""
    founding(run)
    run.push_policy(run.pick(), 1, [http_route("kept")])
    run.settle()
    for host in run.hosts:
        run.world.kill_node(host)
    left, right = run.halves()
    rule = run.world.partition("halves", left, right)
    for host in run.hosts:
        run.world.start(host)
        run.require(not run.core(host).opening.is_closed, f"{host.name} forgot that it was open")
        run.publish(host)
    run.world.run_for(LONG_NS)
    run.require(not _closed(run, run.hosts), "a partition closed somebody")
    run.world.heal(rule)
    run.wait_all_alive(60 * SECOND_NS)
    run.settle()
    run.require_policy("mesh", 1)


def fleet_without_disks(run: Run) -> None:
    """Every disk is lost, and no authority says who founds: all wait, and one command opens them all."""
    founding(run)
    for host in run.hosts:
        run.world.kill_node(host)
    for host in run.hosts:
        host.disk.wipe()
        run.world.faults.fire("lose-disk")
        host.enrolled = Enrolled(len(run.hosts), is_founder=False)
    run.world.run_for(20 * SECOND_NS)
    for host in run.hosts:
        run.world.start(host, run.seeds())
        run.publish(host)
    run.world.run_for(LONG_NS)
    run.require(len(_closed(run, run.hosts)) == len(run.hosts), "somebody opened without anybody's word")
    first = run.pick()
    run.world.call(first, lambda core, now: core.open_by_hand(now))
    run.measure("all_opened_s", max(_wait_open(run, host) for host in run.hosts))
    run.settle()
    for host in run.hosts:
        told = [one.name for one in run.core(host).members() if OPENED_BY_HAND in one.state.features]
        run.require(told == [first.name], f"{host.name} knows {told} as opened by hand")


def few_alive(run: Run) -> None:
    """Two of all that are enrolled are alive: a joiner waits a minute for a third, and opens."""
    run.boot_and_settle()
    survivors = run.hosts[:2]
    for host in run.hosts[2:]:
        run.world.kill_node(host)
    run.world.run_for(20 * SECOND_NS)
    joiner = _join(run, "joiner", [host.address for host in survivors])
    _require_closed(run, joiner, FEWER_AFTER_NS - SECOND_NS)
    run.measure("opened_s", _wait_open(run, joiner))
    for host in run.hosts[2:-1]:
        run.world.start(host)
        run.publish(host)
    run.wait_all_alive(60 * SECOND_NS)
    run.settle()


OPENINGS: Final[dict[str, Callable[[Run], None]]] = {
    "closed-joiners": closed_joiners,
    "closed-claims": closed_claims,
    "founding": founding,
    "restart-parted": restart_parted,
    "fleet-without-disks": fleet_without_disks,
    "few-alive": few_alive,
}


def _join(run: Run, name: str, seeds: Sequence[Address], trusts: Sequence[bytes] = ()) -> Host:
    """Start a node that was enrolled just now, with versions of Trust after the first from its authority."""
    host = run.world.add_host(name)
    host.enrolled = Enrolled(len(run.hosts) + 1, is_founder=False)
    host.wall_skew_s = run.script.randint(-30, 30)
    for version, envelope in enumerate(trusts, 2):
        host.disk.write(Persist(PersistKind.TRUST, version.to_bytes(8, "big"), envelope, durable=True))
    run.hosts.append(host)
    run.world.start(host, seeds)
    return host


def _require_closed(run: Run, host: Host, duration_ns: int) -> None:
    """Let time pass; all the while the host is closed, and its signed state says so."""
    opened = run.world.run_until_true(lambda: not run.core(host).opening.is_closed, duration_ns, LOOK_NS)
    run.require(not opened, f"{host.name} opened, and nothing says that it may")
    run.require(CLOSED in run.core(host).own_state.features, f"{host.name} is closed and does not say so")


def _wait_open(run: Run, host: Host) -> int:
    """Let time pass until a host answers calls; return how long that took."""
    began_ns = run.world.now_ns
    opened = run.world.run_until_true(lambda: not run.core(host).opening.is_closed, OPENS_NS_MAX, LOOK_NS)
    run.require(opened, f"{host.name} does not open: {run.core(host).opening}")
    return run.world.now_ns - began_ns


def _closed(run: Run, hosts: Sequence[Host]) -> list[str]:
    return [host.name for host in hosts if run.core(host).opening.is_closed]
