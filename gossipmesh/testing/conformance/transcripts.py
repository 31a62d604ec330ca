"""Conversations at real sockets: an engine, and peers that follow the transcript's script.

Ends at the order of steps; what a step does is `steps`'.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

import trio

from gossipmesh.testing.conformance import files
from gossipmesh.testing.conformance.engine import Engine, running
from gossipmesh.testing.conformance.node import Node, beside, node
from gossipmesh.testing.conformance.outcome import Departed, Outcome
from gossipmesh.testing.conformance.steps import Play

KIND: Final = "transcripts"
AT_ONCE: Final = 4  # most of a transcript's time is waiting
ALONE_VERBS: Final = (
    "logged",
    "counted",
    "told",
    "not_told",
    "gauge",
    "no_event",
    "signal",
    "exits",
    "identities",
)
ALONE_FRAMES: Final = ("drain", "identities", "ejection")
TIME_S: Final = 60.0


def scripts() -> list[dict[str, Any]]:
    """Return all transcripts, in order of their files."""
    found = []
    for path in sorted((files.SPEC / "transcripts").glob("*.json")):
        for script in json.loads(path.read_text()):
            found.append({**script, "name": f"{path.stem}/{script['name']}"})
    return found


async def play(command: Sequence[str]) -> list[Outcome]:
    """Play all of them, some at a time."""
    return await played(command, scripts())


async def played(command: Sequence[str], chosen: Sequence[dict[str, Any]]) -> list[Outcome]:
    """Play these."""
    faults: dict[str, str] = {}
    left = list(reversed(chosen))

    async def take() -> None:
        async with Shared(command) as shared:
            while left:
                script = left.pop()
                faults[script["name"]] = await shared.fault(script)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(take)
    return [Outcome(KIND, script["name"], faults[script["name"]]) for script in chosen]


class Shared:
    """An engine that plays one transcript after another, each with peers and listeners of its own.

    What looks at logs, counters or the process has an engine to itself; so has what failed, once more: only
    then has it failed.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._exits = AsyncExitStack()
        self._engine: Engine | None = None

    async def __aenter__(self) -> "Shared":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def fault(self, script: dict[str, Any]) -> str:
        """Return at which step the engine departed and how, empty when it did all."""
        if not _is_alone(script):
            try:
                if self._engine is None:
                    self._engine = await self._exits.enter_async_context(running(self._command))
                if not await self._played(script, beside(self._engine)):
                    return ""
            except Departed:
                pass  # it does not even start: said of the one below
            await self._exits.aclose()
            self._engine = None
        return await self._played(script, node(self._command, script.get("arguments", ())))

    async def _played(self, script: dict[str, Any], where: AbstractAsyncContextManager[Node]) -> str:
        play: Play | None = None
        fault = ""
        try:
            with trio.fail_after(TIME_S):
                async with where as one:
                    play = Play(one, script)
                    await play.run()
        except trio.TooSlowError:
            fault = f"not within {TIME_S:g} s"
        except (Departed, OSError) as error:
            fault = str(error) or repr(error)
        except ExceptionGroup as group:
            fault = repr(_first(group))
        return f"{play.at if play else 'start'}: {fault}" if fault else ""


def _is_alone(script: dict[str, Any]) -> bool:
    return bool(
        script.get("bare")
        or script.get("arguments")
        or any(step["do"] in ALONE_VERBS or "file" in step for step in script["steps"])
        or any(step.get("frame", {}).get("type") in ALONE_FRAMES for step in script["steps"])
    )


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
