"""Stories of disks that take their time: nobody may notice it, nor suffer from a power cut in the midst."""

from collections.abc import Callable
from typing import Final

from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.builders import http_route
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import Run

LATENCY_NS: Final = 300 * MILLISECOND_NS
SLOT_NS: Final = 250 * MILLISECOND_NS  # of a heartbeat
SETS: Final = 6
TRUSTS: Final = 5
PHASES: Final = (0, LATENCY_NS // 2, LATENCY_NS - 1, LATENCY_NS + 1)  # since a durable write was asked for


def slow_disk(run: Run) -> None:
    """Every durable write takes 300 ms: sets, Trust, restarts; no beat is late, nobody votes; a verdict."""
    _slow_down(run)
    run.boot_and_settle()
    restarted, rolled_back = run.sample(2, but_not=[run.hosts[0]])
    others = [host for host in run.hosts if host not in (restarted, rolled_back)]
    older = rolled_back.disk.copy()
    sent = {host.name: _beats(run, host) for host in others}
    began_ns = run.world.now_ns
    for version in range(1, SETS + 1):
        run.push_policy(run.pick(), version, [http_route(f"cart-{version}")])
        run.world.run_for(SECOND_NS)
    teacher = run.pick()
    for version in range(2, TRUSTS + 2):
        _offer_trust(run, teacher, version)
    run.world.run_for(3 * SECOND_NS)
    _restart(run, restarted)
    _restart(run, rolled_back)
    _restart(run, rolled_back, lambda: run.world.roll_back_disk(rolled_back, older))
    run.wait_all_alive(10 * SECOND_NS)
    run.settle()
    run.require_policy("mesh", SETS)
    for host in run.running():
        run.require(run.trust_version(host) == TRUSTS + 1, f"{host.name} lacks Trust {TRUSTS + 1}")
    if run.votes:
        slots = (run.world.now_ns - began_ns) // SLOT_NS
        for host in others:
            beats = _beats(run, host) - sent[host.name]
            run.require(beats >= slots - 1, f"{host.name} sent {beats} beats in {slots} slots")
        votes = sum(run.core(host).statistics().votes_cast for host in run.running())
        run.require(votes == 0, f"{votes} votes were cast against nodes whose disks are slow")
    _condemn(run, run.pick(but_not=[run.hosts[0]]))
    resumed_ns = run.world.now_ns
    run.wait_all_alive(30 * SECOND_NS)
    run.measure("answered_s", run.world.now_ns - resumed_ns)
    run.settle()


def slow_disk_crashes(run: Run) -> None:
    """Power is lost at each kind of durable write: as it begins, in its midst, before and after its end."""
    _slow_down(run)
    run.boot_and_settle()
    version, trust = 0, 1
    for phase_ns in PHASES:
        for kind in ("set", "trust", "start", "answer", "fetched"):
            host = run.pick(but_not=[run.hosts[0]])
            if kind == "set":
                version += 1
                run.push_policy(host, version, [http_route(f"cart-{version}")])
            elif kind == "fetched":
                version += 1
                run.push_policy(run.hosts[0], version, [http_route(f"cart-{version}")])
                run.world.run_until_true(lambda host=host: host.is_writing, 2 * SECOND_NS, MILLISECOND_NS)  # type: ignore[misc]
            elif kind == "trust":
                trust += 1
                _offer_trust(run, host, trust)
            elif kind == "start":
                run.world.kill_agent(host)
                run.world.run_for(SECOND_NS)
                run.world.start(host)
            else:
                _condemn(run, host)
                run.world.run_until_true(lambda host=host: host.is_writing, 2 * SECOND_NS, MILLISECOND_NS)  # type: ignore[misc]
            run.world.run_for(phase_ns)
            run.world.kill_node(host)
            run.world.run_for(run.draw_ns(0.1, 2))
            run.world.start(host)
            run.publish(host)
            run.wait_all_alive(60 * SECOND_NS)
            # What was lost with the power is signed again: its number may not be used for anything else.
            if kind == "set":
                run.push_again(host)
            elif kind == "trust":
                _offer_trust(run, host, trust)
            run.world.run_for(3 * SECOND_NS)
            run.wait_equal_sums(10 * SECOND_NS)
    run.settle()
    run.require_policy("mesh", version)


SLOW_DISKS: Final[dict[str, Callable[[Run], None]]] = {
    "slow-disk": slow_disk,
    "slow-disk-crashes": slow_disk_crashes,
}


def _slow_down(run: Run) -> None:
    for host in run.hosts:
        host.disk.latency_ns = LATENCY_NS


def _beats(run: Run, host: Host) -> int:
    return int(run.core(host).statistics().heartbeats_sent)


def _offer_trust(run: Run, host: Host, version: int) -> None:
    envelope = run.domain.sign_trust(run.domain.trust_document(version))
    run.world.call(host, lambda core, now: core.offer_trust(envelope, now))


def _restart(run: Run, host: Host, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Restart an agent as an operator does, who tells of it first."""
    run.world.call(host, lambda core, now: core.set_restarting(30, now))
    run.world.run_for(SECOND_NS)
    run.world.kill_agent(host)
    meanwhile()
    run.world.start(host)
    run.publish(host)
    run.world.run_for(2 * SECOND_NS)


def _condemn(run: Run, host: Host) -> None:
    """Stop a process until all hold it dead or unattended, and let it run on."""
    run.world.pause(host)
    run.world.run_until_true(
        lambda: all(
            run.held_as(other, run.node_id(host)) in (MemberStatus.DEAD, MemberStatus.UNATTENDED)
            for other in run.running()
        ),
        30 * SECOND_NS,
        100 * MILLISECOND_NS,
    )
    run.world.resume(host)
