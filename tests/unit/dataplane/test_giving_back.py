"""Giving pages back takes some milliseconds, in which requests are served."""

import threading
from pathlib import Path

import pytest
import trio

from gossipmesh.dataplane.reference import engine
from gossipmesh.net.collector import Leavings
from tests.unit.dataplane.engine_kit import answering, cart_pair, get, until, workload


@pytest.fixture(autouse=True)
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TICK_S", 0.01)
    monkeypatch.setattr(Leavings, "due", lambda _self, _count: True)


async def test_requests_are_answered_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        ended.append(may_end.wait(5))

    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        monkeypatch.setattr(engine, "give_back", slow)
        await until(begun.is_set)
        assert (await get(near.at("proxy")))[0] == 200
        assert not ended
        may_end.set()
        await until(lambda: bool(ended))
        assert ended[0], "it was told to end, by a loop that went on"


async def test_without_a_thread_it_is_left_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    async def refuse(work: object, **_more: object) -> None:
        calls.append(work)
        raise RuntimeError("can't start new thread")

    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
        await until(lambda: len(calls) > 4)
        assert (await get(near.at("proxy")))[0] == 200
        monkeypatch.undo()
