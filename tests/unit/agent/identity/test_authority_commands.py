"""The authority's commands against a real agent: what it tells a restored authority, and what it takes."""

import sys
from pathlib import Path

import trio

from gossipmesh.agent.app import run_agent
from gossipmesh.agent.identity.identity_store import load_identity
from gossipmesh.control.roots import load_authority
from gossipmesh.model.errors import NodeRevoked
from tests.unit.agent.test_app import Node, a_node


async def command(node: Node, folder: Path, *words: str) -> str:
    """Run `gossipmesh authority WORDS` on a folder, by this node's agent; return what it printed."""
    told = [sys.executable, "-m", "gossipmesh.cli.main", "authority", *words, "--dir", str(folder)]
    socket = [] if words[0] == "backup" else ["--socket", str(node.socket)]
    done = await trio.run_process([*told, *socket], capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


async def test_an_agent_is_asked_handed_keys_that_turn_and_its_own_revocation(tmp_path: Path) -> None:
    """A backup of before it enrolled; an intermediate turned and dropped; and at last the node itself."""
    folder = tmp_path / "authority"
    ends: list[NodeRevoked] = []

    async def run(node: Node) -> None:
        try:
            await run_agent(node.config())
        except NodeRevoked as end:
            ends.append(end)

    async with a_node(tmp_path) as node:
        await command(node, folder, "backup", str(tmp_path / "kept"))
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, node)
                await node.wait(lambda status: status["engine"]["answering"])
                told = await command(node, tmp_path / "restored", "restore", str(tmp_path / "kept"))
                assert "1 nodes enrolled and 0 revoked since" in told
                for version, words in ((2, ()), (2, ()), (3, ("--force",))):
                    await command(node, folder, "rotate", "intermediate", *words)
                    status = await node.wait(lambda status, due=version: status["trust"]["version"] == due)
                    assert status["engine"]["answering"]
                assert len(load_authority(folder).trust.intermediates) == 1
                told = await command(node, folder, "revoke", "n1")
                assert "handed to the agent" in told
    identity = load_identity(node.state / "identity")
    assert identity is not None
    assert [end.exit_code for end in ends] == [77]
    assert f"generation {identity.credential_body.generation} counts no more" in str(ends[0])
