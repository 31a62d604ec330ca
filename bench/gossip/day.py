"""One simulated day of a mesh: every virtual figure that one world can give, from the real cores.

`python -m bench.gossip.day --nodes 100 --loss 0.01 --seed 1 [--detector swim]` prints one JSON object. What
a chapter could not show stands in `failures`; the chapters after it are then left out.
"""

import argparse
import gc
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from gossipmesh.gossip.effects import (
    Effect,
    MemberChanged,
    Notify,
    PolicyApplied,
    SendDatagram,
    SendStream,
    ServicesChanged,
)
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.net.clock import process_cpu_s
from gossipmesh.testing.builders import http_route
from gossipmesh.testing.simulator.faults import Deafness, EgressLoss
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.invariants import Invariants
from gossipmesh.testing.simulator.priming import boot_known
from gossipmesh.testing.simulator.run import Run
from gossipmesh.testing.simulator.world import SimulationFailure, World
from gossipmesh.trust.keys import Verifier

LOOK_NS: Final = 20 * MILLISECOND_NS
VERDICTS_MAX: Final = 4_000_000
DETECT_NS: Final = 60 * SECOND_NS
QUIET_NS: Final = 180 * SECOND_NS
DOWN: Final = (MemberStatus.DEAD, MemberStatus.UNATTENDED)


class Diary(Invariants):
    """The simulator's invariants, and who told what when."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: set[tuple[str, str]] = set()
        self.whole_ns = 0  # when the newest pair (observer, other) came to see each other
        self.told: list[tuple[int, str, str, MemberStatus]] = []
        self.services_ns: dict[tuple[str, bytes], int] = {}
        self.policies_ns: dict[tuple[str, int], int] = {}
        self.sent_bytes: Counter[tuple[str, int]] | None = None  # by host and second, while somebody counts

    def stepped(self, world: World, host: Host, effects: Sequence[Effect]) -> None:
        """Count what a step sends, when that is wanted, then check it as always."""
        if self.sent_bytes is not None:
            second = world.now_ns // SECOND_NS
            for effect in effects:
                if isinstance(effect, SendDatagram | SendStream):
                    self.sent_bytes[host.name, second] += len(effect.payload)
        super().stepped(world, host, effects)

    def notified(self, world: World, host: Host, effect: Notify) -> None:
        """Write down what a core tells, then check it as always."""
        event = effect.event
        if isinstance(event, MemberChanged) and event.name != host.name:
            self.told.append((world.now_ns, host.name, event.name, event.status))
            pair = (host.name, event.name)
            if event.status is MemberStatus.ALIVE and pair not in self.alive:
                self.alive.add(pair)
                self.whole_ns = world.now_ns
            elif event.status is not MemberStatus.ALIVE:
                self.alive.discard(pair)
        elif isinstance(event, ServicesChanged):
            self.services_ns[host.name, event.node_id] = world.now_ns
        elif isinstance(event, PolicyApplied):
            self.policies_ns[host.name, event.version] = world.now_ns
        super().notified(world, host, effect)


class Day:
    """A run, its diary, and the figures so far."""

    def __init__(self, nodes_count: int, loss_ratio: float, seed: int, detector: str | None) -> None:
        verifier = Verifier(VERDICTS_MAX)
        self.run = Run(
            seed, nodes_count=nodes_count, loss_ratio=loss_ratio, verifier=verifier, detector=detector
        )
        self.diary = Diary()
        self.diary.grace_ns = self.run.invariants.grace_ns
        self.run.invariants = self.run.world.observer = self.diary
        self.figures: dict[str, Any] = {}
        self.others_dead: list[str] = []

    def keep(self, name: str, times_ns: Sequence[int]) -> None:
        """Keep first, median, 99th percentile and last of durations, in seconds."""
        ordered = sorted(times_ns)
        if ordered:
            at = {"first": 0, "p50": len(ordered) // 2, "p99": -(-len(ordered) * 99 // 100) - 1, "last": -1}
            self.figures[name] = {key: round(ordered[index] / SECOND_NS, 3) for key, index in at.items()}

    def note_deaths(self, since_ns: int, *, but: Sequence[str]) -> None:
        """Keep who else was declared dead since."""
        for at_ns, observer, subject, status in self.diary.told:
            if at_ns >= since_ns and status in DOWN and subject not in but and observer not in but:
                self.others_dead.append(f"{observer} held {subject} {status.label}")

    def publish(self, host: Host) -> None:
        """Have a host change its services; equal roots are expected anew only after that."""
        self.run.publish(host)
        self.diary.disturbed(self.run.world, [])

    def wait_quiet(self) -> None:
        """Let the last updates be sent as often as they are to be: joins are told for a while."""
        run = self.run
        quiet = run.world.run_until_true(
            lambda: not any(run.core(host).statistics().queue_length for host in run.running()),
            QUIET_NS,
            SECOND_NS,
        )
        run.require(quiet, f"updates are still queued after {QUIET_NS // SECOND_NS} s")

    def rest(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.run.world.run_for(int(seconds * SECOND_NS))


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
    day.figures["join_s"] = round(day.diary.whole_ns / SECOND_NS, 3)
    for host in run.hosts:
        day.publish(host)
    run.settle()


def known(day: Day) -> None:
    """Instead of joining, which takes most of a large mesh's time: everyone knows everyone at the start."""
    boot_known(day.run)
    day.rest(5)


