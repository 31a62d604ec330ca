"""A whole agent that is closed: what its readiness, its checks and its members say, and what opens it."""

from pathlib import Path
from typing import Any

import pytest
import trio

from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model.opening import HowOpened, KeptOpening
from gossipmesh.testing.admin import ask
from gossipmesh.wire.codec import decode_untrusted
from tests.unit.agent.test_app import HOST, PORTS, Node, a_node, running

SERVICE = """
apiVersion: gossipmesh.dev/v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {address: "127.0.0.1:9", protocol: tcp}
"""


async def readiness() -> tuple[int, str]:
    stream = await trio.open_tcp_stream(HOST, PORTS["readiness"])
    async with stream:
        await stream.send_all(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        answer = b""
        with trio.fail_after(5):
            while chunk := await stream.receive_some():
                answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode().strip()


async def readiness_says(code: int, text: str) -> None:
    found = (0, "")
    for _ in range(500):
        found = await readiness()
        if found[0] == code and text in found[1]:
            return
        await trio.sleep(0.02)
    raise AssertionError(f"readiness says {found}, not {(code, text)}")


def lose_records(node: Node) -> None:
    """Have the disk lose all that the agent kept, but for its identity."""
    for path in node.state.glob("records.*"):
        path.unlink()


async def workloads(node: Node) -> list[str]:
    snapshot: dict[str, Any] = await ask(node.socket, "/v1/proxy/snapshot")
    return [name for name in snapshot["sections"] if name.startswith("inbound/")]


async def check_of(node: Node, name: str) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = await ask(node.socket, "/v1/check")
    return next((row for row in rows if row["name"] == name), None)


async def test_who_lost_its_records_is_closed_says_so_and_is_opened_by_hand(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node:
        (node.folder / "services.d" / "cart.yaml").write_text(SERVICE)
        async with running(node) as status:
            assert not status["opening"]["closed"]
            await readiness_says(200, "ready")
            assert await check_of(node, "opening") is None
        node.end_engines()
        lose_records(node)
        async with running(node) as status:
            assert status["opening"]["closed"]
            assert status["opening"]["needed"] == 3
            await readiness_says(503, "closed: it has heard of no open member")
            assert await workloads(node) == []
            row = await check_of(node, "opening")
            assert row is not None
            assert row["mark"] == "FAIL"
            assert "gossipmesh release --open" in row["hint"]
            (member,) = await ask(node.socket, "/v1/members")
            assert (member["phase"], member["closed"]) == ("closed", True)
        async with running(node) as status:
            assert status["opening"]["closed"], "a restart opens nothing"
            await readiness_says(503, "closed: ")
            answer = await ask(node.socket, "/v1/open", method="POST")
            assert answer["opened"]
            await readiness_says(200, "ready")
            await node.wait(lambda now: not now["opening"]["closed"])
            assert await workloads(node) == ["inbound/cart"]
            (member,) = await ask(node.socket, "/v1/members")
            assert (member["phase"], member["closed"], member["opened_by_hand"]) == ("serving", False, True)
            row = await check_of(node, "opening")
            assert row is not None
            assert row["mark"] == "warn"
            assert await ask(node.socket, "/v1/open", method="POST") == {"opened": False, "was_closed": ""}
        node.end_engines()
        async with running(node) as status:
            assert not status["opening"]["closed"], "what was opened stays open"
            (member,) = await ask(node.socket, "/v1/members")
            assert not member["opened_by_hand"]
        assert kept(node).how == HowOpened.BY_HAND


async def test_an_engine_that_serves_goes_on_while_its_next_agent_is_closed(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node:
        (node.folder / "services.d" / "cart.yaml").write_text(SERVICE)
        async with running(node):
            await readiness_says(200, "ready")
            for _ in range(500):
                if await workloads(node):
                    break
                await trio.sleep(0.02)
        lose_records(node)
        async with running(node) as status:
            assert status["opening"]["closed"]
            await readiness_says(200, "ready")
            assert await workloads(node) in ([], ["inbound/cart"])


@pytest.mark.parametrize("name", ["records.log"])
async def test_a_damaged_disk_is_confirmed_no_more(tmp_path: Path, name: str) -> None:
    async with a_node(tmp_path) as node:
        async with running(node):
            await readiness_says(200, "ready")
        node.end_engines()
        path = node.state / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        async with running(node) as status:
            assert status["opening"]["closed"]
        async with running(node) as status:
            assert status["opening"]["closed"], "the next start does not find the damage, and knows of it"


def kept(node: Node) -> KeptOpening:
    store = StateStore(node.state)
    try:
        value = store.get(PersistKind.OPENING, b"")
        assert value is not None
        return decode_untrusted(value, KeptOpening, bytes_max=256)
    finally:
        store.close()
