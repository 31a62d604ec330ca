"""Named scenarios: what happens to a mesh, and what must be true of it afterwards.

A scenario is a function of a `Run`; the invariants hold all the while. Each draws what it needs
from `run.script`, so a seed is one story.
"""

from collections.abc import Callable
from typing import Final

from gossipmesh.gossip.base.effects import Persist, PersistKind
from gossipmesh.model import limits
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.service import EndpointHealth
from gossipmesh.testing.builders import VALID_UNTIL_S, access_policy, http_route, service_entry
from gossipmesh.testing.simulator import enemy
from gossipmesh.testing.simulator.changed_envelopes import CHANGED_ENVELOPES
from gossipmesh.testing.simulator.copies import copied_state
from gossipmesh.testing.simulator.hardships import HARDSHIPS
from gossipmesh.testing.simulator.host import WALL_START_S, Host
from gossipmesh.testing.simulator.lost_ways import LOST_WAYS
from gossipmesh.testing.simulator.moves import moved
from gossipmesh.testing.simulator.openings import OPENINGS
from gossipmesh.testing.simulator.outages import OUTAGES
from gossipmesh.testing.simulator.revocations import REVOCATIONS
from gossipmesh.testing.simulator.rotations import ROTATIONS
from gossipmesh.testing.simulator.run import Run
from gossipmesh.testing.simulator.slow_disks import SLOW_DISKS
from gossipmesh.testing.simulator.stolen_credentials import STOLEN_CREDENTIALS
from gossipmesh.testing.simulator.stolen_signers import STOLEN_SIGNERS
from gossipmesh.testing.simulator.wrong_clocks import WRONG_CLOCKS
from gossipmesh.traffic.reliance import LAST_RESORT, UNATTENDED_NS_MAX, reliance

Scenario = Callable[[Run], None]

DETECT_NS: Final = 25 * SECOND_NS
QUIET_NS: Final = 12 * SECOND_NS


def steady(run: Run) -> None:
    """Join under loss, publish and change services, push a policy, crash and restart some."""
    run.boot()
    for host in run.hosts:
        run.world.push(run.draw_ns(0, 3), run.publish, host)
    run.world.run_until(4 * SECOND_NS)
    run.push_policy(run.pick(), 1, [http_route("cart-1"), access_policy("cart-a")])
    run.world.run_for(3 * SECOND_NS)
    crashed, torn, replaced, *others = run.sample(min(8, len(run.hosts) - 1), but_not=[run.hosts[0]])
    run.world.kill_node(crashed)
    run.world.kill_node_midway(torn, run.script.randrange(1, 6))
    run.world.run_for(4 * SECOND_NS)
    for host in others:
        run.publish(host)
    run.world.kill_agent(replaced)
    run.world.replace_disk(replaced)
    run.world.run_for(2 * SECOND_NS)
    run.require(torn.core is None, f"{torn.name} survived its crash in the midst of a step")
    run.world.start(torn)
    run.world.start(replaced, run.seeds())
    run.publish(torn)
    run.push_policy(run.pick(), 2, [http_route("cart-2")])
    run.world.run_for(6 * SECOND_NS)
    run.world.start(crashed)
    run.publish(crashed)
    run.world.run_for(2 * SECOND_NS)
    run.publish(run.pick())
    run.settle()
    run.require_policy("mesh", 2)