def idle(day: Day) -> None:
    """Nothing happens: bytes of datagrams each node sends in a second."""
    world = day.run.world
    began_ns = world.now_ns
    day.wait_quiet()
    day.figures["quiet_after_s"] = round((world.now_ns - began_ns) / SECOND_NS, 1)
    before = world.datagram_bytes
    day.rest(20)
    sent = world.datagram_bytes - before
    day.figures["idle_bytes_per_s"] = round(sent / 20 / len(day.run.hosts), 1)


def record(day: Day) -> None:
    """One node's services change: when each other node knows."""
    run = day.run
    owner, began_ns = run.pick(), run.world.now_ns
    day.publish(owner)
    node_id = run.core(owner).own_node_id
    day.rest(5)
    times = [
        at_ns - began_ns
        for (name, subject), at_ns in day.diary.services_ns.items()
        if subject == node_id and name != owner.name and at_ns >= began_ns
    ]
    run.require(len(times) == len(run.hosts) - 1, f"{len(times)} nodes know the new record after 5 s")
    day.keep("record", times)


def document(day: Day) -> None:
    """A policy set of one small document is offered at one node: when each node runs it."""
    run, began_ns = day.run, day.run.world.now_ns
    run.push_policy(run.pick(), 1, [http_route("cart-1")])
    day.rest(5)
    times = [at_ns - began_ns for (_, version), at_ns in day.diary.policies_ns.items() if version == 1]
    run.require(len(times) == len(run.hosts), f"{len(times)} of {len(run.hosts)} run the set after 5 s")
    day.keep("document", times)
    run.settle()


def killed(day: Day) -> None:
    """Agent and engine of a node end, its kernel refuses: when each other node holds it dead."""
    victim = day.run.pick(but_not=[day.run.hosts[0]])
    began_ns = day.run.world.now_ns
    day.run.world.kill_agent(victim)
    victim.engine_is_up = False
    _detect(day, "killed", victim, began_ns)


def silent(day: Day) -> None:
    """A machine loses power: when each other node holds it dead."""
    victim = day.run.pick(but_not=[day.run.hosts[0]])
    began_ns = day.run.world.now_ns
    day.run.world.kill_node(victim)
    _detect(day, "silent", victim, began_ns)


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
    for seconds in (2, 10):
        victim = run.pick(but_not=[run.hosts[0]])
        began_ns = run.world.now_ns
        run.world.pause(victim)
        day.rest(seconds)
        run.world.resume(victim)
        resumed_ns = run.world.now_ns
        run.wait_status(victim, MemberStatus.ALIVE, 20 * SECOND_NS)
        held = {
            o for at, o, s, status in day.diary.told if at >= began_ns and s == victim.name and status in DOWN
        }
        back = [at for at, _, s, status in day.diary.told if at >= resumed_ns and s == victim.name]
        day.figures[f"paused_{seconds}"] = {
            "held_dead_by": len(held),
            "back_s": round((max(back, default=resumed_ns) - resumed_ns) / SECOND_NS, 3),
        }
        day.note_deaths(began_ns, but=[victim.name])
        day.rest(5)
    run.settle()


def divergence(day: Day) -> None:
    """One node misses an update entirely (it hears nobody for 2 s): when its view is whole again."""
    run = day.run
    deaf, owner = run.sample(2)
    rule = run.world.partition(
        "miss", [h.name for h in run.hosts if h is not deaf], [deaf.name], one_way=True
    )
    run.publish(owner)
    day.rest(2)
    run.world.heal(rule)
    healed_ns = run.world.now_ns
    run.wait_equal_roots(30 * SECOND_NS)
    day.figures["divergence_s"] = round((run.world.now_ns - healed_ns) / SECOND_NS, 3)
    run.settle()


