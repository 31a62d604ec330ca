"""What the mesh is for, shown on five real nodes under constant load, and timed.

Nothing here is simulated or special-cased: the launcher calls the command line, the load driver is a
process of its own, and every figure comes from the admin API or from the answers of the workloads.
"""

import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec
import trio

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing import forgery, layout, no_authority
from gossipmesh.testing.admin import AdminError, AgentSilent
from gossipmesh.testing.load_control import Load
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.waiting import WaitedInVain, first_leaf, wait_until

RATE_PER_S: Final = 60.0
LOAD_SOURCES: Final = ("node1", "node2")
HOSTS: Final = ("cart.shop", "cart.shop", "web.shop")  # two thirds go to cart directly
CART: Final = "shop/cart"
KILLED: Final = "node3"
NEW_ENDPOINT: Final = "node1"
DEAD_ENDPOINT: Final = "node5"
TURNED: Final = "node4"
SAMPLE_COUNT: Final = 100
SPLIT_TIMEOUT_S: Final = 15.0
DEAD_TIMEOUT_S: Final = 30.0
CHANGE_TIMEOUT_S: Final = 15.0
COLD_START_TIMEOUT_S: Final = 30.0
# Five standard deviations of a binomial share over SAMPLE_COUNT requests, in each direction.
SPLIT_SIGMAS: Final = 5.0


class Step(msgspec.Struct):
    """One thing shown: whether it held, how long it took, and what says so."""

    name: str
    ok: bool
    seconds: float
    evidence: dict[str, Any]


class Reporter(Protocol):
    """Where a demo says what it does while it does it."""

    def begin(self, name: str) -> None:
        """A step begins."""
        ...

    def end(self, step: Step) -> None:
        """A step has ended."""
        ...

    def load(self, sent: int, failed: int) -> None:
        """So many requests were sent and failed so far."""
        ...


class StepFailed(Exception):
    """A step did not hold; `evidence` says what was seen."""

    def __init__(self, reason: str, evidence: dict[str, Any]) -> None:
        super().__init__(reason)
        self.evidence = evidence


TOLD: Final = (StepFailed, WaitedInVain, OperatorError, AgentSilent, AdminError, OSError)
"""What makes a step fail with a sentence; anything else is a bug in the demo."""


