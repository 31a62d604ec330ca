"""A whole agent on a disk that takes its time, or nothing: what an operator hears, and what is in force."""

import errno
import os
import threading
from pathlib import Path

import pytest
import trio

from gossipmesh.agent.admin import admin_api as admin
from gossipmesh.agent.app import run_agent
from gossipmesh.agent.state import state_store
from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.model.errors import OperatorError
from gossipmesh.testing.admin import AdminError, AgentSilent, ask
from gossipmesh.testing.waiting import wait_until
from gossipmesh.trust.documents import PolicySet
from gossipmesh.trust.manifest import EMPTY_BASE, build_manifest, sign_set
from gossipmesh.trust.pem import signing_key_from_pem_untrusted
from tests.unit.agent.test_app import Node, a_node, running


def first_set(node: Node) -> PolicySet:
    """Return a first, empty set that the node's authority lets be signed."""
    key = node.folder / "authority" / "signers" / "policy.key"
    manifest = build_manifest(EMPTY_BASE, {}, trust_domain="mesh.test", scope="mesh", created=0)
    return sign_set(manifest, {}, [signing_key_from_pem_untrusted(key.read_bytes())]).policy_set


async def offer(node: Node) -> object:
    return await ask(node.socket, "/v1/policy/offer", method="POST", body=first_set(node).to_bytes())


async def test_a_push_at_a_slow_disk_hears_so_and_the_set_is_in_force_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    fdatasync = os.fdatasync

    def slow(descriptor: int) -> None:
        assert goes_on.wait(20)
        fdatasync(descriptor)

    async def in_force() -> str | None:
        scopes = (await ask(node.socket, "/v1/policy/status"))["scopes"]
        return None if [scope["version"] for scope in scopes] == [1] else str(scopes)

    async with a_node(tmp_path) as node, running(node):
        monkeypatch.setattr(admin, "_WRITTEN_S", 0.05)
        monkeypatch.setattr(state_store.os, "fdatasync", slow)
        with pytest.raises(AdminError, match="this node's disk has not taken it yet") as refused:
            await offer(node)
        assert (refused.value.status, refused.value.code) == (503, "not-in-force")
        status = await ask(node.socket, "/v1/status")  # the agent goes on
        assert status["engine"]["answering"]
        assert (await ask(node.socket, "/v1/policy/status"))["scopes"] == []
        goes_on.set()
        await wait_until("the set is in force", in_force, 20)


async def test_a_disk_that_takes_nothing_ends_the_agent_in_one_sentence_and_nothing_was_put_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    said: list[str] = []

    async def run(node: Node) -> None:
        try:
            await run_agent(node.config())
        except OperatorError as error:
            said.append(str(error))

    async with a_node(tmp_path) as node, trio.open_nursery() as nursery:
        nursery.start_soon(run, node)
        await node.wait(lambda status: status["engine"]["answering"])
        monkeypatch.setattr(state_store.os, "fdatasync", full)
        with pytest.raises(AgentSilent):
            await offer(node)
    assert len(said) == 1
    assert "No space left on device; free some space" in said[0]
    monkeypatch.undo()
    store = StateStore(node.state)
    assert store.items("floor") == store.items("policy_set") == []
    store.close()
