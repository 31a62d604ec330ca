"""Named scenarios of networks that drop UDP and let TCP pass: nobody is called gone, all arrives in time.

A part of `scenarios`. Whoever is reached by streams alone holds what the others hold at their pace, and is
told apart from whose datagrams are merely lost now and then.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.builders import access_policy, service_entry
from gossipmesh.testing.simulator.faults import AgentDeafness, DatagramLoss
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import Run

_TOLD_NS_MAX: Final = 12 * SECOND_NS  # the doubt, and eight tries
_ARRIVES_NS_MAX: Final = 2 * SECOND_NS
_DEAF_NS_MAX: Final = 30 * SECOND_NS
_OPEN_AGAIN_NS_MAX: Final = 20 * SECOND_NS
_STEP_NS: Final = 20 * MILLISECOND_NS
_LOSSY: Final = 0.2


def udp_lost(run: Run) -> None:
    """No datagram passes at one node, in or out, and streams do."""
    _lose(run, inward=True, outward=True)


def udp_lost_inward(run: Run) -> None:
    """No datagram comes to one node; what it sends arrives, and streams pass."""
    _lose(run, inward=True, outward=False)


def udp_lost_outward(run: Run) -> None:
    """No datagram of one node arrives; it gets what others send, and streams pass."""
    _lose(run, inward=False, outward=True)


def udp_lost_beside_lossy(run: Run) -> None:
    """No datagram passes at one node, and another loses a fifth of its own: nobody is called gone."""
    _lose(run, inward=True, outward=True, beside_lossy=True)


def _lose(run: Run, *, inward: bool, outward: bool, beside_lossy: bool = False) -> None:
    run.boot_and_settle()
    names = [host.name for host in run.sample(2, but_not=[run.hosts[0]])]
    victim, bystander = (run.world.hosts[name] for name in names)
    rule = DatagramLoss("udp", 1, frozenset((victim.name,)), inward=inward, outward=outward)
    run.world.cut(rule, [])
    lossy = DatagramLoss("lossy", _LOSSY, frozenset((bystander.name,)))
    if beside_lossy:
        run.world.cut(lossy, [])
    began_ns = run.world.now_ns
    told = run.world.run_until_true(lambda: _is_told(run, victim), _TOLD_NS_MAX, _STEP_NS)
    run.require(told, f"not every monitor of {victim.name}, and itself, says that TCP alone reaches it")
    run.measure("told_s", run.world.now_ns - began_ns)
    for turn in range(1, 4):
        _require_arrivals(run, victim, turn)
        run.world.run_for(run.draw_ns(8, 20))
        _require_nobody_gone(run)
    others = [host.name for host in run.running() if host is not victim]
    run.require(
        not [
            name
            for name in others
            if any(_says_tcp_only(run, run.world.hosts[name], other) for other in others)
        ],
        "a member whose datagrams pass is said to be reached by TCP alone",
    )
    run.world.heal(rule)
    if beside_lossy:
        run.world.heal(lossy)
    healed_ns = run.world.now_ns
    quiet = run.world.run_until_true(lambda: _is_quiet(run), _OPEN_AGAIN_NS_MAX, _STEP_NS)
    run.require(quiet, "carriers stay though datagrams pass again")
    run.measure("open_again_s", run.world.now_ns - healed_ns)
    run.settle()
    carried = _carried_count(run)
    run.world.run_for(5 * SECOND_NS)
    run.require(_carried_count(run) == carried, "packets go by streams though datagrams have passed for long")


def _require_arrivals(run: Run, victim: Host, turn: int) -> None:
    """A policy, a service of another and one of the victim's own reach everybody in time."""
    publisher = run.pick(but_not=[victim])
    manifest_hash = run.push_policy(publisher, turn, [access_policy(f"closing-{turn}")])
    _arrives(run, "policy", turn, lambda host: run.policy_hash(host, "mesh") == manifest_hash)
    for name, owner in (("service", run.pick(but_not=[victim])), ("own_service", victim)):
        label = (("turn", f"{name}-{turn}"),)
        run.publish(owner, entries=[service_entry(f"shop/turn-{turn}", labels=label)])
        _arrives(run, name, turn, partial(_offers, run, owner, label))


