"""Runs a scenario against a mesh of processes: fires its faults, waits, and returns the evidence.

The seed chooses the victim, the sides of a partition and the moments; nothing else is random here.
"""

import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing import (
    address_moves,
    cold_starts,
    copied_state,
    departures,
    enrolments,
    key_turns,
    layout,
    lost_udp,
    mutes,
    no_authority,
    openings,
    plays,
    stolen_node_key,
    taken_out,
)
from gossipmesh.testing.agent_log import replacement_s
from gossipmesh.testing.checkers import judge, listener_gap_s, replaced_ended_s, seen_after_fault
from gossipmesh.testing.evidence import Evidence, FaultFired, Observer
from gossipmesh.testing.isolations import isolations_known_s
from gossipmesh.testing.load import Client, NoAnswer, Outcome, Tally, Target
from gossipmesh.testing.load_control import Load
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.namespaces import NamespaceNetwork
from gossipmesh.testing.request_checkers import isolation_failures_s
from gossipmesh.testing.scenario import Scenario, Step, faults_expected
from gossipmesh.testing.scenario_place import place_of, start_mesh
from gossipmesh.testing.waiting import WaitedInVain, wait_until

FINAL_TIMEOUT_S: Final = 10.0
RACE_TIMEOUT_S: Final = 120.0
RACE_STAGGER_S_MAX: Final = 0.5
COMMAND_SLACK_S: Final = 15.0
CALL_TIMEOUT_S: Final = 60.0
SLOW_MS: Final = 500.0
SLOW_KEPT_MAX: Final = 2_000


