"""How a node leaves, timed: told, drained, agent ended, engine ended."""

import os
import signal
from collections.abc import Mapping
from typing import Any, Final

import trio

from gossipmesh.testing.mesh import Mesh

BY_COMMAND: Final = "gossipmesh leave"
BY_SIGNAL: Final = "SIGTERM"


async def leave(mesh: Mesh, name: str, by: str, within_s: float) -> dict[str, Any]:
    """Have a node leave by the command or by the signal of `systemctl stop`; return how it went.

    `told` is whether the command said so or the signal was delivered; `exit_code` the agent's (None: it still
    runs); `agent_ended_after_s` and `engine_ended_after_s` count from the order, None when not `within_s`.
    """
    node = mesh.nodes[name]
    engine = (await node.status())["engine"]["pid"]
    started_s = trio.current_time()
    told: dict[str, Any] = {"by": by, "told": False, "engine_pid": engine}
    ended: dict[str, float | None] = {}

    async def order() -> None:
        if by == BY_SIGNAL:
            told["told"] = bool(node.signal("agent", signal.SIGTERM))
        else:
            result = await mesh.gossipmesh("leave", node=name, timeout_s=within_s)
            told["told"] = result.code == 0
            told["said"] = (result.stdout + result.stderr).strip()[-500:]

    async def watch() -> None:
        ended.update(
            await watch_ends({"agent": node.pids("agent")[0], "engine": engine}, started_s, within_s)
        )

    with trio.move_on_after(within_s + 1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(order)
            nursery.start_soon(watch)
    code = None if node.agent is None else node.agent.poll()
    return {
        **told,
        "exit_code": code,
        "agent_ended_after_s": ended["agent"],
        "engine_ended_after_s": ended["engine"],
    }


async def watch_ends(pids: Mapping[str, int], started_s: float, within_s: float) -> dict[str, float | None]:
    """Return when each process ended, in seconds since `started_s`; None when not `within_s` from now."""
    ended: dict[str, float | None] = dict.fromkeys(pids)

    async def watch(what: str, pid: int) -> None:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            pass  # it has ended already
        else:
            try:
                await trio.lowlevel.wait_readable(handle)
            finally:
                os.close(handle)
        ended[what] = round(trio.current_time() - started_s, 3)

    with trio.move_on_after(within_s):
        async with trio.open_nursery() as nursery:
            for what, pid in pids.items():
                nursery.start_soon(watch, what, pid)
    return ended
