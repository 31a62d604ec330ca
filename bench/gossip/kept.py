"""Results that are kept and not measured again: JSON lines, each under the hash of the core's sources.

A command takes what was kept of its own core, runs what is missing while there is time, and shows results of
an older core where there are none of this one; the page says which.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
OUT: Final = ROOT / "out"

Told = dict[str, Any]


def read_lines(path: Path) -> list[Told]:
    """Return every object a file of results holds; a last line cut short is left out."""
    told = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            told.append(json.loads(line))
        except ValueError:
            continue
    return told


def by_seed(lines: Iterable[Told], core: str, seeds: int) -> dict[int, Told]:
    """Return the results of seeds 1 to `seeds`: those of this core, else of whatever core was run last."""
    found: dict[int, Told] = {}
    for told in lines:
        seed = told["seed"]
        if seed <= seeds and (told["core"] == core or found.get(seed, told)["core"] != core):
            found[seed] = told
    return {seed: found[seed] for seed in sorted(found)}


def cores_told(lines: Iterable[Told]) -> str:
    """Say of which cores results are, and how many of each when there are several."""
    counts = Counter(told["core"] for told in lines)
    if len(counts) == 1:
        return str(next(iter(counts)))
    return " and ".join(f"{core} ({count} of {counts.total()})" for core, count in counts.most_common())


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
