"""Turns: what is spent in one, when it is over, and that a rest lets others run."""

import pytest
import trio

from gossipmesh.model import limits
from gossipmesh.net.turns import Turn
from tests.unit.net.fairness import watched

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
