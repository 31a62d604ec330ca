"""What happens in a simulated day: each chapter does one thing to a mesh and keeps what it showed."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from bench.gossip.diary import DOWN, Day, seconds
from bench.gossip.healing import apart, divergence, join, partition, restart, slept
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.builders import http_route
from gossipmesh.testing.simulator.faults import Deafness, EgressLoss
from gossipmesh.testing.simulator.host import Host

DETECT_NS: Final = 60 * SECOND_NS
MEASURED_S: Final = 20  # a probe a node every two seconds, and eight round trips to begin with
RECORDS_COUNT: Final = 20
SETS_COUNT: Final = 3
MOST: Final = 0.999  # of the members: what G9 asks for
CHURN_MINUTES: Final = 5
CHURN_MINUTES_LARGE: Final = 1  # of a mesh of LARGE nodes: there is no more time
LARGE: Final = 300
REPLACED_AFTER_S: Final = 6
UPDATE_EVERY_S: Final = 6


def calm(day: Day) -> None:
    """Two minutes with one crash: what the speed of the simulator is said of."""
    day.rest(60)
    day.run.world.kill_node(day.run.pick(but_not=[day.run.hosts[0]]))
    day.rest(60)


def idle(day: Day) -> None:
    """Nothing happens: bytes of datagrams each node sends in a second."""
    world = day.run.world
    began_ns = world.now_ns
    day.wait_quiet()
    day.figures["quiet_after_s"] = seconds(world.now_ns - began_ns)
    before = world.datagram_bytes
    day.rest(20)
    sent = world.datagram_bytes - before
    day.figures["idle_bytes_per_s"] = round(sent / 20 / len(day.run.hosts), 1)


def record(day: Day) -> None:
    """One node's services change, then another's, and so on: when most, and when all others know."""
    run = day.run
    owners = run.sample(min(RECORDS_COUNT, len(run.hosts)))
    began: dict[bytes, int] = {}
    for owner in owners:
        began[run.core(owner).own_node_id] = run.world.now_ns
        day.publish(owner)
        day.rest(1)
    day.rest(4)
    times: dict[bytes, list[int]] = {node_id: [] for node_id in began}
    for (_, node_id), at_ns in day.diary.services_ns.items():
        if node_id in began and at_ns > began[node_id]:
            times[node_id].append(at_ns - began[node_id])
    _keep_spread(day, "record", times.values(), len(run.hosts) - 1)


def document(day: Day) -> None:
    """Policy sets of one small document are offered at one node each: when most, and all, run them."""
    run = day.run
    times = []
    for version in range(1, SETS_COUNT + 1):
        began_ns = run.world.now_ns
        run.push_policy(run.pick(), version, [http_route(f"cart-{version}")])
        day.rest(5)
        times.append([at - began_ns for (_, v), at in day.diary.policies_ns.items() if v == version])
    _keep_spread(day, "document", times, len(run.hosts))
    run.settle()


def _keep_spread(day: Day, name: str, times: Iterable[list[int]], count: int) -> None:
    most, last = [], 0
    members = len(day.run.hosts)
    for some in times:
        day.run.require(len(some) == count, f"{len(some)} of {count} know in the end")
        ordered = sorted(some)
        # Who changed it knows it at once, and is one of the members.
        most.append(seconds(ordered[count - 1 - int(members * (1 - MOST) + 1e-6)]))
        last = max(last, ordered[-1])
    day.figures[name] = {"most_s": most, "last_s": seconds(last)}


def killed(day: Day) -> None:
    """Agent and engine of a node end, its kernel refuses: when each other node holds it dead."""
    victim = day.run.pick(but_not=[day.run.hosts[0]])
    began_ns = day.run.world.now_ns
    day.run.world.kill_processes(victim)
    _detect(day, "killed", victim, began_ns)


def silent(day: Day) -> None:
    """A machine loses power: when each other node holds it dead."""
    _silence(day, "silent")


def silent_measured(day: Day) -> None:
    """The same after a while: by then every node has measured its round trips."""
    day.rest(MEASURED_S)
    _silence(day, "silent_measured")


def _silence(day: Day, name: str) -> None:
    victim = day.run.pick(but_not=[day.run.hosts[0]])
    began_ns = day.run.world.now_ns
    day.run.world.kill_node(victim)
    _detect(day, name, victim, began_ns)


def _detect(day: Day, name: str, victim: Host, began_ns: int) -> None:
    run = day.run
    run.wait_status(victim, MemberStatus.DEAD, DETECT_NS)
    times: dict[str, int] = {}
    for at_ns, observer, subject, status in day.diary.told:
        if subject == victim.name and status is MemberStatus.DEAD and at_ns >= began_ns:
            times.setdefault(observer, at_ns - began_ns)
    day.keep(name, list(times.values()))
    day.note_deaths(began_ns, but=[victim.name])
    run.world.start(victim)
    run.publish(victim)
    run.wait_status(victim, MemberStatus.ALIVE, 20 * SECOND_NS)
    run.settle()


def paused(day: Day) -> None:
    """A process stops for 2 s, another for 10 s: who is held dead, and when all see it again."""
    run = day.run
    for length_s in (2, 10):
        victim = run.pick(but_not=[run.hosts[0]])
        began_ns = run.world.now_ns
        run.world.pause(victim)
        day.rest(length_s)
        run.world.resume(victim)
        resumed_ns = run.world.now_ns
        run.wait_status(victim, MemberStatus.ALIVE, 20 * SECOND_NS)
        held = {
            o for at, o, s, status in day.diary.told if at >= began_ns and s == victim.name and status in DOWN
        }
        back = [at for at, _, s, status in day.diary.told if at >= resumed_ns and s == victim.name]
        day.figures[f"paused_{length_s}"] = {
            "held_dead_by": len(held),
            "back_s": seconds(max(back, default=resumed_ns) - resumed_ns),
        }
        day.note_deaths(began_ns, but=[victim.name])
        day.rest(5)
    run.settle()


def crashes(day: Day) -> None:
    """Ten machines (a tenth, in small meshes) lose power at one moment: each survivor's busiest second."""
    run = day.run
    victims = run.sample(min(10, len(run.hosts) // 10), but_not=[run.hosts[0]])
    began_ns = run.world.now_ns
    day.diary.sent_bytes = Counter()
    for victim in victims:
        run.world.kill_node(victim)
    for victim in victims:
        run.wait_status(victim, MemberStatus.DEAD, DETECT_NS)
    took_ns = run.world.now_ns - began_ns
    day.rest(5)
    busiest: Counter[str] = Counter()
    for (name, _), sent in day.diary.sent_bytes.items():
        busiest[name] = max(busiest[name], sent)
    day.diary.sent_bytes = None
    ordered = sorted(busiest.values())
    day.figures["crashes"] = {
        "count": len(victims),
        "p50_bytes": ordered[len(ordered) // 2],
        "p99_bytes": ordered[-(-len(ordered) * 99 // 100) - 1],
        "max_bytes": ordered[-1],
        "every_s": seconds(took_ns),
    }
    day.note_deaths(began_ns, but=[victim.name for victim in victims])
    for victim in victims:
        run.world.start(victim)
        run.publish(victim)
    run.settle()


def churn(day: Day) -> None:
    """A tenth of the nodes is replaced in each minute: the longest queue, and how fast updates spread.

    A replaced node loses its disk and starts again six seconds later, as the next generation. Every six
    seconds somebody who is never replaced changes its services; those who are never replaced must know.
    """
    run = day.run
    minutes = CHURN_MINUTES if len(run.hosts) < LARGE else CHURN_MINUTES_LARGE
    count = max(1, len(run.hosts) * minutes // 10)
    stable = run.sample(len(run.hosts) // 4, but_not=[run.hosts[0]])
    mortal = [host for host in run.hosts[1:] if host not in stable]
    longest = replaced = worst_ns = 0
    for second in range(minutes * 60):
        while replaced < count * (second + 1) // (minutes * 60):
            _replace(day, mortal[replaced % len(mortal)])
            replaced += 1
        if second % UPDATE_EVERY_S == 0:
            owner, began_ns = run.script.choice(stable), run.world.now_ns
            day.publish(owner)
        day.rest(1)
        longest = max(longest, *(run.core(host).statistics().queue_length for host in run.running()))
        if second % UPDATE_EVERY_S == UPDATE_EVERY_S - 1:
            worst_ns = max(worst_ns, _update_p99_ns(day, owner, began_ns, stable))
    day.rest(REPLACED_AFTER_S)
    day.figures["churn"] = {
        "minutes": minutes,
        "replaced": replaced,
        "queue_max": longest,
        "members": len(run.hosts),
        "update_p99_s": seconds(worst_ns),
    }
    run.settle()


def _replace(day: Day, host: Host) -> None:
    """Take a machine away and put another in its place a little later."""
    day.run.world.kill_node(host)
    day.run.world.replace_disk(host)
    day.run.world.push(day.run.world.now_ns + REPLACED_AFTER_S * SECOND_NS, _begin, day, host)


def _begin(day: Day, host: Host) -> None:
    day.run.world.start(host, day.run.seeds())
    day.run.publish(host)


def _update_p99_ns(day: Day, owner: Host, began_ns: int, witnesses: Sequence[Host]) -> int:
    """Return when 99 % of those who were there all the while knew an update."""
    node_id = day.run.core(owner).own_node_id
    told = [
        day.diary.services_ns.get((host.name, node_id), 0) - began_ns
        for host in witnesses
        if host is not owner
    ]
    knowing = sorted(at_ns for at_ns in told if at_ns > 0)
    day.run.require(len(knowing) == len(told), f"{len(knowing)} of {len(told)} know an update amid churn")
    return knowing[-(-len(knowing) * 99 // 100) - 1]


def _sicken(day: Day) -> Host:
    """Choose whom the others may give up though it lives: that is what is measured."""
    victim = day.run.pick(but_not=[day.run.hosts[0]])
    day.diary.expects_convergence = False
    day.diary.unwell.add(victim.name)
    return victim


def flipflop(day: Day) -> None:
    """One node hears nothing for 20 s, everything for 20 s, and so on for 3 min."""
    run = day.run
    victim = _sicken(day)
    began_ns = run.world.now_ns
    rule = Deafness("deaf", frozenset([victim.name]))
    run.world.cut(rule, [victim.name])
    for _ in range(9):
        day.rest(20)
        rule.is_on = not rule.is_on
    run.world.heal(rule)
    _keep_removal(day, "flipflop", victim, began_ns)


def mute(day: Day) -> None:
    """One node loses 80 % of the datagrams it sends, for 2 min."""
    run = day.run
    victim = _sicken(day)
    began_ns = run.world.now_ns
    rule = EgressLoss("mute", 0.8, frozenset([victim.name]))
    run.world.cut(rule, [victim.name])
    day.rest(120)
    run.world.heal(rule)
    _keep_removal(day, "mute", victim, began_ns)


def _keep_removal(day: Day, name: str, victim: Host, began_ns: int) -> None:
    minutes = (day.run.world.now_ns - began_ns) / SECOND_NS / 60
    first: dict[str, int] = {}
    changes: Counter[str] = Counter()
    out: dict[str, bool] = {}
    for at_ns, observer, subject, status in day.diary.told:
        if at_ns < began_ns or subject != victim.name or observer == victim.name:
            continue
        changes[observer] += out.get(observer, False) is not (status in DOWN)
        out[observer] = status in DOWN
        if status in DOWN:
            first.setdefault(observer, at_ns - began_ns)
    out_everywhere = len(first) == len(day.run.hosts) - 1
    before = len(day.others_dead)
    day.note_deaths(began_ns, but=[victim.name])
    day.figures[name] = {
        "out_s": seconds(max(first.values())) if out_everywhere else None,
        "out_on": len(first),
        "healthy_removed": len(day.others_dead) - before,
        "changes_per_minute": round(max(changes.values(), default=0) / minutes, 2),
    }


CHAPTERS: Final[dict[str, Callable[[Day], None]]] = {
    "join": join,
    "calm": calm,
    "idle": idle,
    "record": record,
    "document": document,
    "killed": killed,
    "silent": silent,
    "silent_measured": silent_measured,
    "paused": paused,
    "divergence": divergence,
    "partition": partition,
    "apart": apart,
    "slept": slept,
    "restart": restart,
    "crashes": crashes,
    "churn": churn,
    "flipflop": flipflop,
    "mute": mute,
}
