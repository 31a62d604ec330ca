"""Memory of processes that run for months: collections that do not stop the loop, free pages given back.

A member's records are values without cycles, yet a full collection looks at everything that holds them:
50 ms for ten thousand members, in the middle of a step. What is loaded at the start lives as long as the
process, and full collections come a hundred times more rarely; what cycles there are die young.
"""

import ctypes
import gc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

GIVE_BACK_S: Final = 30
LEFT_S: Final = 3  # at least, from one time to the next: each takes some milliseconds
CROWD: Final = 200
_MAPS: Final = Path("/proc/self/smaps")
_DONTNEED: Final = 4  # linux/mman.h
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
    it wants the room. Cost: some milliseconds; it may run in a thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    trim, advise = getattr(libc, "malloc_trim", None), getattr(libc, "madvise", None)
    if trim is not None:
        trim(0)
    if advise is not None:
        for start, end in _clean_of(_read_maps().splitlines()):
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED)


def _read_maps() -> str:
    """Return what is mapped, nothing where the kernel does not tell (CONFIG_PROC_PAGE_MONITOR)."""
    try:
        return _MAPS.read_text()
    except OSError:
        return ""


def _clean_of(maps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what is mapped from files and read only, where no page differs from its file.

    A page the loader relocated does differ, although nobody may write there any more: it must stay.
    """
    place = (0, 0)
    for line in maps:
        name, *fields = line.split(maxsplit=5)
        if not name.endswith(":"):
            start, _, end = name.partition("-")
            is_read_only = fields[0] in ("r-xp", "r--p") and fields[3] != "0"
            place = (int(start, 16), int(end, 16)) if is_read_only else (0, 0)
        elif name == "Anonymous:" and fields[0] == "0" and place[1]:
            yield place
