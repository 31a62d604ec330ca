"""Records are written beside the loop: in order, in batches, told when they are there, and within a limit."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gossipmesh.agent.state import state_store
from gossipmesh.agent.state.state_store import StateLost, StateStore
from gossipmesh.agent.state.state_writer import StateWriter
from gossipmesh.gossip.base.effects import Persist, PersistKind, SendDatagram
from gossipmesh.model import limits
from tests.unit.agent.test_gossip_shell import rig


class SlowDisk:
    """Every fsync waits until it is let go, and tells that it has begun."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.syncs_count = 0
        self._fdatasync = os.fdatasync

    def fdatasync(self, file: int) -> None:
        self.begun.release()
        assert self.ended.acquire(timeout=10)
        self.syncs_count += 1
        self._fdatasync(file)

    async def wait_begun(self) -> None:
        """Return once an fsync has begun; the loop runs meanwhile."""
        assert await trio.to_thread.run_sync(lambda: self.begun.acquire(timeout=10))


@contextmanager
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk()
    with monkeypatch.context() as patch:
        patch.setattr(state_store.os, "fdatasync", disk.fdatasync)
        try:
            yield disk
        finally:
            for _ in range(64):
                disk.ended.release()


def floor(version: int, ticket: int) -> Persist:
    return Persist(PersistKind.FLOOR, b"mesh", b"%d" % version, durable=True, ticket=ticket)


def member(name: bytes, value: bytes | None = b"record") -> Persist:
    return Persist(PersistKind.MEMBER, name, value, durable=False)


async def test_the_loop_goes_on_while_the_disk_takes_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step returns at once, others are taken, and what depends on the record is done when it is there."""
    async with rig(tmp_path) as made:
        with slow_disk(monkeypatch) as disk:
            made.core.answers["datagram"] = [floor(7, ticket=1)]
            made.core.answers["persisted"] = [SendDatagram(made.peer.address, b"announce")]
            made.say(b"manifest")
            await disk.wait_begun()
            made.say(b"beat", b"beat")
            await made.core.wait_fed(3)
            assert [what for what, _ in made.core.fed] == ["datagram"] * 3
            assert made.udp.statistics.sent_count == 0
            assert made.shell.writer.stuck_ns > 0
            disk.ended.release()
            await made.core.wait_fed(4)
            assert made.core.fed[3] == ("persisted", 1)
            assert made.store.get("floor", b"mesh") == b"7"
            with trio.fail_after(5):
                await made.peer.wait_readable()
            assert made.peer.receive_nowait()[0].payload == b"announce"
            assert made.shell.writer.stuck_ns == 0
            assert made.shell.writer.statistics.sync_ns_max > 0


async def test_what_comes_while_the_disk_is_busy_is_the_next_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as made:
        with slow_disk(monkeypatch) as disk:
            made.shell.step(lambda now: [floor(1, ticket=1)])
            await disk.wait_begun()
            for number in range(2, 40):
                made.shell.step(lambda now, number=number: [floor(number, number), member(b"m%d" % number)])  # type: ignore[misc]
            assert made.shell.writer.waiting_count == 39  # of the floor only the newest waits
            for _ in range(2):
                disk.ended.release()
            with trio.fail_after(5):
                await made.shell.writer.wait_told()
            assert [value for what, value in made.core.fed if what == "persisted"] == [1, 39]
            assert disk.syncs_count == 2
            assert made.store.get("floor", b"mesh") == b"39"
            assert len(made.store.items("member")) == 38


async def test_a_set_waits_in_front_of_its_floor_however_often_both_change(tmp_path: Path) -> None:
    """A power cut in the midst may leave a set above its floor, and never a floor without its set."""
    store = StateStore(tmp_path)
    writer = StateWriter(store)
    for version in (1, 2):
        writer.put_nowait(Persist(PersistKind.POLICY_SET, b"mesh", b"set %d" % version, durable=False))
        writer.put_nowait(floor(version, version))
    assert await writer.next_written() == 2
    store.close()
    log = (tmp_path / "records.log").read_bytes()
    assert log.count(b"set 1") == 0
    assert log.index(b"set 2") < log.index(b"floor")


async def test_what_nobody_waits_for_lingers_and_costs_one_batch_and_no_sync(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StateStore(tmp_path)
    writer = StateWriter(store)
    batches: list[int] = []
    put_all = store.put_all
    monkeypatch.setattr(
        store, "put_all", lambda entries, **how: (batches.append(len(entries)), put_all(entries, **how))
    )
    for number in range(100):
        writer.put_nowait(member(b"%d" % number))
    assert await writer.next_written() == 0
    assert batches == [100]
    assert writer.statistics.syncs_count == 0
    store.close()


async def test_members_are_left_out_when_too_much_waits_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STATE_RECORDS_WAITING_MAX", 3)
    monkeypatch.setattr(limits, "STATE_BYTES_WAITING_MAX", 400)
    store = StateStore(tmp_path)
    writer = StateWriter(store)
    for entry in (
        member(b"a"),
        member(b"b", b"x" * 500),  # too long
        member(b"b"),
        Persist(PersistKind.POLICY_SET, b"mesh", b"set", durable=False),
        member(b"c"),  # one too many
        member(b"a", b"newer"),  # waits already
        floor(9, ticket=4),
    ):
        writer.put_nowait(entry)
    assert writer.statistics.dropped_count == 2
    assert await writer.next_written() == 4
    assert store.items("member") == [(b"a", b"newer"), (b"b", b"record")]
    assert store.get("floor", b"mesh") == b"9"
    writer.put_nowait(member(b"c"))  # there is room again
    await writer.next_written()
    assert store.get("member", b"c") == b"record"
    store.close()


async def test_an_ending_writes_what_waits_and_tells_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as made:
        with slow_disk(monkeypatch) as disk:
            made.shell.step(lambda now: [floor(1, ticket=1)])
            await disk.wait_begun()
            made.shell.step(lambda now: [floor(2, ticket=2), member(b"m")])
            made.nursery.cancel_scope.cancel()
    again = StateStore(tmp_path)
    assert again.get("floor", b"mesh") == b"2"
    assert again.get("member", b"m") == b"record"
    again.close()
    assert ("persisted", 2) not in made.core.fed


async def test_an_ending_on_a_full_disk_is_said_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig(tmp_path) as made:
        await wait_all_tasks_blocked()

        def full(entries: object, *, durable: bool) -> None:
            raise StateLost("no space")

        monkeypatch.setattr(made.store, "put_all", full)
        made.shell.step(lambda now: [member(b"m")])
    assert "the last records were not kept: no space" in caplog.text


async def test_records_and_a_rotation_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is exchanged between two batches; what comes while a snapshot is written is in the new log."""
    async with rig(tmp_path) as made:
        with slow_disk(monkeypatch) as disk:
            made.shell.step(lambda now: [floor(1, ticket=1), member(b"a")])
            await disk.wait_begun()
            made.nursery.start_soon(made.store.rotate)
            await wait_all_tasks_blocked(0.01)
            assert not (tmp_path / "records.log.old").exists()
            made.shell.step(lambda now: [floor(2, ticket=2), member(b"b")])
            for _ in range(2):
                disk.ended.release()
            with trio.fail_after(5):
                await made.shell.writer.wait_told()
            assert made.store.get("floor", b"mesh") == b"2"
    again = StateStore(tmp_path)
    assert again.items("member") == [(b"a", b"record"), (b"b", b"record")]
    assert again.damage == []
    again.close()
