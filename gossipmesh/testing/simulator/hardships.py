"""Named scenarios of what networks, machines and operators do to a mesh that must call nobody dead for it.

A part of `scenarios`: their bounds are gates of docs/BENCHMARKS.md (G7, G8, G12, G15, G17, G18, G28), so each
of them measures what it bounds.
"""

from collections.abc import Callable, Sequence
from typing import Final

from gossipmesh.gossip import rehearsal
from gossipmesh.gossip.inspection import services_order
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import MemberStatus, Order
from gossipmesh.testing.builders import VALID_UNTIL_S, http_route, service_entry
from gossipmesh.testing.simulator.faults import Blackout, Deafness, EgressLoss, Rule
from gossipmesh.testing.simulator.host import WALL_START_S, Host
from gossipmesh.testing.simulator.priming import boot_known
from gossipmesh.testing.simulator.run import LOOK_NS, Run

PROMPT_NS: Final = 20 * MILLISECOND_NS
GONE: Final = (MemberStatus.DEAD, MemberStatus.UNATTENDED)
OUT_NS_MAX: Final = 30 * SECOND_NS
HEAL_NS_MAX: Final = 15 * SECOND_NS
DAY_NS: Final = 24 * 3_600 * SECOND_NS
LIFE_S: Final = 300  # of a credential that is to end within a scenario


def endpoints_of(run: Run, host: Host) -> int:
    """Return how many endpoints a running host would offer its engine."""
    return sum(len(one.entries) for one in run.core(host).endpoints())


def require_endpoints_stay(run: Run, duration_ns: int, least: int, hosts: Sequence[Host] = ()) -> None:
    """Let time pass; no running host may ever offer fewer endpoints than `least` meanwhile."""
    end_ns = run.world.now_ns + duration_ns
    while run.world.now_ns < end_ns:
        run.world.run_for(min(PROMPT_NS, end_ns - run.world.now_ns))
        for host in hosts or run.running():
            if host.core is not None and not host.is_paused:
                count = endpoints_of(run, host)
                run.require(count >= least, f"{host.name} offers {count} endpoints of {least}")


def heal_no_eviction(run: Run) -> None:
    """Halves part for a minute and meet: nobody's endpoint count ever falls, neither then nor in the heal."""
    run.boot_and_settle()
    count = len(run.hosts)
    rule = run.world.partition("halves", *run.halves())
    if run.votes:
        require_endpoints_stay(run, 30 * SECOND_NS, count)
    run.world.run_for(30 * SECOND_NS)
    lows = {host.name: endpoints_of(run, host) for host in run.hosts}
    run.world.heal(rule)
    healed_ns = run.world.now_ns
    for _ in range(250):
        run.world.run_for(PROMPT_NS)
        for host in run.hosts:
            seen = endpoints_of(run, host)
            run.require(seen >= lows[host.name], f"{host.name} lost endpoints in the heal: {seen}")
            lows[host.name] = seen
    run.wait_all_alive(HEAL_NS_MAX)
    run.measure("alive_s", run.world.now_ns - healed_ns)
    run.settle()


def minority(run: Run) -> None:
    """Two fifths are cut off from three: the fewer condemn nobody, however long it lasts."""
    run.boot_and_settle()
    names = [host.name for host in run.hosts]
    run.script.shuffle(names)
    size = len(names) * 2 // 5
    few, many = names[:size], names[size:]
    rule = run.world.partition("few|many", few, many)
    run.world.run_for(60 * SECOND_NS)
    for name in few:
        held = [v.name for v in run.core(run.world.hosts[name]).members() if v.status in GONE]
        run.require(not (run.votes and held), f"{name} is of the few and holds {held} gone")
    run.world.heal(rule)
    healed_ns = run.world.now_ns
    run.wait_all_alive(HEAL_NS_MAX)
    run.measure("alive_s", run.world.now_ns - healed_ns)
    run.settle()


