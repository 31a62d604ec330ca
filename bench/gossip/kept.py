"""Results that are kept and not measured again: JSON lines, each under the key of the core's behaviour.

The key is the frozen list's (`frozen_list.py`): what was run stands while the core does what it did.

A command takes what was kept of its own core, runs what is missing while there is time, and shows results of
an older core where there are none of this one; the page says which. The lines behind the published page are
part of the repository (`docs/evidence`), so a fresh clone goes on from them.
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
EVIDENCE: Final = ROOT / "docs" / "evidence"
KEPT: Final = ("gossip-days.jsonl", "gossip-stories.jsonl", "grid.jsonl")
# What was run; the rest of a line is what came of it.
_NAMED_BY: Final = ("nodes", "loss", "starved", "stamped", "detector", "scenario", "chapters", "seed")

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


def recall(evidence: Path = EVIDENCE, out: Path = OUT) -> None:
    """Take over the published lines that this checkout does not have."""
    out.mkdir(exist_ok=True)
    for name in KEPT:
        there = read_lines(out / name)
        missing = [told for told in read_lines(evidence / name) if told not in there]
        with (out / name).open("ab") as file:
            file.writelines(json.dumps(told).encode() + b"\n" for told in missing)


def publish(core: str, evidence: Path = EVIDENCE, out: Path = OUT) -> None:
    """Put the lines behind the page beside it: one of each run, of this core or else the last one's."""
    evidence.mkdir(exist_ok=True)
    for name in KEPT:
        runs: dict[str, Told] = {}
        for told in read_lines(out / name):
            run = json.dumps([told.get(field) for field in _NAMED_BY])
            if told["core"] == core or runs.get(run, told)["core"] != core:
                runs[run] = told
        lines = (json.dumps(told, separators=(",", ":")) for told in runs.values())
        (evidence / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


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
