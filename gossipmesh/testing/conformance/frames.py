"""Frames as bytes, sent to an engine: what it must read and what it must refuse (`encodings/`).

`then` is what comes back: the type of an answer, `nothing`, or `end` for the end of the connection, after
which the engine must answer a new one.
"""

from collections.abc import Sequence
from typing import Any

from gossipmesh.testing.conformance import files
from gossipmesh.testing.conformance.control import Control
from gossipmesh.testing.conformance.node import Node, node
from gossipmesh.testing.conformance.outcome import Departed, Outcome
from gossipmesh.testing.conformance.waiting import until

KIND = "frames"


def vectors() -> list[dict[str, Any]]:
    """Return all frames that an engine is sent."""
    good = [vector for vector in files.read("encodings/frames.json") if vector["from"] == "agent"]
    return [*good, *files.read("encodings/refused.json")]


async def play(command: Sequence[str]) -> list[Outcome]:
    """Send each to an engine that was told hello, those that have it exit last."""
    outcomes = []
    async with node(command) as one:
        for vector in sorted(vectors(), key=_exits):
            try:
                await _sent(one, vector)
                outcomes.append(Outcome(KIND, vector["name"]))
            except (Departed, OSError) as error:
                outcomes.append(Outcome(KIND, vector["name"], str(error) or repr(error)))
    return outcomes


def _exits(vector: dict[str, Any]) -> bool:
    return bool(vector.get("frame", {}).get("type") == "drain")


async def _sent(one: Node, vector: dict[str, Any]) -> None:
    control = await Control.connect(one.engine.socket, one.nursery, one.shapes)
    data = bytes.fromhex(vector["bytes"])
    try:
        if not vector.get("first") and vector.get("frame", {}).get("type") != "hello":
            await control.hello()
        await control.send_raw(data)
        await _then(control, vector["then"])
        if vector["then"] == "end" or vector.get("first"):
            await control.close()
            control = await one.attach()
        if vector["then"] != "need" and not _exits(vector):
            await _answers(control)
    finally:
        await control.close()


async def _then(control: Control, then: str) -> None:
    if then == "end":
        if not await until(lambda: control.ended):
            raise Departed("the connection goes on")
    elif then != "nothing":
        await control.answer(then)


async def _answers(control: Control) -> None:
    """Ask whether the engine answers at all, as an agent does."""
    answer = await control.ask({"type": "listeners", "request": 0, "names": [], "last": True})
    if answer["type"] != "ack" or control.answers:
        raise Departed(f"the next request is answered {answer}, and {control.answers} came before")
