"""What checks ask of the machine and the network, gathered off the loop before anything is judged."""

import socket
from pathlib import Path
from typing import Final, NamedTuple

import trio

from gossipmesh.model.member import Address

_LISTENING: Final = "0A"  # TCP_LISTEN in /proc/net/tcp


class Facts(NamedTuple):
    """`listening`: the TCP addresses anything on this machine listens on."""

    listening: list[Address]


async def gather_facts() -> Facts:
    """Look at the machine."""
    return Facts(await trio.to_thread.run_sync(listening_addresses))


def listening_addresses() -> list[Address]:
    """Return the TCP addresses anything on this machine listens on, from /proc/net. Cost: up to 10 ms."""
    found: list[Address] = []
    for name, family, width in (("tcp", socket.AF_INET, 8), ("tcp6", socket.AF_INET6, 32)):
        try:
            lines = Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTENING:
                host, _, port = fields[1].partition(":")
                found.append(Address(_host_of(host[:width], family), int(port, 16)))
    return found


def _host_of(text: str, family: socket.AddressFamily) -> str:
    """Read the kernel's hexadecimal address: 32-bit words in the machine's own order."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    return socket.inet_ntop(family, b"".join(words))
