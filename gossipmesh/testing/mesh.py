"""The launcher: an authority, agents and workloads as real processes on this machine.

Used alike by `gossipmesh demo`, the chaos runner, the end-to-end tests and the benchmarks. It calls
the real command line and asks the real admin API; nothing in the product knows of it. `close` ends
every process it started, engines included, from any state.
"""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final

import trio

from gossipmesh.model.errors import OperatorError
from gossipmesh.model.member import Address
from gossipmesh.net.files import PARENT_MODE, make_folder
from gossipmesh.net.interpreter import module_words
from gossipmesh.testing import admin, layout
from gossipmesh.testing.layout import MeshLayout, NodeLayout, ServiceLayout
from gossipmesh.testing.namespaces import LoopbackNetwork, Network
from gossipmesh.testing.processes import CommandResult, ProcessKeeper
from gossipmesh.testing.waiting import first_leaf, wait_until

START_TIMEOUT_S: Final = 40.0
GOSSIPMESH: Final = module_words("gossipmesh.cli.main")


class MeshNode:
    """One node under test: its agent, its engine, its workloads."""

    def __init__(
        self,
        layout_: NodeLayout,
        host: str,
        directory: Path,
        keeper: ProcessKeeper,
        local_host: str | None = None,
    ) -> None:
        """`local_host` is where its own ports and workloads listen; None: at its address."""
        self.layout = layout_
        self.host = host
        self.local_host = local_host or host
        self.directory = directory
        self.config_path = directory / "agent.yaml"
        self.services_directory = directory / "services.d"
        self.socket_path = directory / "state" / "agent.sock"
        self.agent: subprocess.Popen[bytes] | None = None
        self.workloads: dict[str, subprocess.Popen[bytes]] = {}
        self.engine_pid: int | None = None
        self._keeper = keeper

    @property
    def name(self) -> str:
        """Return the node's name."""
        return self.layout.name

    async def ask(self, path: str, **options: Any) -> Any:
        """Ask this node's agent; see `gossipmesh.testing.admin.ask`."""
        return await admin.ask(self.socket_path, path, **options)

    async def status(self) -> dict[str, Any]:
        """Return /v1/status, and remember the engine's pid for later kills."""
        answer: dict[str, Any] = await self.ask("/v1/status")
        self.engine_pid = answer["engine"]["pid"] or self.engine_pid
        return answer

    async def statuses(self) -> dict[str, str]:
        """Return member name -> status as this node sees it."""
        return {member["name"]: member["status"] for member in await self.ask("/v1/members")}

    def pids(self, what: str) -> list[int]:
        """Return the pids of `agent`, `engine` or `workloads` on this node, those that are known."""
        if what == "agent":
            return [self.agent.pid] if self.agent is not None else []
        if what == "engine":
            return [self.engine_pid] if self.engine_pid is not None else []
        if what == "workloads":
            return [process.pid for process in self.workloads.values()]
        raise ValueError(f"{what!r} is none of agent, engine, workloads")

    def signal(self, what: str, number: signal.Signals) -> list[int]:
        """Send a signal to those processes; return the pids that got it."""
        return [pid for pid in self.pids(what) if self._keeper.signal(pid, number)]


