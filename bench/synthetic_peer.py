"""The one member of a synthetic mesh that exists: a real core over real sockets, for `bench.agent_memory`.

`python -m bench.synthetic_peer AUTHORITY_FOLDER MEMBERS HOST` knows MEMBERS signed members of that authority
and lets whoever it trusts join. The members' gossip port swallows what is sent to it, so that nobody refuses.
It prints a line of JSON each second: its root, how many members it holds, and the bytes one of them signed.
"""

import json
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import trio

from bench.gossip_swarm import Swarm
from gossipmesh.agent.gossip_shell import GossipShell
from gossipmesh.control.roots import Authority, load_authority
from gossipmesh.gossip import rehearsal
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model.member import Address
from gossipmesh.net.clock import monotonic, wall_offset_s
from gossipmesh.net.collector import calm_collector
from gossipmesh.net.engine_probe import EngineAnswer
from gossipmesh.net.streams import listen
from gossipmesh.net.udp import UdpSocket
from gossipmesh.testing.layout import GOSSIP_PORT

PEER_NUMBER: Final = 1_000_000
SERVICES_COUNT: Final = 100
_MEMBERS_PORT: Final = 7949


class _NoDisk:
    """A store that keeps nothing: the peer lives as long as the measurement."""

    rotation_due = False

    def __init__(self) -> None:
        self.order = trio.Lock()

    def put_all(self, entries: object, *, durable: bool) -> None:
        """Keep nothing."""


def swarm_of(authority: Authority, host: str) -> Swarm:
    """Return the members this authority signs for: each of one service, on loopback."""

    def address_of(number: int) -> Address:
        if number == PEER_NUMBER:
            return Address(host, GOSSIP_PORT)
        return Address(f"127.{128 + (number >> 16 & 127)}.{number >> 8 & 255}.{number & 255}", _MEMBERS_PORT)

    return Swarm(
        authority.trust_domain,
        authority.credential_key,
        authority.trust_envelopes,
        address_of,
        lambda number: (f"s{number % SERVICES_COUNT:02}",),
    )


async def serve(swarm: Swarm, members_count: int) -> None:
    """Run the peer until it is killed."""
    kept = tuple(swarm.records_of(number) for number in range(members_count))
    core = swarm.node(PEER_NUMBER, kept, now=monotonic(), wall_offset_s=wall_offset_s())
    with ExitStack() as stack:
        address = swarm.address_of(PEER_NUMBER)
        udp = UdpSocket(address)
        stack.callback(udp.close)
        sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sink.bind(("", _MEMBERS_PORT))  # all of 127/8; nothing is ever read
        listener = stack.enter_context(listen(address))
        async with trio.open_nursery() as nursery:
            shell = GossipShell(
                core,
                udp,
                _NoDisk(),  # type: ignore[arg-type]
                on_event=lambda event: None,
                probe_engine=_unanswered,
                nursery=nursery,
            )
            shell.step(lambda now: core.start((), now))
            # As after its own join: it has somebody to compare with and does not begin with the newcomer.
            rehearsal.end_joining(core)
            calm_collector()
            nursery.start_soon(shell.run, listener)
            record_bytes = round(sum(len(value) for _, value in kept) / len(kept))
            nursery.start_soon(_tell, core, record_bytes)


async def _unanswered(*_: object) -> EngineAnswer:
    return EngineAnswer.SILENT


async def _tell(core: GossipNode, record_bytes: int) -> None:
    """Print where we stand. What we hold does not change: who would spread it, when all others are paper?"""
    while True:
        root, members = core.state_sums()[0].hex(), core.statistics().members
        print(json.dumps({"root": root, "members": members, "record_bytes": record_bytes}), flush=True)
        await trio.sleep(1)


if __name__ == "__main__":
    folder, members, host = sys.argv[1:]
    trio.run(serve, swarm_of(load_authority(Path(folder)), host), int(members))