def partition(day: Day) -> None:
    """Two halves lose each other for a minute, each changes; after the heal, when all roots are equal."""
    run = day.run
    left, right = run.halves()
    began_ns = run.world.now_ns
    endpoints = sum(len(run.core(host).services()) for host in run.hosts)
    rule = run.world.partition("halves", left, right)
    day.rest(30)
    run.publish(run.world.hosts[left[0]])
    run.publish(run.world.hosts[right[0]])
    day.rest(30)
    cut = sum(1 for at, *_, status in day.diary.told if at >= began_ns and status in DOWN)
    run.world.heal(rule)
    healed_ns = run.world.now_ns
    run.wait_all_alive(60 * SECOND_NS)
    run.wait_equal_roots(60 * SECOND_NS)
    day.figures["heal_s"] = round((run.world.now_ns - healed_ns) / SECOND_NS, 3)
    day.figures["declared_while_parted"] = cut
    day.figures["endpoints_before_after"] = [
        endpoints,
        sum(len(run.core(host).services()) for host in run.hosts),
    ]
    run.settle()


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
    run.wait_all_alive(60 * SECOND_NS)
    run.wait_equal_roots(60 * SECOND_NS)
    day.figures["restart_s"] = round((run.world.now_ns - began_ns) / SECOND_NS, 3)


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
        "p99_bytes": ordered[-(-len(ordered) * 99 // 100) - 1],
        "max_bytes": ordered[-1],
        "every_s": round(took_ns / SECOND_NS, 3),
    }
    day.note_deaths(began_ns, but=[victim.name for victim in victims])
    for victim in victims:
        run.world.start(victim)
        run.publish(victim)
    run.settle()


def churn(day: Day) -> None:
    """A tenth of the nodes is replaced in a minute: the longest queue, and how fast updates spread."""
    run = day.run
    count = max(1, len(run.hosts) // 10)
    longest, worst_ns = 0, 0
    for _ in range(count):
        victim = run.pick(but_not=[run.hosts[0]])
        run.world.kill_node(victim)
        owner, began_ns = run.pick(but_not=[victim]), run.world.now_ns
        run.publish(owner)
        node_id = run.core(owner).own_node_id
        for _ in range(int(60 / count)):
            day.rest(1)
            queues = [run.core(host).statistics().queue_length for host in run.running()]
            longest = max(longest, *queues)
        knowing = [
            at_ns - began_ns
            for (name, subject), at_ns in day.diary.services_ns.items()
            if subject == node_id and at_ns >= began_ns and name not in (owner.name, victim.name)
        ]
        reached = len(knowing) >= len(run.hosts) - 2
        run.require(reached, f"{len(knowing)} of {len(run.hosts) - 2} know the update of {owner.name}")
        worst_ns = max(worst_ns, sorted(knowing)[-(-len(knowing) * 99 // 100) - 1])
        run.world.replace_disk(victim)
        run.world.start(victim, run.seeds())
        run.publish(victim)
    day.figures["churn"] = {
        "queue_max": longest,
        "members": len(run.hosts),
        "update_p99_s": round(worst_ns / SECOND_NS, 3),
    }
    run.settle()


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
        "out_s": round(max(first.values()) / SECOND_NS, 3) if out_everywhere else None,
        "out_on": len(first),
        "healthy_removed": len(day.others_dead) - before,
        "changes_per_minute": round(max(changes.values(), default=0) / minutes, 2),
    }


CHAPTERS: Final[dict[str, Callable[[Day], None]]] = {
    "join": join,
    "known": known,
    "idle": idle,
    "record": record,
    "document": document,
    "killed": killed,
    "silent": silent,
    "paused": paused,
    "divergence": divergence,
    "partition": partition,
    "restart": restart,
    "crashes": crashes,
    "churn": churn,
    "flipflop": flipflop,
    "mute": mute,
}


def live(day: Day, chapters: Sequence[str]) -> dict[str, Any]:
    """Go through the chapters; return figures, failures and what it cost."""
    failures: list[str] = []
    began_s = process_cpu_s()
    for name in chapters:
        try:
            CHAPTERS[name](day)
        except SimulationFailure as failure:
            failures.append(f"{name}: {failure}")
            break
    world = day.run.world
    cpu_s = process_cpu_s() - began_s
    return {
        "figures": day.figures,
        "failures": failures,
        "others_dead": day.others_dead[:5],
        "virtual_s": round(world.now_ns / SECOND_NS, 1),
        "events": world.events_count,
        "events_per_s": round(world.events_count / max(cpu_s, 0.001)),
        "cpu_s": round(cpu_s, 1),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Live one day and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.gossip.day", description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--loss", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--detector", help="instead of the default")
    parser.add_argument("--chapter", action="append", choices=list(CHAPTERS))
    options = parser.parse_args(words)
    gc.disable()  # a world makes few cycles and many objects; the process ends with it
    day = Day(options.nodes, options.loss, options.seed, options.detector)
    told = {"nodes": options.nodes, "loss": options.loss, "seed": options.seed, "detector": options.detector}
    print(json.dumps(told | live(day, options.chapter or list(CHAPTERS))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
