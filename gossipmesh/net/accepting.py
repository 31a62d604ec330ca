"""Accepting at the listeners clients come by: a loop that outlives its process's own lack of descriptors.

Rules:

1. Out of descriptors, places are freed; when none can be, one who waits is let go of, with a descriptor kept
   for it. A connection that nobody can accept would keep the loop awake for nothing.
2. A crowd is let in a few at a time, with pauses of a millisecond: on a core that is never free whoever is
   woken waits, and a request is handed from process to process. There is no pause while the queue of those
   who wait fills up: who finds it full, friend or foe, is not answered for a second.
"""

import socket
import struct
from collections.abc import Callable
from typing import Final

import trio

from gossipmesh.net.descriptors import DescriptorReserve
from gossipmesh.net.shortage import is_own_shortage

ACCEPT_PAUSE_S: Final = 0.05
CROWD: Final = 16
CROWD_PAUSE_S: Final = 0.001
_QUEUED_SHARE: Final = 4  # the queue fills up: more than a quarter of it is taken
_QUEUE_OFFSET: Final = 24  # struct tcp_info of a listening socket: tcpi_unacked wait, of tcpi_sacked at most
_QUEUE: Final = struct.Struct("=II")
SHED_AT_ONCE: Final = 16


async def accept_on(
    sock: socket.socket,
    take_queued: Callable[[], int],
    short: Callable[[], object],
    failed: Callable[[OSError], object],
) -> None:
    """Call `take_queued` whenever somebody waits at `sock`, until that is closed or this is cancelled.

    It accepts a few and returns how many. Its OSError is a lack of this process's own, which `short` does
    something about, or one for `failed`; the loop then pauses.
    """
    crowd_count = 0
    while True:
        try:
            await trio.lowlevel.wait_readable(sock.fileno())
            came_count = take_queued()
            crowd_count = crowd_count + came_count if came_count > 1 else 0
            if crowd_count >= CROWD and not _fills_up(sock):
                crowd_count = 0
                await trio.sleep(CROWD_PAUSE_S)
        except OSError as error:
            if sock.fileno() < 0:
                return
            if is_own_shortage(error):
                short()
            else:
                failed(error)
            await trio.sleep(ACCEPT_PAUSE_S)


def _fills_up(sock: socket.socket) -> bool:
    """Tell whether some may soon find no room to wait in at a listening socket; so, if nobody knows."""
    if sock.family == socket.AF_UNIX:
        return False  # who finds no room is told at once
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE_OFFSET + _QUEUE.size)
        waiting_count, waiting_max = _QUEUE.unpack_from(info, _QUEUE_OFFSET)
    except (OSError, struct.error):
        return True
    return bool(waiting_count * _QUEUED_SHARE > waiting_max)


def accept_in_need(
    sock: socket.socket, reserve: DescriptorReserve
) -> tuple[socket.socket, tuple[str, int]] | None:
    """Accept one connection by a descriptor kept for it; None when there is neither. Refill it afterwards."""
    if not reserve.give_up():
        return None
    try:
        return sock.accept()
    except OSError:
        return None
