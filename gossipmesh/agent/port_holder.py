"""Which engine on this machine listens on a port, for a sentence a person can act on."""

import os
from pathlib import Path

from gossipmesh.agent.engine_process import ENGINE_MODULE

_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


def engine_holding(port: int) -> int | None:
    """Return the process of an engine that listens on TCP `port`; None: none does, or it is not ours to see.

    Cost: a walk over /proc, some 10 ms; only when an address is in use already.
    """
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for folder in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if ENGINE_MODULE.encode() not in (folder / "cmdline").read_bytes().split(b"\0"):
                continue
            if any(os.readlink(entry) in inodes for entry in (folder / "fd").iterdir()):
                return int(folder.name)
        except OSError:
            continue  # it has ended, or is another user's
    return None


def _listening_inodes(port: int) -> set[str]:
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        rows = [line.split() for line in lines]
        found |= {
            row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port
        }
    return found
