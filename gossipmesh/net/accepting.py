"""Accepting at the listeners clients come by: a loop that outlives its process's own lack of descriptors.

Rules:

1. Out of descriptors, places are freed; when none can be, one who waits is let go of, with a descriptor kept
   for it. A connection that nobody can accept would keep the loop awake for nothing.
2. A crowd is let in a few at a time, with pauses of a millisecond: on a core that is never free whoever is
   woken waits, and a request is handed from process to process. It is still more than could be served.
"""

import socket
from collections.abc import Callable
from typing import Final

import trio

from gossipmesh.net.descriptors import DescriptorReserve
from gossipmesh.net.shortage import is_own_shortage

ACCEPT_PAUSE_S: Final = 0.05
CROWD_PAUSE_S: Final = 0.001
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
    while True:
        try:
            await trio.lowlevel.wait_readable(sock.fileno())
            if take_queued() > 1:
                await trio.sleep(CROWD_PAUSE_S)
        except OSError as error:
            if sock.fileno() < 0:
                return
            if is_own_shortage(error):
                short()
            else:
                failed(error)
            await trio.sleep(ACCEPT_PAUSE_S)


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
