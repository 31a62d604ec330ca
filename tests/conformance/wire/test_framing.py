"""What an engine must answer to each way of framing a request, byte for byte, on a real socket.

`framing.json` is the specification: `send` (characters are bytes), the `statuses` that come back before
the connection closes, and `incomplete` for messages whose fault shows only after their head: the
workload may see such a request begin, and must never see it end. No case depends on time.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gossipmesh.model.member import Address
from tests.unit.dataplane.engine_kit import Peer, cart_pair, workload

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "framing.json").read_text())


class Witness:
    """A workload that remembers every request that reached it whole."""

    def __init__(self) -> None:
        self.whole = 0

    async def handle(self, stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        while head := await peer.head():
            try:
                await peer.body(head)
            except EOFError:
                return
            self.whole += 1
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


@asynccontextmanager
async def mesh(directory: Path) -> AsyncIterator[tuple[Address, Witness]]:
    """Run two engines with a witness behind them."""
    witness = Witness()
    async with workload(witness.handle) as address, cart_pair(directory, address) as (near, _far):
        yield near.at("proxy"), witness


def statuses_in(data: bytes) -> list[int]:
    """Return the statuses of the answers in `data`."""
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("whole", [True, False], ids=["at-once", "byte-by-byte"])
async def test_framing(tmp_path: Path, whole: bool) -> None:
    """Every case, sent in one piece and byte by byte; what was refused never reached the workload whole."""
    wrong: list[str] = []
    async with mesh(tmp_path) as (proxy, witness):
        for case in CASES:
            before = witness.whole
            answer = await exchange(proxy, case["send"].encode("latin-1"), whole)
            statuses = statuses_in(answer)
            expected: list[int] = case["statuses"]
            if statuses != expected or witness.whole - before != expected.count(200):
                wrong.append(f"{case['name']}: {statuses}, {witness.whole - before} reached the workload")
    assert wrong == []


async def exchange(address: Address, data: bytes, whole: bool) -> bytes:
    """Send `data`, end the direction, return everything that came back."""
    peer = await Peer.connect(address)
    async with peer.stream:
        try:
            for start in range(0, len(data), len(data) if whole else 1):
                await peer.send(data[start : start + (len(data) if whole else 1)])
            await peer.stream.send_eof()
        except trio.BrokenResourceError:
            pass  # refused before all of it was sent
        try:
            return await peer.rest()
        except trio.BrokenResourceError:
            return peer.buffer
