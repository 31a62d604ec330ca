"""Named scenarios of one node whose own links fail: how long it stays out, and what it knows of itself.

A part of `scenarios`.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.simulator.faults import EgressLoss
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import Run

OUT_NS_MAX: Final = 60 * SECOND_NS
HEAL_NS_MAX: Final = 15 * SECOND_NS
LIVES: Final = 3
CUTS: Final = 5
KNOWN_NS_MAX: Final = 2 * SECOND_NS


def dead_thrice(run: Run) -> None:
    """One loses most of what it sends, its engine hangs, and it starts again twice: dead thrice, back once.

    What was held against its earlier lives makes its last absence no longer, and no two hold it differently.
    """
    run.boot_and_settle()
    ill = run.pick(but_not=[run.hosts[0]])
    run.invariants.unwell.add(ill.name)
    run.invariants.expects_convergence = False
    rule = EgressLoss("mute", 0.8, frozenset((ill.name,)))
    run.world.cut(rule, [ill.name])
    ill.engine_is_paused = True  # one that served would leave it unattended
    for life in range(LIVES):
        if life:
            run.world.kill_agent(ill)
            run.world.run_for(run.draw_ns(0.1, 1))
            run.world.start(ill)
            run.publish(ill)
        run.wait_status(ill, MemberStatus.ALIVE, OUT_NS_MAX)
        run.wait_status(ill, MemberStatus.DEAD, OUT_NS_MAX)
    found_ns = run.world.now_ns
    run.world.run_for(run.draw_ns(2, 20))
    run.world.heal(rule)
    ill.engine_is_paused = False
    healed_ns = run.world.now_ns
    run.invariants.expects_convergence = True
    run.wait_equal_sums(HEAL_NS_MAX)
    run.measure("equal_s", run.world.now_ns - healed_ns)
    out_ns = run.factory.settings.monitor.quarantine_ns
    run.world.run_until_true(lambda: bool(run.holders(ill, MemberStatus.ALIVE)), out_ns, SECOND_NS // 10)
    run.measure("out_s", run.world.now_ns - found_ns)
    run.wait_all_alive(2 * SECOND_NS)
    run.invariants.unwell.clear()
    run.settle()


def cut_off(run: Run) -> None:
    """One after another is cut off from all others: it knows within 2 s, and blames nobody while it lasts."""
    run.boot_and_settle()
    known_ns: list[int] = []
    back_ns: list[int] = []
    for turn in range(CUTS):
        lonely = run.pick()
        others = [host for host in run.hosts if host is not lonely]
        run.world.run_for(run.draw_ns(0, 2))
        rule = run.world.partition(f"alone-{turn}", [lonely.name], [host.name for host in others])
        cut_ns = run.world.now_ns
        run.world.run_until_true(partial(is_isolated, run, lonely), KNOWN_NS_MAX, MILLISECOND_NS)
        known_ns.append(run.world.now_ns - cut_ns)
        run.require(is_isolated(run, lonely), f"{lonely.name} does not know that it is cut off")
        run.world.run_for(run.draw_ns(1, 20))
        counts = run.core(lonely).statistics()
        run.require(counts.cases_open == 0, f"{lonely.name} is cut off and suspects others")
        run.require(not any(is_isolated(run, host) for host in others), "somebody else says so as well")
        run.world.heal(rule)
        healed_ns = run.world.now_ns
        run.world.run_until_true(partial(is_back, run, lonely), KNOWN_NS_MAX, 10 * MILLISECOND_NS)
        back_ns.append(run.world.now_ns - healed_ns)
        run.require(not is_isolated(run, lonely), f"{lonely.name} does not know that it is back")
        run.wait_all_alive(HEAL_NS_MAX)
        run.world.run_for(run.draw_ns(1, 5))
    run.measure("known_worst_s", max(known_ns))
    run.measure("back_worst_s", max(back_ns))
    run.settle()


def is_isolated(run: Run, host: Host) -> bool:
    """Tell whether a running host says that it is itself cut off."""
    return run.core(host).isolated_since is not None


def is_back(run: Run, host: Host) -> bool:
    """Tell whether a running host does not say so."""
    return not is_isolated(run, host)


OUTAGES: Final[dict[str, Callable[[Run], None]]] = {
    "cut-off": cut_off,
    "dead-thrice": dead_thrice,
}
