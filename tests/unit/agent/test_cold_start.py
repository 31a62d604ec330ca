"""A whole agent started from its disk alone, each kept file damaged: it serves, or says why it does not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from gossipmesh.agent.state.floors_file import FILE_NAME
from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model.errors import OperatorError, operator_error_in
from gossipmesh.testing.admin import ask
from gossipmesh.wire.codec import decode_untrusted, encode
from tests.unit.agent.test_app import Node, running
from tests.unit.enrolment_kit import running_authority

FLOOR = encode([7, b"h" * 32])
IDENTITY, RECORDS, SNAPSHOT = "identity/identity.json", "records.log", "records.snapshot"
DELIVERED = "snapshot.bin"


def cut(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flipped(path: Path, _: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 0x20
    path.write_bytes(content)


def emptied(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def of_another_node(path: Path, other: Path) -> None:
    mode = path.stat().st_mode
    shutil.copyfile(other, path)
    path.chmod(mode)


DAMAGE = (cut, flipped, emptied, of_another_node)
REFUSED = "refused"
# What becomes of the node; where more are named the damage decides which. A log that was cut is not closed
# where what went was written after all that may not be lost.
OUTCOMES = {
    IDENTITY: {REFUSED},
    RECORDS: {"open", "closed", REFUSED},
    SNAPSHOT: {"closed", REFUSED},
    FILE_NAME: {"open"},
    DELIVERED: {"open"},
}


async def lived(node: Node, *, is_rotated: bool = False) -> None:
    """Have a node run once; then leave its state as a machine does that lost its power."""
    async with running(node):
        for _ in range(500):
            if (node.state / DELIVERED).exists():
                break
            await trio.sleep(0.02)
    node.end_engines()
    if is_rotated:
        store = StateStore(node.state)
        await store.rotate()
        store.close()


async def start(node: Node) -> str:
    """Start the agent; return whether it is open, closed or refused to start."""
    try:
        async with running(node) as status:
            await ask(node.socket, "/v1/members")
            return "closed" if status["opening"]["closed"] else "open"
    except BaseExceptionGroup as group:
        error = operator_error_in(group)
        if error is None:
            raise
        sentence = str(error)
    except OperatorError as error:
        sentence = str(error)
    finally:
        node.end_engines()
    assert str(node.state) in sentence, "it says what is damaged"
    assert any(word in sentence for word in ("move", "restore", "enrol", "remove")), "and what to do"
    return REFUSED


@pytest.mark.parametrize("name", list(OUTCOMES))
async def test_each_kept_file_may_be_damaged(tmp_path: Path, name: str) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    node, other = Node(tmp_path / "one"), Node(tmp_path / "two")
    async with running_authority(tmp_path / "authority") as authority:
        for one, called in ((node, "n1"), (other, "n2")):
            authority.token(one.folder / "token", called, ("shop/*",))
            await lived(one, is_rotated=name == SNAPSHOT)
    # The authority is gone from here on, and no seed was ever known.
    kept_aside = tmp_path / "kept"
    shutil.copytree(node.state, kept_aside, ignore=shutil.ignore_patterns("*.sock"))
    outcomes: dict[str, str] = {}
    assert await start(node) == "open"
    for damage in DAMAGE:
        shutil.rmtree(node.state)
        shutil.copytree(kept_aside, node.state)
        damage(node.state / name, other.state / name)
        outcomes[damage.__name__] = await start(node)
    assert set(outcomes.values()) <= OUTCOMES[name], outcomes
    if name in (RECORDS, SNAPSHOT):
        assert (outcomes["flipped"], outcomes["of_another_node"]) == ("closed", REFUSED), outcomes


@pytest.mark.parametrize("damage", DAMAGE[:3])
async def test_no_floor_that_was_synced_is_lost_by_a_start(
    tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    node = Node(tmp_path)
    async with running_authority(tmp_path / "authority") as authority:
        authority.token(node.folder / "token", "n1", ())
        async with running(node):
            pass
    node.end_engines()
    store = StateStore(node.state)
    store.put(PersistKind.FLOOR, b"mesh", FLOOR, durable=True)
    store.close()
    assert await start(node) == "open"
    damage(node.state / RECORDS, node.state)
    assert await start(node) in ("open", "closed")
    store = StateStore(node.state)
    held = store.get(PersistKind.FLOOR, b"mesh")
    store.close()
    assert held is not None
    assert decode_untrusted(held, tuple[int, bytes], bytes_max=100) == (7, b"h" * 32)


async def test_a_node_whose_authority_is_gone_serves_from_its_disk(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with running_authority(tmp_path / "authority") as authority:
        authority.token(node.folder / "token", "n1", ())
        await lived(node)
    (node.folder / "token").unlink()
    assert await start(node) == "open"
