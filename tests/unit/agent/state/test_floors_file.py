"""What was synced outlives a damaged file: records and their second copy are judged by each other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gossipmesh.agent.state.floors_file import FILE_NAME, CopiedStore, FloorsFile
from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.identity import NodeId
from gossipmesh.model.opening import KeptOpening
from gossipmesh.wire.codec import decode_untrusted, encode

OWN, OTHER = NodeId(b"o" * 32), NodeId(b"x" * 32)
FLOOR = encode([7, b"h" * 32])
OPEN = encode(KeptOpening("by peers"))


def filled(folder: Path) -> None:
    """Leave what a node that ran does: records, a snapshot of some, and the copy."""
    folder.mkdir(exist_ok=True)
    store = StateStore(folder)
    FloorsFile(folder, OWN).reconcile(store, enrolled_now=True)
    kept = CopiedStore(store, FloorsFile(folder, OWN))
    kept.put_all([(PersistKind.EPOCH, b"", encode(3)), (PersistKind.MEMBER, b"a", b"alpha")], durable=True)
    kept.put_all([(PersistKind.TRUST, bytes(8), b"envelope")], durable=True)
    kept.put_all([(PersistKind.FLOOR, b"mesh", encode([6, b"g" * 32]))], durable=True)
    kept.put_all([(PersistKind.FLOOR, b"mesh", FLOOR)], durable=True)
    kept.put_all([(PersistKind.OPENING, b"", OPEN)], durable=True)
    kept.put_all([(PersistKind.MEMBER, b"b", b"beta")], durable=False)
    store.close()


def opened(folder: Path, *, enrolled_now: bool = False) -> StateStore:
    store = StateStore(folder)
    copy = FloorsFile(folder, OWN)
    copy.reconcile(store, enrolled_now=enrolled_now)
    copy.write(store)
    return store


def held(store: StateStore) -> tuple[bytes | None, bytes | None, bytes | None]:
    return (
        store.get(PersistKind.FLOOR, b"mesh"),
        store.get(PersistKind.TRUST, bytes(8)),
        store.get(PersistKind.OPENING, b""),
    )


def test_an_undamaged_folder_is_read_without_a_word(tmp_path: Path) -> None:
    filled(tmp_path)
    store = opened(tmp_path)
    assert store.damage == []
    assert held(store) == (FLOOR, b"envelope", OPEN)


def test_records_cut_at_any_byte_go_below_no_floor_and_what_is_lost_is_said(tmp_path: Path) -> None:
    filled(tmp_path / "source")
    whole = (tmp_path / "source" / "records.log").read_bytes()
    copy = (tmp_path / "source" / FILE_NAME).read_bytes()
    said = 0
    for length in range(len(whole)):
        folder = tmp_path / f"cut-{length}"
        folder.mkdir()
        (folder / "records.log").write_bytes(whole[:length])
        (folder / FILE_NAME).write_bytes(copy)
        store = opened(folder)
        assert held(store) == (FLOOR, b"envelope", OPEN), length
        said += bool(store.damage)
        assert store.damage or store.get(PersistKind.OPENING, b"") == OPEN
        store.close()
    assert said >= len(whole) - len(b"beta") - 64, "all but the last record, which nobody waited for"


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x20
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flipped, cut, emptied, Path.unlink])
@pytest.mark.parametrize("name", ["records.log", FILE_NAME])
def test_one_damaged_file_takes_no_floor(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    filled(tmp_path)
    damage(tmp_path / name)
    store = opened(tmp_path)
    assert held(store) == (FLOOR, b"envelope", OPEN)
    assert bool(store.damage) is (name == "records.log")
    store.close()
    again = opened(tmp_path)
    assert held(again) == (FLOOR, b"envelope", OPEN)
    assert again.damage == [], "what was mended is whole"


def test_a_copy_of_another_node_is_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path)
    (tmp_path / "other").mkdir()
    store = StateStore(tmp_path / "other")
    store.put(PersistKind.FLOOR, b"mesh", encode([99, b"z" * 32]), durable=True)
    FloorsFile(tmp_path / "other", OTHER).write(store)
    (tmp_path / FILE_NAME).write_bytes((tmp_path / "other" / FILE_NAME).read_bytes())
    assert held(opened(tmp_path))[0] == FLOOR
    assert "of another node" in caplog.text


def test_records_of_another_node_are_refused_with_what_to_do(tmp_path: Path) -> None:
    filled(tmp_path)
    store = StateStore(tmp_path)
    with pytest.raises(OperatorError, match=r"those of another node .* move records.log"):
        FloorsFile(tmp_path, OTHER).reconcile(store, enrolled_now=False)
    assert held(store) == (FLOOR, b"envelope", OPEN), "nothing of them was touched"


def test_a_node_enrolled_under_another_name_forgets_the_records_of_the_one_before(tmp_path: Path) -> None:
    filled(tmp_path)
    store = StateStore(tmp_path)
    FloorsFile(tmp_path, OTHER).reconcile(store, enrolled_now=True)
    assert held(store) == (None, None, None)
    assert store.items(PersistKind.MEMBER) == []
    assert store.get(PersistKind.EPOCH, b"") is None
    assert store.damage == []


def test_a_copy_that_lags_behind_the_records_is_brought_up(tmp_path: Path) -> None:
    """The power was lost between the two writes: nobody had heard of the floor."""
    filled(tmp_path)
    store = StateStore(tmp_path)
    newest = encode([8, b"i" * 32])
    store.put(PersistKind.FLOOR, b"mesh", newest, durable=True)
    store.close()
    mended = opened(tmp_path)
    assert (mended.damage, held(mended)[0]) == ([], newest)
    mended.close()
    (tmp_path / "records.log").write_bytes(b"")
    assert held(opened(tmp_path))[0] == newest


def test_a_disk_that_takes_no_copy_is_one_sentence(tmp_path: Path) -> None:
    filled(tmp_path)
    store = StateStore(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(OperatorError, match=FILE_NAME):
        CopiedStore(store, FloorsFile(tmp_path, OWN)).put_all(
            [(PersistKind.FLOOR, b"mesh", FLOOR)], durable=True
        )


def test_what_may_be_lost_is_not_copied(tmp_path: Path) -> None:
    filled(tmp_path)
    before = (tmp_path / FILE_NAME).stat().st_mtime_ns
    store = StateStore(tmp_path)
    kept = CopiedStore(store, FloorsFile(tmp_path, OWN))
    kept.put_all([(PersistKind.EPOCH, b"", encode(4))], durable=True)
    assert (tmp_path / FILE_NAME).stat().st_mtime_ns == before
    kept.put_all([(PersistKind.FLOOR, b"mesh", encode([8, b"i" * 32]))], durable=True)
    assert (tmp_path / FILE_NAME).stat().st_mtime_ns > before
    assert decode_untrusted(store.get(PersistKind.EPOCH, b"") or b"", int, bytes_max=16) == 4
