"""Starts a flood beside a mesh, follows what it says, and ends it."""

import os
import pwd
import signal
import subprocess
from collections.abc import Sequence
from typing import Any, Final

import trio

from gossipmesh.model.errors import OperatorError
from gossipmesh.net.interpreter import module_words
from gossipmesh.testing.processes import ProcessKeeper, follow_json_lines
from gossipmesh.testing.waiting import wait_until

FLOOD_SOURCE: Final = "127.66.0.1"
"""Where floods come from on loopback: the good ones' connections come from 127.0.0.1."""
FIRING_TIMEOUT_S: Final = 15.0


def stranger_uid() -> int:
    """Return the uid of `nobody`.

    Raises:
        OperatorError: this process may not become anybody else.
    """
    if os.geteuid() != 0:
        raise OperatorError("a flood by another user needs root: run as root")
    return pwd.getpwnam("nobody").pw_uid


class Flood:
    """One flooding process; `kind` and `words` are those of `gossipmesh.testing.floods`."""

    def __init__(self, keeper: ProcessKeeper, kind: str, to: Sequence[str], *words: str) -> None:
        self._keeper = keeper
        self._kind = kind
        self._words = [kind, *words]
        for place in to:
            self._words += ["--to", place]
        self._process: subprocess.Popen[bytes] | None = None
        self.progress: dict[str, Any] = {}

    def start(self, nursery: trio.Nursery) -> None:
        """Start it and follow it in `nursery`."""
        command = [*module_words("gossipmesh.testing.floods"), *self._words]
        self.progress = {}
        self._process = self._keeper.start(f"flood-{self._kind}", command, stdout_pipe=True)
        nursery.start_soon(follow_json_lines, self._process, self._take)

    def _take(self, message: dict[str, Any]) -> None:
        self.progress = message

    async def wait_firing(self) -> None:
        """Wait until it has opened something at all; WaitedInVain when it never does."""

        async def firing() -> str | None:
            return None if self.progress.get("opened") else f"{self.progress}"

        await wait_until(f"the flood {self._kind} runs", firing, FIRING_TIMEOUT_S)

    def stop(self) -> dict[str, Any]:
        """End it; return what it said last. The kernel closes whatever it held."""
        if self._process is not None:
            self._keeper.signal(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
        return self.progress
