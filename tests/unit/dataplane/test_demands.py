"""Services asked for and not known: asked about once a second, waited for in a bounded number of places."""

from typing import Any

import pytest
import trio
import trio.testing

from gossipmesh.dataplane.protocol import Demand, EngineEvent
from gossipmesh.dataplane.reference.demands import UNKNOWN_FOR_S, WAIT_S, Demands
from gossipmesh.dataplane.reference.statistics import Counters

ROUTER: Any = object()


class Rig:
    """Demands whose snapshot holds what the test says."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}
        self.events: list[EngineEvent] = []
        self.counters = Counters()
        self.demands = Demands(self.counters, self.events.append, self.held.get)
        self.answers: list[tuple[str, Any, float]] = []

    async def ask(self, service: str) -> None:
        found = await self.demands.wait(service)
        self.answers.append((service, found, trio.current_time()))

    def counted(self) -> dict[str, int]:
        told = self.counters.take_due(1_000)
        return {} if told is None else told.counters


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


async def test_a_snapshot_wakes_who_waits_for_what_it_holds(clock: trio.testing.MockClock) -> None:
    rig = Rig()
    start_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for service in ("shop/cart", "shop/cart", "shop/db"):
            nursery.start_soon(rig.ask, service)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(rig.events, key=str) == [Demand("shop/cart"), Demand("shop/db")]
        await trio.sleep(0.25)
        rig.held["shop/cart"] = ROUTER
        rig.demands.applied()
    assert [(service, found) for service, found, _ in rig.answers] == [
        ("shop/cart", ROUTER),
        ("shop/cart", ROUTER),
        ("shop/db", None),
    ]
    assert [at_s - start_s for *_, at_s in rig.answers] == [0.25, 0.25, WAIT_S]


async def test_whoever_waits_asks_again_each_second_for_an_agent_that_came_meanwhile(
    clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(rig.ask, "shop/cart")
        await trio.sleep(3.5)
        assert rig.events == [Demand("shop/cart")] * 4
        rig.held["shop/cart"] = ROUTER
        rig.demands.applied()
    assert [found for _, found, _ in rig.answers] == [ROUTER, ROUTER]
    assert len(rig.events) == 4


async def test_a_name_nobody_knows_is_answered_at_once_and_asked_again_later(
    clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    start_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(rig.ask, "shop/ghost")
        await trio.testing.wait_all_tasks_blocked()
        rig.demands.unknown("shop/ghost")
    for _ in range(5):
        await rig.ask("shop/ghost")
    assert [at_s - start_s for *_, at_s in rig.answers] == [0.0] * 10
    assert rig.counted() == {"demands": 1}
    await trio.sleep(UNKNOWN_FOR_S)
    rig.held["shop/ghost"] = ROUTER
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.ask, "shop/ghost")
        await trio.testing.wait_all_tasks_blocked()
        rig.demands.applied()
    assert rig.answers[-1][1] is ROUTER


async def test_one_question_a_second_however_many_ask(clock: trio.testing.MockClock) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        for _ in range(29):
            nursery.start_soon(rig.ask, "shop/ghost")
            await trio.sleep(0.1)
        assert len(rig.events) == 3


async def test_a_flood_of_names_waits_in_so_many_places_and_leaves_nothing(
    clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gossipmesh.model.limits.DEMANDS_WAITING_MAX", 100)
    rig = Rig()
    async with trio.open_nursery() as nursery:
        for number in range(2_200):
            nursery.start_soon(rig.ask, f"shop/n{number}")
        await trio.testing.wait_all_tasks_blocked()
        assert len(rig.answers) == 2_100
    assert rig.counted() == {"demands": 100 * WAIT_S, "demands_shed": 2_100}
    assert not rig.demands._asked
    for number in range(200):
        rig.demands.unknown(f"shop/n{number}")
    assert len(rig.demands._unknown) == 100


async def test_one_name_has_so_many_places_too(
    clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gossipmesh.model.limits.DEMANDS_WAITING_MAX", 10)
    rig = Rig()
    async with trio.open_nursery() as nursery:
        for _ in range(15):
            nursery.start_soon(rig.ask, "shop/ghost")
    assert rig.counted() == {"demands": WAIT_S, "demands_shed": 5}
