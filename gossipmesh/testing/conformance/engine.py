"""An engine's process: started by its command line, ended, asked for decisions.

Ends at the process; what is said to it is `control`'s.
"""

import os
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from gossipmesh.testing.conformance.outcome import Departed
from gossipmesh.testing.conformance.waiting import until

START_S: Final = 20.0
END_S: Final = 10.0


class Engine:
    """One running engine; `directory` holds its socket, its access log and what it said."""

    def __init__(self, command: Sequence[str], directory: Path, more: Sequence[str] = ()) -> None:
        self.directory = directory
        self.socket = directory / "engine.sock"
        self.access_log = directory / "access.log"
        self._said = (directory / "engine.err").open("wb")
        self.words = [*command, "--socket", str(self.socket), "--access-log", str(self.access_log), *more]
        self.process = subprocess.Popen(
            self.words, stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said, start_new_session=True
        )

    async def listening(self) -> None:
        """Wait until it answers at its socket.

        Raises:
            Departed: it does not, in time. State: as it is.
        """
        if not await until(lambda: self._answers() or self.process.poll() is not None, START_S):
            raise Departed(f"nobody answers at the given path within {START_S:g} s")
        if self.process.poll() is not None:
            raise Departed(f"the engine ended with {self.process.returncode}: {self.said()[-300:]}")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as trial:
            try:
                trial.connect(str(self.socket))
            except OSError:
                return False
        return True

    def said(self) -> str:
        """Return what it wrote to its standard streams."""
        return (self.directory / "engine.err").read_text(errors="replace")

    async def exit_code(self) -> int | None:
        """Return how it ended, None when it goes on."""
        await until(lambda: self.process.poll() is not None)
        return self.process.poll()

    async def end(self) -> None:
        """End it at once: how it drains is asked by transcripts."""
        with trio.CancelScope(shield=True):
            if self.process.poll() is None:
                self.process.kill()
            await until(lambda: self.process.poll() is not None, END_S)
        self._said.close()


@asynccontextmanager
async def running(command: Sequence[str], more: Sequence[str] = ()) -> AsyncIterator[Engine]:
    """Run an engine in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        engine = Engine(command, Path(folder), more)
        try:
            await engine.listening()
            yield engine
        finally:
            await engine.end()


async def decided(command: Sequence[str], questions: bytes) -> list[bytes]:
    """Return the lines that `ENGINE --decide` answers to the lines of `questions`."""
    done = await trio.run_process(
        [*command, "--decide"], stdin=questions, capture_stdout=True, check=False, env=dict(os.environ)
    )
    return bytes(done.stdout).splitlines()
