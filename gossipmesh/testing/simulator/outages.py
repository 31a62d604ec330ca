"""Named scenarios of one node whose own links fail: how long it stays out, and what it knows of itself.

A part of `scenarios`.
"""

from collections.abc import Callable
from typing import Final

from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.simulator.faults import EgressLoss
from gossipmesh.testing.simulator.run import Run

OUT_NS_MAX: Final = 60 * SECOND_NS
HEAL_NS_MAX: Final = 15 * SECOND_NS
LIVES: Final = 3


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


OUTAGES: Final[dict[str, Callable[[Run], None]]] = {
    "dead-thrice": dead_thrice,
}
