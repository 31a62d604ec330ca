"""One whole agent in this process: a real authority, a real engine, real sockets."""

import base64
import json
import logging
import os
import re
import select
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gossipmesh.agent.app import run_agent
from gossipmesh.agent.config import AgentConfig, read_config
from gossipmesh.agent.engine.engine_process import EngineProcess
from gossipmesh.agent.identity.identity_store import load_identity
from gossipmesh.cli.admin_client import AdminClient
from gossipmesh.control.revoking import take_out
from gossipmesh.gossip.replay.recording import read_recording_untrusted
from gossipmesh.model.errors import NodeReplaced, OperatorError
from gossipmesh.testing.admin import AdminError, AgentSilent, ask
from gossipmesh.testing.builders import TrustDomainBuilder
from gossipmesh.testing.simulator.replay import replay
from gossipmesh.wire.datagram import PacketType, decode_header_untrusted
from tests.unit.agent.own_host import own_host
from tests.unit.enrolment_kit import running_authority

HOST = own_host(1)
PORTS = {"gossip": 7948, "mesh": 15008, "proxy": 15080, "api": 15000, "metrics": 15020, "readiness": 15021}


class Node:
    """A node's files."""

    def __init__(self, folder: Path, host: str = HOST) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.socket = self.state / "agent.sock"
        (folder / "services.d").mkdir()
        spec = {name: {"bind": f"{host}:{port}"} for name, port in PORTS.items()}
        spec |= {"stateDir": "state", "servicesDir": "services.d", "tokenFile": "token"}  # type: ignore[dict-item]
        document = {"apiVersion": "gossipmesh.dev/v1", "kind": "AgentConfig", "spec": spec}
        (folder / "agent.yaml").write_text(json.dumps(document))

    def config(self) -> AgentConfig:
        return read_config(self.folder / "agent.yaml")

    async def wait(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return /v1/status once `condition` holds of it."""
        for _ in range(1_500):
            try:
                status: dict[str, Any] = await ask(self.socket, "/v1/status")
            except AgentSilent:
                status = {}
            if status and condition(status):
                return status
            await trio.sleep(0.02)
        raise AssertionError(f"did not come about; last seen: {status}")

    async def wait_gone(self) -> None:
        """Wait until the agent has removed its socket, which it does when it has left."""
        for _ in range(500):
            if not self.socket.exists():
                return
            await trio.sleep(0.02)
        raise AssertionError("the agent has not ended")

    def end_engines(self) -> None:
        """End whatever engine still serves this node; its ports are free on return."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if f"{self.state}/engine".encode() not in path.read_bytes():
                    continue
                pid = int(path.parent.name)
                engine, ending = EngineProcess(pid, path), os.pidfd_open(pid)
            except OSError:
                continue
            engine.end(signal.SIGKILL)
            ended, _, _ = select.select([ending], [], [], 10.0)  # until then it holds what it listened on
            os.close(ending)
            assert ended
            assert not engine.is_running()


def engine_runs(pid: int) -> bool:
    """Tell whether an engine has not ended."""
    try:
        process = EngineProcess(pid, Path("/"))
    except ProcessLookupError:
        return False
    runs = process.is_running()
    process.close()
    return runs


@asynccontextmanager
async def a_node(folder: Path, host: str = HOST) -> AsyncIterator[Node]:
    """A node with a token, and its engine ended afterwards in any case."""
    node = Node(folder, host)
    async with running_authority(folder / "authority") as authority:
        authority.token(folder / "token", "n1", ("shop/*",))
        try:
            yield node
        finally:
            node.end_engines()


@asynccontextmanager
async def running(node: Node) -> AsyncIterator[dict[str, Any]]:
    """The agent, serving; cancelled at the end, which leaves the engine alone."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_agent, node.config())
        yield await node.wait(lambda status: status["engine"]["answering"])
        nursery.cancel_scope.cancel()


async def _raw(request: bytes, port: int) -> tuple[int, bytes]:
    stream = await trio.open_tcp_stream(HOST, port)
    async with stream:
        await stream.send_all(request)
        answer = b""
        with trio.fail_after(5):
            while chunk := await stream.receive_some():
                answer += chunk
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


def _get(path: str, host: str = HOST, method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n".encode()


async def test_an_agent_enrols_serves_answers_and_leaves(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node, running(node) as status:
        assert status["name"] == "n1"
        assert status["engine"]["acked"]
        assert [row["spiffe_id"] for row in await ask(node.socket, "/v1/identity")]
        (member,) = await ask(node.socket, "/v1/members")
        assert (member["self"], member["status"], member["mesh_address"]) == (True, "alive", f"{HOST}:15008")
        checks = await ask(node.socket, "/v1/check")
        assert all(row["ok"] for row in checks), checks
        snapshot = await ask(node.socket, "/v1/proxy/snapshot")
        assert snapshot["version"] == status["engine"]["snapshot_version"]
        assert "limits" in snapshot["sections"]
        assert (node.socket.stat().st_mode & 0o777) == 0o600
        assert await ask(node.socket, "/v1/leave", method="POST", timeout_s=30) == {"left": True}
        await node.wait_gone()


async def test_keys_turn_under_a_whole_agent_and_its_engine_goes_on(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node, running(node) as status:
        before = await ask(node.socket, "/v1/keys")
        assert set(before["shown"]) == {"spiffe://mesh.test/node/n1", "spiffe://mesh.test/node/n1/workloads"}
        await ask(node.socket, "/v1/keys/turn", method="POST")
        for _ in range(500):
            after = await ask(node.socket, "/v1/keys")
            if after["turns"] == 1 and after["settled"]:
                break
            await trio.sleep(0.02)
        assert not set(before["shown"].values()) & set(after["shown"].values())
        rows = {row["spiffe_id"]: row for row in await ask(node.socket, "/v1/identity")}
        assert {name: row["shown"] for name, row in rows.items()} == after["shown"]
        assert all(len(row["pins"]) == 2 and row["not_after"] for row in rows.values()), rows
        again = await node.wait(lambda found: found["engine"]["answering"])
        assert again["engine"]["pid"] == status["engine"]["pid"]
        checks = {row["name"]: row["mark"] for row in await ask(node.socket, "/v1/check")}
        assert (checks["keys"], checks["identity"], checks["certificates"]) == ("ok", "ok", "ok")


async def test_a_seed_by_name_stops_nothing_while_it_does_not_resolve_and_is_greeted_once_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The name comes to life while the agent runs: a load balancer, a DNS server that was down."""
    seed_host, getaddrinfo = own_host(2), socket.getaddrinfo
    looked_up: list[str] = []

    def by_test(host: Any, *more: Any, **named: Any) -> Any:
        if host != "seed.test":
            return getaddrinfo(host, *more, **named)
        looked_up.append(host)
        if len(looked_up) == 1:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return getaddrinfo(seed_host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", by_test)
    monkeypatch.setattr(logging.getLogger("gossipmesh"), "propagate", True)
    caplog.set_level("INFO", "gossipmesh")
    async with a_node(tmp_path) as node:
        path = node.folder / "agent.yaml"
        document = json.loads(path.read_text())
        document["spec"]["seeds"] = ["seed.test:7948"]
        path.write_text(json.dumps(document))
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as seed:
            await seed.bind((seed_host, 7948))
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run_agent, node.config())
                    hello, sender = await seed.recvfrom(2_048)
                    nursery.cancel_scope.cancel()
    assert decode_header_untrusted(hello).type == PacketType.HELLO
    assert sender == (HOST, 7948)
    told = [record.getMessage() for record in caplog.records if "the seed seed.test:7948" in record.message]
    assert told == [
        "the seed seed.test:7948 does not resolve: Name or service not known; it is tried again",
        f"the seed seed.test:7948 is at {seed_host}:7948",
    ]


async def test_reads_on_loopback_are_for_addresses_only_and_never_change_anything(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node, running(node):
        assert (await _raw(_get("/v1/status"), 15000))[0] == 200
        assert (await _raw(_get("/v1/status", host="localhost:15000"), 15000))[0] == 200
        assert (await _raw(_get("/v1/status", host="evil.example"), 15000))[0] == 403
        origin = "Origin: https://evil.example\r\n"
        assert (await _raw(_get("/v1/status", more=origin), 15000))[0] == 403
        assert (await _raw(_get("/v1/leave", method="POST"), 15000))[0] == 403
        assert (await _raw(_get("/v1/debug/record"), 15000))[0] == 403
        assert (await _raw(_get("/v1/nothing"), 15000))[0] == 404
        assert (await _raw(_get("/v1/status", method="POST"), 15000))[0] == 405
        assert (await _raw(b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 15000))[0] == 400


async def test_metrics_tell_of_agent_engine_and_refusals(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node, running(node):
        stranger = TrustDomainBuilder(seed="other").policy_set(1)
        with pytest.raises(AdminError) as refused:
            await ask(node.socket, "/v1/policy/offer", method="POST", body=stranger.to_bytes())
        assert (refused.value.status, refused.value.code) == (409, "signature")
        with pytest.raises(AdminError) as malformed:
            await ask(node.socket, "/v1/policy/offer", method="POST", body=b"\xc1")
        assert malformed.value.code == "malformed"
        with pytest.raises(AdminError) as none:
            await ask(node.socket, "/v1/policy/set?scope=mesh")
        assert none.value.status == 404
        status, body = await _raw(_get("/metrics"), 15020)
        text = body.decode()
        assert status == 200
        assert 'gossipmesh_members{status="alive"} 1.0' in text
        assert "gossipmesh_engine_serving 1.0" in text
        for name in (
            'gossipmesh_gossip_queue_depth{share="deaths"} ',
            'gossipmesh_gossip_state_sum_head{kind="group"} ',
            "gossipmesh_gossip_cases_open 0.0",
            "gossipmesh_gossip_lag_seconds ",
            "gossipmesh_gossip_clock_skew_seconds ",
            "gossipmesh_loop_stalls_total ",
            'gossipmesh_limit_reached_total{limit="streams"} 0.0',
            "gossipmesh_recorder_bytes ",
        ):
            assert f"\n{name}" in text, name
        for process in ("agent", "engine"):
            (line,) = (line for line in text.splitlines() if f'resident_bytes{{process="{process}"}}' in line)
            assert float(line.split()[1]) > 10_000_000


async def test_the_next_agent_attaches_to_the_engine_that_runs(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node:
        async with running(node) as first:
            pass
        async with running(node) as second:
            assert second["engine"]["pid"] == first["engine"]["pid"]
            assert second["engine"]["starts"] == 0
            assert second["engine"]["snapshot_version"] == first["engine"]["snapshot_version"]
            assert second["incarnation"]["epoch"] == first["incarnation"]["epoch"] + 1


@pytest.mark.parametrize("by_signal", [True, False])
async def test_a_planned_restart_is_told_and_leaves_the_engine(tmp_path: Path, by_signal: bool) -> None:
    """The agent ends by itself, its socket is gone, and the next one finds the same engine."""
    async with a_node(tmp_path) as node:
        async with running(node) as before:
            if by_signal:
                os.kill(os.getpid(), signal.SIGUSR2)
            else:
                assert await ask(node.socket, "/v1/restart", method="POST") == {"restarting": True}
            await node.wait_gone()
        async with running(node) as after:
            assert after["engine"]["pid"] == before["engine"]["pid"]
            assert after["engine"]["starts"] == 0
            assert after["incarnation"]["epoch"] == before["incarnation"]["epoch"] + 1


async def test_what_an_agent_recorded_is_replayed_and_why_answers(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node, running(node):
        (member,) = await ask(node.socket, "/v1/members")
        assert member["reachability"] == "self"
        for name in ("n1", member["node_id"]):
            answer = await ask(node.socket, f"/v1/why?node={name}")
            assert (answer["node"], answer["member"]["status"], answer["entries"]) == ("n1", "alive", [])
            assert "nothing was said against it" in answer["summary"]
        with pytest.raises(AdminError) as unknown:
            await ask(node.socket, "/v1/why?node=nobody")
        assert (unknown.value.status, unknown.value.code) == (404, "no-member")
        with pytest.raises(AdminError) as unnamed:
            await ask(node.socket, "/v1/why")
        assert unnamed.value.code == "no-node"
        await node.wait(lambda status: status["recorder"]["entries"] > 6)  # its timers give it some
        files = [await trio.to_thread.run_sync(_recorded, node.socket) for _ in range(2)]
        identity = load_identity(node.state / "identity")
        assert identity is not None
        for number, data in enumerate(files):
            recording = read_recording_untrusted(data)
            result = replay(recording)
            assert result.differences == ()
            assert result.steps_count > 3
            assert [entry.method for entry in recording.entries].count("reseed") == number
            assert result.state.members[0].name == "n1"
            assert identity.signing.seed() not in data
            assert identity.exchange.seed() not in data
        status = await ask(node.socket, "/v1/status")
        assert status["recorder"]["replayable"]
        assert set(status["queues"]) == {"documents", "alive", "deaths", "services", "rest"}


def _recorded(path: Path) -> bytes:
    data = AdminClient(path).get_bytes("/v1/debug/record")
    assert data is not None
    return data


async def test_a_killed_engine_is_replaced_on_the_same_sockets(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node, running(node) as before:
        os.kill(before["engine"]["pid"], signal.SIGKILL)
        after = await node.wait(
            lambda status: (
                status["engine"]["answering"] and status["engine"]["pid"] != before["engine"]["pid"]
            )
        )
        assert after["engine"]["pid"] != before["engine"]["pid"]
        assert after["engine"]["snapshot_version"] == before["engine"]["snapshot_version"]


async def test_an_engine_that_is_stuck_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossipmesh.agent.engine.engine_session._STUCK_PINGS", 1)
    async with a_node(tmp_path) as node, running(node) as before:
        os.kill(before["engine"]["pid"], signal.SIGSTOP)
        after = await node.wait(lambda s: s["engine"]["answering"] and s["engine"]["starts"] == 2)
        assert after["engine"]["pid"] != before["engine"]["pid"]


async def test_a_taken_port_is_one_sentence_and_the_token_is_kept(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node:
        for name in ("metrics", "mesh"):
            with socket.create_server((HOST, PORTS[name])), pytest.raises(OperatorError) as taken:
                await run_agent(node.config())
            said = f"{HOST}:{PORTS[name]}/tcp (spec.{name}.bind): Address already in use"
            assert said in str(taken.value)
        assert not (node.state / "identity").exists()
        async with running(node):
            pass


async def test_without_identity_and_token_it_says_what_to_do(tmp_path: Path) -> None:
    node = Node(tmp_path)
    text = (tmp_path / "agent.yaml").read_text().replace('"tokenFile": "token"', '"logLevel": "info"')
    (tmp_path / "agent.yaml").write_text(text)
    with pytest.raises(OperatorError, match="gossipmesh token create"):
        await run_agent(node.config())


async def test_sighup_reads_files_anew_and_ends_nothing(tmp_path: Path) -> None:
    """What logrotate sends, to the agent and to the engine: the log is opened anew, and both go on."""
    async with a_node(tmp_path) as node, running(node) as before:
        log = node.config().access_log
        path = getattr(log, "path", log)
        path.rename(path.with_name("rotated"))
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(before["engine"]["pid"], signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(500):
            if path.exists():
                break
            await trio.sleep(0.02)
        assert path.exists()
        status = await node.wait(lambda status: status["engine"]["answering"])
        assert status["engine"]["pid"] == before["engine"]["pid"]


async def test_an_agent_whose_name_was_enrolled_again_ends_with_its_engine(tmp_path: Path) -> None:
    """The new one's only seed is the old one, which learns of it from that very greeting."""
    there = own_host(3)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    async with a_node(old) as node, running_authority(tmp_path / "authority") as authority:
        again = Node(new, there)
        for folder in (old, new):
            authority.token(folder / "token", "n1", ("shop/*",))
        document = json.loads((new / "agent.yaml").read_text())
        document["spec"]["seeds"] = [f"{HOST}:{PORTS['gossip']}"]
        (new / "agent.yaml").write_text(json.dumps(document))
        failures: list[NodeReplaced] = []

        async def run_old(nursery: trio.Nursery) -> None:
            try:
                await run_agent(node.config())
            except NodeReplaced as failure:
                failures.append(failure)
            nursery.cancel_scope.cancel()

        try:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run_old, nursery)
                    status = await node.wait(lambda status: status["engine"]["answering"])
                    nursery.start_soon(run_agent, again.config())
        finally:
            again.end_engines()
        (failure,) = failures
        assert re.search(r"n1 was enrolled again elsewhere \(generation \d+, here it is \d+\)", str(failure))
        assert f"run `rm -r {node.state}/identity`" in str(failure)
        assert failure.exit_code == 78
        for _ in range(500):  # it was killed; the kernel takes its time to end it
            if not engine_runs(status["engine"]["pid"]):
                break
            await trio.sleep(0.02)
        assert not engine_runs(status["engine"]["pid"])
        with pytest.raises(OSError):
            await trio.open_tcp_stream(HOST, PORTS["readiness"])


async def test_an_agent_with_a_copy_of_another_ones_folder_ends_with_its_engine(tmp_path: Path) -> None:
    """It knows no seed: where its own record says that it was it asks, and is answered."""
    there = tmp_path / "there"
    there.mkdir()
    async with a_node(tmp_path) as node:
        copy = Node(there, own_host(4))
        try:
            async with running(node) as before:
                folder = node.config().state_dir
                copy.state.mkdir(mode=0o700)
                shutil.copytree(folder / "identity", copy.state / "identity")
                for name in ("records.log", "records.snapshot"):
                    if (folder / name).exists():
                        shutil.copy2(folder / name, copy.state / name)
                with trio.fail_after(60), pytest.raises(NodeReplaced) as caught:
                    await run_agent(copy.config())
                status = await ask(node.socket, "/v1/status")
                assert status["engine"]["pid"] == before["engine"]["pid"]
                assert status["incarnation"] == before["incarnation"]
        finally:
            copy.end_engines()
    assert f"n1 runs at {HOST}:{PORTS['gossip']} too" in str(caught.value)
    assert f"run `rm -r {copy.state}/identity`" in str(caught.value)
    with pytest.raises(OSError):
        await trio.open_tcp_stream(own_host(4), PORTS["readiness"])


async def test_a_revoked_node_ends_its_engine_and_is_not_to_be_started_again(tmp_path: Path) -> None:
    """Its own agent is handed the tombstone here; otherwise whoever it greets tells it."""
    folder = tmp_path / "node"
    folder.mkdir()
    async with a_node(folder) as node, running_authority(tmp_path / "authority") as authority:
        authority.token(folder / "token", "n1", ("shop/*",))
        failures: list[NodeReplaced] = []

        async def run_node(nursery: trio.Nursery) -> None:
            try:
                await run_agent(node.config())
            except NodeReplaced as failure:
                failures.append(failure)
            nursery.cancel_scope.cancel()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_node, nursery)
                status = await node.wait(lambda status: status["engine"]["answering"])
                revocation = take_out(
                    authority.authority, authority.ledger, "n1", authority.now(), what="revoked"
                )
                body = json.dumps({"record": base64.b64encode(revocation.record).decode()}).encode()
                await ask(node.socket, "/v1/credentials", method="POST", body=body)
                await trio.sleep_forever()
        (failure,) = failures
        assert str(failure).startswith("n1 was revoked")
        assert failure.exit_code == 77
        assert not engine_runs(status["engine"]["pid"])