def crash(run: Run) -> None:
    """One machine dies at once: dead on every member within the bound, nobody else ever, then back."""
    run.boot_and_settle()
    victim = run.pick(but_not=[run.hosts[0]])
    started_ns = run.world.now_ns
    run.world.kill_node(victim)
    run.wait_status(victim, MemberStatus.DEAD, DETECT_NS)
    times = sorted(
        at_ns - started_ns for (_, name), at_ns in run.invariants.deaths.items() if name == victim.name
    )
    run.measure("dead_p50_s", times[len(times) // 2])
    run.measure("dead_last_s", times[-1])
    for host in run.running():
        names = [one.node for one in run.core(host).endpoints()]
        run.require(victim.name not in names, f"{host.name} still offers services of the dead {victim.name}")
    run.world.start(victim)
    run.publish(victim)
    run.wait_status(victim, MemberStatus.ALIVE, 10 * SECOND_NS)
    run.settle()


def require_reliance(run: Run, subject: Host, expected: MemberStatus) -> None:
    """Every other running host offers `subject`'s endpoints now, and compiles them as of this status."""
    for host in run.running():
        if host is subject:
            continue
        now = host.instant(run.world.now_ns)
        offered = {one.node: one for one in run.core(host).endpoints()}
        one = offered.get(subject.name)
        run.require(one is not None, f"{host.name} offers no endpoint of {subject.name}")
        assert one is not None
        found = reliance(one.status, one.since, now, unreachable=one.unreachable, held=one.retained)
        run.require(found is expected, f"{host.name} relies on {subject.name} as {found.label}")


def unattended_limit(run: Run) -> None:
    """An agent stays away for eleven minutes: its endpoints count half, after ten come last, then as ever."""
    run.boot_and_settle()
    victim = run.pick(but_not=[run.hosts[0]])
    run.world.kill_agent(victim)
    gone_ns = run.world.now_ns
    run.wait_status(victim, MemberStatus.UNATTENDED, DETECT_NS)
    run.measure("unattended_last_s", run.world.now_ns - gone_ns)
    while run.world.now_ns < gone_ns + UNATTENDED_NS_MAX:
        require_reliance(run, victim, MemberStatus.UNATTENDED)
        run.world.run_for(5 * SECOND_NS)
    run.world.run_for(DETECT_NS)
    require_reliance(run, victim, LAST_RESORT)
    run.world.run_for(60 * SECOND_NS)
    require_reliance(run, victim, LAST_RESORT)
    run.world.start(victim)
    run.publish(victim)
    run.wait_status(victim, MemberStatus.ALIVE, 10 * SECOND_NS)
    require_reliance(run, victim, MemberStatus.ALIVE)
    run.settle()


def kill_agent(run: Run) -> None:
    """An agent dies, its engine serves: unattended, endpoints stay, alive again; then the engine dies too."""
    run.boot_and_settle()
    victim, second = run.sample(2, but_not=[run.hosts[0]])
    started_ns = run.world.now_ns
    run.world.kill_agent(victim)
    run.wait_status(victim, MemberStatus.UNATTENDED, DETECT_NS)
    run.measure("unattended_last_s", run.world.now_ns - started_ns)
    run.world.run_for(20 * SECOND_NS)
    for host in run.running():
        names = [one.node for one in run.core(host).endpoints()]
        run.require(
            victim.name in names, f"{host.name} dropped the services of {victim.name}, whose engine serves"
        )
    run.require_status(victim, MemberStatus.UNATTENDED)
    run.world.start(victim)
    run.publish(victim)
    run.wait_status(victim, MemberStatus.ALIVE, 10 * SECOND_NS)
    run.world.kill_agent(second)
    run.wait_status(second, MemberStatus.UNATTENDED, DETECT_NS)
    second.engine_is_up = False
    run.wait_status(second, MemberStatus.DEAD, 30 * SECOND_NS)
    run.world.start(second)
    run.publish(second)
    run.settle()


def partition_heal(run: Run) -> None:
    """Two sides lose each other, change, and find together; no side kills one of its own."""
    run.boot_and_settle()
    for name in ("short", "long"):
        left, right = run.halves()
        rule = run.world.partition(name, left, right)
        run.world.run_for(SECOND_NS)
        run.publish(run.world.hosts[left[0]])
        run.publish(run.world.hosts[right[0]])
        run.world.run_for(run.draw_ns(2, 20))
        if name == "long" and run.votes:
            run.require_nobody_dead("halves cannot tell who is cut off, and condemned somebody")
        elif name == "long":
            run.wait_parted(left, right, 90 * SECOND_NS)
        run.world.heal(rule)
        healed_ns = run.world.now_ns
        run.wait_all_alive(30 * SECOND_NS)
        run.measure(f"heal_{name}_s", run.world.now_ns - healed_ns)
    one = run.pick(but_not=[run.hosts[0]])
    deaf = run.world.partition(
        "one-way", [one.name], [h.name for h in run.hosts if h is not one], one_way=True
    )
    run.world.run_for(12 * SECOND_NS)
    run.world.heal(deaf)
    run.wait_all_alive(30 * SECOND_NS)
    run.settle()


def racing_pushes(run: Run) -> None:
    """Two sets of one version, one on each side of a partition: one winner everywhere after the heal."""
    run.boot_and_settle()
    run.push_policy(run.hosts[0], 1, [http_route("base")])
    run.settle()
    left, right = run.halves()
    rule = run.world.partition("halves", left, right)
    first = run.push_policy(run.world.hosts[left[-1]], 2, [http_route("left")])
    second = run.push_policy(run.world.hosts[right[-1]], 2, [http_route("right")])
    run.world.run_for(8 * SECOND_NS)
    for name in left + right:
        held = run.policy_hash(run.world.hosts[name], "mesh")
        expected = first if name in left else second
        run.require(held == expected, f"{name} does not run the set pushed on its side")
    run.world.heal(rule)
    healed_ns = run.world.now_ns
    winner = max(first, second)
    won = run.world.run_until_true(
        lambda: all(run.policy_hash(host, "mesh") == winner for host in run.hosts),
        30 * SECOND_NS,
        100 * MILLISECOND_NS,
    )
    run.require(won, "no single winner after the heal")
    run.measure("winner_s", run.world.now_ns - healed_ns)
    run.wait_all_alive(30 * SECOND_NS)
    run.settle()


def rejoin_without_seed(run: Run) -> None:
    """Nodes come back from their own disks alone: one by one, and then all after a power cut."""
    run.boot_and_settle()
    run.push_policy(run.pick(), 1, [http_route("kept")])
    run.settle()
    one = run.pick(but_not=[run.hosts[0]])
    run.world.kill_node(one)
    run.world.run_for(5 * SECOND_NS)
    for _ in range(3):
        run.world.start(one)
        run.publish(one)
        run.world.run_for(run.draw_ns(0.01, 2))
        run.world.kill_node(one)
    run.world.start(one)
    run.publish(one)
    run.wait_status(one, MemberStatus.ALIVE, 10 * SECOND_NS)
    run.settle()
    run.require_policy("mesh", 1)
    for host in run.hosts:
        run.world.kill_node(host)
    run.world.run_for(SECOND_NS)
    for host in run.hosts:
        run.require(bool(host.disk.entries(PersistKind.EPOCH)), f"{host.name} has no epoch on its disk")
        run.world.start(host)
        run.publish(host)
        run.world.run_for(run.draw_ns(0, 0.2))
    started_ns = run.world.now_ns
    run.wait_all_alive(30 * SECOND_NS)
    run.wait_equal_sums(30 * SECOND_NS)
    run.measure("whole_mesh_back_s", run.world.now_ns - started_ns)
    run.settle()
    run.require_policy("mesh", 1)


def byzantine_policy(run: Run) -> None:
    """A member that believes anything offers bad sets: every other node refuses each of them."""
    run.boot_and_settle()
    run.push_policy(run.hosts[0], 3, [http_route("good")])
    run.settle()
    good = run.policy_hash(run.hosts[0], "mesh")
    hostile = run.pick(but_not=[run.hosts[0]])
    enemy.make_gullible(run, hostile)
    for code, policy_set in enemy.bad_policy_sets(run, 3):
        enemy.refused_at_the_door(run, run.pick(but_not=[hostile]), code, policy_set)
        run.offer(hostile, policy_set)
        run.world.run_for(6 * SECOND_NS)
        for host in run.running():
            if host is not hostile:
                run.require(run.policy_hash(host, "mesh") == good, f"{host.name} runs a set with code {code}")
    enemy.require_refusals_everywhere(run, hostile)
    enemy.replace(run, hostile)
    run.publish(hostile)
    run.wait_all_alive(30 * SECOND_NS)
    run.settle()


def byzantine_records(run: Run) -> None:
    """A member forges what others sign, and sends it to everyone: nothing of it is believed or does harm."""
    run.boot_and_settle()
    hostile, victim = run.sample(2, but_not=[run.hosts[0]])
    for _ in range(3):
        forged = enemy.forged_records(run, hostile, victim)
        for host in run.running():
            if host is not hostile:
                enemy.send_records(run, hostile, host, forged)
        run.world.run_for(4 * SECOND_NS)
    for host in run.running():
        run.require(
            run.core(host).own_state.epoch < enemy.EPOCH_FAR,
            f"{host.name} was driven to an epoch without end",
        )
    run.settle()
    run.world.kill_node(victim)
    run.world.run_for(2 * SECOND_NS)
    run.world.start(victim)
    run.publish(victim)
    run.wait_all_alive(30 * SECOND_NS)
    run.settle()


def lost_disk(run: Run) -> None:
    """State is lost and identity is not: the node comes back above all it ever signed, floors and all."""
    run.boot_and_settle()
    run.push_policy(run.pick(), 3, [http_route("kept")])
    run.settle()
    for _ in range(2):
        victim = run.pick(but_not=[run.hosts[0]])
        run.world.kill_node(victim)
        run.world.run_for(run.draw_ns(0.5, 9))
        victim.disk.wipe()
        run.world.faults.fire("lose-disk")
        run.world.start(victim, run.seeds())
        run.publish(victim)
        run.wait_status(victim, MemberStatus.ALIVE, 10 * SECOND_NS)
        run.settle()
    run.require_policy("mesh", 3)


def renewal(run: Run) -> None:
    """Credentials end: whoever renewed stays, whoever died before is forgotten by everyone at its end."""
    run.factory.credential_ends = WALL_START_S + 100
    run.boot_and_settle()
    gone = run.pick(but_not=[run.hosts[0]])
    run.world.kill_node(gone)
    run.wait_status(gone, MemberStatus.DEAD, DETECT_NS)
    for host in run.running():
        run.world.push(run.world.now_ns + run.draw_ns(0, 10), run.renew, host, VALID_UNTIL_S)
    run.world.run_for(11 * SECOND_NS)
    run.settle()
    run.invariants.expects_convergence = False  # ends are judged by clocks that differ by a minute
    run.world.run_until(240 * SECOND_NS)
    run.invariants.expects_convergence = True
    for host in run.running():
        names = [view.name for view in run.core(host).members()]
        run.require(gone.name not in names, f"{host.name} still knows {gone.name}, whose credential ended")
        run.require(len(names) == len(run.hosts) - 1, f"{host.name} forgot members that renewed")
    run.settle()


def trust_rotation(run: Run) -> None:
    """One node starts with the next Trust, which raises a floor: everyone follows, old policy is refused."""
    run.boot_and_settle()
    run.push_policy(run.pick(), 2, [http_route("before")])
    run.settle()
    first = run.pick(but_not=[run.hosts[0]])
    envelope = run.domain.sign_trust(run.domain.trust_document(2, floors={"mesh": 5}))
    run.world.kill_agent(first)
    first.disk.write(Persist(PersistKind.TRUST, b"\0\0\0\2", envelope, durable=True))
    run.world.start(first)
    run.publish(first)
    started_ns = run.world.now_ns
    followed = run.world.run_until_true(
        lambda: all(run.trust_version(host) == 2 for host in run.running()), 20 * SECOND_NS, SECOND_NS // 10
    )
    run.require(followed, "Trust 2 is not in force everywhere")
    run.measure("trust_everywhere_s", run.world.now_ns - started_ns)
    run.settle()
    enemy.refused_at_the_door(run, run.pick(), "older", run.domain.policy_set(4, [http_route("below")]))
    run.push_policy(run.pick(), 5, [http_route("after")])
    run.settle()
    run.require_policy("mesh", 5)


def pause(run: Run) -> None:
    """A process stops for 2 s: nobody gives it up. For 20 s: unattended, and alive soon after it runs on."""
    run.boot_and_settle()
    briefly, long = run.sample(2, but_not=[run.hosts[0]])
    run.world.pause(briefly)
    run.world.run_for(2 * SECOND_NS)
    run.world.resume(briefly)
    run.world.run_for(QUIET_NS)
    run.require(not run.invariants.was_given_up(briefly), f"{briefly.name} was given up after 2 s")
    run.world.pause(long)
    run.world.run_for(20 * SECOND_NS)
    run.require_status(long, MemberStatus.UNATTENDED)
    run.world.resume(long)
    resumed_ns = run.world.now_ns
    run.wait_all_alive(10 * SECOND_NS)
    run.measure("alive_again_s", run.world.now_ns - resumed_ns)
    run.settle()
    others = [host for host in run.hosts if host is not long]
    given_up = [host.name for host in others if run.invariants.was_given_up(host)]
    run.require(not given_up, f"given up as well: {', '.join(given_up)}")


def rack(run: Run) -> None:
    """Many machines lose power at one moment, and come back at one moment.

    A third under SWIM; a fifth under voting monitors, who condemn nobody while about 30 % are silent.
    """
    run.boot_and_settle()
    victims = run.sample(len(run.hosts) // (5 if run.votes else 3), but_not=[run.hosts[0]])
    started_ns = run.world.now_ns
    for host in victims:
        run.world.kill_node(host)
    for host in victims:
        run.wait_status(host, MemberStatus.DEAD, 60 * SECOND_NS)
    run.measure("all_dead_s", run.world.now_ns - started_ns)
    for host in victims:
        run.world.start(host)
        run.publish(host)
    run.wait_all_alive(30 * SECOND_NS)
    run.settle()


def large(run: Run) -> None:
    """Records and policy that fit no packet and no frame spread all the same."""
    run.boot_and_settle()
    host = run.pick()
    entries = [
        service_entry(f"shop/svc{number}", registration=f"svc{number:03}", labels=[("number", str(number))])
        for number in range(limits.SERVICES_PER_NODE_MAX)
    ]
    run.publish(host, entries=entries)
    run.push_policy(run.pick(), 1, [http_route(f"route-{number}") for number in range(1_000)])
    started_ns = run.world.now_ns
    run.wait_equal_sums(10 * SECOND_NS)
    run.measure("spread_s", run.world.now_ns - started_ns)
    run.settle()
    run.require_policy("mesh", 1)
    for other in run.running():
        counts = [len(one.entries) for one in run.core(other).endpoints() if one.node == host.name]
        run.require(counts == [len(entries)], f"{other.name} holds {counts} services of {host.name}")


def swarm(run: Run) -> None:
    """Random faults for two minutes: crashes, pauses, cuts, replaced disks; then rest."""
    run.boot_and_settle()
    version = 0
    for _ in range(12):
        choice = run.script.randrange(7)
        host = run.pick(but_not=[run.hosts[0]])
        if choice == 0:
            run.world.kill_node(host)
            run.world.run_for(run.draw_ns(0.5, 12))
            run.world.start(host)
            run.publish(host)
        elif choice == 1:
            run.world.pause(host)
            run.world.run_for(run.draw_ns(0.5, 20))
            run.world.resume(host)
        elif choice == 2:
            rule = run.world.partition(f"cut-{run.world.now_ns}", *run.halves())
            run.world.run_for(run.draw_ns(2, 15))
            run.world.heal(rule)
        elif choice == 3:
            run.world.kill_agent(host)
            run.world.replace_disk(host)
            run.world.run_for(run.draw_ns(0.1, 3))
            run.world.start(host, run.seeds())
            run.publish(host)
        elif choice == 4:
            version += 1
            run.push_policy(host, version, [http_route(f"route-{version}")])
        elif choice == 5:
            host.disk.full = True
            run.world.run_for(run.draw_ns(0.5, 5))
            run.publish(host)
            host.disk.full = False
            if host.core is None:
                run.world.start(host)
                run.publish(host)
        else:
            run.publish(host, health=run.script.choice([EndpointHealth.FAILING, EndpointHealth.PASSING]))
        run.world.run_for(run.draw_ns(0.5, 4))
    run.wait_all_alive(60 * SECOND_NS)
    run.settle()


def leave(run: Run) -> None:
    """A node leaves in order: left everywhere, never dead, its services gone."""
    run.boot_and_settle()
    leaver = run.pick(but_not=[run.hosts[0]])
    run.publish(leaver, entries=[service_entry("shop/gone", registration="gone")])
    run.settle()
    run.leave(leaver)
    run.wait_status(leaver, MemberStatus.LEFT, 10 * SECOND_NS)
    run.world.run_for(QUIET_NS)
    run.require_status(leaver, MemberStatus.LEFT)
    names = [name for _, name in run.invariants.deaths]
    run.require(leaver.name not in names, f"{leaver.name} left, and was held dead")
    run.settle()


SCENARIOS: Final[dict[str, Scenario]] = {
    "steady": steady,
    "crash": crash,
    "kill-agent": kill_agent,
    "unattended-limit": unattended_limit,
    "partition-heal": partition_heal,
    "racing-pushes": racing_pushes,
    "rejoin-without-seed": rejoin_without_seed,
    "byzantine-policy": byzantine_policy,
    "byzantine-records": byzantine_records,
    "leave": leave,
    "pause": pause,
    "rack": rack,
    "large": large,
    "lost-disk": lost_disk,
    "renewal": renewal,
    "trust-rotation": trust_rotation,
    "swarm": swarm,
    "moved": moved,
    "copied-state": copied_state,
    **HARDSHIPS,
    **OPENINGS,
    **OUTAGES,
    **REVOCATIONS,
    **ROTATIONS,
    **LOST_WAYS,
    **SLOW_DISKS,
    **STOLEN_CREDENTIALS,
    **CHANGED_ENVELOPES,
    **STOLEN_SIGNERS,
    **WRONG_CLOCKS,
}
