"""Accepting a crowd: a few at a time with pauses, and without while the kernel's queue fills up."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gossipmesh.net.accepting import CROWD, CROWD_PAUSE_S, accept_on

AT_ONCE = 8


class Listener:
    """A listening socket at which a crowd waits, and those it has let in."""

    def __init__(self, stack: ExitStack, backlog: int, waiting: int) -> None:
        self._stack = stack
        self.socket = stack.enter_context(socket.socket())
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(backlog)
        self.socket.setblocking(False)
        self.accepted: list[socket.socket] = []
        for _ in range(waiting):
            self.connect()

    def connect(self) -> None:
        client = self._stack.enter_context(socket.socket())
        client.connect(self.socket.getsockname())

    def take_queued(self) -> int:
        count = 0
        try:
            while count < AT_ONCE:
                self.accepted.append(self._stack.enter_context(self.socket.accept()[0]))
                count += 1
        except BlockingIOError:
            pass
        return count

    async def run(self) -> None:
        await accept_on(self.socket, self.take_queued, lambda: None, lambda _error: None)


@contextmanager
def crowd(backlog: int, waiting: int) -> Iterator[Listener]:
    with ExitStack() as stack:
        yield Listener(stack, backlog, waiting)


async def test_a_crowd_is_let_in_with_pauses(mock_clock: MockClock) -> None:
    with crowd(backlog=1_024, waiting=3 * CROWD) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.run)
            for number in range(1, 4):
                await wait_all_tasks_blocked(0.01)
                assert len(listener.accepted) == number * CROWD
                mock_clock.jump(CROWD_PAUSE_S)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("backlog", [3 * CROWD, 4 * CROWD])
async def test_there_is_no_pause_while_the_queue_fills_up(mock_clock: MockClock, backlog: int) -> None:
    with crowd(backlog, waiting=3 * CROWD) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.run)
            await wait_all_tasks_blocked(0.01)
            assert len(listener.accepted) >= 2 * CROWD
            nursery.cancel_scope.cancel()
    assert mock_clock.current_time() == 0


async def test_who_comes_one_by_one_is_no_crowd(mock_clock: MockClock) -> None:
    with crowd(backlog=1_024, waiting=0) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.run)
            for number in range(3 * CROWD):
                listener.connect()
                await wait_all_tasks_blocked(0.001)
                assert len(listener.accepted) == number + 1
            nursery.cancel_scope.cancel()
    assert mock_clock.current_time() == 0
