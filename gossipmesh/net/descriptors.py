"""Descriptors kept for the moment there are none left, so that what matters most can still be let in."""

import os
import resource
from typing import Final

_KEPT_COUNT: Final = 4


class DescriptorReserve:
    """A few descriptors of /dev/null; each can be given up for one that is needed more."""

    def __init__(self, kept_count: int = _KEPT_COUNT) -> None:
        self._kept_count = kept_count
        self._kept: list[int] = []
        self.refill()

    def give_up(self) -> bool:
        """Close one, so that the next call that makes a descriptor succeeds; False when none is left."""
        if not self._kept:
            return False
        os.close(self._kept.pop())
        return True

    def refill(self) -> bool:
        """Take back what was given up, as far as there are descriptors; tell whether the reserve is whole."""
        while len(self._kept) < self._kept_count:
            try:
                self._kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Give all of them up."""
        while self.give_up():
            pass


def descriptors_max() -> int:
    """Return how many descriptors this process may have."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft
