"""Chapters of meshes that come together: at their start, after a cut, after all power went."""

from typing import Final

from bench.gossip.diary import DOWN, Day, seconds
from gossipmesh.gossip import rehearsal
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.testing.builders import VALID_UNTIL_S
from gossipmesh.testing.simulator.hardships import DAY_NS, forget_silently
from gossipmesh.testing.simulator.host import Host

LOOK_NS: Final = 20 * MILLISECOND_NS
DIFFERENCES_COUNT: Final = 6
TOGETHER_NS: Final = 60 * SECOND_NS


def join(day: Day) -> None:
    """All nodes start within 100 ms and know one seed: when all see all."""
    run, count = day.run, len(day.run.hosts)
    run.invariants.watch(run.world)
    run.world.start(run.hosts[0])
    for host in run.hosts[1:]:
        run.world.push(run.draw_ns(0, 0.1), run.world.start, host, run.seeds())
    whole = run.world.run_until_true(
        lambda: len(day.diary.alive) == count * (count - 1), 60 * SECOND_NS, LOOK_NS
    )
    run.require(whole, f"{len(day.diary.alive)} of {count * (count - 1)} pairs see each other after 60 s")
    day.figures["join_s"] = seconds(day.diary.whole_ns)
    for host in run.hosts:
        day.publish(host)
    run.settle()


def divergence(day: Day) -> None:
    """One node misses an update, or loses a member, again and again: when its view is whole again."""
    run = day.run
    times = []
    for turn in range(DIFFERENCES_COUNT):
        different, owner = run.sample(2)
        if turn % 2:
            forget_silently(run, different, owner)
        else:
            _miss(day, f"miss-{turn}", different, owner)
        began_ns = run.world.now_ns
        run.wait_equal_sums(30 * SECOND_NS)
        times.append(seconds(run.world.now_ns - began_ns))
        day.rest(run.script.uniform(0.5, 3))
    day.figures["divergence_s"] = times
    run.settle()


def _miss(day: Day, name: str, deaf: Host, owner: Host) -> None:
    """Have a node hear nobody for 2 s while another changes its services."""
    run = day.run
    others = [host.name for host in run.hosts if host is not deaf]
    rule = run.world.partition(name, others, [deaf.name], one_way=True)
    run.publish(owner)
    day.rest(2)
    run.world.heal(rule)


def partition(day: Day) -> None:
    """Two halves lose each other for a minute."""
    _part(day, "heal_60_s", 30, None)


def apart(day: Day) -> None:
    """Two halves lose each other for ten minutes, every event of which takes place."""
    _part(day, "heal_600_s", 300, None)


def slept(day: Day) -> None:
    """Two halves lose each other for a day, of which they sleep all but the first and last half minute.

    Every process is stopped where it is and runs on 24 hours later: each timer fires once, late. When they
    wake, all credentials have been renewed and each half knows its own, as after a day of renewals one by
    one. What a day of running timers might do besides does not happen.
    """
    _part(day, "heal_day", 30, DAY_NS)


def _part(day: Day, name: str, half_s: float, sleep_ns: int | None) -> None:
    """Cut, let both sides change halfway, heal; keep when all is well, and what was lost."""
    run = day.run
    left, right = run.halves()
    began_ns = run.world.now_ns
    endpoints = day.endpoints()
    rule = run.world.partition(name, left, right)
    day.rest(half_s)
    run.publish(run.world.hosts[left[0]])
    run.publish(run.world.hosts[right[0]])
    if sleep_ns is not None:
        _sleep(day, sleep_ns)
        for side in (left, right):
            _renew(day, [run.world.hosts[name] for name in side])
    day.rest(half_s)
    cut = sum(1 for at, *_, status in day.diary.told if at >= began_ns and status in DOWN)
    run.world.heal(rule)
    healed_ns = run.world.now_ns
    run.wait_equal_sums(TOGETHER_NS)
    equal_ns = run.world.now_ns
    run.wait_all_alive(TOGETHER_NS)
    day.figures[name] = {
        "equal_s": seconds(equal_ns - healed_ns),
        "alive_s": seconds(run.world.now_ns - healed_ns),
        "declared": cut,
        "endpoints": [endpoints, day.endpoints()],
    }
    run.settle()


def _sleep(day: Day, duration_ns: int) -> None:
    world = day.run.world
    for host in day.run.hosts:
        world.pause(host)
    world.run_for(duration_ns)
    for host in day.run.hosts:
        world.resume(host)


def _renew(day: Day, side: list[Host]) -> None:
    """Renew all credentials of a half and have all of it know them; nobody has to be told any more."""
    run = day.run
    records = []
    for host in side:
        keys = run.domain.node(host.name, serial=2, ends=VALID_UNTIL_S - 1)
        records.append(keys.credential)
        run.core(host).renew_credential(keys.credential, host.instant(run.world.now_ns))
    for host in side:
        rehearsal.know_renewed(run.core(host), records)


def restart(day: Day) -> None:
    """Power is cut everywhere at once and comes back: when all agree again, from their disks alone."""
    run = day.run
    for host in run.hosts:
        run.world.kill_node(host)
    day.rest(1)
    began_ns = run.world.now_ns
    for host in run.hosts:
        run.world.start(host)
        run.publish(host)
    run.wait_all_alive(TOGETHER_NS)
    run.wait_equal_sums(TOGETHER_NS)
    day.figures["restart_s"] = seconds(run.world.now_ns - began_ns)