class Demo:
    """The steps, in order, on one mesh under one load."""

    def __init__(self, mesh: Mesh, reporter: Reporter) -> None:
        self._mesh = mesh
        self._reporter = reporter
        self._load = Load(mesh, LOAD_SOURCES, rate_per_s=RATE_PER_S, hosts=HOSTS)
        self._sets: dict[int, bytes] = {}
        self.steps: list[Step] = []
        self.requests: dict[str, Any] = {"sent": 0, "failed": 0, "by_status": {}}

    @property
    def ok(self) -> bool:
        """Tell whether every step held and no request failed."""
        return bool(self.steps) and all(step.ok for step in self.steps) and self.requests["failed"] == 0

    def result(self) -> dict[str, Any]:
        """Return the object `--json` prints."""
        return {"ok": self.ok, "steps": self.steps, "requests": self.requests}

    async def run(self) -> None:
        """Show everything; a step that fails does not stop the others, unless it is the first."""
        if not await self._show("five agents and an authority start and find each other", self._start):
            return
        async with trio.open_nursery() as nursery:
            self._load.start(nursery)
            nursery.start_soon(self._report_load)
            try:
                await self._show("a signed canary, 90/10, arrives", lambda: self._canary(1, 90, 10))
                await self._show("a second one, 50/50, arrives", lambda: self._canary(2, 50, 50))
                await self._show(f"kill -9 of {KILLED}: everybody agrees, no request fails", self._kill_node)
                await self._show("the authority is killed; a new endpoint joins", self._new_endpoint)
                await self._show("still no authority; a dead endpoint leaves", self._dead_endpoint)
                await self._show(f"still no authority; the TLS keys of {TURNED} turn", self._turn_keys)
                await self._show(f"still no authority; {KILLED} starts again from its disk", self._cold_start)
                await self._show("tampered, unsigned and older policy is refused", self._refusals)
            finally:
                with trio.CancelScope(shield=True):
                    await self._finish_load()
            nursery.cancel_scope.cancel()

    async def _show(self, name: str, action: Callable[[], Awaitable[dict[str, Any]]]) -> bool:
        self._reporter.begin(name)
        start_s, failed_before = trio.current_time(), self._load.failed
        try:
            evidence, ok = await action(), True
        except (*TOLD, ExceptionGroup) as error:
            leaf = first_leaf(error)
            if not isinstance(leaf, TOLD):
                raise
            seen = leaf.evidence if isinstance(leaf, StepFailed) else {}
            evidence, ok = {**seen, "error": str(leaf)}, False
        evidence["requests_failed"] = self._load.failed - failed_before
        step = Step(name, ok and not evidence["requests_failed"], trio.current_time() - start_s, evidence)
        step.seconds = round(step.seconds, 2)
        self.steps.append(step)
        self._reporter.end(step)
        return step.ok

    async def _report_load(self) -> None:
        while True:
            self._reporter.load(self._load.sent, self._load.failed)
            await trio.sleep(0.5)

    async def _finish_load(self) -> None:
        try:
            summary = await self._load.stop()
        except WaitedInVain as error:
            self.requests = {"sent": self._load.sent, "failed": -1, "by_status": {}, "error": str(error)}
            return
        self.requests = {key: summary[key] for key in ("sent", "failed", "by_status")}
        if summary["failed"]:
            self.requests["failures"] = summary["failures"][:100]

    async def _start(self) -> dict[str, Any]:
        await self._mesh.start()
        statuses = [await node.status() for node in self._mesh.nodes.values()]
        return {
            "members": len(statuses),
            "engines": {status["name"]: status["engine"]["pid"] for status in statuses},
            "rss_mb": {
                status["name"]: {what: round(size / 1e6, 1) for what, size in status["rss_bytes"].items()}
                for status in statuses
            },
        }

    def _survivors(self) -> list[str]:
        return [name for name in self._mesh.nodes if name != KILLED]

    async def _canary(self, version: int, v1_weight: int, v2_weight: int) -> dict[str, Any]:
        path = self._mesh.directory / f"canary-{version}.yaml"
        layout.write_policy(path, layout.canary(v1_weight, v2_weight))
        async with trio.open_nursery() as nursery:
            pushed_s = trio.current_time()
            everywhere: list[float] = []

            async def watch() -> None:
                await self._mesh.wait_policy(version)
                everywhere.append(round(trio.current_time() - pushed_s, 2))

            nursery.start_soon(watch)
            result = await self._mesh.push(path, "node1", "--wait")
            if result.code != 0:
                nursery.cancel_scope.cancel()
                raise StepFailed("the push failed", {"stderr": result.stderr[-1000:]})
        self._sets[version] = await self._mesh.nodes["node1"].ask("/v1/policy/set?scope=mesh")
        answers = await self._answers_since(self._load.by_version("cart.shop"))
        evidence = {
            "push_said": result.stdout.strip().splitlines()[-1:],
            "on_all_nodes_after_s": everywhere[0],
            "answers": dict(answers),
        }
        share, expected = answers["cart:v2"] / answers.total(), v2_weight / (v1_weight + v2_weight)
        tolerance = SPLIT_SIGMAS * (expected * (1 - expected) / answers.total()) ** 0.5
        evidence["v2_share"] = round(share, 3)
        if abs(share - expected) > tolerance:
            raise StepFailed(f"v2 got {share:.0%} of the requests, not {expected:.0%}", evidence)
        return evidence

    async def _answers_since(self, before: Counter[str]) -> Counter[str]:
        """Return who answered the next SAMPLE_COUNT requests for cart."""

        async def enough() -> str | None:
            count = (self._load.by_version("cart.shop") - before).total()
            return None if count >= SAMPLE_COUNT else f"{count} answers"

        await wait_until(f"{SAMPLE_COUNT} answers from cart", enough, SPLIT_TIMEOUT_S)
        return self._load.by_version("cart.shop") - before

    async def _kill_node(self) -> dict[str, Any]:
        node = self._mesh.nodes[KILLED]
        await node.status()
        killed = {what: node.signal(what, signal.SIGKILL) for what in ("agent", "engine", "workloads")}
        start_s = trio.current_time()
        seen_after_s: dict[str, float] = {}

        async def watch(name: str) -> None:
            await self._mesh.wait_statuses({KILLED: "dead"}, on=[name], timeout_s=DEAD_TIMEOUT_S)
            seen_after_s[name] = round(trio.current_time() - start_s, 2)

        try:
            async with trio.open_nursery() as nursery:
                for name in self._survivors():
                    nursery.start_soon(watch, name)
        except* WaitedInVain as group:
            evidence = {"killed": killed, "dead_after_s": seen_after_s}
            raise StepFailed(str(group.exceptions[0]), evidence) from None
        others = dict.fromkeys(self._survivors(), "alive")
        await self._mesh.wait_statuses(others, on=self._survivors(), timeout_s=1.0)
        if not all(killed.values()):
            raise StepFailed("not everything on the node could be killed", {"killed": killed})
        return {"killed": killed, "dead_after_s": seen_after_s}

    async def _new_endpoint(self) -> dict[str, Any]:
        authority_pid = self._mesh.kill_authority()
        before = self._load.by_server("cart.shop")[NEW_ENDPOINT]
        start_s = trio.current_time()
        self._mesh.start_workload(NEW_ENDPOINT, layout.CART_V1)
        self._mesh.write_service(NEW_ENDPOINT, layout.CART_V1)

        async def answers() -> str | None:
            count = self._load.by_server("cart.shop")[NEW_ENDPOINT] - before
            return None if count > 0 else "no request has reached it"

        known_s = await self._wait_endpoint(NEW_ENDPOINT, "passing")
        await wait_until(f"cart on {NEW_ENDPOINT} answers", answers, CHANGE_TIMEOUT_S)
        return {
            "authority_killed": authority_pid,
            "known_to_all_after_s": round(known_s, 2),
            "first_answers_after_s": round(trio.current_time() - start_s, 2),
        }

    async def _dead_endpoint(self) -> dict[str, Any]:
        process = self._mesh.nodes[DEAD_ENDPOINT].workloads["cart"]
        self._mesh.keeper.signal(process.pid, signal.SIGKILL)
        gone_s = await self._wait_endpoint(DEAD_ENDPOINT, None)
        before = self._load.by_server("cart.shop")
        await self._answers_since(self._load.by_version("cart.shop"))
        after = self._load.by_server("cart.shop")
        evidence = {
            "workload_killed": process.pid,
            "gone_everywhere_after_s": round(gone_s, 2),
            "answers_since": dict(after - before),
        }
        if after[DEAD_ENDPOINT] > before[DEAD_ENDPOINT]:
            raise StepFailed(f"cart on {DEAD_ENDPOINT} still answers", evidence)
        return evidence

    async def _turn_keys(self) -> dict[str, Any]:
        evidence = await no_authority.turn_keys(self._mesh, TURNED, NEW_ENDPOINT, CHANGE_TIMEOUT_S)
        if evidence["keys_met"] != ["answered", "silent"]:
            raise StepFailed("a peer did not meet the new key, or met the old one", evidence)
        return evidence

    async def _wait_endpoint(self, node: str, health: str | None) -> float:
        """Wait until every survivor sees cart on `node` in `health`, or (None) not passing any more."""

        async def seen() -> str | None:
            for name in self._survivors():
                rows = await self._mesh.nodes[name].ask(f"/v1/endpoints?service={CART}")
                found = next((row["health"] for row in rows if row["node"] == node), None)
                if found != health and (health is not None or found == "passing"):
                    return f"{name} sees it {found}"
            return None

        what = health or "not passing"
        return await wait_until(f"cart on {node} is {what} everywhere", seen, CHANGE_TIMEOUT_S)

    async def _cold_start(self) -> dict[str, Any]:
        before = self._load.by_server("cart.shop")[KILLED]
        self._mesh.start_workloads(KILLED)
        self._mesh.start_agent(KILLED)
        start_s = trio.current_time()
        everybody = dict.fromkeys(self._mesh.nodes, "alive")
        alive_s = await self._mesh.wait_statuses(everybody, timeout_s=COLD_START_TIMEOUT_S)

        async def answers() -> str | None:
            count = self._load.by_server("cart.shop")[KILLED] - before
            return None if count > 0 else "no request has reached it"

        await wait_until(f"cart on {KILLED} answers again", answers, COLD_START_TIMEOUT_S)
        return {
            "alive_everywhere_after_s": round(alive_s, 2),
            "answers_again_after_s": round(trio.current_time() - start_s, 2),
            "runs_policy_version_after_s": round(await self._mesh.wait_policy(2, on=[KILLED]), 2),
        }

    async def _refusals(self) -> dict[str, Any]:
        current = self._sets.get(2)
        older = self._sets.get(1)
        if current is None or older is None:
            raise OperatorError("there is no pushed policy to forge from")
        offers = {
            "tampered": (forgery.tampered(current), "signature"),
            "unsigned": (forgery.unsigned(current), "unsigned"),
            "older": (older, "older"),
        }
        evidence: dict[str, Any] = {}
        for name, (raw, code) in offers.items():
            try:
                await self._mesh.nodes["node2"].ask("/v1/policy/offer", method="POST", body=raw)
            except AdminError as refusal:
                evidence[name] = {"status": refusal.status, "code": refusal.code, "said": str(refusal)}
                if refusal.code != code:
                    raise StepFailed(f"{name} policy was refused for another reason", evidence) from None
            else:
                raise StepFailed(f"{name} policy was accepted", evidence)
        evidence["still_version_2_after_s"] = round(await self._mesh.wait_policy(2, on=self._survivors()), 2)
        return evidence