class Run:
    """One run of one scenario."""

    def __init__(self, scenario: Scenario, seed: int, mesh: Mesh) -> None:
        self._scenario = scenario
        self._mesh = mesh
        self._rng = random.Random(f"{scenario.name}/{seed}")
        names = [node.name for node in mesh.layout.nodes]
        self.victim = self._rng.choice(list(scenario.victims) or names)
        self.bystander = random.Random(f"{scenario.name}/{seed}/bystander").choice(
            [name for name in names if name != self.victim]
        )
        self.evidence = Evidence(scenario.name, seed, nodes=names)
        self._observer = Observer(mesh, self.evidence)
        self._sides: tuple[list[str], list[str]] = ([], [])
        self._pushes_done = trio.Event()
        self._loads: dict[str, Load] = {}
        self._cut_s = 0.0

    async def execute(self, say: Callable[[str], None]) -> Evidence:
        """Start the mesh, run every step under load and observation, and gather what was seen."""
        say(f"{self._scenario.name}: seed {self.evidence.seed}, starting the mesh in {self._mesh.directory}")
        await start_mesh(self._scenario, self._mesh)
        for node in self._mesh.nodes.values():
            await node.status()
        say("the mesh is ready")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._observer.run)
            await self._start_loads(nursery)
            async with trio.open_nursery() as calls:
                for step in self._scenario.steps * self._scenario.rounds:
                    await self._step(step, calls, say)
            if self._loads:
                await self._stop_loads()
            nursery.cancel_scope.cancel()
        await self._observer.finish()
        return self.evidence

    async def _start_loads(self, nursery: trio.Nursery) -> None:
        wanted = self._scenario.load
        if wanted.rate_per_s <= 0:
            return
        broken = self.victim if self._breaks_victim() and not wanted.from_victim else None
        sources = [name for name in self._mesh.nodes if name != broken]

        def load(name: str, rate_per_s: float, **options: Any) -> Load:
            return Load(
                *(self._mesh, sources),
                rate_per_s=rate_per_s,
                timeout_s=wanted.timeout_s,
                hosts=wanted.hosts,
                records=True,
                name=name,
                **options,
            )

        self._loads["requests"] = load("load", wanted.rate_per_s)
        if wanted.mixed:
            held = {"sessions": wanted.sessions, "session_life_s": wanted.session_life_s}
            self._loads["mixed"] = load("mixed", wanted.mixed_rate_per_s, kinds=wanted.mixed, **held)
        for started in self._loads.values():
            started.start(nursery)
        await trio.sleep(wanted.warm_up_s + self._rng.uniform(0, wanted.warm_up_jitter_s))

    async def _stop_loads(self) -> None:
        """Stop all load and write down what became of it, in this run's own time."""
        since, evidence = self._observer.since_start_s, self.evidence
        summaries: dict[str, dict[str, Any]] = {}

        async def stop(name: str) -> None:
            summaries[name] = await self._loads[name].stop()

        async with trio.open_nursery() as nursery:
            for name in self._loads:
                nursery.start_soon(stop, name)
        for name, summary in summaries.items():
            for failure in summary["failures"]:
                failure["at_s"] = since(failure["at_s"])
            slow = [item for item in self._loads[name].outcomes() if item.latency_ms > SLOW_MS]
            evidence.slow += [
                msgspec.structs.replace(item, at_s=since(item.at_s)) for item in slow[:SLOW_KEPT_MAX]
            ]
        evidence.requests, evidence.mixed = summaries["requests"], summaries.get("mixed", {})
        for end in [end for load in self._loads.values() for end in load.session_ends]:
            times = {key: since(end[key]) for key in ("opened_s", "ended_s")}
            evidence.sessions.append(end | times)

    def _breaks_victim(self) -> bool:
        breaks = ("kill", "pause", "restart-agent", "upgrade", "leave", "no-authority")
        ends = ("enrol-again", taken_out.FORGET)
        return any(step.do in (*breaks, *ends, *plays.BREAKING) for step in self._scenario.steps)

    def _struck(self, step: Step) -> list[str]:
        """Return the nodes a step is about."""
        return list(self._mesh.nodes) if step.everywhere else [self.victim]

    async def _step(self, step: Step, nursery: trio.Nursery, say: Callable[[str], None]) -> None:
        say(f"{self._observer.now_s():6.1f} s  {_describe(step, self.victim)}")
        if step.do == "kill":
            self._kill(step)
        elif step.do == "pause":
            await self._pause(step)
        elif step.do == "restart-agent":
            for name in self._struck(step):
                self._mesh.start_agent(name)
                self._observer.attend(name)
        elif step.do == "upgrade":
            for name in self._struck(step):
                await self._upgrade(step, name, say)
                await trio.sleep(step.for_s)
        elif step.do == "leave":
            await self._leave(step, self.victim, say)
        elif step.do == "leave-rejoin":
            for name in self._struck(step):
                await self._leave_and_rejoin(step, name, say)
                await trio.sleep(step.for_s)
        elif step.do in ("enrol-again", taken_out.FORGET):
            await self._lose_for_good(step, say)
        elif step.do in plays.PLAYS:
            await self._play(step, say)
        elif step.do == no_authority.NO_AUTHORITY:
            await self._live_without_authority(step, say)
        elif step.do == "move":
            await self._move(step, say)
        elif step.do == lost_udp.LOSE_UDP:
            await self._lose_udp(step, nursery)
        elif step.do == lost_udp.NEWS:
            news = await lost_udp.spread_news(self._mesh, self._rng, self.victim, step.name, step.within_s)
            self.evidence.news.append(news)
            say(f"          {news}")
        elif step.do == mutes.MUTE:
            self._cut_s = self._observer.now_s()
            mutes.mute(self._mesh, self.victim, step.percent)
        elif step.do == mutes.UNMUTE:
            # The fault fired if packets were dropped, which is known at its end.
            dropped, healed_s = mutes.unmute(self._mesh), self._observer.now_s()
            self._fired(mutes.MUTE, self.victim, dropped, self._cut_s, healed_s=healed_s)
        elif step.do == "call":
            self._call(step, nursery)
            await trio.sleep(step.for_s)
        elif step.do in ("partition", "isolate"):
            self._partition(step)
        elif step.do == "heal":
            self._heal()
        elif step.do == "race":
            nursery.start_soon(self._race)
        elif step.do == "push":
            await self._push_and_wait(step)
        elif step.do == "load":
            await trio.sleep(step.for_s)
        elif step.do == "await":
            await self._await(step, say)

    def _fired(self, kind: str, node: str, count: int, at_s: float, **detail: Any) -> None:
        if node not in self.evidence.victims:
            self.evidence.victims.append(node)
        self.evidence.faults.append(FaultFired(at_s, kind, node, count=count, detail=detail))

    def _hit(self, step: Step, name: str, number: signal.Signals) -> dict[str, list[int]]:
        node = self._mesh.nodes[name]
        return {target: node.signal(target, number) for target in step.targets}

    def _kill(self, step: Step) -> None:
        for name in self._struck(step):
            if "agent" in step.targets:
                self._observer.ignore(name)
            at_s = self._observer.now_s()
            hit = self._hit(step, name, signal.SIGKILL)
            count = sum(map(len, hit.values())) if all(hit.values()) else 0
            self._fired("kill", name, count, at_s, pids=hit)

    async def _pause(self, step: Step) -> None:
        at_s = self._observer.now_s()
        hit = self._hit(step, self.victim, signal.SIGSTOP)
        try:
            count = sum(map(len, hit.values())) if all(hit.values()) else 0
            self._fired("pause", self.victim, count, at_s, pids=hit, for_s=step.for_s)
            await trio.sleep(step.for_s)
        finally:
            self._hit(step, self.victim, signal.SIGCONT)

    async def _upgrade(self, step: Step, name: str, say: Callable[[str], None]) -> None:
        """Have one agent restart as an operator does: told, ended by itself, started again, attached."""
        node, at_s = self._mesh.nodes[name], self._observer.now_s()
        told = node.signal("agent", signal.SIGUSR2)
        ended_s = await self._mesh.wait_ended(name, step.within_s)
        code = None if node.agent is None else node.agent.returncode
        count = len(told) if code == 0 else 0
        self._fired("upgrade", name, count, at_s, exit_code=code, ended_after_s=round(ended_s, 3))
        self._mesh.start_agent(name)
        self._observer.attend(name)

        async def upgraded() -> str | None:
            return await self._attached([name]) or await self._see(list(self._mesh.nodes), [name], "alive")

        what = f"{name} is back"
        await self._wait(f"{step.name} {name}", what, upgraded, step.within_s, say)

    async def _leave(self, step: Step, name: str, say: Callable[[str], None]) -> FaultFired:
        """Have a node leave, by command and by signal in turn; return the fault as it was written down."""
        at_s = self._observer.now_s()
        earlier = sum(fault.kind.startswith("leave") for fault in self.evidence.faults)
        by = departures.BY_SIGNAL if earlier % 2 else departures.BY_COMMAND
        detail = await departures.leave(self._mesh, name, by, step.within_s)
        self._observer.ignore(name)
        say(f"          {name} left by {by}: {detail}")
        has_left = detail["told"] and detail["exit_code"] == 0 and detail["engine_ended_after_s"] is not None
        self._fired(step.do, name, int(has_left), at_s, **detail)
        return self.evidence.faults[-1]

    async def _play(self, step: Step, say: Callable[[str], None]) -> None:
        """Do something to the victim that has a module of its own, and write down what came of it."""
        at_s, played = self._observer.now_s(), plays.PLAYS[step.do]
        if played.breaks_victim:
            self._observer.ignore(self.victim)
        detail = await played.play(self._mesh, self.victim, step.within_s)
        if played.breaks_victim:
            self._observer.attend(self.victim)
        say(f"          {step.name}, {self.victim}: {detail}")
        self._fired(step.do, self.victim, 1, at_s, **detail)

    async def _live_without_authority(self, step: Step, say: Callable[[str], None]) -> None:
        at_s = self._observer.now_s()
        self._observer.ignore(self.victim)
        detail = await no_authority.live(self._mesh, self.victim, self._loads["requests"], step.within_s)
        self._observer.attend(self.victim)
        say(f"          without the authority: {detail}")
        self._fired(step.do, self.victim, 1, at_s, **detail)

    async def _move(self, step: Step, say: Callable[[str], None]) -> None:
        began_s = self._observer.now_s()
        detail = await address_moves.move(self._mesh, self.victim, step.gap_s, step.within_s)
        at_s = round(self._observer.now_s() - (detail["found_after_s"] or step.within_s), 3)
        self._fired(address_moves.MOVE, self.victim, 1, at_s, **detail, began_s=began_s)
        say(f"          {step.name}: {detail}")

    async def _lose_udp(self, step: Step, nursery: trio.Nursery) -> None:
        """Drop datagrams of the victim, or of another node, for so long beside the steps that follow."""
        began = trio.Event()
        nursery.start_soon(self._lose_udp_for, step, began)
        await began.wait()

    async def _lose_udp_for(self, step: Step, began: trio.Event) -> None:
        name = self.bystander if step.percent < 100 else self.victim
        at_s = self._observer.now_s()
        lost_udp.lose(self._mesh, name, step.percent)
        began.set()
        await trio.sleep(step.for_s)
        # The fault fired if datagrams were dropped, which is known at its end.
        dropped = lost_udp.let_pass(self._mesh, name)
        self._fired(step.do, name, dropped, at_s, percent=step.percent, healed_s=self._observer.now_s())

    async def _leave_and_rejoin(self, step: Step, name: str, say: Callable[[str], None]) -> None:
        fault = await self._leave(step, name, say)
        self._mesh.start_agent(name)
        self._observer.attend(name)

        async def back() -> str | None:
            everyone = list(self._mesh.nodes)
            return await self._attached([name]) or await self._see(everyone, [name], "alive")

        await self._wait(f"{step.name} {name}", f"{name} is back", back, step.within_s, say)
        fault.detail["back_s"] = self._observer.now_s()

    async def _lose_for_good(self, step: Step, say: Callable[[str], None]) -> None:
        """Take the victim's name from its agent: for a new one elsewhere, or for nobody."""
        at_s = self._observer.now_s()
        self._observer.ignore(self.victim)
        take = taken_out.forget if step.do == taken_out.FORGET else enrolments.enrol_again
        detail = await take(self._mesh, self.victim, step.within_s)
        say(f"          {self.victim} lost its name: {detail}")
        self._fired(step.do, self.victim, 1, at_s, **detail)

    def _call(self, step: Step, nursery: trio.Nursery) -> None:
        """Start one request of each kind from every node but the victim; each is told when it has ended."""
        for name in self._mesh.nodes:
            for kind in step.kinds if name != self.victim else ():
                address = self._mesh.nodes[name].host
                target = Target(name, address, self._mesh.proxy_port, step.host, kind=kind)
                nursery.start_soon(self._one_call, target)

    async def _one_call(self, target: Target) -> None:
        at_s, started_s = self._observer.now_s(), trio.current_time()
        outcome = Outcome(at_s, target.node, target.authority, kind=target.kind, error="no answer in time")
        with trio.move_on_after(CALL_TIMEOUT_S):
            try:
                outcome.error = ""
                await Client(target).get(outcome, Tally())
            except (NoAnswer, OSError) as error:
                outcome.status, outcome.error = 0, str(error)
        outcome.latency_ms = round((trio.current_time() - started_s) * 1000, 2)
        self.evidence.calls.append(outcome)

    def _partition(self, step: Step) -> None:
        if not isinstance(self._mesh.network, NamespaceNetwork):
            raise OperatorError('a partition needs `network = "namespaces"` in the scenario')
        names = list(self._mesh.nodes)
        if step.do == "isolate":
            left, right = [self.victim], [name for name in names if name != self.victim]
        else:
            if sum(step.sides) != len(names):
                raise OperatorError(f"sides {step.sides} do not add up to {len(names)} nodes")
            self._rng.shuffle(names)
            left, right = sorted(names[: step.sides[0]]), sorted(names[step.sides[0] :])
        self._sides, self._cut_s = (left, right), self._observer.now_s()
        self._mesh.network.partition(*([self._number(name) for name in side] for side in self._sides))

    def _number(self, name: str) -> int:
        return self._mesh.nodes[name].layout.number

    def _heal(self) -> None:
        if not isinstance(self._mesh.network, NamespaceNetwork):
            raise OperatorError("nothing to heal: there was no partition")
        # The fault fired if packets were dropped, which is known at its end.
        dropped, healed_s = self._mesh.network.heal(), self._observer.now_s()
        if self._sides[0] == [self.victim]:
            self._fired("isolate", self.victim, dropped, self._cut_s, healed_s=healed_s)
            return
        self.evidence.faults.append(
            FaultFired(
                healed_s,
                "partition",
                "|".join(",".join(side) for side in self._sides),
                count=dropped,
                detail={"sides": self._sides, "packets_dropped": dropped},
            )
        )

    async def _race(self) -> None:
        """Push one document from both sides, from one base, and wait for what both are told."""
        places = [self._rng.choice(side) for side in self._sides]
        async with trio.open_nursery() as nursery:
            for index, place in enumerate(places):
                nursery.start_soon(self._push, index, place, self._rng.uniform(0, RACE_STAGGER_S_MAX))
        self._pushes_done.set()

    async def _push(self, index: int, node: str, delay_s: float) -> None:
        await trio.sleep(delay_s)
        at_s = self._observer.now_s()
        await self._push_canary(f"race{index}", node, 10 + 10 * index, RACE_TIMEOUT_S, "--wait=all")
        if sum(push["name"].startswith("race") for push in self.evidence.pushes) == len(self._sides):
            self.evidence.faults.append(FaultFired(at_s, "race", node, count=len(self._sides)))

    async def _push_and_wait(self, step: Step) -> None:
        """Push at one node (of the first side, if there are sides) and wait only `within_s`."""
        node = self._rng.choice(self._sides[0] or list(self._mesh.nodes))
        await self._push_canary(step.name, node, 5, step.within_s, "--wait")

    async def _push_canary(self, name: str, node: str, v2_weight: int, timeout_s: float, wait: str) -> None:
        path = self._mesh.directory / f"{name}.yaml"
        layout.write_policy(path, layout.canary(100 - v2_weight, v2_weight))
        at_s = self._observer.now_s()
        words = (wait, "--timeout", f"{timeout_s:g}s")
        result = await self._mesh.push(path, node, *words, timeout_s=timeout_s + COMMAND_SLACK_S)
        self.evidence.pushes.append(
            {
                "name": name,
                "node": node,
                "at_s": at_s,
                "ended_s": self._observer.now_s(),
                "across": [other for side in self._sides if node not in side for other in side],
                "exit_code": result.code,
                "stdout": result.stdout,
                "stderr": result.stderr,
            }
        )

    async def _await(self, step: Step, say: Callable[[str], None]) -> None:
        condition = self._conditions().get(step.until)
        if condition is None:
            known = ", ".join(self._conditions())
            raise OperatorError(f"nothing is known to wait for called {step.until!r}; known are {known}")
        await self._wait(step.name, step.until, condition, step.within_s, say)

    async def _wait(
        self,
        name: str,
        what: str,
        condition: Callable[[], Awaitable[str | None]],
        within_s: float,
        say: Callable[[str], None],
    ) -> None:
        try:
            took_s = await wait_until(what, condition, within_s)
        except WaitedInVain as error:
            say(f"          {error}")
            self.evidence.conditions[name] = None
            return
        self.evidence.conditions[name] = round(took_s, 3)
        say(f"          {name}: after {took_s:.1f} s")

    def _conditions(self) -> dict[str, Callable[[], Awaitable[str | None]]]:
        return {
            "victim-dead": lambda: self._victim_is("dead"),
            "victim-unattended": lambda: self._victim_is("unattended"),
            "victim-alive": lambda: self._victim_is("alive"),
            "all-alive": self._all_alive,
            "sides-apart": self._sides_apart,
            "state-sums-equal": self._sums_equal,
            "engine-attached": lambda: self._attached(self.evidence.victims or [self.victim]),
            "pushes-told": self._pushes_told,
            "peers-turned": key_turns.PeersTurned(self._mesh, self.victim).missing,
            "all-open": lambda: openings.not_open(self._mesh),
            "tcp-only-told": lambda: lost_udp.not_told(self._mesh, self.victim),
            "views-equal": lambda: mutes.views_differ(self._mesh),
            "tcp-only-over": lambda: lost_udp.still_told(self._mesh),
        }

    async def _see(self, observers: list[str], subjects: list[str], status: str) -> str | None:
        for observer in observers:
            statuses = await self._mesh.nodes[observer].statuses()
            wrong = {name: statuses.get(name) for name in subjects if statuses.get(name) != status}
            if wrong:
                return f"{observer} sees {wrong}"
        return None

    async def _victim_is(self, status: str) -> str | None:
        others = [name for name in self._mesh.nodes if name != self.victim]
        return await self._see(others, [self.victim], status)

    async def _all_alive(self) -> str | None:
        names = list(self._mesh.nodes)
        return await self._see(names, names, "alive")

    async def _sides_apart(self) -> str | None:
        """Wait until neither side uses the other: a majority calls it dead, a minority only out of reach."""
        left, right = self._sides
        return await self._given_up(left, right) or await self._given_up(right, left)

    async def _given_up(self, observers: list[str], subjects: list[str]) -> str | None:
        for observer in observers:
            rows = {row["name"]: row for row in await self._mesh.nodes[observer].ask("/v1/members")}
            for name in subjects:
                row = rows.get(name)
                if row is None or not (row["status"] == "dead" or row["reachability"] == "unreachable"):
                    return f"{observer} sees {row}"
        return None

    async def _sums_equal(self) -> str | None:
        state_sums = [(await node.status())["state_sums"] for node in self._mesh.nodes.values()]
        return None if all(value == state_sums[0] for value in state_sums) else f"state sums {state_sums}"

    async def _attached(self, names: Sequence[str]) -> str | None:
        for name in names:
            engine = (await self._mesh.nodes[name].status())["engine"]
            if not (engine["attached"] and engine["acked"]):
                return f"the engine of {name} is {engine}"
        return None

    async def _pushes_told(self) -> str | None:
        ended = [push["name"] for push in self.evidence.pushes]
        return None if self._pushes_done.is_set() else f"the ended pushes are {ended}"


