"""What an engine must make of each way of framing a message, byte for byte, on real sockets.

`framing.json` is the specification. A case has `send`, what a client sends to the proxy port (characters are
bytes; `{{text*7}}` stands for seven times the text), and `statuses`, what comes back before the connection
closes, 1xx included. It may have

* `answer`: what the workload answers with, instead of an empty 200, before it closes (then how often it was
  asked does not count);
* `reached`: how many requests reach the workload whole; as many as there are 200 among `statuses` otherwise.
  `incomplete` marks messages whose fault shows only after their head: such a one may be seen to begin, and
  never to end;
* `seen` and `unseen`: what the workload must and must not be sent, in lower case;
* `contains` and `lacks`: what the client must and must not be sent, in lower case.

No case depends on time.
"""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gossipmesh.model.member import Address
from tests.unit.dataplane.engine_kit import Peer, cart_pair, workload

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "framing.json").read_text())
SENDS_MAX = 4_096  # for what is sent piece by piece: a byte each, more only where a head is that long


def expanded(text: str) -> bytes:
    """Return a case's bytes."""
    repeated = re.sub(
        r"\{\{(.*?)\*([0-9]+)\}\}", lambda found: found[1] * int(found[2]), text, flags=re.DOTALL
    )
    return repeated.encode("latin-1")


class Witness:
    """A workload that remembers every request that reached it whole, and answers as it is told."""

    def __init__(self) -> None:
        self.whole = 0
        self.seen = b""
        self.answer: bytes | None = None

    async def handle(self, stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        while head := await peer.head():
            try:
                body = await peer.body(head)
            except EOFError:
                return
            self.whole += 1
            self.seen += head + body + b"\r\n".join(peer.trailers)
            peer.trailers = []
            if self.answer is not None:
                await peer.send(self.answer)
                await stream.aclose()
                return
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


@asynccontextmanager
async def mesh(directory: Path) -> AsyncIterator[tuple[Address, Witness]]:
    """Run two engines with a witness behind them."""
    witness = Witness()
    async with workload(witness.handle) as address, cart_pair(directory, address) as (near, _far):
        yield near.at("proxy"), witness


def statuses_in(data: bytes) -> list[int]:
    """Return the statuses of the answers in `data`."""
    return [int(part[:3]) for part in re.split(rb"HTTP/1\.1 (?=[0-9]{3} )", data)[1:]]


@pytest.mark.parametrize("whole", [True, False], ids=["at-once", "byte-by-byte"])
async def test_framing(tmp_path: Path, whole: bool) -> None:
    """Every case, sent in one piece and byte by byte; what was refused never reached the workload whole."""
    wrong: list[str] = []
    async with mesh(tmp_path) as (proxy, witness):
        for case in CASES:
            witness.whole, witness.seen = 0, b""
            witness.answer = expanded(case["answer"]) if "answer" in case else None
            answer = await exchange(proxy, expanded(case["send"]), whole)
            wrong += [f"{case['name']}: {what}" for what in faults(case, answer, witness)]
    assert wrong == [], "\n".join(wrong)


def faults(case: dict[str, Any], answer: bytes, witness: Witness) -> list[str]:
    """Return what went otherwise than the case says."""
    found: list[str] = []
    statuses: list[int] = case["statuses"]
    if statuses_in(answer) != statuses:
        found.append(f"answered {statuses_in(answer)}, not {statuses}")
    reached = case.get("reached", statuses.count(200))
    if "answer" not in case and witness.whole != reached:
        found.append(f"{witness.whole} reached the workload, not {reached}")
    came, went = answer.decode("latin-1").lower(), witness.seen.decode("latin-1").lower()
    found += [f"the client lacks {text!r}" for text in case.get("contains", []) if text not in came]
    found += [f"the client is sent {text!r}" for text in case.get("lacks", []) if text in came]
    found += [f"the workload lacks {text!r}" for text in case.get("seen", []) if text not in went]
    found += [f"the workload is sent {text!r}" for text in case.get("unseen", []) if text in went]
    return found


def test_cases_have_names_of_their_own_and_say_nothing_unread() -> None:
    names = [case["name"] for case in CASES]
    known = {
        "name",
        "send",
        "statuses",
        "incomplete",
        "answer",
        "reached",
        "seen",
        "unseen",
        "contains",
        "lacks",
    }
    assert len(set(names)) == len(names)
    assert {key for case in CASES for key in case} <= known


async def exchange(address: Address, data: bytes, whole: bool) -> bytes:
    """Send `data`, end the direction, return everything that came back."""
    peer = await Peer.connect(address)
    step = len(data) if whole else 1 + len(data) // SENDS_MAX
    async with peer.stream:
        try:
            for start in range(0, len(data), step):
                await peer.send(data[start : start + step])
            await peer.stream.send_eof()
        except trio.BrokenResourceError:
            pass  # refused before all of it was sent
        try:
            return await peer.rest()
        except trio.BrokenResourceError:
            return peer.buffer
