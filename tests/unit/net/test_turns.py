"""Turns: what is spent in one, when it is over, and that a rest lets others run."""

import pytest
import trio

from gossipmesh.model import limits
from gossipmesh.net.turns import Turn
from tests.unit.net.fairness import Witness, watched

CALLS_MAX = limits.TURN_BYTES_MAX // limits.TURN_CALL_BYTES


@pytest.mark.parametrize("size", [0, 1, 100, 4_096, 65_536, 1_000_000])
async def test_a_turn_ends_after_its_bytes_or_its_calls(size: int) -> None:
    turn, pieces = Turn(), 0
    while not turn.over():
        turn.spend(size)
        pieces += 1
    assert pieces == max(1, -(-limits.TURN_BYTES_MAX // (size + limits.TURN_CALL_BYTES))) <= CALLS_MAX
    assert turn.spent_bytes_max < limits.TURN_BYTES_MAX + size + limits.TURN_CALL_BYTES


async def test_a_rest_lets_every_other_task_run() -> None:
    turn = Turn()
    async with watched() as first, watched() as second:
        for _ in range(100):
            first.worked()
            second.worked()
            await turn.rest()
    assert turn.rests_count == 100
    assert first.gap_max <= 2 >= second.gap_max


async def test_a_turn_begins_anew_for_who_has_waited_and_the_most_is_remembered() -> None:
    turn = Turn()
    turn.spend(limits.TURN_BYTES_MAX)
    turn.begin()
    assert not turn.over()
    turn.spend(1)
    assert turn.spent_bytes == limits.TURN_CALL_BYTES + 1
    assert turn.spent_bytes_max == limits.TURN_BYTES_MAX + limits.TURN_CALL_BYTES


async def test_a_rest_can_be_cancelled() -> None:
    turn = Turn()
    with trio.CancelScope() as scope:
        scope.cancel()
        await turn.rest()
    assert scope.cancelled_caught


async def test_many_tasks_with_much_to_do_take_turns_one_at_a_time() -> None:
    turn, tasks_count = Turn(), 50

    async def work(witness: Witness) -> None:
        while True:
            if turn.over():
                await turn.rest()
            turn.spend(0)
            witness.worked()

    async with watched() as witness, trio.open_nursery() as nursery:
        for _ in range(tasks_count):
            nursery.start_soon(work, witness)
        await _passes(3)
        witness.gap_max = 0
        rested = turn.rests_count
        await _passes(5 * tasks_count)
        nursery.cancel_scope.cancel()
    assert turn.rests_count - rested >= 4 * tasks_count
    assert witness.gap_max <= 2 * CALLS_MAX
    assert not turn.over()


async def test_who_rests_goes_on_in_the_order_they_came() -> None:
    turn, order = Turn(), list[int]()

    async def work(number: int) -> None:
        for _ in range(3):
            await turn.rest()
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(work, number)
            await trio.lowlevel.checkpoint()
    assert sorted(order) == sorted([0, 1, 2, 3] * 3)
    assert max(order.index(number) for number in range(4)) <= 6


async def test_a_usual_request_never_queues_behind_a_flood() -> None:
    turn = Turn()

    async def flood() -> None:
        while True:
            if turn.over():
                await turn.rest()
            turn.spend(0)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(flood)
        for _ in range(50):
            await trio.lowlevel.checkpoint()
            turn.begin()
            turn.spend(limits.TURN_REQUEST_BYTES + limits.TURN_HEAD_FACTOR * 1_024)
            for _ in range(8):
                assert not turn.over()
                turn.spend(1_000)
        assert turn.rests_count > 40
        nursery.cancel_scope.cancel()


async def test_who_is_cancelled_while_many_rest_keeps_nobody_from_going_on() -> None:
    turn, went_on = Turn(), list[int]()

    async def rest(number: int, scope: trio.CancelScope) -> None:
        with scope:
            await turn.rest()
            went_on.append(number)

    scopes = [trio.CancelScope() for _ in range(6)]
    async with trio.open_nursery() as nursery:
        for number, scope in enumerate(scopes):
            nursery.start_soon(rest, number, scope)
        await trio.lowlevel.checkpoint()
        for number in (0, 2, 5):
            scopes[number].cancel()
    assert set(went_on) >= {1, 3, 4}
    await turn.rest()


async def _passes(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()