def _describe(step: Step, victim: str) -> str:
    victim = "every node" if step.everywhere else victim
    parts = {
        "kill": f"kill -9 {', '.join(step.targets)} of {victim}",
        "pause": f"SIGSTOP {', '.join(step.targets)} of {victim} for {step.for_s:g} s",
        "restart-agent": f"start the agent of {victim} again",
        "upgrade": f"restart the agent of {victim}, one after the other",
        "leave": f"{victim} leaves",
        "leave-rejoin": f"{victim} leaves and joins again, one after the other",
        "forget": f"take {victim} out of the mesh",
        "enrol-again": f"enrol the name of {victim} elsewhere",
        "no-authority": f"kill the authority for good, and go on; {victim} is killed and starts again",
        "move": f"{victim} gets another address, {step.gap_s:g} s after its own went",
        "lose-udp": f"drop {step.percent} % of the UDP of {'another node' if step.percent < 100 else victim}",
        "news": f"publish a policy and services, {step.within_s:g} s to be everywhere",
        "mute": f"drop {step.percent} % of what {victim} sends",
        "unmute": f"let pass what {victim} sends",
        "isolate": f"cut {victim} off from all others",
        "call": f"{', '.join(step.kinds)} to {step.host} from every node but {victim}",
        "partition": f"partition {step.sides[0]} | {step.sides[1]}",
        "heal": "heal the partition",
        "race": "push on both sides from one base",
        "push": f"push with --wait, at most {step.within_s:g} s",
        "load": f"load for {step.for_s:g} s",
        "await": f"wait for {step.until}, at most {step.within_s:g} s",
        **{name: play.about.format(victim=victim) for name, play in plays.PLAYS.items()},
    }
    return parts[step.do]


