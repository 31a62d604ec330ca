"""Raw evidence of a run: what every node said when, which faults fired, what became of each request.

Nothing is judged here; `gossipmesh.testing.checkers` derives every verdict from these values, and the
runner prints them whole. All times are seconds since the run began, on one monotonic clock.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
import trio

from gossipmesh.model.instant import SECOND_NS
from gossipmesh.net import clock
from gossipmesh.testing.admin import AdminError, AgentSilent
from gossipmesh.testing.agent_log import EngineStep, StatusDeclared, read_agent_log
from gossipmesh.testing.layout import READINESS_PORT
from gossipmesh.testing.load import Outcome
from gossipmesh.testing.mesh import Mesh, MeshNode

OBSERVE_INTERVAL_S: Final = 0.2
QUERY_TIMEOUT_S: Final = 1.0
READINESS_INTERVAL_S: Final = 0.1
READINESS_TIMEOUT_S: Final = 0.5
OBSERVATIONS_MAX: Final = 100_000
RETRIES_MAX: Final = 10_000
CHUNK_BYTES: Final = 4_096


class StatusSeen(msgspec.Struct, frozen=True):
    """`observer` began to see `subject` in `status` at `at_s`; `local_health` is the observer's own."""

    at_s: float
    observer: str
    subject: str
    status: str
    local_health: int


class EngineSeen(msgspec.Struct, frozen=True):
    """What an agent said of its engine, whenever that changed."""

    at_s: float
    observer: str
    pid: int | None
    attached: bool
    snapshot_version: str | None


class EndpointsSeen(msgspec.Struct, frozen=True):
    """How many endpoints of each service an agent counted (`passing` of them), whenever that changed."""

    at_s: float
    observer: str
    services: dict[str, int]


class ReadinessSeen(msgspec.Struct, frozen=True):
    """Whether a node's engine answered "ready" on its own readiness port, whenever that changed.

    Accepting proves nothing: the agent holds the listening sockets while there is no engine.
    """

    at_s: float
    node: str
    ready: bool


class RetrySeen(msgspec.Struct, frozen=True):
    """A request or connection that took `tries` to reach `upstream`, by a caller's own access log."""

    at_s: float
    ended_s: float
    node: str
    upstream: str
    tries: int


class InboundEnd(msgspec.Struct, frozen=True):
    """The last request or connection from the mesh that `node` served between `from_s` and its engine's end.

    By its own access log; `ended_s` is `from_s` when there was none.
    """

    node: str
    from_s: float
    ended_s: float


class FaultFired(msgspec.Struct, frozen=True):
    """A fault, when it fired, what it hit; `count` 0 means it never did."""

    at_s: float
    kind: str
    node: str
    count: int
    detail: dict[str, Any] = {}


class FinalState(msgspec.Struct, frozen=True):
    """What one agent said at the end; all empty when it did not answer."""

    node: str
    answered: bool
    state_sums: dict[str, str] = {}
    statuses: dict[str, str] = {}
    policies: dict[str, str] = {}
    local_health: int = 0


class Evidence(msgspec.Struct):
    """Everything a run saw."""

    scenario: str
    seed: int
    nodes: list[str]
    victims: list[str] = []
    faults: list[FaultFired] = []
    statuses: list[StatusSeen] = []
    declared: list[StatusDeclared] = []
    engines: list[EngineSeen] = []
    engine_steps: list[EngineStep] = []
    endpoints: list[EndpointsSeen] = []
    readiness: list[ReadinessSeen] = []
    retries: list[RetrySeen] = []
    conditions: dict[str, float | None] = {}
    pushes: list[dict[str, Any]] = []
    requests: dict[str, Any] = {}
    mixed: dict[str, Any] = {}
    slow: list[Outcome] = []
    sessions: list[dict[str, Any]] = []
    calls: list[Outcome] = []
    news: list[dict[str, Any]] = []
    inbound_ends: list[InboundEnd] = []
    finals: list[FinalState] = []
    bounds_reached: int = 0


def access_log_rows(node: MeshNode) -> Iterator[dict[str, Any]]:
    """Return the rows of a node's access log, those of its rotated files too, in no order.

    A half line that a full disk or a kill left is passed over.
    """
    for path in sorted((node.directory / "state").rglob("access.log*")):
        for line in path.read_bytes().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue


