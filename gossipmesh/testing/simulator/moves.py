"""The story of nodes whose addresses change while they run: found again by everybody, without a hand.

A part of `scenarios`. Each move is bounded, and measured under its own name.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from gossipmesh.gossip.base.effects import Effect
from gossipmesh.gossip.base.settings import NodeAddresses
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import LOOK_NS, Run

MOVED_NS_MAX: Final = 10 * SECOND_NS
NOTICED_NS: Final = 60 * MILLISECOND_NS  # what an agent waits for more news of its kernel
RESOLVED_NS: Final = SECOND_NS
OVERLAP_NS: Final = 2 * SECOND_NS
UNHEARD_NS: Final = {"unheard_alive": SECOND_NS, "unheard_dead": 8 * SECOND_NS}
GAPS_NS: Final = {"at_once": 0, "half_a_second": SECOND_NS // 2, "five_seconds": 5 * SECOND_NS}


def moved(run: Run) -> None:
    """Nodes get other addresses one by one, some at one moment, one whose word of it is lost, and then all.

    The new address comes before the old one goes, at once, half a second and five seconds after it. Within
    ten seconds everybody has it and holds its node alive, whatever was said of it before; nobody else is
    ever held dead, and nobody who moved is kept out.
    """
    run.boot_and_settle()
    _overlapping(run, run.pick())
    for name, gap_ns in GAPS_NS.items():
        _lose_and_find(run, name, gap_ns, [run.pick()])
    several = run.sample(max(1, len(run.hosts) // 5))
    _lose_and_find(run, "several", GAPS_NS["five_seconds"], several)
    for name, unheard_ns in UNHEARD_NS.items():
        _unheard(run, name, unheard_ns, run.pick())
    _everybody(run)
    kept_out = sum(run.core(host).statistics().quarantines for host in run.hosts)
    run.require(kept_out == 0, f"who moved was kept out on {kept_out} nodes")


def _overlapping(run: Run, host: Host) -> None:
    before = host.address.host
    run.world.give_address(host, _new_address(run, host))
    run.world.run_for(OVERLAP_NS)
    run.world.take_address_away(host, before)
    _notice(run, "overlapping", [host])
    run.require(not run.invariants.was_given_up(host), f"{host.name} was given up while it had an address")


def _lose_and_find(run: Run, name: str, gap_ns: int, hosts: list[Host]) -> None:
    for host in hosts:
        run.world.take_address_away(host, host.address.host)
    run.world.run_for(gap_ns)
    for host in hosts:
        run.world.give_address(host, _new_address(run, host))
    _notice(run, name, hosts)


def _unheard(run: Run, name: str, unheard_ns: int, host: Host) -> None:
    """Let one move while nothing passes, so that no word of it arrives; only that it speaks can tell."""
    rule = run.world.partition(name, [host.name], [other.name for other in run.hosts if other is not host])
    run.world.take_address_away(host, host.address.host)
    run.world.give_address(host, _new_address(run, host))
    _tell(run, [host])
    run.world.run_for(unheard_ns)
    run.world.heal(rule)
    _wait_found(run, name, [host])


def _everybody(run: Run) -> None:
    """Let all move at one moment: they meet again once their agents have resolved the seeds' names anew."""
    for host in run.hosts:
        run.world.take_address_away(host, host.address.host)
    run.world.run_for(GAPS_NS["five_seconds"])
    for host in run.hosts:
        run.world.give_address(host, _new_address(run, host))
    _tell(run, run.hosts)
    run.world.run_for(RESOLVED_NS)
    began_ns, seeds = run.world.now_ns, [host.address for host in run.hosts[:2]]
    for host in run.hosts:
        run.world.call(host, partial(_change_seeds, seeds))
    _wait_found(run, "everybody", run.hosts, began_ns)


def _change_seeds(seeds: Sequence[Address], core: Any, now: Instant) -> list[Effect]:
    changed: list[Effect] = core.seeds_changed(seeds, now)
    return changed


def _new_address(run: Run, host: Host) -> str:
    """Return an address that no host ever had."""
    second, third, fourth = (int(part) for part in host.address.host.split(".")[1:])
    return f"10.{second + 1}.{third}.{fourth}"


def _notice(run: Run, name: str, hosts: list[Host]) -> None:
    """Have agents tell their cores where they are now, then wait until everybody knows."""
    began_ns = run.world.now_ns
    run.world.run_for(NOTICED_NS)
    _tell(run, hosts)
    _wait_found(run, name, hosts, began_ns)


def _tell(run: Run, hosts: list[Host]) -> None:
    for host in hosts:
        addresses = NodeAddresses((host.address,), (host.mesh_address,))
        run.world.call(host, partial(_change, addresses))


def _change(addresses: NodeAddresses, core: Any, now: Instant) -> list[Effect]:
    changed: list[Effect] = core.addresses_changed(addresses, now)
    return changed


def _wait_found(run: Run, name: str, hosts: list[Host], began_ns: int | None = None) -> None:
    began_ns = run.world.now_ns if began_ns is None else began_ns
    found = run.world.run_until_true(
        lambda: all(_is_found(run, host) for host in hosts), MOVED_NS_MAX, LOOK_NS
    )
    names = ", ".join(host.name for host in hosts)
    run.require(found, f"{names} moved ({name}), and not everybody has found that out")
    run.measure(f"{name}_s", run.world.now_ns - began_ns)
    run.settle()


def _is_found(run: Run, moved_host: Host) -> bool:
    """Tell whether everybody has a node's address, and holds it alive."""
    node_id = run.node_id(moved_host)
    for host in run.running():
        view = run.core(host).member(node_id)
        if view is None or view.status is not MemberStatus.ALIVE:
            return False
        if view.state.gossip_addresses != (moved_host.address,):
            return False
    return True
