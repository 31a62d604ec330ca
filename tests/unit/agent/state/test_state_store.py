"""The state store survives any crash with a good prefix, and says so when it lost more than a tail."""

import errno
import os
from pathlib import Path

import pytest
import trio

from gossipmesh.agent.state import state_store
from gossipmesh.agent.state.state_store import FolderLock, StateLost, StateStore
from gossipmesh.model.errors import OperatorError

RECORDS = [
    ("epoch", b"", b"\x01"),
    ("member", b"a", b"alpha"),
    ("floor", b"mesh", b"\x00" * 5),
    ("member", b"b", b"be"),
]


def _fill(folder: Path) -> list[int]:
    """Write RECORDS; return the log's length before each and after the last."""
    store = StateStore(folder)
    lengths = [(folder / "records.log").stat().st_size]
    for kind, key, value in RECORDS:
        store.put(kind, key, value, durable=True)
        lengths.append((folder / "records.log").stat().st_size)
    store.close()
    return lengths


def _content(store: StateStore) -> list[tuple[str, bytes, bytes]]:
    return [(kind, key, value) for kind in ("epoch", "floor", "member") for key, value in store.items(kind)]


def test_what_was_put_is_found_again_and_the_last_one_wins(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    assert store.fresh
    store.put("member", b"a", b"1", durable=False)
    store.put("member", b"a", b"2", durable=False)
    store.put("member", b"b", b"3", durable=False)
    store.put("member", b"b", None, durable=True)
    store.close()
    again = StateStore(tmp_path)
    assert again.items("member") == [(b"a", b"2")]
    assert again.get("member", b"b") is None
    assert not again.fresh
    assert again.damage == []


def test_a_log_cut_at_any_byte_keeps_every_whole_record(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    lengths = _fill(source)
    whole = (source / "records.log").read_bytes()
    for cut in range(len(whole) + 1):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / "records.log").write_bytes(whole[:cut])
        store = StateStore(folder)
        kept = sum(1 for length in lengths[1:] if length <= cut)
        assert _content(store) == sorted(RECORDS[:kept]), cut
        assert store.damage == [], cut
        store.put("member", b"z", b"after", durable=True)
        store.close()
        assert StateStore(folder).get("member", b"z") == b"after", cut


def test_a_byte_flipped_in_the_middle_keeps_the_prefix_and_is_said(tmp_path: Path) -> None:
    lengths = _fill(tmp_path)
    log = tmp_path / "records.log"
    data = bytearray(log.read_bytes())
    data[lengths[1] + 8] ^= 0x40
    log.write_bytes(data)
    store = StateStore(tmp_path)
    assert _content(store) == RECORDS[:1]
    assert len(store.damage) == 1
    assert f"damaged at byte {lengths[1]}" in store.damage[0]
    assert (tmp_path / "records.log.damaged").read_bytes() == data


async def test_rotation_keeps_everything_and_shrinks_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_store, "_ROTATE_BYTES_MIN", 200)
    store = StateStore(tmp_path)
    for number in range(50):
        store.put("member", b"a", b"%d" % number, durable=False)
    assert store.rotation_due
    await store.rotate()
    assert not store.rotation_due
    store.put("member", b"b", b"later", durable=True)
    store.close()
    again = StateStore(tmp_path)
    assert again.items("member") == [(b"a", b"49"), (b"b", b"later")]
    assert not (tmp_path / "records.log.old").exists()


