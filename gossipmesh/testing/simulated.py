"""Runs chaos scenarios on the simulator: the same files, the same checkers, virtual time, no requests.

A node's agent is its real gossip core; its engine is only alive or not, its workloads only an
endpoint's health. `requests` is null in the evidence, and checks that ask for requests are not made.
"""

import hashlib
import random
from collections.abc import Callable
from typing import Any, Final

import msgspec

from gossipmesh.gossip.base.settings import MemberView
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.service import EndpointHealth
from gossipmesh.testing.builders import http_route, service_entry
from gossipmesh.testing.checkers import judge
from gossipmesh.testing.evidence import (
    EndpointsSeen,
    EngineSeen,
    Evidence,
    FaultFired,
    FinalState,
    ReadinessSeen,
    StatusSeen,
)
from gossipmesh.testing.nemesis import measures_of
from gossipmesh.testing.scenario import Scenario, Step, can_be_simulated, faults_expected
from gossipmesh.testing.simulator.faults import Partition
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import Run as World
from gossipmesh.testing.simulator.world import SimulationFailure
from gossipmesh.trust.keys import Verifier

NODES_COUNT: Final = 5
LOOK_NS: Final = 200 * MILLISECOND_NS
ENGINE_BACK_S: Final = (0.3, 1.0)
AGENT_BACK_S: Final = (0.5, 3.0)
RESTARTING_S: Final = 30  # what the agent announces, and how long it lets it be heard
LAST_WORD_S: Final = 0.6
RACE_S_MAX: Final = 120.0
REQUEST_CHECKS: Final = (
    "anytime_requests_succeed",
    "anytime_endpoint_leaves_use",
    "anytime_requests_after_the_fault_succeed",
    "anytime_stopped_workload_is_passed_by",
)


