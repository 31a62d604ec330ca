"""What checks ask of the machine and the network, gathered off the loop before anything is judged."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import trio

from gossipmesh.agent.identity.authority_client import AuthorityClient
from gossipmesh.model.member import Address

_LISTENING: Final = "0A"  # TCP_LISTEN in /proc/net/tcp
_CONNECT_S: Final = 2.0  # whoever runs `check` waits for it


class Disk(NamedTuple):
    """The disk of a folder: what is free for a user without privileges, and how large it is."""

    free_bytes: int
    size_bytes: int


class Facts(NamedTuple):
    """What was found.

    `listening`: the TCP addresses anything on this machine listens on; `disk`: that of the state folder, None
    when it cannot be asked; `authority_failure`: why the authority takes no connection at any address, None
    when it does or none is known.
    """

    listening: list[Address]
    disk: Disk | None
    authority_failure: str | None


async def gather_facts(state_dir: Path, authorities: Sequence[str]) -> Facts:
    """Look at the machine and knock at the authority, all its addresses at once."""
    listening = await trio.to_thread.run_sync(listening_addresses)
    disk = await trio.to_thread.run_sync(disk_of, state_dir)
    return Facts(listening, disk, await why_none_answers(authorities))


async def why_none_answers(authorities: Sequence[str]) -> str | None:
    """Return why none of these (HOST:PORT) takes a connection; None when one does, or there is none."""
    client, failures = AuthorityClient(), dict.fromkeys(authorities, "")

    async def knock(place: str) -> None:
        try:
            reasons = [await why_unreachable(address) for address in await client.addresses_of(place)]
        except OSError as error:
            reasons = [error.strerror or str(error)]
        failures[place] = "" if None in reasons else str(reasons[0])

    async with trio.open_nursery() as nursery:
        for place in authorities:
            nursery.start_soon(knock, place)
    if not all(failures.values()):
        return None
    return "; ".join(f"{place}: {reason}" for place, reason in failures.items()) or None


async def why_unreachable(address: Address) -> str | None:
    """Return why a TCP address takes no connection; None when it does."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_STREAM) as connection, trio.move_on_after(_CONNECT_S):
        try:
            await connection.connect((address.host, address.port))
        except OSError as error:
            return os.strerror(error.errno) if error.errno else str(error)
        return None
    return f"no answer within {_CONNECT_S:g} s"


def disk_of(folder: Path) -> Disk | None:
    """Return the disk of a folder; None when it cannot be asked."""
    try:
        told = os.statvfs(folder)
    except OSError:
        return None
    return Disk(told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize)


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