def upgrade_all(run: Run) -> None:
    """Every agent is restarted in turn, as in a rolling upgrade; engines serve: no death, endpoints kept."""
    run.boot_and_settle()
    count = len(run.hosts)
    for host in run.hosts:
        if run.votes:
            run.world.call(host, lambda core, now: core.set_restarting(30, now))
            run.world.run_for(500 * MILLISECOND_NS)
        run.world.kill_agent(host)
        require_endpoints_stay(run, run.draw_ns(0.2, 2.5), count)
        run.world.start(host)
        run.publish(host)
        others = [other for other in run.hosts if other is not host]
        require_endpoints_stay(run, run.draw_ns(0.2, 1.5), count, others)
    run.wait_all_alive(10 * SECOND_NS)
    _require_never(run, run.hosts, MemberStatus.DEAD)
    if run.votes:
        _require_never(run, run.hosts, MemberStatus.UNATTENDED)
    run.settle()


def crash_all_agents(run: Run) -> None:
    """All agents die at one moment and come back within seconds: no death, every endpoint on every node."""
    run.boot_and_settle()
    for host in run.hosts:
        run.world.kill_agent(host)
    began_ns = run.world.now_ns
    for host in run.hosts:
        run.world.push(began_ns + run.draw_ns(0.2, 3), _start_again, run, host)
    run.world.run_for(3 * SECOND_NS + 1)
    require_endpoints_stay(run, 20 * SECOND_NS, len(run.hosts))
    run.wait_all_alive(10 * SECOND_NS)
    _require_never(run, run.hosts, MemberStatus.DEAD)
    run.settle()


def _start_again(run: Run, host: Host) -> None:
    run.world.start(host)
    run.publish(host)


def _require_never(run: Run, hosts: Sequence[Host], status: MemberStatus) -> None:
    held = [host.name for host in hosts if run.invariants.was_held(host, status)]
    run.require(not held, f"held {status.label} by somebody: {', '.join(held)}")


