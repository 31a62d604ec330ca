"""Virtual figures: simulated days, each in a process of its own, as many as the time given allows.

Simulated time costs no real time to wait for, only CPU: what does not fit is left out and said to be.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).resolve().parent.parent.parent


class Cell(msgspec.Struct, frozen=True):
    """One day: how many nodes, what share of datagrams is lost, which detector (None: the default)."""

    nodes: int
    loss: float
    seed: int
    detector: str | None = None
    chapters: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """Return the arguments of `bench.gossip.day`."""
        words = ["--nodes", str(self.nodes), "--loss", str(self.loss), "--seed", str(self.seed)]
        if self.detector is not None:
            words += ["--detector", self.detector]
        return words + [word for name in self.chapters for word in ("--chapter", name)]


SHORT: Final = ("join", "idle", "record", "document", "killed", "silent")
HEALING: Final = ("join", "paused", "divergence", "partition", "restart")
STARVED: Final = ("join", "starved")
CELLS: Final = (
    Cell(100, 0.01, 1, None, SHORT),
    Cell(100, 0.01, 2, None, HEALING),
    Cell(50, 0.05, 1, None, STARVED),
    Cell(50, 0.05, 1, "swim", STARVED),
    Cell(50, 0.01, 4, None, ("join", "flipflop")),
    Cell(50, 0.01, 5, None, ("join", "mute")),
    Cell(100, 0.01, 3, None, ("join", "crashes", "churn")),
    Cell(100, 0.05, 6, None, ("join", "idle", "record", "document")),
    Cell(100, 0.01, 1, "swim", ("join", "idle", "record", "killed", "silent")),
    Cell(50, 0.05, 2, None, STARVED),
    Cell(50, 0.05, 3, None, ("join", "starved_unstamped")),
    Cell(300, 0.01, 1, None, SHORT),
    Cell(100, 0.01, 7, None, SHORT),
    Cell(1_000, 0.01, 1, None, SHORT),
)


def measure_virtual(minutes: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Live the days in order while there is time; return them, and which were left out."""
    until_s = time.perf_counter() + minutes * 60
    days: list[dict[str, Any]] = []
    left_out: list[str] = []
    for cell in CELLS:
        left_s = until_s - time.perf_counter()
        told = live(cell, left_s) if left_s > 5 else "no time was left"
        if isinstance(told, str):
            left_out.append(f"{cell.nodes} nodes, {cell.loss:.0%} loss, seed {cell.seed}: {told}")
            say(f"virtual: {left_out[-1]}")
            continue
        days.append(told)
        say(f"virtual: {cell.nodes} nodes, seed {cell.seed}: {told['figures']} {told['failures']}")
    return {"days": days, "left_out": left_out}


def live(cell: Cell, timeout_s: float) -> dict[str, Any] | str:
    """Run one day; return its figures, or a sentence saying why there are none."""
    words = [sys.executable, "-m", "bench.gossip.day", *cell.words()]
    try:
        found = subprocess.run(
            words, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return f"not finished within {timeout_s:.0f} s"
    if found.returncode != 0:
        return f"ended with {found.returncode}: {found.stderr.strip()[-300:]}"
    told = json.loads(found.stdout.strip().splitlines()[-1])
    return told if isinstance(told, dict) else "printed no object"
