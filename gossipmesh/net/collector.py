"""Memory of processes that run for months: collections that do not stop the loop, free pages given back.

A member's records are values without cycles, yet a full collection looks at everything that holds them:
50 ms for ten thousand members, in the middle of a step. What is loaded at the start lives as long as the
process, and full collections come a hundred times more rarely; what cycles there are die young.
"""

import ctypes
import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

GIVE_BACK_S: Final = 30
LEFT_S: Final = 3  # at least, from one time to the next: each takes some milliseconds
CROWD: Final = 200
_MAPS: Final = Path("/proc/self/smaps")
_DONTNEED: Final = 4  # linux/mman.h
# Of proc_pid_smaps(5): addresses, permissions, offset, device, inode; and pages that are no file's any more.
_PLACE: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+)")
_READ_ONLY: Final = re.compile(r" r-[-x]p \S+ \S+ (?!0\b)\d+")
_NONE_DIFFERS: Final = re.compile(r"\nAnonymous: +0 ")
# Objects, young collections, middle ones. A young one looks at 700 objects, a middle one at what is left of
# three: while ten thousand members come, all of it is left, and a busy machine has none of it in its caches.
# It falls into whatever step runs: three times as many objects took 6 to 10 ms there.
_THRESHOLDS: Final = (700, 2, 150_000)


class Leavings:
    """When to give pages back: now and then, and soon after a crowd has left; asked once a second."""

    def __init__(self) -> None:
        self._crowd = 0  # the most there were since pages were given back
        self._since_s = 0

    def due(self, count: int) -> bool:
        """Tell whether to give pages back now that `count` of what takes memory are there."""
        self._crowd = max(self._crowd, count)
        self._since_s += 1
        left = self._crowd - count >= CROWD and count <= self._crowd // 2
        if self._since_s < (LEFT_S if left else GIVE_BACK_S):
            return False
        self._crowd, self._since_s = count, 0
        return True


def calm_collector() -> None:
    """Put what is loaded by now out of the collector's sight, and full collections far apart."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    give_back()


def give_back() -> None:
    """Return free pages of the heap to the kernel, and pages of libraries: those in use come back at once.

    glibc returns the heap's topmost pages only. Of the libraries a start runs through (loading, certificates,
    keys) a part is never needed again; clean copies of files, they are what the kernel itself would take when
    it wants the room. Cost: some milliseconds; a loop that serves has it run in a thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    trim, advise = getattr(libc, "malloc_trim", None), getattr(libc, "madvise", None)
    if trim is not None:
        trim(0)
    if advise is not None:
        for start, end in _clean_of(_read_maps()):
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED)


def _read_maps() -> str:
    """Return what is mapped, nothing where the kernel does not tell (CONFIG_PROC_PAGE_MONITOR)."""
    try:
        return _MAPS.read_text()
    except OSError:
        return ""


def _clean_of(maps: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what is mapped from files and read only, where no page differs from its file.

    A page the loader relocated does differ, although nobody may write there any more: it must stay.
    """
    # Thousands of lines, of which two in a mapping count: looked for, so that other threads wait for little.
    for found in _READ_ONLY.finditer(maps):
        place = _PLACE.fullmatch(maps, maps.rfind("\n", 0, found.start()) + 1, found.start())
        told = maps.find("\nAnonymous:", found.end())
        if place is not None and told >= 0 and _NONE_DIFFERS.match(maps, told) is not None:
            yield int(place[1], 16), int(place[2], 16)