class SimulatedRun:
    """One run of one scenario in virtual time."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._rng = random.Random(f"{scenario.name}/{seed}")
        self._run = World(seed, nodes_count=NODES_COUNT, loss_ratio=0.0, verifier=Verifier(1_000_000))
        self._hosts = {f"node{host.index + 1}": host for host in self._run.hosts}
        self._names = {host.name: name for name, host in self._hosts.items()}
        self.victim = self._rng.choice(list(scenario.victims) or list(self._hosts))
        self.evidence = Evidence(scenario.name, seed, nodes=list(self._hosts))
        self._engine_runs = dict.fromkeys(self._hosts, 1)
        self._last: dict[tuple[str, str], Any] = {}
        self._sides: tuple[list[str], list[str]] = ([], [])
        self._rule: Partition | None = None
        self._racing: list[dict[str, Any]] = []
        self._hashes: dict[str, bytes] = {}
        self._version = 0

    def execute(self, say: Callable[[str], None]) -> Evidence:
        """Boot the mesh, run every step and gather what was seen."""
        self._run.boot()
        self._run.world.run_for(2 * SECOND_NS + 1)
        for name in self._hosts:
            self._publish(name, EndpointHealth.PASSING)
        self._pass(3.0)
        for step in self._scenario.steps * self._scenario.rounds:
            say(f"{self.now_s():6.1f} s  {step.do} {step.until or ', '.join(step.targets)} ({self.victim})")
            self._step(step)
        self._finish()
        return self.evidence

    def now_s(self) -> float:
        """Return virtual seconds since the run began."""
        return round(self._run.world.now_ns / SECOND_NS, 3)

    # Time and looking

    def _pass(self, duration_s: float) -> None:
        """Let time pass, looking at everything as the real observer does."""
        end_ns = self._run.world.now_ns + int(duration_s * SECOND_NS)
        while self._run.world.now_ns < end_ns:
            self._run.world.run_for(min(LOOK_NS, end_ns - self._run.world.now_ns))
            for name, host in self._hosts.items():
                self._look(name, host)

    def _look(self, name: str, host: Host) -> None:
        at_s, evidence = self.now_s(), self.evidence
        is_ready = host.engine_is_up and not host.engine_is_paused
        if self._changed(name, "readiness", is_ready):
            evidence.readiness.append(ReadinessSeen(at_s, name, is_ready))
        if host.core is None or host.is_paused:
            return
        core = self._run.core(host)
        for view in core.members():
            subject = self._names[view.name]
            if self._changed(name, f"status/{subject}", view.status.label):
                seen = StatusSeen(at_s, name, subject, view.status.label, core.local_health)
                evidence.statuses.append(seen)
        engine = (1_000 + self._engine_runs[name], host.engine_is_up, self._snapshot(core))
        if self._changed(name, "engine", engine):
            evidence.engines.append(EngineSeen(at_s, name, *engine))
        counts: dict[str, int] = {}
        for one in core.endpoints():
            for entry in one.entries:
                passing = entry.health == EndpointHealth.PASSING
                counts[entry.service] = counts.get(entry.service, 0) + passing
        if self._changed(name, "endpoints", counts):
            evidence.endpoints.append(EndpointsSeen(at_s, name, counts))

    def _snapshot(self, core: Any) -> str:
        offered = [(one.node, one.entries) for one in core.endpoints()]
        return hashlib.sha256(msgspec.msgpack.encode(offered)).hexdigest()[:16]

    def _changed(self, name: str, key: str, value: Any) -> bool:
        is_new = bool(self._last.get((name, key), _NOTHING) != value)
        self._last[name, key] = value
        return is_new

    # Steps

    def _step(self, step: Step) -> None:
        if step.do == "kill":
            self._kill(step)
        elif step.do == "pause":
            self._pause(step)
        elif step.do == "restart-agent":
            for name in self._struck(step):
                self._start_agent(name)
        elif step.do == "upgrade":
            for name in self._struck(step):
                self._upgrade(step, name)
                self._pass(step.for_s)
        elif step.do == "partition":
            self._partition(step)
        elif step.do == "heal":
            self._heal()
        elif step.do == "race":
            self._race()
        elif step.do == "push":
            self._push_and_wait(step)
        elif step.do == "load":
            self._pass(step.for_s)
        elif step.do == "await":
            self._await(step)

    def _publish(self, name: str, health: EndpointHealth) -> None:
        host = self._hosts[name]
        if host.core is not None and not host.is_paused:
            entry = service_entry("shop/cart", registration=f"cart-{name}", health=health)
            self._run.publish(host, entries=[entry])

    def _struck(self, step: Step) -> list[str]:
        return list(self._hosts) if step.everywhere else [self.victim]

    def _fired(self, kind: str, name: str, **detail: Any) -> None:
        if name not in self.evidence.victims:
            self.evidence.victims.append(name)
        self.evidence.faults.append(FaultFired(self.now_s(), kind, name, count=1, detail=detail))

    def _start_agent(self, name: str) -> None:
        self._last = {
            key: value for key, value in self._last.items() if key[0] != name or key[1] == "readiness"
        }
        self._run.world.start(self._hosts[name])
        self._publish(name, EndpointHealth.PASSING)

    def _upgrade(self, step: Step, name: str) -> None:
        """Tell the mesh, let it be heard, end the agent, start the next one after a moment."""
        self._fired("upgrade", name)
        host, world = self._hosts[name], self._run.world
        world.call(host, lambda core, now: core.set_restarting(RESTARTING_S, now))
        self._pass(LAST_WORD_S)
        world.kill_agent(host)
        self._pass(self._rng.uniform(*AGENT_BACK_S))
        self._start_agent(name)
        everyone = list(self._hosts)
        self._wait(
            f"{step.name} {name}", lambda: self._see(everyone, [name], MemberStatus.ALIVE), step.within_s
        )

    def _kill(self, step: Step) -> None:
        for name in self._struck(step):
            self._kill_at(step, name)

    def _kill_at(self, step: Step, name: str) -> None:
        host, world = self._hosts[name], self._run.world
        self._fired("kill", name, targets=step.targets)
        if "agent" in step.targets and "engine" in step.targets:
            world.kill_processes(host)
        elif "agent" in step.targets:
            world.kill_agent(host)
        elif "engine" in step.targets:
            host.engine_is_up = False
            self._publish(name, EndpointHealth.FAILING)
            back_ns = int(self._rng.uniform(*ENGINE_BACK_S) * SECOND_NS)
            world.push(world.now_ns + back_ns, self._engine_back, name)
        elif "workloads" in step.targets:
            self._publish(name, EndpointHealth.FAILING)

    def _engine_back(self, name: str) -> None:
        self._hosts[name].engine_is_up = True
        self._engine_runs[name] += 1
        self._publish(name, EndpointHealth.PASSING)

    def _pause(self, step: Step) -> None:
        host = self._hosts[self.victim]
        self._fired("pause", self.victim, targets=step.targets, for_s=step.for_s)
        if "agent" in step.targets:
            self._run.world.pause(host)
        host.engine_is_paused = "engine" in step.targets
        self._pass(step.for_s)
        host.engine_is_paused = False
        self._run.world.resume(host)

    def _partition(self, step: Step) -> None:
        names = list(self._hosts)
        if sum(step.sides) != len(names):
            raise OperatorError(f"sides {step.sides} do not add up to {len(names)} nodes")
        self._rng.shuffle(names)
        self._sides = (sorted(names[: step.sides[0]]), sorted(names[step.sides[0] :]))
        left, right = ([self._hosts[name].name for name in side] for side in self._sides)
        self._rule = self._run.world.partition(f"partition-{self.now_s()}", left, right)

    def _heal(self) -> None:
        if self._rule is None:
            raise OperatorError("nothing to heal: there was no partition")
        self._run.world.heal(self._rule)
        sides = "|".join(",".join(side) for side in self._sides)
        dropped = self._rule.fired_count
        self.evidence.faults.append(FaultFired(self.now_s(), "partition", sides, count=dropped))

    def _push(self, name: str, node: str, version: int) -> dict[str, Any]:
        self._hashes[name] = self._run.push_policy(self._hosts[node], version, [http_route(name)])
        across = [other for side in self._sides if node not in side for other in side]
        push = {"name": name, "node": node, "at_s": self.now_s(), "ended_s": None, "across": across}
        push |= {"exit_code": None, "stdout": "", "stderr": ""}
        self.evidence.pushes.append(push)
        return push

    def _end(self, push: dict[str, Any], exit_code: int, stderr: str) -> None:
        push.update(exit_code=exit_code, stderr=stderr, ended_s=self.now_s())

    def _race(self) -> None:
        self._version += 1
        places = [self._rng.choice(side) for side in self._sides]
        self._racing = [self._push(f"race{i}", place, self._version) for i, place in enumerate(places)]
        self.evidence.faults.append(FaultFired(self.now_s(), "race", places[0], count=len(places)))

    def _push_and_wait(self, step: Step) -> None:
        self._version += 1
        push = self._push(step.name, self._rng.choice(self._sides[0] or list(self._hosts)), self._version)
        self._pass(step.within_s)
        late = self._not_running(self._hashes[step.name], push["node"])
        self._end(push, 1 if late else 0, f"does not run it yet: {', '.join(late)}" if late else "")

    def _not_running(self, manifest_hash: bytes, observer: str) -> list[str]:
        """Return who does not run a set, by what the observer was told."""
        running = [
            self._names[view.name]
            for view in self._run.core(self._hosts[observer]).members()
            if any(policy.manifest_hash == manifest_hash for policy in view.state.policies)
        ]
        return [name for name in self._hosts if name not in running]

    # Waiting

    def _await(self, step: Step) -> None:
        conditions = self._conditions()
        if step.until not in conditions:
            raise OperatorError(
                f"nothing is known to wait for called {step.until!r}; known are {', '.join(conditions)}"
            )
        self._wait(step.name, conditions[step.until], step.within_s)

    def _wait(self, name: str, condition: Callable[[], bool], within_s: float) -> None:
        began_s = self.now_s()
        while not (came := condition()) and self.now_s() - began_s < within_s:
            self._pass(LOOK_NS / SECOND_NS)
        self.evidence.conditions[name] = round(self.now_s() - began_s, 3) if came else None

    def _conditions(self) -> dict[str, Callable[[], bool]]:
        everyone = list(self._hosts)
        others = [name for name in everyone if name != self.victim]
        victim = [self.victim]
        left, right = self._sides
        return {
            "victim-dead": lambda: self._see(others, victim, MemberStatus.DEAD),
            "victim-unattended": lambda: self._see(others, victim, MemberStatus.UNATTENDED),
            "victim-alive": lambda: self._see(others, victim, MemberStatus.ALIVE),
            "all-alive": lambda: self._see(everyone, everyone, MemberStatus.ALIVE),
            "sides-apart": lambda: self._apart(left, right) and self._apart(right, left),
            "state-sums-equal": lambda: self._run.invariants.sums_equal(self._run.world),
            "engine-attached": lambda: all(self._hosts[name].engine_is_up for name in self._victims()),
            "pushes-told": self._pushes_told,
            "all-open": lambda: not any(self._run.core(host).opening.is_closed for host in self._run.hosts),
        }

    def _victims(self) -> list[str]:
        return self.evidence.victims or [self.victim]

    def _views(self, observer: str) -> dict[str, MemberView]:
        host = self._hosts[observer]
        if host.core is None or host.is_paused:
            return {}
        return {self._names[view.name]: view for view in self._run.core(host).members()}

    def _see(self, observers: list[str], subjects: list[str], status: MemberStatus) -> bool:
        for observer in observers:
            views = self._views(observer)
            if any(name not in views or views[name].status is not status for name in subjects):
                return False
        return True

    def _apart(self, observers: list[str], subjects: list[str]) -> bool:
        """Tell whether one side uses nobody of the other: dead, or out of its own reach."""
        for observer in observers:
            views = self._views(observer)
            for name in subjects:
                view = views.get(name)
                if view is None or not (view.status is MemberStatus.DEAD or view.unreachable):
                    return False
        return True

    def _pushes_told(self) -> bool:
        """End each racing push that runs everywhere, or was overtaken by one that does."""
        for push in self._racing:
            if push["exit_code"] is not None:
                continue
            host = self._hosts[push["node"]]
            held = self._run.policy_hash(host, "mesh")
            if held != self._hashes[push["name"]]:
                self._end(push, 1, "superseded by another set of this version")
            elif not self._not_running(held, push["node"]):
                self._end(push, 0, "")
            elif self.now_s() - push["at_s"] > RACE_S_MAX:
                self._end(push, 1, "not everywhere in time")
        return all(push["exit_code"] is not None for push in self._racing)

    def _finish(self) -> None:
        self._pushes_told()
        for name, host in self._hosts.items():
            if host.core is None or host.is_paused:
                self.evidence.finals.append(FinalState(name, answered=False))
                continue
            core = self._run.core(host)
            group, documents = core.state_sums()
            policies = {p.scope: f"{p.version}/{p.manifest_hash.hex()}" for p in core.own_state.policies}
            statuses = {self._names[view.name]: view.status.label for view in core.members()}
            state_sums = {"group": group.hex(), "documents": documents.hex()}
            final = FinalState(name, True, state_sums, statuses, policies, core.local_health)
            self.evidence.finals.append(final)


_NOTHING: Final = object()


def run_simulated(scenario: Scenario, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run `scenario` in virtual time; the result is that of `run_scenario`, with `requests` null.

    Raises:
        OperatorError: it is about requests, enrolment or keys, which are not simulated. State: nothing
            was run.
    """
    if not can_be_simulated(scenario):
        raise OperatorError(
            f"{scenario.name} is about requests, enrolment or keys, which are not simulated; "
            "run it with --backend process"
        )
    run = SimulatedRun(scenario, seed)
    problems: list[str] = []
    try:
        run.execute(say)
    except SimulationFailure as failure:
        problems = [str(failure)]
    asked = tuple(check for check in scenario.checks if check.check not in REQUEST_CHECKS)
    expected = faults_expected(scenario, len(run.evidence.nodes))
    checks = judge(run.evidence, msgspec.structs.replace(scenario, checks=asked), expected)
    checks.append(
        {"check": "anytime_invariants_hold", "params": {}, "ok": not problems, "problems": problems}
    )
    return {
        "scenario": scenario.name,
        "seed": seed,
        "backend": "sim",
        "ok": all(check["ok"] for check in checks),
        "checks": checks,
        "skipped": [check.check for check in scenario.checks if check.check in REQUEST_CHECKS],
        "measures": measures_of(run.evidence),
        "logs": None,
        "evidence": msgspec.to_builtins(run.evidence) | {"requests": None},
    }
