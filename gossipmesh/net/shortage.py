"""Whether an error is this machine's own lack of something: never a reason to blame the other side."""

import errno
from typing import Final

_OWN: Final = frozenset(
    {
        errno.EMFILE,  # this process's descriptors
        errno.ENFILE,  # the machine's
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,  # every local port to that address is taken
        errno.EADDRINUSE,
        errno.EAGAIN,
        errno.ENOSPC,
        errno.EDQUOT,
    }
)


def is_own_shortage(error: OSError) -> bool:
    """Tell whether `error` says that we lack descriptors, ports, memory or room on a disk."""
    return error.errno in _OWN
