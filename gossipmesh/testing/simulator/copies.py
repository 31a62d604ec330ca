"""The story of an identity that is in use on two machines at once: one of them goes on, and the other ends.

A part of `scenarios`. All the while the invariants hold that the two never alternate.
"""

from typing import Final

from gossipmesh.model.instant import SECOND_NS
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import LOOK_NS, Run

ENDED_NS_MAX: Final = 5 * SECOND_NS
SMALL_HOSTS_MAX: Final = 8  # copies of earlier chapters among them
BACK_NS_MAX: Final = 10 * SECOND_NS


def require_one(run: Run, ends: Host, goes_on: Host, measure: str) -> None:
    """Let time pass until one of two agents ended, and require that it is the right one, for good."""
    started_ns = run.world.now_ns
    ended = run.world.run_until_true(lambda: ends.core is None, ENDED_NS_MAX, LOOK_NS)
    run.require(ended, f"{ends.name} runs on beside {goes_on.name}")
    run.measure(measure, run.world.now_ns - started_ns)
    run.settle()
    run.require(goes_on.core is not None, f"{goes_on.name} ended as well as {ends.name}")
    require_known_at(run, goes_on)


def require_known_at(run: Run, host: Host) -> None:
    """Every running host holds the identity of `host` at its address, in the incarnation it runs in."""
    own = run.core(host).own_state
    for other in run.running():
        view = run.core(other).member(run.node_id(host))
        run.require(view is not None, f"{other.name} does not know {host.identity}")
        run.require(view.state == own, f"{other.name} holds another state than {host.name} signed")


def answered(run: Run, victim: Host) -> None:
    """The incumbent answers: the copy ends, and nobody else ever hears of it."""
    incarnation = run.core(victim).incarnation
    copy = run.copy(victim)
    run.world.start(copy, run.seeds())
    require_one(run, copy, victim, "answered_s")
    now = run.core(victim).incarnation
    run.require(now == incarnation or run.is_lossy, f"{victim.name} had to sign anew, as {now}")


def crashed(run: Run, victim: Host) -> None:
    """The incumbent has just crashed: the copy goes on, and the incumbent ends when it comes back."""
    run.world.kill_node(victim)
    copy = run.copy(victim)
    run.world.start(copy, run.seeds())
    run.publish(copy)
    started_ns = run.world.now_ns

    def is_known() -> bool:
        states = [run.core(host).member(run.node_id(copy)) for host in run.running()]
        return all(view is not None and view.state.gossip_addresses == (copy.address,) for view in states)

    run.require(run.world.run_until_true(is_known, BACK_NS_MAX, LOOK_NS), f"{copy.name} is not taken in")
    run.measure("taken_in_s", run.world.now_ns - started_ns)
    run.settle()
    run.world.start(victim, run.seeds())
    require_one(run, victim, copy, "returned_s")


def parted(run: Run, victim: Host) -> None:
    """The two cannot see each other at first: who has been the node for longer goes on after the heal.

    In a small mesh the victim is cut off alone: as one of three, a copy is half of a quorum against whoever
    it could not hear.
    """
    left, right = run.halves()
    if victim.name in right:
        left, right = right, left
    if len(run.hosts) < SMALL_HOSTS_MAX:
        left, right = [victim.name], [name for name in (*left, *right) if name != victim.name]
    there = next(host for host in run.running() if host.name in right)
    copy = run.copy(victim)
    rule = run.world.partition(f"copied-{victim.name}", left, [*right, copy.name])
    run.world.run_for(run.draw_ns(0, 3))
    run.world.start(copy, [there.address])
    run.publish(copy)
    run.world.run_for(run.draw_ns(4, 20))
    run.require(copy.core is not None, f"{copy.name} ended though nobody could tell it")
    run.require(victim.core is not None, f"{victim.name} ended though nobody could tell it")
    run.world.heal(rule)
    require_one(run, copy, victim, "healed_s")


def copied_state(run: Run) -> None:
    """A copy of a state folder is started beside its owner, after its crash, and beyond a cut."""
    run.boot_and_settle()
    for chapter in (answered, crashed, parted):
        taken = {host.identity for host in run.hosts if host.identity != host.name}
        free = [host for host in run.running() if host is not run.hosts[0] and host.identity not in taken]
        chapter(run, run.script.choice(free or [run.hosts[0]]))
    run.settle()
