"""An alarm clock of the kernel's (timerfd): wakes one task at a moment that may be moved while it waits.

A loop's own deadline is kept by cancelling a scope: an exception raised in the task and caught again, twenty
times the work of a descriptor that becomes readable. An agent at rest does little but wake for its timers.
Ends at waking; what is due then is the caller's to say.
Spec: timerfd_create(2).
"""

import ctypes
import os
from typing import Final

import trio

from gossipmesh.model.instant import DAY_S, SECOND_NS

_CLOCK_MONOTONIC: Final = 1  # linux/time.h
_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC  # the same bits as TFD_NONBLOCK and TFD_CLOEXEC
_DELAY_NS_MAX: Final = DAY_S * SECOND_NS  # whoever waits for longer is woken early, and sets it again


class _TimerSpec(ctypes.Structure):
    """struct itimerspec: an interval we never use, then the time to go."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("left_s", ctypes.c_long),
        ("left_ns", ctypes.c_long),
    )


class Alarm:
    """Rings once when its time has passed, and stays rung until it is set again."""

    def __init__(self) -> None:
        """Make one that is not set.

        Raises:
            OSError: no descriptor is left. State unchanged.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._spec = _TimerSpec()
        self._spec_at = ctypes.byref(self._spec)
        self._descriptor: int = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def set(self, delay_ns: int) -> None:
        """Ring when so much time has passed, at once when none is left, instead of at any time set before."""
        # None at all would be no alarm.
        delay_ns = min(max(delay_ns, 1), _DELAY_NS_MAX)
        self._spec.left_s, self._spec.left_ns = divmod(delay_ns, SECOND_NS)
        self._settime(self._descriptor, 0, self._spec_at, None)

    async def wait(self) -> None:
        """Wait until it rings; again and again, until it is set anew.

        Raises:
            trio.ClosedResourceError: closed, before or while waiting.
        """
        if self._descriptor < 0:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._descriptor)

    def close(self) -> None:
        """Close; a task in `wait` gets `trio.ClosedResourceError`."""
        if self._descriptor >= 0:
            trio.lowlevel.notify_closing(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
