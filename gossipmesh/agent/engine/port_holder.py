"""Which engine on this machine listens on an address, for a sentence a person can act on."""

import os
import socket
import sys
from pathlib import Path

from gossipmesh.model.member import Address

_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
_ENGINE_OPTIONS = {b"--socket", b"--access-log"}  # what any engine is started with (docs/ENGINE.md)


def engine_holding(bind: Address) -> int | None:
    """Return the process of an engine that listens where `bind` would, over TCP; None: none is to be seen.

    A machine may run several, each on an address of its own.

    Cost: a walk over /proc, some 10 ms; only when an address is in use already.
    """
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(bind)}
    for folder in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if not set((folder / "cmdline").read_bytes().split(b"\0")) >= _ENGINE_OPTIONS:
                continue
            if any(os.readlink(entry) in inodes for entry in (folder / "fd").iterdir()):
                return int(folder.name)
        except OSError:
            continue  # it has ended, or is another user's
    return None


def _listening_inodes(bind: Address) -> set[str]:
    wanted = _as_listed(bind.host)
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        rows = [line.split() for line in lines]
        for row in rows:
            host, _, port = row[1].rpartition(":")
            meet = host == wanted or not host.strip("0") or not wanted.strip("0")  # or either is all of them
            if row[3] == _LISTENING and int(port, 16) == bind.port and meet:
                found.add(row[9])
    return found


def _as_listed(host: str) -> str:
    """Return an address as /proc/net writes it: words of 32 bits, each in the machine's own order."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