def _arrives(run: Run, name: str, turn: int, has: Callable[[Host], bool]) -> None:
    began_ns = run.world.now_ns
    everybody = run.world.run_until_true(
        lambda: all(has(host) for host in run.running()), _ARRIVES_NS_MAX, _STEP_NS
    )
    lacking = ", ".join(host.name for host in run.running() if not has(host))
    run.require(everybody, f"the {name} of turn {turn} has not reached {lacking} in time")
    run.measure(f"{name}_{turn}_s", run.world.now_ns - began_ns)


def _offers(run: Run, owner: Host, label: tuple[tuple[str, str], ...], host: Host) -> bool:
    found = run.core(host).endpoints_of(run.node_id(owner))
    return found is not None and any(tuple(entry.labels) == label for entry in found.entries)


def _says_tcp_only(run: Run, observer: Host, name: str) -> bool:
    view = run.core(observer).member(run.node_id(run.world.hosts[name]))
    return view is not None and view.is_tcp_only


def _require_told_of_nobody_else(run: Run, victim: Host) -> None:
    others = [host for host in run.running() if host is not victim]
    for host in others:
        wrong = [other.name for other in others if _says_tcp_only(run, host, other.name)]
        run.require(not wrong, f"{host.name} says that TCP alone reaches {wrong}, whose datagrams pass")


def _is_told(run: Run, victim: Host) -> bool:
    """Most of its monitors say so of it, and it of most others: as many as anybody may have carriers to."""
    others = [host for host in run.running() if host is not victim]
    enough = min(len(others), 6)
    by_others = sum(_says_tcp_only(run, host, victim.name) for host in others)
    by_itself = sum(_says_tcp_only(run, victim, host.name) for host in others)
    return by_others >= enough and by_itself >= enough


def _carried_count(run: Run) -> int:
    return sum(run.core(host).statistics().packets_carried for host in run.running())


def _is_quiet(run: Run) -> bool:
    views = [view for host in run.running() for view in run.core(host).members()]
    return not any(view.is_tcp_only for view in views)


def _require_nobody_gone(run: Run) -> None:
    for host in run.running():
        for view in run.core(host).members():
            is_well = view.status is MemberStatus.ALIVE and not view.unreachable
            run.require(is_well, f"{host.name} holds {view.name} {view.status.label}, or unreachable")


def agent_deaf(run: Run) -> None:
    """Nothing comes to one agent any more, its engine serves: unattended and never dead, endpoints kept."""
    run.boot_and_settle()
    victim = run.pick(but_not=[run.hosts[0]])
    watch = run.invariants
    watch.unwell.add(victim.name)
    watch.expects_convergence = False
    rule = AgentDeafness("deaf-agent", victim.name)
    began_ns = run.world.now_ns
    run.world.cut(rule, [victim.name])
    run.wait_status(victim, MemberStatus.UNATTENDED, _DEAF_NS_MAX)
    run.measure("unattended_s", run.world.now_ns - began_ns)
    while run.world.now_ns < began_ns + 60 * SECOND_NS:
        run.world.run_for(SECOND_NS // 5)
        for host in run.running():
            offers = run.core(host).endpoints_of(run.node_id(victim)) is not None
            run.require(offers, f"{host.name} took the endpoints of {victim.name} away")
    for host in run.running():
        if host is not victim:
            changes = watch.changes(host, victim)
            run.require(changes <= 2, f"{victim.name} changed {changes} times on {host.name}")
    run.world.heal(rule)
    watch.expects_convergence = True
    watch.disturbed(run.world, [victim.name])
    healed_ns = run.world.now_ns
    run.wait_all_alive(20 * SECOND_NS)
    run.measure("alive_s", run.world.now_ns - healed_ns)
    run.settle()


LOST_WAYS: Final[dict[str, Callable[[Run], None]]] = {
    "udp-lost": udp_lost,
    "udp-lost-inward": udp_lost_inward,
    "udp-lost-outward": udp_lost_outward,
    "udp-lost-beside-lossy": udp_lost_beside_lossy,
    "agent-deaf": agent_deaf,
}