def _long_partition(duration_ns: int) -> Callable[[Run], None]:
    def scenario(run: Run) -> None:
        """Halves part and go on living: credentials are renewed, agents restart, services, policy and Trust
        change; one machine is down at the heal. Equal state sums and everybody alive within the bound."""
        run.boot_and_settle()
        left, right = run.halves()
        rule = run.world.partition("halves", left, right)
        for part, (side, other) in enumerate(((left, right), (right, left)) * 2):
            run.world.run_for(duration_ns // 4)
            for host in run.hosts:
                run.renew(host, VALID_UNTIL_S - 4 + part)
            _live_on(run, part, run.world.hosts[side[part % len(side)]], run.world.hosts[other[0]])
        run.world.run_for(30 * SECOND_NS)
        run.world.heal(rule)
        healed_ns = run.world.now_ns
        run.wait_equal_sums(HEAL_NS_MAX)
        run.measure("equal_roots_s", run.world.now_ns - healed_ns)
        run.wait_all_alive(HEAL_NS_MAX)
        run.measure("alive_s", run.world.now_ns - healed_ns)
        down = [host for host in run.hosts if host.core is None]
        for host in down:
            run.world.start(host)
            run.publish(host)
        run.wait_all_alive(HEAL_NS_MAX)
        run.settle()
        run.require_policy("mesh", 1)

    return scenario


def _live_on(run: Run, part: int, host: Host, other: Host) -> None:
    """A quarter of a long partition ends: what changes on one side of it."""
    run.publish(host)
    if part == 0:
        run.push_policy(host, 1, [http_route("cart-1")])
    elif part == 1:
        envelope = run.domain.sign_trust(run.domain.trust_document(2))
        run.world.call(host, lambda core, now: core.offer_trust(envelope, now))
    elif part == 3:
        run.world.kill_node(host)
    run.world.kill_agent(other)
    run.world.run_for(run.draw_ns(0.2, 5))
    run.world.start(other)
    run.publish(other)


def forgotten(run: Run) -> None:
    """Halves part for longer than credentials live and forget each other: a seed brings them together."""
    for host in run.hosts:
        host.wall_skew_s = 0
    run.factory.credential_ends = WALL_START_S + LIFE_S
    run.boot_and_settle()
    for host in run.hosts:
        run.world.push(run.world.now_ns + run.draw_ns(0, 60), _keep_renewing, run, host)
    left, right = run.halves()
    rule = run.world.partition("halves", left, right)
    run.world.run_for(2 * LIFE_S * SECOND_NS)
    for side in (left, right):
        for name in side:
            known = [view.name for view in run.core(run.world.hosts[name]).members()]
            run.require(sorted(known) == sorted(side), f"{name} knows {known} of its half {side}")
    run.invariants.expects_convergence = False  # seeds are asked again every five minutes, not sooner
    run.world.heal(rule)
    healed_ns = run.world.now_ns
    run.wait_all_alive(310 * SECOND_NS)
    run.measure("met_s", run.world.now_ns - healed_ns)
    run.wait_equal_sums(HEAL_NS_MAX)
    run.invariants.disturbed(run.world, [])
    run.invariants.expects_convergence = True
    run.settle()


def _keep_renewing(run: Run, host: Host) -> None:
    """Renew at about half life, for as long as the run lasts."""
    run.renew(host, WALL_START_S + run.world.now_ns // SECOND_NS + LIFE_S)
    run.world.push(run.world.now_ns + run.draw_ns(120, 150), _keep_renewing, run, host)


def divergence(run: Run) -> None:
    """A node silently forgets a member, again and again: found and repaired within 3 s."""
    run.boot_and_settle()
    worst_ns = 0
    for _ in range(10):
        forget_silently(run, *run.sample(2))
        began_ns = run.world.now_ns
        run.wait_equal_sums(10 * SECOND_NS)
        worst_ns = max(worst_ns, run.world.now_ns - began_ns)
        run.wait_all_alive(10 * SECOND_NS)
        run.world.run_for(run.draw_ns(0.1, 3))
    run.measure("repaired_worst_s", worst_ns)
    run.require(worst_ns <= 3 * SECOND_NS, f"a difference lasted {worst_ns / SECOND_NS:.1f} s")
    run.settle()


def forget_silently(run: Run, forgetful: Host, subject: Host) -> None:
    """Have a core lose a member and all it signed, as by a fault of ours that nothing tells of."""
    rehearsal.forget(run.core(forgetful), run.core(subject).own_node_id)
    run.invariants.disturbed(run.world, [])
    run.world.faults.fire("forget")


def join_storm(run: Run) -> None:
    """Everybody starts at one moment and knows one seed: how long until all see all."""
    run.invariants.watch(run.world)
    run.world.start(run.hosts[0])
    for host in run.hosts[1:]:
        run.world.push(run.draw_ns(0, 0.1), run.world.start, host, run.seeds())
    run.world.run_for(101 * MILLISECOND_NS)
    run.wait_all_alive(60 * SECOND_NS)
    run.measure("all_see_all_s", run.world.now_ns)
    run.settle()


def _services_order(run: Run, host: Host, node_id: bytes) -> Order:
    return services_order(run.core(host), node_id) or Order(0, 0, 0)


def spread(run: Run) -> None:
    """One record after another is published: how long until all but one in a thousand know it."""
    boot_known(run)
    run.world.run_for(5 * SECOND_NS)
    times = []
    for _ in range(20):
        owner = run.pick()
        run.publish(owner)
        began_ns, order = run.world.now_ns, run.core(owner).own_state.order
        node_id = run.core(owner).own_node_id
        newest = _services_order(run, owner, node_id)
        missing_max = len(run.hosts) // 1_000

        def known(node_id: bytes = node_id, newest: Order = newest, missing_max: int = missing_max) -> bool:
            held = (_services_order(run, host, node_id) for host in run.hosts)
            return sum(order < newest for order in held) <= missing_max

        done = run.world.run_until_true(known, 5 * SECOND_NS, 10 * MILLISECOND_NS)
        run.require(done, f"a record of {owner.name} after {order} is not known everywhere after 5 s")
        times.append(run.world.now_ns - began_ns)
        run.world.run_for(run.draw_ns(0.1, 1))
    times.sort()
    run.measure("spread_p50_s", times[len(times) // 2])
    run.measure("spread_worst_s", times[-1])
    run.settle()


def idle(run: Run) -> None:
    """Nothing happens: what it costs."""
    boot_known(run)
    run.world.run_for(10 * SECOND_NS)
    before = run.world.datagram_bytes
    run.world.run_for(30 * SECOND_NS)
    run.measured["bytes_per_s_per_node"] = round((run.world.datagram_bytes - before) / 30 / len(run.hosts), 1)


def mass_crash(run: Run) -> None:
    """A tenth of all machines dies at one moment: all of them are found, and nobody else is blamed."""
    run.boot_and_settle()
    victims = run.sample(max(1, len(run.hosts) // 10))
    began_ns = run.world.now_ns
    for host in victims:
        run.world.kill_node(host)
    for host in victims:
        run.wait_status(host, MemberStatus.DEAD, 25 * SECOND_NS)
    run.measure("all_dead_s", run.world.now_ns - began_ns)
    _require_never(run, [host for host in run.hosts if host not in victims], MemberStatus.DEAD)
    run.settle()


def blackout(run: Run) -> None:
    """Nothing passes between anybody for 5 to 20 s: nobody dies of it, and all is well soon after."""
    run.boot_and_settle()
    for number, seconds in enumerate((5, run.script.randint(6, 20))):
        rule = Blackout(f"blackout-{number}")
        run.world.cut(rule, list(run.world.hosts))
        run.world.run_for(seconds * SECOND_NS)
        run.world.heal(rule)
        healed_ns = run.world.now_ns
        run.wait_all_alive(HEAL_NS_MAX)
        run.measure(f"alive_{number}_s", run.world.now_ns - healed_ns)
        run.world.run_for(5 * SECOND_NS)
    if run.votes:
        _require_never(run, run.hosts, MemberStatus.DEAD)
    run.settle()


def flip_flop(run: Run) -> None:
    """One in a hundred is deaf for 20 s in every 40 s: out in time, few changes, nobody healthy removed."""
    run.boot_and_settle()
    ill = run.sample(max(1, len(run.hosts) // 100), but_not=[run.hosts[0]])
    rule = Deafness("deaf", frozenset(host.name for host in ill))
    rule.is_cut = False  # only the ill are excused, by name
    for turn in range(1, 6):
        run.world.push(run.world.now_ns + turn * 20 * SECOND_NS, _switch, rule)
    _suffer(run, rule, ill)


def _switch(rule: Deafness) -> None:
    rule.is_on = not rule.is_on


def egress_loss(run: Run) -> None:
    """One in a hundred loses 80 % of what it sends: out in time, few changes, nobody healthy removed."""
    run.boot_and_settle()
    ill = run.sample(max(1, len(run.hosts) // 100), but_not=[run.hosts[0]])
    _suffer(run, EgressLoss("mute", 0.8, frozenset(host.name for host in ill)), ill)


def _suffer(run: Run, rule: Rule, ill: Sequence[Host]) -> None:
    watch = run.invariants
    watch.unwell.update(host.name for host in ill)
    watch.expects_convergence = False
    began_ns = run.world.now_ns
    run.world.cut(rule, [host.name for host in ill])
    healthy = [host for host in run.hosts if host not in ill]

    def all_out() -> bool:
        names = {host.name for host in ill}
        return all(
            view.status >= MemberStatus.UNATTENDED
            for host in healthy
            for view in run.core(host).members()
            if view.name in names
        )

    is_out = run.world.run_until_true(all_out, OUT_NS_MAX, LOOK_NS)
    run.measure("out_s", run.world.now_ns - began_ns)
    run.require(is_out or not run.votes, "who is ill was not taken out in time")
    run.world.run_until(began_ns + 120 * SECOND_NS)
    changes = max(watch.changes(observer, subject) for observer in healthy for subject in ill)
    run.measured["changes_per_min"] = changes / 2
    run.require(changes <= 2 or not run.votes, f"an ill member changed {changes} times in two minutes")
    _require_never(run, healthy, MemberStatus.DEAD)
    run.world.heal(rule)
    watch.expects_convergence = True
    watch.disturbed(run.world, [host.name for host in ill])
    run.world.run_for(5 * SECOND_NS)
    run.wait_equal_sums(30 * SECOND_NS)


def pauses(run: Run) -> None:
    """Processes stop for 1 to 30 s: never given up below 2.5 s, back within 1 s of running on."""
    run.boot_and_settle()
    for seconds in (1, 2.4, 5, 10, 30):
        host = run.pick(but_not=[run.hosts[0]])
        run.invariants.forgive(host)
        run.world.pause(host)
        run.world.run_for(int(seconds * SECOND_NS))
        run.world.resume(host)
        resumed_ns = run.world.now_ns
        if seconds <= 2.5:
            run.world.run_for(10 * SECOND_NS)
            run.require(not run.invariants.was_given_up(host), f"given up after {seconds} s")
        run.wait_all_alive(10 * SECOND_NS)
        back_ns = run.world.now_ns - resumed_ns
        if seconds > 2.5:
            run.measure(f"back_after_{seconds}_s", back_ns)
            run.require(
                back_ns <= SECOND_NS or not run.votes, f"alive only {back_ns / SECOND_NS:.1f} s later"
            )
        others = [other for other in run.hosts if other is not host]
        run.require(
            not any(run.invariants.was_given_up(other) for other in others), "somebody else was given up"
        )
        run.world.run_for(13 * SECOND_NS)
        run.invariants.forgive(host)
    run.settle()


def starved(run: Run) -> None:
    """A tenth reads all 0.5 to 2.5 s late, half of them unknowingly; a machine dies, a wire is narrow."""
    run.boot_and_settle()
    late = run.sample(max(2, len(run.hosts) // 10), but_not=[run.hosts[0]])
    for number, host in enumerate(late):
        run.world.starve(host, (500 * MILLISECOND_NS, 2_500 * MILLISECOND_NS), is_stamped=number % 2 == 0)
    narrow = run.pick(but_not=[run.hosts[0], *late])
    run.world.network.limit_bandwidth(narrow.name, 3_000)
    run.invariants.expects_convergence = False
    run.world.run_for(30 * SECOND_NS)
    victim = run.pick(but_not=[run.hosts[0], narrow, *late])
    began_ns = run.world.now_ns
    run.world.kill_node(victim)
    run.wait_status(victim, MemberStatus.DEAD, 25 * SECOND_NS)
    run.measure("dead_last_s", run.world.now_ns - began_ns)
    run.world.run_for(20 * SECOND_NS)
    for host in late:
        host.read_late_ns = None
    run.world.run_for(5 * SECOND_NS)
    run.invariants.disturbed(run.world, [])
    run.invariants.expects_convergence = True
    if run.votes:
        _require_never(run, [host for host in run.hosts if host is not victim], MemberStatus.DEAD)
    run.settle()


def clocks(run: Run) -> None:
    """Civil clocks jump by minutes and hours, forward and back: nobody is evicted, nothing changes."""
    run.boot_and_settle()
    for by_s in (300, -300, 3_600, -7_200):
        host = run.pick()
        run.world.jump_clock(host, by_s)
        run.publish(host)
        run.world.run_for(run.draw_ns(2, 8))
    run.require_nobody_dead("a clock that jumped killed somebody")
    run.settle()


def damaged_disks(run: Run) -> None:
    """Machines come back with torn, corrupt and rolled back disks: above all they signed, and all agree."""
    run.boot_and_settle()
    copies = {host.name: host.disk.copy() for host in run.hosts}
    torn, corrupt, stale = run.sample(3, but_not=[run.hosts[0]])
    run.world.kill_node(torn)
    run.world.start(torn)
    run.publish(torn)
    run.world.kill_agent(stale)
    run.world.start(stale)
    run.publish(stale)
    run.settle()
    for host in (torn, corrupt, stale):
        run.publish(host)
        run.world.kill_node(host)
        run.world.run_for(run.draw_ns(0.5, 6))
        if host is corrupt:
            run.world.corrupt_disk(host)
        elif host is stale:
            run.world.roll_back_disk(host, copies[host.name])
        run.world.start(host, run.seeds())
        run.publish(host)
        run.wait_status(host, MemberStatus.ALIVE, 10 * SECOND_NS)
    run.settle()


def losses_in_turn(run: Run) -> None:
    """Two in five die within a minute, in turn: endpoints are kept until an operator lets them go."""
    run.boot_and_settle()
    victims = run.sample(len(run.hosts) * 2 // 5, but_not=[run.hosts[0]])
    for victim in victims:
        run.world.kill_node(victim)
        run.wait_status(victim, MemberStatus.DEAD, 25 * SECOND_NS)
    for host in run.running():
        count = endpoints_of(run, host)
        run.require(
            count == len(run.hosts) or not run.votes, f"{host.name} offers {count} endpoints after all that"
        )
    drained = run.pick(but_not=[run.hosts[0]])
    run.world.call(drained, lambda core, now: core.set_draining(now))
    run.world.run_for(2 * SECOND_NS)
    for host in run.running():
        run.world.call(host, lambda core, now: core.release_mass_death(now))
        run.require(
            endpoints_of(run, host) <= len(run.running()), f"{host.name} still offers endpoints of the dead"
        )
    run.world.kill_agent(drained)
    for host in (*victims, drained):
        _start_again(run, host)
    run.wait_all_alive(30 * SECOND_NS)
    run.settle()


def long_table(run: Run) -> None:
    """A newcomer takes over a table of many pages, from several peers at once, while records change."""
    run.boot_and_settle()
    note = (("note", "x" * 50),)  # makes a node's set some 12 kB, of which four fill a page
    names = [f"svc{number:03}" for number in range(120)]
    entries = [service_entry(f"shop/{name}", registration=name, labels=note) for name in names]
    for host in run.hosts:
        run.publish(host, entries=entries)
    run.settle()
    newcomer = run.pick(but_not=[run.hosts[0]])
    run.world.kill_agent(newcomer)
    run.world.replace_disk(newcomer)
    run.world.run_for(run.draw_ns(0.5, 2))
    run.world.start(newcomer, run.seeds())
    for _ in range(5):
        run.world.run_for(PROMPT_NS)
        run.publish(run.pick(but_not=[newcomer]))
    run.publish(newcomer)
    run.wait_status(newcomer, MemberStatus.ALIVE, 10 * SECOND_NS)
    run.settle()


HARDSHIPS: Final[dict[str, Callable[[Run], None]]] = {
    "heal-no-eviction": heal_no_eviction,
    "minority": minority,
    "upgrade-all": upgrade_all,
    "crash-all-agents": crash_all_agents,
    "partition-10-min": _long_partition(600 * SECOND_NS),
    "partition-day": _long_partition(DAY_NS),
    "partition-forgotten": forgotten,
    "divergence": divergence,
    "join-storm": join_storm,
    "spread": spread,
    "idle": idle,
    "mass-crash": mass_crash,
    "blackout": blackout,
    "flip-flop": flip_flop,
    "egress-loss": egress_loss,
    "pauses": pauses,
    "starved": starved,
    "clocks": clocks,
    "losses-in-turn": losses_in_turn,
    "long-table": long_table,
    "damaged-disks": damaged_disks,
}
ON_REQUEST: Final = ("partition-day",)  # too many events for a run of everything: five nodes need minutes