class Observer:
    """Asks every agent over and over and writes down what changed."""

    def __init__(self, mesh: Mesh, evidence: Evidence) -> None:
        self._mesh = mesh
        self._evidence = evidence
        self._start_ns = clock.monotonic()
        self._start_wall_s = clock.wall_ns() / SECOND_NS
        self._last: dict[tuple[str, str], Any] = {}
        self._ignored: set[str] = set()

    def now_s(self) -> float:
        """Return seconds since the run began."""
        return round((clock.monotonic() - self._start_ns) / SECOND_NS, 3)

    def since_start_s(self, monotonic_s: float) -> float:
        """Turn another process's monotonic seconds into seconds since the run began."""
        return round(monotonic_s - self._start_ns / SECOND_NS, 3)

    def ignore(self, node: str) -> None:
        """Stop asking a node that was killed on purpose."""
        self._ignored.add(node)

    def attend(self, node: str) -> None:
        """Ask a node's agent again, and write down anew whatever it says first."""
        self._ignored.discard(node)
        self._last = {
            key: value for key, value in self._last.items() if key[0] != node or key[1] == "readiness"
        }

    async def run(self) -> None:
        """Observe until cancelled."""
        async with trio.open_nursery() as nursery:
            for node in self._mesh.nodes.values():
                nursery.start_soon(self._follow, node)
                nursery.start_soon(self._look_at_readiness, node)

    async def _follow(self, node: MeshNode) -> None:
        while True:
            if node.name not in self._ignored:
                await self._look(node)
            await trio.sleep(OBSERVE_INTERVAL_S)

    async def _look(self, node: MeshNode) -> None:
        try:
            status = await node.ask("/v1/status", timeout_s=QUERY_TIMEOUT_S)
            members = await node.ask("/v1/members", timeout_s=QUERY_TIMEOUT_S)
            services = await node.ask("/v1/services", timeout_s=QUERY_TIMEOUT_S)
        except (AgentSilent, AdminError):
            return
        at_s, evidence = self.now_s(), self._evidence
        engine = status["engine"]
        node.engine_pid = engine["pid"] or node.engine_pid
        for member in members:
            subject = member["name"]
            if self._changed(node, f"status/{subject}", member["status"]):
                health = status["local_health"]
                evidence.statuses.append(StatusSeen(at_s, node.name, subject, member["status"], health))
        seen = (engine["pid"], bool(engine["attached"]), engine["snapshot_version"])
        if self._changed(node, "engine", seen):
            evidence.engines.append(EngineSeen(at_s, node.name, *seen))
        counts = {row["service"]: row["passing"] for row in services}
        if self._changed(node, "endpoints", counts):
            evidence.endpoints.append(EndpointsSeen(at_s, node.name, counts))

    async def _look_at_readiness(self, node: MeshNode) -> None:
        while True:
            ready = await self._is_ready(node)
            if self._changed(node, "readiness", ready):
                self._evidence.readiness.append(ReadinessSeen(self.now_s(), node.name, ready))
            await trio.sleep(READINESS_INTERVAL_S)

    async def _is_ready(self, node: MeshNode) -> bool:
        answer = b""
        with trio.move_on_after(READINESS_TIMEOUT_S):
            try:
                async with await trio.open_tcp_stream(node.host, READINESS_PORT) as stream:
                    await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    answer = await stream.receive_some(CHUNK_BYTES)
            except (OSError, trio.BrokenResourceError):
                answer = b""
        return answer.startswith(b"HTTP/1.1 200 ")

    def _changed(self, node: MeshNode, key: str, value: Any) -> bool:
        if self._last.get((node.name, key)) == value and (node.name, key) in self._last:
            return False
        if len(self._evidence.statuses) >= OBSERVATIONS_MAX:
            self._evidence.bounds_reached += 1
            return False
        self._last[(node.name, key)] = value
        return True

    def _read_agent_log(self, node: MeshNode) -> None:
        path = self._mesh.keeper.log_path(f"{node.name}-agent")
        if path.exists():
            declared, steps = read_agent_log(path.read_bytes(), node.name, self._start_wall_s)
            self._evidence.declared += declared
            self._evidence.engine_steps += steps

    def _read_access_log(self, node: MeshNode) -> None:
        """Write down what the engine of a node logged of retries, and of its last work before it left."""
        leaves = [
            fault for fault in self._evidence.faults if fault.node == node.name and "told" in fault.detail
        ]
        last_s = [fault.at_s for fault in leaves]
        for row in access_log_rows(node):
            started_s = round(datetime.fromisoformat(row["start_time"]).timestamp() - self._start_wall_s, 3)
            ended_s = round(started_s + row["duration"] / 1000, 3)
            if row["direction"] == "inbound":
                for index, fault in enumerate(leaves):
                    if fault.at_s <= ended_s <= fault.at_s + (fault.detail["engine_ended_after_s"] or 0):
                        last_s[index] = max(last_s[index], ended_s)
                continue
            tries = row["upstream_request_attempt_count"]
            if tries > 1 and len(self._evidence.retries) < RETRIES_MAX:
                service = row["upstream_cluster"]
                self._evidence.retries.append(RetrySeen(started_s, ended_s, node.name, service, tries))
        self._evidence.inbound_ends += [
            InboundEnd(node.name, fault.at_s, ended_s) for fault, ended_s in zip(leaves, last_s, strict=True)
        ]

    async def finish(self) -> None:
        """Write down what every agent says at the end, what agents and the engines of survivors logged."""
        for node in self._mesh.nodes.values():
            self._read_agent_log(node)
            if node.name not in self._ignored:
                self._read_access_log(node)
        for node in self._mesh.nodes.values():
            try:
                status = await node.ask("/v1/status")
                members = await node.ask("/v1/members")
                scopes = (await node.ask("/v1/policy/status"))["scopes"]
            except (AgentSilent, AdminError):
                self._evidence.finals.append(FinalState(node.name, answered=False))
                continue
            self._evidence.finals.append(
                FinalState(
                    node.name,
                    answered=True,
                    state_sums=status["state_sums"],
                    statuses={member["name"]: member["status"] for member in members},
                    policies={row["scope"]: f"{row['version']}/{row['hash']}" for row in scopes},
                    local_health=status["local_health"],
                )
            )
