"""Virtual figures: simulated days, each in a process of its own, as many as the time given allows.

Simulated time costs no real time to wait for, only CPU: what does not fit is left out and said to be.
"""

import json
import os
import signal
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


CALM: Final = ("idle", "record", "document", "killed", "silent")
HEALING: Final = ("join", "paused", "divergence", "partition", "restart")
CELLS: Final = (
    Cell(100, 0.01, 1, None, ("join", *CALM)),
    Cell(100, 0.01, 2, None, HEALING),
    Cell(50, 0.01, 4, None, ("known", "flipflop")),
    Cell(50, 0.01, 5, None, ("known", "mute")),
    Cell(100, 0.01, 3, None, ("known", "crashes", "churn")),
    Cell(100, 0.05, 6, None, ("known", "idle", "record", "document")),
    Cell(100, 0.01, 1, "swim", ("known", *CALM)),
    Cell(300, 0.01, 1, None, ("known", *CALM)),
    Cell(100, 0.01, 7, None, ("known", "killed", "silent")),
    Cell(100, 0.01, 8, None, ("known", "killed", "silent")),
    Cell(1_000, 0.01, 1, None, ("known", *CALM)),
)
GRID: Final = ROOT / "out" / "grid.jsonl"
GRID_RUNS: Final = (
    ("--nodes", "50", "--detector", "monitors", "--seeds", "0-4"),
    ("--nodes", "50", "--detector", "swim", "--seeds", "0-1", "--starved", "10"),
    ("--nodes", "50", "--detector", "monitors", "--seeds", "0-19"),
    ("--nodes", "200", "--detector", "monitors", "--seeds", "0-1", "--starved", "10"),
    ("--nodes", "50", "--detector", "swim", "--seeds", "0-19"),
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


STORIES: Final = ("partition-10-min", "heal-no-eviction", "minority", "upgrade-all", "crash-all-agents")
STORY_NODES: Final = 12
STORY_TIMEOUT_S: Final = 90.0


def measure_stories(say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run the simulator's scenarios that rows stand for, one seed each; those not finished are left out."""
    told: list[dict[str, Any]] = []
    for name in STORIES:
        words = ["-m", "gossipmesh.testing.simulator", name, "--nodes", str(STORY_NODES), "--loss", "0.01"]
        _, printed = run_for([*words, "--seeds", "1", "--jobs", "1", "--json"], STORY_TIMEOUT_S)
        lines = [line for line in printed.splitlines() if line.startswith("{")]
        if lines:
            found = json.loads(lines[0])
            told.append({key: found[key] for key in ("scenario", "nodes", "ok", "failures", "measured")})
            say(f"story: {told[-1]}")
    return told


def measure_grid(minutes: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Let the simulator's grid add runs while there is time; return its summary of this very core.

    Runs of an earlier command count when the core's sources are the same, byte for byte.
    """
    until_s = time.perf_counter() + minutes * 60
    for words in GRID_RUNS:
        left_s = until_s - time.perf_counter()
        if left_s > 5:
            run_for([*_grid(), *words], left_s)
    rows: list[dict[str, Any]] = []
    _, printed = run_for([*_grid(), "--summary", "--json"], 60)
    if printed.strip():
        rows = json.loads(printed)["rows"]
    say(f"grid: {sum(row['runs'] for row in rows)} runs in {len(rows)} cells")
    return rows


def _grid() -> list[str]:
    return ["-m", "gossipmesh.testing.simulator", "grid", "--out", str(GRID)]


def run_for(words: list[str], timeout_s: float) -> tuple[int | None, str]:
    """Run Python in a session of its own, all of it ended in time; return its code (None: ended), output."""
    command = [sys.executable, *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True
    ) as child:
        try:
            printed, _ = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return None, ""
        return child.returncode, printed


def live(cell: Cell, timeout_s: float) -> dict[str, Any] | str:
    """Run one day; return its figures, or a sentence saying why there are none."""
    code, printed = run_for(["-m", "bench.gossip.day", *cell.words()], timeout_s)
    if code is None:
        return f"not finished within {timeout_s:.0f} s"
    if code != 0:
        return f"ended with {code}: {printed.strip()[-300:]}"
    told = json.loads(printed.strip().splitlines()[-1])
    return told if isinstance(told, dict) else "printed no object"