def measures_of(evidence: Evidence) -> dict[str, Any]:
    """Return the figures a reader looks for first; all of them stand in the evidence too."""
    kills = [fault for fault in evidence.faults if fault.kind == "kill"]
    return {
        "seen_dead_s": {victim: seen_after_fault(evidence, victim, "dead") for victim in evidence.victims},
        "seen_unattended_s": {
            victim: seen_after_fault(evidence, victim, "unattended") for victim in evidence.victims
        },
        "local_health": {final.node: final.local_health for final in evidence.finals if final.answered},
        "local_health_at_death": {
            seen.observer: seen.local_health for seen in evidence.statuses if seen.status == "dead"
        },
        "engine_replaced_s": {
            fault.node: replacement_s(evidence.engine_steps, fault.node, fault.at_s) for fault in kills
        },
        "replaced_ended_s": replaced_ended_s(evidence),
        "without_authority_s": no_authority.without_authority_s(evidence),
        "cold_starts_s": cold_starts.cold_starts_s(evidence),
        "forgotten_s": taken_out.gone_s(evidence),
        "thefts_s": stolen_node_key.thefts_s(evidence),
        "copies_ended_s": copied_state.copies_ended_s(evidence),
        "moves_s": address_moves.moves_s(evidence),
        "plays_s": plays.plays_s(evidence),
        "news_s": evidence.news,
        "isolation_failures_s": isolation_failures_s(evidence),
        "isolations_known_s": isolations_known_s(evidence),
        "listeners_back_s": {fault.node: listener_gap_s(evidence, fault.node, fault.at_s) for fault in kills},
    }


def run_scenario(scenario: Scenario, seed: int, say: Callable[[str], None], keep: bool) -> dict[str, Any]:
    """Run `scenario` and return its result: `{scenario, seed, ok, checks, measures, evidence}`."""
    layout_ = layout.LAYOUTS[scenario.mesh.layout]()
    with Mesh(layout_, keep_files=keep, **place_of(scenario)) as mesh:
        run = Run(scenario, seed, mesh)
        evidence = trio.run(run.execute, say)
        checks = judge(evidence, scenario, faults_expected(scenario, len(evidence.nodes)))
        ok = all(check["ok"] for check in checks)
        # Evidence of a failure includes the logs.
        mesh.keep_files = keep or not ok
        logs = str(mesh.directory / "logs") if mesh.keep_files else None
    return {
        "scenario": scenario.name,
        "seed": seed,
        "ok": ok,
        "checks": checks,
        "measures": measures_of(evidence),
        "logs": logs,
        "evidence": evidence,
    }


def scenario_path(text: str) -> Path:
    """Return the file a person means: a path, or the bare name of a scenario."""
    path = Path(text)
    return path if path.suffix == ".toml" else Path("chaos/scenarios") / f"{text}.toml"