async def test_a_rotation_a_crash_interrupted_is_finished_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StateStore(tmp_path)
    store.put("member", b"a", b"old", durable=True)

    def crash(records: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_write_snapshot", crash)
    with pytest.raises(StateLost, match="No space left"):
        await store.rotate()
    store.close()
    assert (tmp_path / "records.log.old").exists()
    assert StateStore(tmp_path).items("member") == [(b"a", b"old")]
    assert not (tmp_path / "records.log.old").exists()


async def test_a_snapshot_cut_short_is_said(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.put("member", b"a", b"1", durable=True)
    await store.rotate()
    store.close()
    snapshot = tmp_path / "records.snapshot"
    snapshot.write_bytes(snapshot.read_bytes()[:-4])
    assert "cut short" in StateStore(tmp_path).damage[-1]


def test_a_full_disk_is_one_sentence_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StateStore(tmp_path)
    store.put("floor", b"mesh", b"7", durable=True)
    before = (tmp_path / "records.log").read_bytes()
    real_write = os.write
    room = 5

    def write(file: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken, room = min(room, len(data)), 0
        return real_write(file, data[:taken])

    monkeypatch.setattr(state_store.os, "write", write)
    with pytest.raises(StateLost, match="No space left on device; free some space"):
        store.put("floor", b"mesh", b"8", durable=True)
    assert store.get("floor", b"mesh") == b"7"
    assert (tmp_path / "records.log").read_bytes() == before


def test_a_second_agent_on_one_folder_is_refused(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with pytest.raises(OperatorError, match=rf"another agent \(process {os.getpid()}\) is using"):
        FolderLock(tmp_path)
    first.release()
    FolderLock(tmp_path).release()


def test_a_bit_flipped_anywhere_never_brings_an_older_epoch_without_a_word(tmp_path: Path) -> None:
    """Whatever single bit a disk spoils: the epoch is right, or the start knows that it may not be."""
    source = tmp_path / "source"
    source.mkdir()
    store = StateStore(source)
    for epoch in range(1, 5):
        store.put("epoch", b"", bytes((epoch,)), durable=True)
        store.put("member", b"m", bytes((epoch,)) * 40, durable=False)
    store.close()
    whole = (source / "records.log").read_bytes()
    for position in range(len(whole)):
        for bit in (1, 0x80):
            data = bytearray(whole)
            data[position] ^= bit
            folder = tmp_path / "flipped"
            folder.mkdir(exist_ok=True)
            for old in folder.iterdir():
                old.unlink()
            (folder / "records.log").write_bytes(data)
            spoiled = StateStore(folder)
            held = spoiled.get("epoch", b"")
            assert held == b"\x04" or spoiled.damage or spoiled.torn, position
            spoiled.close()


def test_a_length_that_reaches_past_the_end_is_damage_when_records_follow(tmp_path: Path) -> None:
    lengths = _fill(tmp_path)
    log = tmp_path / "records.log"
    data = bytearray(log.read_bytes())
    data[lengths[0] + 2] ^= 0x01
    log.write_bytes(data)
    store = StateStore(tmp_path)
    assert _content(store) == []
    assert store.damage
    assert not store.torn


async def test_a_disk_that_refuses_a_rotation_loses_nothing_not_even_at_the_second_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(tmp_path)
    store = StateStore(tmp_path)
    monkeypatch.setattr(store, "_write_snapshot", _refused)
    for number in range(2):
        with pytest.raises(StateLost, match="nothing it kept is lost"):
            await store.rotate()
        store.put("member", b"c", bytes((number,)), durable=True)
    store.close()
    again = StateStore(tmp_path)
    assert _content(again) == sorted([*RECORDS, ("member", b"c", b"\x01")])
    assert again.damage == []


def _refused(records: object) -> None:
    raise OSError(errno.ENOSPC, "full")


async def test_a_snapshot_whose_rename_was_lost_is_made_again(tmp_path: Path) -> None:
    _fill(tmp_path)
    store = StateStore(tmp_path)
    await store.rotate()
    store.put("member", b"a", b"newer", durable=True)
    store.close()
    # The crash came before the folder was on disk: the old name holds nothing, the new one everything.
    (tmp_path / "records.snapshot").rename(tmp_path / "records.snapshot.new")
    (tmp_path / "records.log.old").write_bytes((tmp_path / "records.snapshot.new").read_bytes()[:-11])
    again = StateStore(tmp_path)
    assert again.get("member", b"a") == b"newer"
    assert again.get("epoch", b"") == b"\x01"


async def test_values_are_found_where_a_rotation_put_them(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    values = {bytes((number,)): bytes((number,)) * (number + 1) for number in range(200)}
    for key, value in values.items():
        store.put("member", key, b"older", durable=False)
        store.put("member", key, value, durable=False)
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.rotate)
            await trio.lowlevel.checkpoint()
            async with store.order:
                store.put("member", b"\x07", b"while it rotates", durable=False)
                store.put("member", b"\x08", None, durable=False)
        values[b"\x07"] = b"while it rotates"
        values.pop(b"\x08", None)
        assert store.items("member") == sorted(values.items())
    store.close()
    assert StateStore(tmp_path).items("member") == sorted(values.items())


def test_records_put_while_a_snapshot_is_written_are_not_moved_back(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    values = {b"%03d" % number: b"value %d" % number for number in range(95)}
    for key, value in values.items():
        store.put("member", key, value, durable=False)
    before = store._begin_log()
    after = store._write_snapshot(before)
    for key in (b"003", b"090"):
        values[key] = b"anew"
    store.put_all([("member", key, b"anew") for key in (b"003", b"090")], durable=False)
    assert store.items("member") == sorted(values.items())
    store._move(before, after)
    assert len(store._files) == 2
    assert store.items("member") == sorted(values.items())
    store.close()
    assert StateStore(tmp_path).items("member") == sorted(values.items())


def test_a_batch_the_disk_refuses_in_its_midst_leaves_all_of_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StateStore(tmp_path)
    store.put("member", b"a", b"1", durable=True)
    real_write, writes = os.write, [0]

    def write(file: int, data: bytes) -> int:
        writes[0] += 1
        if writes[0] == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(state_store.os, "write", write)
        with pytest.raises(StateLost, match="as it was before these records"):
            store.put_all([("member", b"a", b"2"), ("member", b"b", b"2")], durable=True)
    assert store.items("member") == [(b"a", b"1")]
    store.put("member", b"b", b"3", durable=True)
    store.close()
    assert StateStore(tmp_path).items("member") == [(b"a", b"1"), (b"b", b"3")]


async def test_a_record_the_disk_spoiled_is_not_copied_as_if_it_were_good(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.put("member", b"a", b"alpha", durable=True)
    log = tmp_path / "records.log"
    data = bytearray(log.read_bytes())
    data[-1] ^= 1
    log.write_bytes(data)
    with pytest.raises(StateLost, match="cannot read"):
        store.get("member", b"a")
    with pytest.raises(StateLost, match="cannot rotate"):
        await store.rotate()


def test_only_what_is_kept_already_is_not_written_again(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    log = tmp_path / "records.log"

    def grows(value: bytes | None, *, durable: bool = False) -> bool:
        before = log.stat().st_size
        store.put("member", b"a", value, durable=durable)
        assert store.get("member", b"a") == value
        return log.stat().st_size > before

    assert not grows(None)
    assert grows(b"one")
    assert not grows(b"one")
    assert not grows(b"one", durable=True)
    assert grows(b"two"), "as long as the one before"
    assert grows(b"three")
    assert grows(None)
    assert not grows(None)
    assert grows(b"three")
    data = bytearray(log.read_bytes())
    data[-1] ^= 1
    log.write_bytes(data)
    assert grows(b"three"), "what the disk spoiled is not kept"
    store.close()


@pytest.mark.parametrize("name", ["lock", "records.log", "records.log.old", "records.snapshot"])
@pytest.mark.parametrize(
    "kind",
    ["link", "dangling link", "pipe", "open to all", pytest.param("of nobody", marks=pytest.mark.namespace)],
)
def test_what_was_planted_in_the_folder_is_neither_read_nor_changed(
    tmp_path: Path, name: str, kind: str
) -> None:
    """The folder was open for a while: root must not cut another's file short, nor trust one others write."""
    state, precious = tmp_path / "state", tmp_path / "precious"
    state.mkdir(mode=0o700)
    precious.write_bytes(b"another's")
    path = state / name
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "made")
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.touch(mode=0o600)
        path.chmod(0o666 if kind == "open to all" else 0o600)
        if kind == "of nobody":
            os.chown(path, 65_534, 65_534)

    def start() -> None:
        FolderLock(state)
        StateStore(state)

    with pytest.raises(OperatorError, match=name):
        start()
    assert precious.read_bytes() == b"another's"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_state_folder_others_may_write_is_refused_with_its_cure(tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    with pytest.raises(OperatorError, match=r"chmod go-w .*state"):
        FolderLock(tmp_path / "state")
    assert os.listdir(tmp_path / "state") == []


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_a_state_folder_of_our_own_making_is_ours(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        FolderLock(tmp_path / "var" / "lib" / "state").release()
    finally:
        os.umask(before)
    FolderLock(tmp_path / "var" / "lib" / "state").release()
    assert (tmp_path / "var" / "lib" / "state").stat().st_mode & 0o777 == 0o700


async def test_a_link_where_the_snapshot_is_written_goes_and_leads_nowhere(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"another's")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    _fill(state)
    store = StateStore(state)
    (state / "records.snapshot.new").symlink_to(precious)
    await store.rotate()
    assert precious.read_bytes() == b"another's"
    assert len(_content(store)) == 4
    store.close()


def test_a_link_where_damage_is_kept_goes_and_leads_nowhere(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"another's")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "records.log").write_bytes(b"no record of ours")
    (state / "records.log").chmod(0o600)
    (state / "records.log.damaged").symlink_to(precious)
    StateStore(state).close()
    assert precious.read_bytes() == b"another's"
    assert (state / "records.log.damaged").read_bytes() == b"no record of ours"


def test_a_huge_sparse_file_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "records.log").touch(mode=0o600)
    os.truncate(tmp_path / "records.log", 1 << 40)
    with pytest.raises(OperatorError, match="larger than"):
        StateStore(tmp_path)
