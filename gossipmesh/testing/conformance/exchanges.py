"""HTTP through an engine, twice: `framing.json` (how messages are framed) and `paths.json` (closed paths).

A workload behind the engine is the witness: what was refused never reached it whole. The README beside the
files says what a case may have. No case depends on time.
"""

from collections.abc import Sequence
from typing import Any, Final

import trio

from gossipmesh.testing.conformance import files
from gossipmesh.testing.conformance.http import Peer, statuses_in
from gossipmesh.testing.conformance.node import NAMES, node, served
from gossipmesh.testing.conformance.outcome import Outcome
from gossipmesh.testing.conformance.waiting import PATIENCE_S

SENDS_MAX: Final = 4_096  # for what is sent piece by piece: a byte each, more only where a head is that long
HOW: Final = {"": True, " (byte by byte)": False}
_EMPTY: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Witness:
    """A workload that remembers every request that reached it whole, and answers as it is told."""

    def __init__(self) -> None:
        self.whole = 0
        self.seen = b""
        self.answer: bytes | None = None

    async def handle(self, peer: Peer) -> None:
        """Serve one connection."""
        while message := await peer.message():
            self.whole += 1
            self.seen += message
            await peer.send(_EMPTY if self.answer is None else self.answer)
            if self.answer is not None:
                return


async def play_framing(command: Sequence[str]) -> list[Outcome]:
    """Every case, sent in one piece and byte by byte."""
    outcomes = []
    witness = Witness()
    async with node(command) as one:
        one.variables["w"] = await served(one.nursery, witness.handle)
        await one.serving(NAMES, "cart", {})
        for case in files.read("framing.json"):
            for how, whole in HOW.items():
                witness.whole, witness.seen = 0, b""
                witness.answer = files.expanded(case["answer"]) if "answer" in case else None
                came = await _exchanged(one.at("proxy"), files.expanded(case["send"]), whole)
                outcomes.append(Outcome("framing", case["name"] + how, _fault(case, came, witness)))
    return outcomes


async def play_paths(command: Sequence[str]) -> list[Outcome]:
    """Each target on a connection of its own; a deny of `/admin/*` is in force."""
    outcomes = []
    rule = {
        "name": "shop/closed#0", "allow": False, "sources": [],
        "targets": [{"methods": [], "paths": [{"kind": "prefix", "value": "/admin"}]}],
    }  # fmt: skip
    witness = Witness()
    async with node(command) as one:
        one.variables["w"] = await served(one.nursery, witness.handle)
        await one.serving(NAMES, "cart", {"set": {"inbound/cart": {"rules": [rule]}}})
        for case in files.read("paths.json"):
            host = case.get("host", "cart.shop")
            request = f"GET {case['path']} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")
            found = statuses_in(await _exchanged(one.at("proxy"), request, True))
            fault = "" if found == [case["status"]] else f"answered {found}, not {case['status']}"
            outcomes.append(Outcome("paths", name_of(case), fault))
    return outcomes


def name_of(case: dict[str, Any]) -> str:
    """Return the name of a case of `paths.json`."""
    return str(case["path"].encode("unicode_escape").decode())


async def _exchanged(address: tuple[str, int], data: bytes, whole: bool) -> bytes:
    """Send `data`, end the direction, return everything that came back."""
    peer = Peer(await trio.open_tcp_stream(*address))
    step = len(data) if whole else 1 + len(data) // SENDS_MAX
    async with peer.stream:
        with trio.move_on_after(PATIENCE_S):
            for start in range(0, len(data), step):
                await peer.send(data[start : start + step])
            try:
                await peer.stream.send_eof()
            except (trio.BrokenResourceError, OSError):
                pass  # refused before all of it was sent
            await peer.rest()
    return peer.taken


def _fault(case: dict[str, Any], answer: bytes, witness: Witness) -> str:
    statuses: list[int] = case["statuses"]
    if statuses_in(answer) != statuses:
        return f"answered {statuses_in(answer)}, not {statuses}"
    reached = case.get("reached", statuses.count(200))
    if "answer" not in case and witness.whole != reached:
        return f"{witness.whole} reached the workload, not {reached}"
    came, went = answer.decode("latin-1").lower(), witness.seen.decode("latin-1").lower()
    texts = [
        *(f"the client lacks {text!r}" for text in case.get("contains", []) if text not in came),
        *(f"the client is sent {text!r}" for text in case.get("lacks", []) if text in came),
        *(f"the workload lacks {text!r}" for text in case.get("seen", []) if text not in went),
        *(f"the workload is sent {text!r}" for text in case.get("unseen", []) if text in went),
    ]
    return "; ".join(texts)