class Mesh:
    """A mesh of real processes; a context manager whose exit ends all of them.

    `keep_files` leaves the directory (logs, state) behind; otherwise it goes with the mesh, except
    after a failure. `config` are further keys of every agent's configuration; `authority_program` stands for
    `gossipmesh` where the authority is made, asked for tokens and started. `programs` is what stands for it
    on a node, wherever nobody names another.
    """

    def __init__(
        self,
        layout_: MeshLayout | None = None,
        *,
        network: Network | None = None,
        directory: Path | None = None,
        keep_files: bool = False,
        config: Mapping[str, Any] = MappingProxyType({}),
        authority_program: Sequence[str] = GOSSIPMESH,
    ) -> None:
        self.layout = layout_ or layout.five_nodes()
        self.network: Network = network or LoopbackNetwork()
        self.directory = directory or Path(tempfile.mkdtemp(prefix="gossipmesh-"))
        self.keep_files = keep_files
        self._config = config
        self.authority_program = authority_program
        self.programs: dict[str, Sequence[str]] = {}
        self.keeper = ProcessKeeper(self.directory)
        self.authority: subprocess.Popen[bytes] | None = None
        self.nodes: dict[str, MeshNode] = {}
        for node in self.layout.nodes:
            host, local = self.network.host(node.number), self.network.local(node.number)
            self.nodes[node.name] = MeshNode(node, host, self.directory / node.name, self.keeper, local)

    def __enter__(self) -> "Mesh":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=error is not None and not isinstance(first_leaf(error), KeyboardInterrupt))

    def close(self, *, failed: bool = False) -> None:
        """End every process; remove the directory unless it is wanted or something failed."""
        self.keeper.close()
        self.network.close()
        if not (failed or self.keep_files):
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def authority_address(self) -> str:
        """Return where the authority serves."""
        return f"{self.network.host(layout.AUTHORITY_NODE)}:{layout.AUTHORITY_PORT}"

    @property
    def proxy_port(self) -> int:
        """Return the port of every node's outbound proxy."""
        return layout.PROXY_PORT

    @property
    def signer_key(self) -> Path:
        """Return the policy signer's key file."""
        return self.directory / "authority" / "signers" / "policy.key"

    async def gossipmesh(
        self,
        *words: str,
        node: str | None = None,
        timeout_s: float = 60.0,
        program: Sequence[str] = GOSSIPMESH,
    ) -> CommandResult:
        """Run `gossipmesh WORDS`; with `node`, against that node's agent."""
        arguments = [*program, *words]
        if node is not None:
            arguments += ["--socket", str(self.nodes[node].socket_path)]
        return await self.keeper.command(arguments, timeout_s=timeout_s)

    async def must(self, *words: str, node: str | None = None, program: Sequence[str] = GOSSIPMESH) -> str:
        """Run `gossipmesh WORDS` and return what it printed; OperatorError when it fails."""
        result = await self.gossipmesh(*words, node=node, program=program)
        if result.code != 0:
            raise OperatorError(f"`gossipmesh {' '.join(words)}` failed: {result.stderr.strip()[-2000:]}")
        return result.stdout

    async def push(
        self, path: Path, node: str, *options: str, key: Path | None = None, timeout_s: float = 60.0
    ) -> CommandResult:
        """Sign and push a policy file at one node, as an operator does."""
        words = ["policy", "push", "-f", str(path), "--signer", str(key or self.signer_key), *options]
        return await self.gossipmesh(*words, node=node, timeout_s=timeout_s)

    async def start(self, programs: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        """Start everything and wait until every node serves and knows every endpoint.

        `programs` maps a node to what stands for `gossipmesh` there; see `start_agent`. Such a node gets a
        token that older builds read.
        """
        plain = ("--format", "1") if self.authority_program is GOSSIPMESH else ()
        await self.start_authority(init=True)
        async with trio.open_nursery() as nursery:
            for node in self.layout.nodes:
                self.network.attach(node.number, self.keeper)
                words = plain if node.name in programs else ()
                nursery.start_soon(self.prepare_node, node.name, *words)
        for node in self.layout.nodes:
            self.start_workloads(node.name)
            self.start_agent(node.name, programs.get(node.name))
        await self.wait_ready()

    async def start_authority(self, *, init: bool = False) -> None:
        """Start `authority serve`, made first when `init`; returns when it accepts connections."""
        directory = str(self.directory / "authority")
        if init:
            words = ["authority", "init", "--trust-domain", layout.TRUST_DOMAIN, "--dir", directory]
            await self.must(*words, program=self.authority_program)
        words = ["authority", "serve", "--dir", directory, "--bind", self.authority_address]
        self.authority = self.keeper.start("authority", [*self.authority_program, *words])
        where = Address.parse(self.authority_address)

        async def accepts() -> str | None:
            if self.authority is not None and self.authority.poll() is not None:
                raise OperatorError(f"the authority ended: {self._log_tail('authority')}")
            try:
                stream = await trio.open_tcp_stream(where.host, where.port)
            except OSError as error:
                return str(error)
            await stream.aclose()
            return None

        await wait_until("the authority accepts connections", accepts, START_TIMEOUT_S)

    def kill_authority(self) -> int:
        """Kill the authority for good and return its pid; it has ended then, and its port refuses."""
        if self.authority is None:
            raise OperatorError("the authority was not started")
        self.keeper.signal(self.authority.pid, signal.SIGKILL)
        self.authority.wait(START_TIMEOUT_S)
        return self.authority.pid

    async def prepare_node(self, name: str, *token_words: str) -> None:
        """Write a node's configuration, its service files and a join token, made with `token_words`."""
        node = self.nodes[name]
        make_folder(node.services_directory, PARENT_MODE)
        for service in node.layout.services:
            self.write_service(name, service)
        token = node.directory / "token"
        others = [other for other in self.nodes.values() if other.name != name]
        seeds = [f"{other.host}:{layout.GOSSIP_PORT}" for other in others[:2]]
        config = layout.agent_config(node.local_host, node.directory, token, seeds, self._config)
        layout.write_document(node.config_path, config)
        await self.create_token(name, token, *token_words)

    async def create_token(self, name: str, path: Path, *words: str) -> None:
        """Create a join token for `name`, allowed to serve anything in the namespace under test."""
        options = ["--service", f"{layout.NAMESPACE}/*"]
        directory = str(self.directory / "authority")
        where = ("--dir", directory, "--authority", self.authority_address, "--out", str(path))
        program = self.authority_program
        await self.must("token", "create", *where, "--node", name, *options, *words, program=program)

    def write_service(self, name: str, service: ServiceLayout) -> None:
        """Declare `service` on a node, as an operator would: a file in services.d."""
        node = self.nodes[name]
        document = layout.service_file(service, node.local_host)
        layout.write_document(node.services_directory / service.file_name, document)

    def start_workloads(self, name: str) -> None:
        """Start the workloads of a node's layout."""
        for service in self.nodes[name].layout.services:
            self.start_workload(name, service)

    def start_workload(self, name: str, service: ServiceLayout) -> None:
        """Start one workload on a node."""
        node = self.nodes[name]
        arguments = layout.workload_arguments(service, name, node.local_host)
        command = [*self.network.prefix(node.layout.number), *module_words("gossipmesh.testing.workload")]
        label = f"{name}-{service.name}-{service.version}"
        node.workloads[service.name] = self.keeper.start(label, [*command, *arguments])

    def start_agent(self, name: str, program: Sequence[str] | None = None) -> None:
        """Start (or start again) the agent of a node; `program` stands for `gossipmesh`."""
        node = self.nodes[name]
        prefix = self.network.prefix(node.layout.number)
        chosen = program or self.programs.get(name, GOSSIPMESH)
        command = [*prefix, *chosen, "agent", "--config", str(node.config_path)]
        node.agent = self.keeper.start(f"{name}-agent", command)

    async def wait_ended(self, name: str, timeout_s: float = 60.0) -> float:
        """Wait until the agent of a node has ended."""

        async def ended() -> str | None:
            process = self.nodes[name].agent
            return None if process is None or process.poll() is not None else f"{process.pid} runs"

        return await wait_until(f"the agent of {name} ends", ended, timeout_s)

    def _log_tail(self, name: str) -> str:
        path = self.keeper.log_path(name)
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return f"{' / '.join(lines[-3:]) or 'it printed nothing'} (whole log: {path})"

    async def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> float:
        """Wait until every node sees all members alive and every declared endpoint passing, and calls."""
        expected = sum(len(node.layout.services) for node in self.nodes.values())
        members_s = await self.wait_statuses(dict.fromkeys(self.nodes, "alive"), timeout_s=timeout_s)
        passing_s = await self.wait_passing(expected, timeout_s=timeout_s)
        return members_s + passing_s + await self.wait_engines(timeout_s=timeout_s)

    async def wait_engines(self, on: Sequence[str] | None = None, timeout_s: float = 30.0) -> float:
        """Wait until the engines of the nodes `on` show their keys and run what their agents gave them.

        A node that serves nothing may have no key to call with yet when all endpoints pass: its first key is
        shown once two others hold its pin.
        """
        names = list(on or self.nodes)

        async def serve() -> str | None:
            for name in names:
                engine = (await self.nodes[name].status())["engine"]
                if not (engine["acked"] and engine["answering"]):
                    return f"{name} has {engine}"
            return None

        return await wait_until(f"the engines of {', '.join(names)} serve", serve, timeout_s)

    def _check_agents_run(self, names: Iterable[str]) -> None:
        for name in names:
            process = self.nodes[name].agent
            if process is not None and process.poll() not in (None, -signal.SIGKILL):
                raise OperatorError(f"the agent of {name} ended: {self._log_tail(f'{name}-agent')}")

    async def wait_statuses(
        self, expected: dict[str, str], on: Sequence[str] | None = None, timeout_s: float = 30.0
    ) -> float:
        """Wait until the nodes `on` (default: all) see each named member in the given status."""
        names = list(on or self.nodes)

        async def seen() -> str | None:
            self._check_agents_run(names)
            for name in names:
                statuses = await self.nodes[name].statuses()
                differing = {
                    who: statuses.get(who) for who, what in expected.items() if statuses.get(who) != what
                }
                if differing:
                    return f"{name} sees {differing}"
            return None

        return await wait_until(f"members are {expected} on {', '.join(names)}", seen, timeout_s)

    async def wait_passing(
        self,
        expected: int,
        on: Sequence[str] | None = None,
        timeout_s: float = 30.0,
        service: str | None = None,
    ) -> float:
        """Wait until the nodes `on` count `expected` passing endpoints, of `service` or of all services."""
        names = list(on or self.nodes)

        async def seen() -> str | None:
            for name in names:
                rows = await self.nodes[name].ask("/v1/services")
                passing = sum(row["passing"] for row in rows if service in (None, row["service"]))
                if passing != expected:
                    return f"{name} counts {passing} passing endpoints"
            return None

        what = service or "all services"
        return await wait_until(f"{expected} endpoints of {what} pass", seen, timeout_s)

    async def wait_policy(
        self, version: int, on: Sequence[str] | None = None, timeout_s: float = 10.0, scope: str = "mesh"
    ) -> float:
        """Wait until the nodes `on` run `version` of the scope, by their own word."""
        names = list(on or self.nodes)

        async def seen() -> str | None:
            for name in names:
                rows = (await self.nodes[name].ask("/v1/policy/status"))["scopes"]
                running = {row["scope"]: row["version"] for row in rows}.get(scope)
                if running != version:
                    return f"{name} runs version {running}"
            return None

        return await wait_until(f"version {version} of {scope} runs", seen, timeout_s, interval_s=0.02)

    async def wait_sums_equal(self, on: Sequence[str] | None = None, timeout_s: float = 30.0) -> float:
        """Wait until the nodes `on` hold the same records and documents."""
        names = list(on or self.nodes)

        async def equal() -> str | None:
            state_sums = {name: (await self.nodes[name].status())["state_sums"] for name in names}
            if not all("documents_before" in told for told in state_sums.values()):
                # Beside a node of 0.2: as that one counts.
                for told in state_sums.values():
                    told["documents"] = told.pop("documents_before", told["documents"])
            first = state_sums[names[0]]
            return (
                None if all(value == first for value in state_sums.values()) else f"state sums {state_sums}"
            )

        return await wait_until("state sums are equal", equal, timeout_s)
