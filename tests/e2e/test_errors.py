"""What goes wrong by hand: one clear sentence, a non-zero exit, nothing half done."""

import json
import os
import shlex
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from gossipmesh.net import clock
from gossipmesh.testing import layout
from gossipmesh.testing.layout import MeshLayout, NodeLayout
from gossipmesh.testing.mesh import GOSSIPMESH, Mesh
from gossipmesh.testing.processes import CommandResult
from gossipmesh.testing.waiting import wait_until


@pytest.fixture(scope="module")
def small() -> Iterator[Mesh]:
    """An authority and the files of one node whose agent does not run."""

    async def prepare() -> None:
        await mesh.start_authority(init=True)
        await mesh.prepare_node("node1")

    with Mesh(MeshLayout((NodeLayout("node1", 1, ()),))) as mesh:
        trio.run(prepare)
        yield mesh


def assert_one_sentence(result: CommandResult, *words: str) -> None:
    """Logs may precede the sentence; the sentence is the last line and there is no traceback."""
    assert result.code == 1, (result.code, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    sentence = result.stderr.strip().splitlines()[-1]
    assert sentence.startswith("gossipmesh: "), result.stderr
    for word in words:
        assert word in sentence, sentence


async def agent(mesh: Mesh, config: Path, *words: str) -> CommandResult:
    return await mesh.gossipmesh("agent", "--config", str(config), *words, timeout_s=30.0)


def changed_config(mesh: Mesh, path: Path, **spec: object) -> Path:
    """Write node1's configuration to `path` with keys of `spec` changed."""
    document = json.loads(mesh.nodes["node1"].config_path.read_text())
    document["spec"] |= spec
    layout.write_document(path, document)
    return path


async def test_a_missing_configuration(small: Mesh, tmp_path: Path) -> None:
    result = await agent(small, tmp_path / "none.yaml")
    assert_one_sentence(result, "none.yaml", "No such file", "configs/agent.example.yaml")


async def test_a_bad_address(small: Mesh, tmp_path: Path) -> None:
    config = changed_config(small, tmp_path / "a.yaml", gossip={"bind": "127.0.0.1"})
    result = await agent(small, config)
    assert result.code == 1
    assert "$.spec.gossip.bind" in result.stderr
    assert "not ADDRESS:PORT" in result.stderr
    assert "Traceback" not in result.stderr


async def test_a_yaml_with_five_mistakes_names_all_five_with_their_places(
    small: Mesh, tmp_path: Path
) -> None:
    config = tmp_path / "five.yaml"
    config.write_text(
        "apiVersion: gossipmesh.dev/v1\n"
        "kind: AgentConfig\n"
        "spec:\n"
        "  stateDirectory: /tmp/x\n"
        "  seeds: 10.0.0.1:7948\n"
        "  logLevel: loud\n"
        "  gossip: {bind: localhost:7948}\n"
        "  mesh: {bind: 127.0.0.1:99999}\n"
    )
    result = await agent(small, config)
    assert result.code == 1
    for place in ("five.yaml:4:", "five.yaml:5:", "five.yaml:6:", "five.yaml:7:", "five.yaml:8:"):
        assert place in result.stderr, result.stderr
    assert "5 mistakes" in result.stderr


async def test_policy_with_five_mistakes_is_neither_signed_nor_sent(small: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "five.yaml"
    path.write_text(
        "apiVersion: gateway.networking.k8s.io/v1\n"
        "kind: HTTPRoute\n"
        "metadata: {name: Cart!, namespace: shop}\n"
        "spec:\n"
        "  parentRef: [{name: cart}]\n"
        "  rules:\n"
        "  - backendRefs: [{name: cart, weight: lots}]\n"
        "    timeouts: {request: 5 seconds}\n"
        "    retry: {codes: [200]}\n"
    )
    result = await small.push(path, "node1")
    assert_one_sentence(result, "nothing was signed or sent")
    problems = [line for line in result.stderr.splitlines() if line.startswith(f"{path}:")]
    assert len(problems) >= 3
    assert all(" [GM1" in line for line in problems)


async def test_a_signer_key_others_can_read_is_refused(small: Mesh, tmp_path: Path) -> None:
    key, policy = tmp_path / "policy.key", tmp_path / "canary.yaml"
    key.write_bytes(small.signer_key.read_bytes())
    key.chmod(0o644)
    layout.write_policy(policy, layout.canary(90, 10))
    assert_one_sentence(await small.push(policy, "node1", key=key), "policy.key", "chmod")


async def test_a_port_in_use(small: Mesh, tmp_path: Path) -> None:
    """Found before the token is spent: the node can still join once the port is free."""
    node = small.nodes["node1"]
    with socket.create_server((node.host, layout.GOSSIP_PORT)):
        result = await agent(small, node.config_path)
    assert_one_sentence(result, f"{node.host}:{layout.GOSSIP_PORT}", "in use")


async def test_an_expired_token(small: Mesh, tmp_path: Path) -> None:
    token = tmp_path / "short.token"
    await small.create_token("node1", token, "--ttl", "1s")
    created_s = clock.wall_seconds()

    async def expired() -> str | None:
        return None if clock.wall_seconds() >= created_s + 2 else "not yet"

    await wait_until("the token has expired", expired, 10.0)
    config = changed_config(small, tmp_path / "a.yaml", stateDir=str(tmp_path / "state"))
    result = await agent(small, config, "--token-file", str(token))
    assert_one_sentence(result, "expired")
    assert not list((tmp_path / "state").glob("identity/*"))


async def test_a_token_used_twice_and_a_key_with_open_permissions(small: Mesh, tmp_path: Path) -> None:
    """One node enrols; its token is then spent, and its key is checked at each start."""
    node = small.nodes["node1"]
    small.start_agent("node1")
    await small.wait_statuses({"node1": "alive"})
    for path in [node.directory / "state" / "identity", *(node.directory / "state" / "identity").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), (path, oct(mode))
    assert node.agent is not None
    node.agent.terminate()
    await small.wait_ended("node1")
    config = changed_config(small, tmp_path / "a.yaml", stateDir=str(tmp_path / "state"))
    assert_one_sentence(await agent(small, config), "token", "already")
    (keys,) = [path for path in (node.directory / "state" / "identity").iterdir() if path.is_file()]
    before = keys.read_bytes()
    keys.chmod(0o640)
    assert_one_sentence(await agent(small, node.config_path), str(keys), "chmod")
    assert keys.read_bytes() == before


@pytest.mark.namespace
def test_a_full_disk_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    """On a small tmpfs in a mount namespace of its own: fails in a sentence, works once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    gossipmesh = shlex.join(GOSSIPMESH)
    token = f"{gossipmesh} token create --dir {disk}/a --authority 127.0.0.1:8443 --node n1 --out {disk}/t"
    script = f"""
    set -u
    mount -t tmpfs -o size=256k tmpfs {disk}
    {gossipmesh} authority init --trust-domain mesh.test --dir {disk}/a >/dev/null || exit 90
    dd if=/dev/zero of={disk}/fill bs=4k 2>/dev/null
    {token}; echo "full: $?"
    {gossipmesh} authority init --trust-domain mesh.test --dir {disk}/b; echo "full: $?"
    rm {disk}/fill
    {token} >/dev/null; echo "room: $?"
    {gossipmesh} authority init --trust-domain mesh.test --dir {disk}/b >/dev/null; echo "room: $?"
    """
    arguments = ["unshare", "--mount", "sh", "-c", script]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=120, env={**os.environ})
    assert result.stdout.split("\n")[:-1] == ["full: 1", "full: 1", "room: 0", "room: 0"], result.stderr
    told = result.stderr.strip().splitlines()
    assert len(told) == 2, result.stderr
    assert all(line.startswith("gossipmesh: ") and "No space left" in line for line in told), told
