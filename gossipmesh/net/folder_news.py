"""News of a folder: the kernel tells (inotify) when something in it came, went or changed.

Ends at "something changed": what is there now is seen by whoever is told. Rules:
1. News comes in bursts, for a file is made, written and closed: who waits is told once, after a moment
   without more of it, and not for ever later.
2. `is_told` is false while the folder is not there, and where the kernel tells nothing (no instance is left,
   a sandbox): whoever waits polls.
3. Told is what happens in the folder itself, on this machine. What other machines write to a disk they share,
   what a link leads to, and the folders above are seen by whoever looks now and then as well.
Spec: inotify(7). Deviation: no event is read for what it says.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

import trio

_CHANGED: Final = 0x2 | 0x4 | 0x8  # linux/inotify.h: IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE
_CAME_OR_WENT: Final = 0x40 | 0x80 | 0x100 | 0x200  # IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE
_ITSELF: Final = 0x400 | 0x800  # IN_DELETE_SELF, IN_MOVE_SELF
_ONLY_FOLDERS: Final = 0x01000000  # IN_ONLYDIR
_MASK: Final = _CHANGED | _CAME_OR_WENT | _ITSELF | _ONLY_FOLDERS
_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC  # the same bits as IN_NONBLOCK and IN_CLOEXEC
_READ_BYTES: Final = 65_536
_SETTLE_S: Final = 0.05
_SETTLE_S_MAX: Final = 0.5


class FolderNews:
    """What the kernel tells of one folder, from `watch` on."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fsencode(folder)
        libc = ctypes.CDLL(None, use_errno=True)
        self._add, self._drop = libc.inotify_add_watch, libc.inotify_rm_watch
        self._descriptor: int = libc.inotify_init1(_NONBLOCK_CLOEXEC)
        self._watch = -1

    @property
    def is_told(self) -> bool:
        """Tell whether the kernel tells of the folder that was there at the last `watch`."""
        return self._watch >= 0

    def watch(self) -> None:
        """Have the kernel tell of the folder that is there now, which may be another than before.

        Call it before each look at the folder: what changes after that is told. May block, as disks do, and
        may be called in a thread; after `close` it does nothing.
        """
        descriptor = self._descriptor
        if descriptor < 0:
            return
        before, self._watch = self._watch, self._add(descriptor, self._folder, _MASK)
        if before not in (-1, self._watch):
            self._drop(descriptor, before)  # fails where the folder is no more: then so is its watch

    async def wait(self, at_most_s: float) -> bool:
        """Return once something changed, True, or after so many seconds, False."""
        descriptor = self._descriptor
        if not self.is_told:
            await trio.sleep(at_most_s)
            return False
        with trio.move_on_after(at_most_s) as waiting:
            while not _read(descriptor):
                await trio.lowlevel.wait_readable(descriptor)
        if waiting.cancelled_caught:
            return False
        with trio.move_on_after(_SETTLE_S_MAX):
            is_quiet = False
            while not is_quiet:
                with trio.move_on_after(_SETTLE_S) as moment:
                    await trio.lowlevel.wait_readable(descriptor)
                is_quiet = moment.cancelled_caught
                _read(descriptor)
        return True

    def close(self) -> None:
        """End the watch."""
        descriptor, self._descriptor, self._watch = self._descriptor, -1, -1
        if descriptor >= 0:
            os.close(descriptor)


def _read(descriptor: int) -> bool:
    """Take what the kernel has told so far; tell whether there was any."""
    try:
        return bool(os.read(descriptor, _READ_BYTES))
    except BlockingIOError:
        return False
